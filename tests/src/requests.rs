//! The AWS requests of a sandbox, its own and its containers', held against AWS's service models by
//! `requests/check.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;

use crate::Project;

/// Has the gateway write down all requests from now on.
pub async fn record(project: &Project) -> Result<()> {
    control(project, Method::PUT).await
}

/// Ends that. Fails with every member that AWS's models refuse.
pub async fn all_valid(project: &Project) -> Result<()> {
    control(project, Method::DELETE).await?;
    let file = sandbox(project).join("requests.jsonl");
    python(project, "check.py", &[&file.to_string_lossy()])
}

/// Fails when the checker itself misreads a request or misses a broken rule.
pub fn self_test(project: &Project) -> Result<()> {
    python(project, "self_test.py", &[])
}

async fn control(project: &Project, method: Method) -> Result<()> {
    let url = format!("{}/_bme/requests", project.endpoint);
    reqwest::Client::new().request(method, url).send().await?.error_for_status()?;
    Ok(())
}

fn sandbox(project: &Project) -> PathBuf {
    project.root.path().join(".bme/sandbox")
}

/// Runs a script with the interpreter of the running emulator, which has botocore and CBOR.
fn python(project: &Project, script: &str, arguments: &[&str]) -> Result<()> {
    let pid = std::fs::read_to_string(sandbox(project).join("run/emulator.pid"))?;
    let pid = pid.split_whitespace().next().context("no emulator")?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).context("the emulator has ended")?;
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/requests");
    // -B: nothing is written beside the sources.
    let output = Command::new(std::str::from_utf8(program)?)
        .arg("-B")
        .arg(scripts.join(script))
        .args(arguments)
        .output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    Ok(())
}
