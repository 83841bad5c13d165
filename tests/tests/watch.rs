//! `status --watch` tells of now, not of the moment in which it began.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use bme_tests::Project;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_comes_while_somebody_watches_is_shown() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision", "--step", "queue"])?;
    let watch = project.bme(&["--output", "json", "status", "--watch"]);
    let mut watch = tokio::process::Command::from(watch)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("its output")?).lines();
    shown(&mut lines, "\"release\": null").await?;

    let release = json!({
        "tag": "v1.2.3",
        "digest": "sha256:0",
        "image": "repository@sha256:0",
        "deployedAt": "2026-11-23T20:00:00.000Z",
        "configuration": {},
        "secretVersions": {},
        "web": "releases/v1.2.3/",
        "schema": 1,
    });
    let region = &project.region;
    let bucket = format!("{}/bme-state-000000000000-{region}", project.endpoint);
    // What the emulator reads account, region and service from; it checks no signature.
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=000000000000/20261123/{region}/s3/aws4_request, SignedHeaders=host, Signature=0"
    );
    let put = reqwest::Client::new().put(format!("{bucket}/local/current.json"));
    let put = put.header("authorization", authorization).body(release.to_string());
    put.send().await?.error_for_status()?;
    shown(&mut lines, "\"tag\": \"v1.2.3\"").await
}

/// Reads on until a line has this text.
async fn shown(
    lines: &mut Lines<BufReader<tokio::process::ChildStdout>>,
    text: &str,
) -> Result<()> {
    let read = async {
        loop {
            let line = lines.next_line().await?.context("the watch has ended")?;
            if line.contains(text) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), read)
        .await
        .with_context(|| format!("{text} was not shown"))?
}
