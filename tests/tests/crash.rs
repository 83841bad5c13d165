//! Killed with -9 at any call, run again: the same resources, none twice, none without an owner.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, eventually, inventory, requests, said};
use serde_json::{Value, json};

/// Points at which the run is killed.
const POINTS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_ten_random_calls_it_converges() -> Result<()> {
    let seed = std::env::var("BME_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    requests::record(&project).await?;
    project.forget_calls().await?;
    project.run(&["--yes", "provision"])?;
    let calls = project.calls().await?;
    let mutating = calls.iter().filter(|call| call["mutating"] == true).count();
    let undisturbed = inventory(&project).await?;
    ensure!(difference(&empty, &undisturbed).len() > 30, "{undisturbed:#?}");
    project.run(&["--yes", "destroy"])?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "destroy left something: {left:#?}");

    for point in 0..POINTS {
        let call = random.usize(1..=mutating);
        let kind = if random.bool() { "hold_before" } else { "hold_after" };
        let what = format!("point {point}: {kind} call {call} of {mutating}, seed {seed}");
        kill_at(&project, call, kind).await.context(what.clone())?;
        project.run(&["--yes", "provision"]).context(what.clone())?;
        let other = difference(&undisturbed, &inventory(&project).await?);
        ensure!(other.is_empty(), "{what}: not as undisturbed: {other:#?}");
        project.run(&["--yes", "destroy"]).context(what.clone())?;
        let left = difference(&empty, &inventory(&project).await?);
        ensure!(left.is_empty(), "{what}: destroy left {left:#?}");
    }
    requests::all_valid(&project).await
}

/// Starts a run, waits until the gateway holds its `call`-th mutating call, and kills it.
async fn kill_at(project: &Project, call: usize, kind: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let faults = format!("{}/_bme/faults", project.endpoint);
    let rule = json!([{"mutating": true, "call": call, "kind": kind}]);
    client.post(&faults).json(&rule).send().await?.error_for_status()?;
    let mut run = project
        .bme(&["--yes", "provision"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let held = format!("{}/_bme/held", project.endpoint);
    let mut ended = false;
    eventually("the call is held", 60, async || {
        // A retry or a lock that was waited for shifts the count: the run may end before.
        ended = run.try_wait()?.is_some();
        let held: Value = client.get(&held).send().await?.json().await?;
        Ok(ended || held.as_array().is_some_and(|held| !held.is_empty()))
    })
    .await?;
    run.kill()?;
    let output = run.wait_with_output()?;
    if ended {
        said(&output, &["provision"], 0)?;
    }
    client.delete(&faults).send().await?.error_for_status()?;
    Ok(())
}
