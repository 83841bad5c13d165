//! One run at a time, and never a lock that a person has to take away.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{
    Project, difference, element, ended_as_it_began, eventually, inventory, query, rest, said,
};
use serde_json::{Value, json};
use tokio::process::Command;

/// A run that is held at a call until the fault is taken away.
async fn held(project: &Project, arguments: &[&str], rule: &Value) -> Result<Child> {
    fault(project, rule).await?;
    let run = project.bme(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let held = format!("{}/_bme/held", project.endpoint);
    eventually("a held call", 60, async || {
        let held: Value = reqwest::get(&held).await?.json().await?;
        Ok(held.as_array().is_some_and(|held| !held.is_empty()))
    })
    .await?;
    Ok(run)
}

async fn fault(project: &Project, rule: &Value) -> Result<()> {
    let client = reqwest::Client::new();
    let faults = format!("{}/_bme/faults", project.endpoint);
    client.delete(&faults).send().await?.error_for_status()?;
    client.post(&faults).json(rule).send().await?.error_for_status()?;
    Ok(())
}

async fn signal(run: &Child, name: &str) -> Result<()> {
    let sent = Command::new("kill").args([name, &run.id().to_string()]).status().await?;
    ensure!(sent.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_one_works_and_the_other_says_who_does() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let slow = json!([{"operation": "rds:CreateDBProxy", "kind": "hold_before"}]);
    let mut first = held(&project, &["--yes", "provision"], &slow).await?;

    let output = project.bme(&["--output", "json", "--yes", "provision"]).output()?;
    let stderr = said(&output, &["provision"], 4)?;
    ended_as_it_began(&output)?;
    let holder = format!("(pid {})", first.id());
    ensure!(stderr.contains(&holder) && stderr.contains("last beat"), "{stderr}");
    let status = project.json(&["status"])?;
    let shown = status["lock"]["holder"].as_str().context("a holder in the status")?;
    ensure!(shown.contains(&holder), "{shown}");

    // Who waits comes after a holder that dies, without anybody's help.
    let waiting = project
        .bme(&["--yes", "provision", "--lock-wait", "60s"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    first.kill()?;
    first.wait()?;
    fault(&project, &json!([])).await?;
    said(&waiting.wait_with_output()?, &["provision", "--lock-wait"], 0)?;
    project.run(&["plan", "--check"])?;
    Ok(())
}

/// Stopped in the middle, as a laptop that is closed, and woken when another run has been through.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_wakes_up_after_its_lease_changes_nothing_more() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    project.run(&["--yes", "provision"])?;
    let whole = inventory(&project).await?;
    project.run(&["--yes", "destroy"])?;
    for point in [5, 25, 60, 90] {
        project.forget_calls().await?;
        let first = project
            .bme(&["--yes", "provision"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        eventually("enough calls", 60, async || {
            let calls = project.calls().await?;
            Ok(calls.iter().filter(|call| call["mutating"] == true).count() >= point)
        })
        .await?;
        signal(&first, "-STOP").await?;
        // Waits out the lease of the one that sleeps.
        project.run(&["--yes", "provision"]).context("the second run")?;
        quiet(&project).await?;
        let before = project.calls().await?;
        let last = before.iter().filter_map(|call| call["signed"].as_str()).max();
        let last = last.context("the second run has signed its calls")?;
        project.forget_calls().await?;

        signal(&first, "-CONT").await?;
        let stderr = said(&first.wait_with_output()?, &["provision"], 1)?;
        ensure!(stderr.contains("lock-lost") && stderr.contains("hint:"), "{stderr}");
        let calls = project.calls().await?;
        // What was signed before it fell asleep was on its way: half of it may have been sent, and
        // nobody can take that back.
        let begun_since = |call: &Value| call["signed"].as_str().is_none_or(|when| when >= last);
        let changed: Vec<_> =
            calls.iter().filter(|call| call["mutating"] == true && begun_since(call)).collect();
        ensure!(changed.is_empty(), "after call {point} it went on with {changed:#?}");
        let other = difference(&whole, &inventory(&project).await?);
        ensure!(other.is_empty(), "after call {point}: {other:#?}");
        project.run(&["plan", "--check"])?;
        project.run(&["--yes", "destroy"])?;
    }
    Ok(())
}

/// A person may say that a run is dead; what it has left in doubt stays so.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_taken_away_is_not_forgotten() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let slow = json!([{"operation": "ec2:CreateVpc", "kind": "hold_after"}]);
    let mut first = held(&project, &["--yes", "provision"], &slow).await?;
    first.kill()?;
    first.wait()?;
    fault(&project, &json!([])).await?;
    project.run(&["--yes", "unlock"])?;
    ensure!(project.json(&["status"])?["lock"].is_null(), "nobody holds it");
    let arguments = ["--yes", "provision"];
    let stderr = said(&project.bme(&arguments).output()?, &arguments, 0)?;
    ensure!(stderr.contains("the run before ended without a word"), "{stderr}");
    project.run(&["plan", "--check"])?;
    Ok(())
}

/// Whoever has the lock next writes records of his own, which nobody may take away.
#[tokio::test(flavor = "multi_thread")]
async fn a_destroy_empties_the_records_while_it_holds_the_lock() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision", "--step", "queue"])?;
    let release = json!([{"operation": "s3:DeleteObject", "kind": "hold_before"}]);
    let mut first = held(&project, &["--yes", "destroy"], &release).await?;
    let versions = format!("/bme-state-000000000000-{}?versions&prefix=local/", project.region);
    let left = rest(&project, "s3", &versions, None).await?;
    let keys: Vec<_> = left.split("<Key>").skip(1).collect();
    ensure!(!keys.is_empty(), "it holds the lock: {left}");
    ensure!(keys.iter().all(|key| key.starts_with("local/lock.json<")), "{left}");

    first.kill()?;
    first.wait()?;
    fault(&project, &json!([])).await?;
    project.run(&["--yes", "provision", "--step", "queue"])?;
    let left = rest(&project, "s3", &versions, None).await?;
    ensure!(left.contains("<Key>local/runs/"), "the record of the next run is gone: {left}");
    project.run(&["--yes", "destroy"])?;
    let buckets = rest(&project, "s3", "/", None).await?;
    ensure!(!buckets.contains("bme-state-"), "{buckets}");
    Ok(())
}

/// What was read is what is done, even when the lock had to be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_that_has_grown_while_it_waited_is_refused() -> Result<()> {
    const EC2: &str = "2016-11-15";
    let project = Project::new()?;
    project.run(&["--yes", "provision"])?;
    let text = std::fs::read_to_string(project.file())?;
    let slower = text.replace("job_timeout_seconds = 15", "job_timeout_seconds = 20");
    ensure!(slower != text);
    std::fs::write(project.file(), slower)?;
    project.run(&["plan", "--out", "saved.json"])?;

    let slow = json!([{"operation": "sqs:SetQueueAttributes", "kind": "hold_before"}]);
    let mut first = held(&project, &["--yes", "provision", "--step", "queue"], &slow).await?;
    project.forget_calls().await?;
    let arguments = ["--yes", "provision", "--plan", "saved.json", "--lock-wait", "60s"];
    let waiting = project.bme(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    eventually("the second run waits for the lock", 60, async || {
        let calls = project.calls().await?;
        Ok(calls.iter().any(|call| call["key"] == "local/lock.json" && call["status"] == 412))
    })
    .await?;
    let ours = "DescribeVpcs&Filter.1.Name=tag:bme:env&Filter.1.Value.1=local";
    let vpcs = query(&project.endpoint, "ec2", EC2, ours).await?;
    let untag = format!("DeleteTags&ResourceId.1={}&Tag.1.Key=Name", element(&vpcs, "vpcId")?);
    query(&project.endpoint, "ec2", EC2, &untag).await?;
    first.kill()?;
    first.wait()?;
    fault(&project, &json!([])).await?;
    let stderr = said(&waiting.wait_with_output()?, &arguments, 1)?;
    for word in ["things have changed", "network/vpc", "nothing was changed", "hint:"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    // Nobody has changed it, and whoever has not read it is told to.
    project.run(&["plan", "--out", "saved.json"])?;
    project.run(&["provision", "--plan", "saved.json"])?;
    project.run(&["plan", "--check"])?;
    Ok(())
}

/// Waits until every call that has begun is answered. An object that was half sent when its sender fell
/// asleep stays so: it is the lock's renewal, which S3 takes only from its holder, or history.
async fn quiet(project: &Project) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let calls = format!("{}/_bme/calls", project.endpoint);
    eventually("no call on its way", 30, async || {
        let calls: Vec<Value> = client.get(&calls).send().await?.json().await?;
        Ok(calls.iter().all(|call| {
            call["status"].is_number()
                || call["fault"].is_string()
                || call["operation"] == "PutObject"
        }))
    })
    .await
}
