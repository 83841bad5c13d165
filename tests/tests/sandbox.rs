//! What a sandbox keeps: everything over `down` and `up`, also the requests that it has written down;
//! nothing half over a loss of power.

use anyhow::{Result, ensure};
use bme_tests::{Project, inventory, requests, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_keeps_its_account_or_begins_with_none() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    project.run(&["--yes", "provision"])?;

    let written = || std::fs::read(requests::file(&project));
    let before = written()?;
    ensure!(!before.is_empty(), "no request was written down");
    project.run(&["sandbox", "down"])?;
    project.run(&["sandbox", "up"])?;
    project.run(&["plan", "--check"])?;
    let after = written()?;
    ensure!(after.starts_with(&before) && after.len() > before.len(), "requests were forgotten");

    // The machine stops, and with it every process, the emulator before it saved its account.
    for pid in std::fs::read_dir(project.root.path().join(".bme/sandbox/run"))? {
        let path = pid?.path();
        if path.extension().is_some_and(|extension| extension == "pid") {
            let text = std::fs::read_to_string(&path)?;
            let pid = text.split_whitespace().next().unwrap_or_default().to_owned();
            let killed = std::process::Command::new("kill").args(["-s", "KILL", &pid]).status()?;
            ensure!(killed.success(), "{} names no process: {text}", path.display());
        }
    }
    let output = project.bme(&["sandbox", "up"]).output()?;
    let stderr = said(&output, &["sandbox", "up"], 0)?;
    ensure!(stderr.contains("starting with an empty one"), "{stderr}");
    ensure!(inventory(&project).await? == empty, "something is left of the lost account");
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    Ok(())
}
