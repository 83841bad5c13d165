//! Ctrl-C, and what is not there, before a release has changed anything.

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ask, eventually, said};
use serde_json::{Value, json};

/// Stands for cargo: says that it has begun, and never ends.
const CARGO: &str = "#!/bin/sh\necho $$ > begun\nsleep 600\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_changes_nothing_says_so() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision"])?;
    an_interrupted_build_ends_with_130(&project).await?;
    a_missing_need_is_told_before_anything_is_built(&project).await
}

async fn an_interrupted_build_ends_with_130(project: &Project) -> Result<()> {
    let cargo = project.root.path().join("cargo.sh");
    std::fs::write(&cargo, CARGO)?;
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755))?;
    let arguments = ["deploy", "--tag", "v0.0.1"];
    let deploy = project
        .bme(&arguments)
        .env("CARGO", &cargo)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let begun = project.root.path().join("begun");
    eventually("the build begins", 60, async || {
        Ok(std::fs::read_to_string(&begun).is_ok_and(|pid| pid.ends_with('\n')))
    })
    .await?;
    let pid = deploy.id().to_string();
    ensure!(std::process::Command::new("kill").args(["-INT", &pid]).status()?.success());
    let stderr = said(&deploy.wait_with_output()?, &arguments, 130)?;
    for word in ["interrupted before the image", "the services run what they ran before"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let cargo = std::fs::read_to_string(&begun)?;
    eventually("cargo has ended", 10, async || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", cargo.trim()));
        Ok(!stat.is_ok_and(|stat| !stat.contains(") Z ")))
    })
    .await?;
    ensure!(project.json(&["status"])?["lock"].is_null(), "the lock is free");
    Ok(())
}

async fn a_missing_need_is_told_before_anything_is_built(project: &Project) -> Result<()> {
    let name = json!({"QueueName": "bme-local-voice"});
    let queue = ask(project, "sqs", "AmazonSQS.GetQueueUrl", &name).await?;
    let url = queue["QueueUrl"].as_str().context("the URL of the queue")?;
    ask(project, "sqs", "AmazonSQS.DeleteQueue", &json!({"QueueUrl": url})).await?;
    project.forget_calls().await?;
    let arguments = ["deploy", "--tag", "v0.0.1"];
    let stderr = said(&project.bme(&arguments).output()?, &arguments, 1)?;
    for word in ["queue/", "`bme provision` first"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let calls = project.calls().await?;
    let changed = |call: &&Value| call["mutating"] == true && call["service"] != "s3";
    let changed: Vec<_> = calls.iter().filter(changed).collect();
    ensure!(changed.is_empty(), "{changed:#?}");
    Ok(())
}
