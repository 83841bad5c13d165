//! The whole stack on a second emulator, moto, which other people wrote from the same documentation:
//! what holds only on the first one shows here.
//!
//! `server.py` is moto with what it lacks in front; its `LACKS` says what that is and why. What moto
//! does otherwise without being in the way is in [`OTHERWISE`].

#[path = "../../../service/tests/service/harness/python.rs"]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod python;
mod stack;

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{element, query, said};
use serde_json::Value;
use stack::{Inventory, Stack};

/// What an empty moto and one that was emptied differ in, and why.
const OTHERWISE: [(&str, &str); 1] =
    [("ecs:ListClusters", "a deleted cluster stays listed, as inactive")];

/// Times that the stack comes and goes, killed on both ways.
const KILLED: usize = 4;

const DESTROY: [&str; 2] = ["destroy", "--allow-data-loss"];

/// Version of EC2's query protocol.
const EC2: &str = "2016-11-15";

#[tokio::test(flavor = "multi_thread")]
async fn a_second_emulator_agrees() -> Result<()> {
    let stack = Stack::start().await?;
    let empty = stack.inventory().await?;

    let plan = stack.plan()?;
    let begin = Instant::now();
    let made = stack.last_event(&["provision"])?;
    let coming = begin.elapsed();
    ensure!(made["created"] == plan["summary"]["create"], "{made:#} and {:#}", plan["summary"]);
    let whole = stack.inventory().await?;
    is_whole(&stack, &whole).await?;
    what_somebody_changed_is_mended(&stack, &whole).await?;
    the_pipeline_follows_its_table(&stack, &whole).await?;

    let begin = Instant::now();
    stack.last_event(&DESTROY)?;
    let going = begin.elapsed();
    is_gone(&stack, &empty).await?;

    for _ in 0..KILLED {
        let after = coming.mul_f64(fastrand::f64());
        stack.kill(&["provision"], after).await?;
        let what = || format!("a provision, killed after {after:?}");
        stack.last_event(&["provision", "--lock-wait", "60s"]).with_context(what)?;
        is_whole(&stack, &whole).await.with_context(what)?;

        let after = going.mul_f64(fastrand::f64());
        stack.kill(&DESTROY, after).await?;
        let what = || format!("a destroy, killed after {after:?}");
        stack.last_event(&[&DESTROY[..], &["--lock-wait", "60s"]].concat()).with_context(what)?;
        is_gone(&stack, &empty).await.with_context(what)?;
    }
    Ok(())
}

/// All is there once, and one more run changes nothing.
async fn is_whole(stack: &Stack, whole: &Inventory) -> Result<()> {
    let other = stack.difference(whole).await?;
    ensure!(other.is_empty(), "not as undisturbed: {other:#?}");
    stack.run(&["plan", "--check"])?;
    let again = stack.last_event(&["provision"])?;
    ensure!(again["awsCalls"]["mutating"] == 0, "a second run changes something: {again:#}");
    Ok(())
}

/// Nothing is left but what moto never lets go.
async fn is_gone(stack: &Stack, empty: &Inventory) -> Result<()> {
    let left = stack.difference(empty).await?;
    let (known, unknown): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| {
        OTHERWISE.iter().any(|(operation, _)| left.starts_with(&format!("{operation}: ")))
    });
    ensure!(unknown.is_empty(), "destroy left something: {unknown:#?}");
    ensure!(known.len() == OTHERWISE.len(), "moto does better by now: of {OTHERWISE:?} {known:?}");
    Ok(())
}

async fn what_somebody_changed_is_mended(stack: &Stack, whole: &Inventory) -> Result<()> {
    let ec2 = async |parameters: String| query(&stack.endpoint, "ec2", EC2, &parameters).await;
    let ours = "DescribeVpcs&Filter.1.Name=tag:bme:env&Filter.1.Value.1=local";
    let vpcs = ec2(ours.to_owned()).await?;
    let vpc = element(&vpcs, "vpcId")?;
    ec2(format!("DeleteTags&ResourceId.1={vpc}&Tag.1.Key=Name")).await?;
    let rules = ec2("DescribeSecurityGroupRules".to_owned()).await?;
    let to_database = |rule: &&str| {
        rule.contains("<isEgress>false</isEgress>") && rule.contains("<fromPort>5432</fromPort>")
    };
    let rule = rules.split("<item>").find(to_database).context("no rule about PostgreSQL")?;
    let (group, rule) = (element(rule, "groupId")?, element(rule, "securityGroupRuleId")?);
    let revoke = format!("RevokeSecurityGroupIngress&GroupId={group}&SecurityGroupRuleId.1={rule}");
    ec2(revoke).await?;

    let plan = stack.plan()?;
    let changes = plan["changes"].as_array().context("a plan has changes")?;
    let drifted: Vec<&str> = changes
        .iter()
        .filter(|change| !matches!(change["action"].as_str(), Some("none" | "deferred")))
        .filter_map(|change| change["id"].as_str())
        .collect();
    let [vpc, rules] = drifted[..] else { anyhow::bail!("the plan shows {drifted:?}") };
    ensure!(vpc == "network/vpc", "{vpc}");
    ensure!(rules.starts_with("network/security-group-rules-"), "{rules}");
    let arguments = ["plan", "--check"];
    said(&stack.bme(&arguments).output()?, &arguments, 3)?;

    let mended: Value = stack.last_event(&["provision"])?;
    ensure!(mended["updated"] == 2, "{mended:#}");
    is_whole(stack, whole).await
}

/// Another branch is an update, no table any more the end of all that belongs to the pipeline.
async fn the_pipeline_follows_its_table(stack: &Stack, whole: &Inventory) -> Result<()> {
    const PARTS: usize = 7;
    let file = stack.file();
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("{text}branch = \"next\"\n"))?;
    let updated = stack.last_event(&["provision"])?;
    ensure!(updated["updated"] == 1, "{updated:#}");
    stack.run(&["plan", "--check"])?;

    let (without, _) = text.split_once("[delivery.pipeline]").context("no pipeline in the file")?;
    fs::write(&file, without)?;
    let deleted = stack.last_event(&["provision"])?;
    ensure!(deleted["deleted"] == PARTS && deleted["updated"] == 0, "{deleted:#}");
    stack.run(&["plan", "--check"])?;

    fs::write(&file, &text)?;
    let made = stack.last_event(&["provision"])?;
    ensure!(made["created"] == PARTS, "{made:#}");
    is_whole(stack, whole).await
}
