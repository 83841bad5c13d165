//! Killed with -9 at any call, run again: the same resources, none twice, none without an owner.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, eventually, said};
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
    project.forget_calls().await?;
    project.run(&["--yes", "provision"])?;
    let calls = project.calls().await?;
    let mutating = calls.iter().filter(|call| call["mutating"] == true).count();
    let undisturbed = inventory(&project).await?;
    ensure!(undisturbed.values().sum::<usize>() > 20, "{undisturbed:?}");
    project.run(&["--yes", "destroy"])?;
    ensure!(inventory(&project).await?.values().all(|count| *count == 0), "destroy left something");

    for point in 0..POINTS {
        let call = random.usize(1..=mutating);
        let kind = if random.bool() { "hold_before" } else { "hold_after" };
        let what = format!("point {point}: {kind} call {call} of {mutating}, seed {seed}");
        kill_at(&project, call, kind).await.context(what.clone())?;
        project.run(&["--yes", "provision"]).context(what.clone())?;
        let now = inventory(&project).await?;
        ensure!(now == undisturbed, "{what}: {now:#?} instead of {undisturbed:#?}");
        project.run(&["--yes", "destroy"]).context(what.clone())?;
        let left = inventory(&project).await?;
        ensure!(left.values().all(|count| *count == 0), "{what}: destroy left {left:#?}");
    }
    Ok(())
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

/// Number of things by kind that have no unique name, hence could be there twice, as the emulator
/// itself tells them; and of those that lack the owner's tag, which must be none.
async fn inventory(project: &Project) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for (kind, operation, item) in [
        ("vpc", "DescribeVpcs", "vpcId"),
        ("subnet", "DescribeSubnets", "subnetId"),
        ("internet gateway", "DescribeInternetGateways", "internetGatewayId"),
        ("address", "DescribeAddresses", "allocationId"),
        ("NAT gateway", "DescribeNatGateways", "natGatewayId"),
        ("route table", "DescribeRouteTables", "routeTableId"),
        ("security group", "DescribeSecurityGroups", "groupName"),
        ("endpoint", "DescribeVpcEndpoints", "vpcEndpointId"),
    ] {
        let filter = "Filter.1.Name=tag:bme:env&Filter.1.Value.1=local";
        let body = format!("Action={operation}&Version=2016-11-15&{filter}");
        let text = query(project, "ec2", body).await?;
        ensure!(!text.contains("<Error>"), "{operation}: {text}");
        let alive = text.matches(&format!("<{item}>")).count();
        let dead = text.matches("<state>deleted</state>").count();
        counts.insert(kind.to_owned(), alive.saturating_sub(dead));
    }
    let pools = reqwest::Client::new()
        .post(&project.endpoint)
        .header("x-amz-target", "AWSCognitoIdentityProviderService.ListUserPools")
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", authorization("cognito-idp"))
        .body(r#"{"MaxResults": 60}"#)
        .send()
        .await?;
    let pools: Value = serde_json::from_str(&pools.text().await?)?;
    counts.insert("user pool".into(), pools["UserPools"].as_array().context("no pools")?.len());
    Ok(counts)
}

async fn query(project: &Project, service: &str, body: String) -> Result<String> {
    let answer = reqwest::Client::new()
        .post(&project.endpoint)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", authorization(service))
        .body(body)
        .send()
        .await?;
    Ok(answer.text().await?)
}

/// What the emulator reads account, region and service from; it checks no signature.
fn authorization(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=000000000000/20261123/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}
