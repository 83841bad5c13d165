//! The printed policy is enough, and what is taken out of it is missed: IAM is enforced. A deploy, a
//! rollback and the destroy of what runs, with the same policy, are on the road (`tests/road`), which
//! builds the service anyway.

use std::env;

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, inventory, named_actions, said, without};
use serde_json::Value;

/// Actions that are taken away, one at a time.
const SAMPLE: usize = 8;

/// What a run misses without failing, and why.
const NOT_FATAL: [(&str, &str); 1] =
    [("s3:DeleteObject", "a lock that is not taken away ends with its lease")];

/// What a third zone, a way out for each zone and a second cache node bring.
const WIDE: &str = "\n[network]\nzones = 3\nnat = \"per-zone\"\n\n[cache]\nnodes = 2\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_is_enough_to_make_to_change_and_to_delete() -> Result<()> {
    let mut project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    project.enforce_iam().await?;
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;

    let file = project.file();
    let text = std::fs::read_to_string(&file)?;
    for text in [text.clone() + WIDE, text] {
        std::fs::write(&file, text)?;
        project.allow(&project.printed_policy()?).await?;
        project.run(&["--yes", "provision"])?;
        project.run(&["plan", "--check"])?;
    }
    project.run(&["--yes", "destroy"])?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "destroy left something: {left:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_is_missing_is_named_before_a_run_and_by_it() -> Result<()> {
    let seed = env::var("BME_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("BME_SEED={seed}"));
    let mut project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    project.enforce_iam().await?;
    project.run(&["--yes", "provision"])?;
    let policy = project.printed_policy()?;
    let named = named_actions(&policy);
    let asked = project.asked_actions().await?;
    let mut needed: Vec<_> = named.intersection(&asked).collect();
    needed.retain(|action| !NOT_FATAL.iter().any(|(name, _)| name == action));
    ensure!(needed.len() > 60, "a provision needs only {needed:#?}");
    fastrand::Rng::with_seed(seed).shuffle(&mut needed);

    for (number, action) in needed.into_iter().take(SAMPLE).enumerate() {
        // What is there already would not be made.
        project.run(&["--yes", "sandbox", "reset"])?;
        project.enforce_iam().await?;
        project.allow(&without(&policy, action)).await?;
        let of = || format!("without {action}, seed {seed}");
        before(&project, action).with_context(of)?;
        let output = project.bme(&["--yes", "provision"]).output()?;
        let stderr = said(&output, &["provision"], 1).with_context(of)?;
        let told = format!("not authorized to perform: {action} on resource");
        ensure!(stderr.contains(&told), "{} is not told:\n{stderr}", of());
        if number == 0 {
            project.allow(&policy).await?;
            project.run(&["--yes", "provision"]).with_context(of)?;
            project.run(&["plan", "--check"]).with_context(of)?;
            project.run(&["--yes", "destroy"]).with_context(of)?;
            let left = difference(&empty, &inventory(&project).await?);
            ensure!(left.is_empty(), "{}: destroy left something: {left:#?}", of());
        }
    }
    Ok(())
}

/// `bme doctor` names the action for every step that needs it, and nothing else.
fn before(project: &Project, action: &str) -> Result<()> {
    let output = project.bme(&["--output", "json", "doctor"]).output()?;
    said(&output, &["doctor"], 1)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    for check in checks.iter().filter(|check| check["state"] == "fail") {
        let name = check["name"].as_str().unwrap_or_default();
        let message = check["message"].as_str().unwrap_or_default();
        let missing = message.split_once(" may not ").map_or("", |(_, missing)| missing);
        ensure!(
            name.starts_with("permissions/") && missing.split(", ").all(|one| one == action),
            "{check:#}"
        );
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the seed of a run")]
fn say(text: &str) {
    eprintln!("{text}");
}
