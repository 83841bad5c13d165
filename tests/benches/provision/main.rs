//! What a provision costs, measured from outside: calls to AWS of a first one and of one with nothing
//! to do, its time when every call takes 80 ms longer, and the time of a first one beside the critical
//! path, with everything that takes minutes at AWS taking a hundredth of it here.
//!
//! Nothing here fails by time; a run that does not end well does end it.

// The table on stdout is what this program is for.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bme_tests::Project;
use serde_json::{Value, json};

/// What every call takes longer.
const DISTANCE_MILLISECONDS: u64 = 80;

/// By how much the medians are shortened.
const SCALE: f64 = 100.0;

/// What is on its way for a while: its resource, what creates it, what tells its state (its creation too), and how that
/// state is written when it is there and before.
const SLOW: [(&str, &str, &str, &str, &str); 7] = [
    (
        "network/nat-gateway",
        "ec2:CreateNatGateway",
        "ec2:*NatGateway*",
        "<state>available</state>",
        "<state>pending</state>",
    ),
    (
        "database/instance",
        "rds:CreateDBInstance",
        "rds:*DBInstance*",
        "<DBInstanceStatus>available</DBInstanceStatus>",
        "<DBInstanceStatus>creating</DBInstanceStatus>",
    ),
    (
        "database/proxy",
        "rds:CreateDBProxy",
        "rds:*DBProx*",
        "<Status>available</Status>",
        "<Status>creating</Status>",
    ),
    (
        "database/proxy-target",
        "rds:RegisterDBProxyTargets",
        "rds:*DBProxyTargets",
        "<State>AVAILABLE</State>",
        "<State>REGISTERING</State>",
    ),
    (
        "cache/replication-group",
        "elasticache:CreateReplicationGroup",
        "elasticache:*ReplicationGroup*",
        "<Status>available</Status>",
        "<Status>creating</Status>",
    ),
    (
        "compute/load-balancer",
        "elasticloadbalancing:CreateLoadBalancer",
        "elasticloadbalancing:*LoadBalancer*",
        "<Code>active</Code>",
        "<Code>provisioning</Code>",
    ),
    (
        "edge/distribution",
        "cloudfront:CreateDistribution*",
        "cloudfront:*Distribution*",
        "<Status>Deployed</Status>",
        "<Status>InProgress</Status>",
    ),
];

#[tokio::main]
async fn main() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;

    let (calls, took) = provision(&project).await?;
    told("first", &calls, took);
    let (calls, took) = provision(&project).await?;
    told("nothing to do", &calls, took);
    for (operation, count) in most(&calls) {
        println!("  {count:>4} {operation}");
    }
    let far = json!([{"kind": "delay", "milliseconds": DISTANCE_MILLISECONDS, "times": 0}]);
    faults(&project, &far).await?;
    let (calls, took) = provision(&project).await?;
    told("nothing to do, 80 ms", &calls, took);
    faults(&project, &json!([])).await?;
    project.run(&["--yes", "destroy", "--allow-data-loss"])?;

    let file = project.root.path().join("environments/local.toml");
    let text = std::fs::read_to_string(&file)?;
    // The 4 s between two looks at AWS, shortened as the medians are.
    std::fs::write(&file, text.replace("poll_milliseconds = 200", "poll_milliseconds = 40"))?;
    let planned = project.json(&["plan"])?;
    let path = planned["estimatedSeconds"].as_f64().context("an estimate")? / SCALE;
    faults(&project, &pending(&project)?).await?;
    let (calls, took) = provision(&project).await?;
    told("first, medians 1:100", &calls, took);
    println!("critical path          {path:>8.2} s");
    println!("ratio                  {:>8.2}", took.as_secs_f64() / path);
    project.run(&["--yes", "destroy", "--allow-data-loss"])?;
    Ok(())
}

/// A provision that ends well: its calls, and its time from outside.
async fn provision(project: &Project) -> Result<(Vec<Value>, Duration)> {
    project.forget_calls().await?;
    let start = Instant::now();
    project.run(&["--yes", "provision"])?;
    let took = start.elapsed();
    Ok((project.calls().await?, took))
}

fn told(what: &str, calls: &[Value], took: Duration) {
    let mutating = calls.iter().filter(|call| call["mutating"] == true).count();
    let read = calls.len() - mutating;
    println!("{what:<22} {:>8.2} s  {read:>4} reads  {mutating:>4} mutating", took.as_secs_f64());
}

/// The operations that are called more than once, most first.
fn most(calls: &[Value]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    for call in calls {
        let name = |member: &str| call[member].as_str().unwrap_or_default().to_owned();
        *counts.entry(format!("{}:{}", name("service"), name("operation"))).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 1).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// The rules by which each slow thing is on its way for a hundredth of its median, which is the one
/// that the estimate is made of.
fn pending(project: &Project) -> Result<Value> {
    let graph = project.json(&["graph"])?;
    let resources = graph.as_array().context("the resources of the graph")?;
    let rules = SLOW.map(|(id, create, describe, there, before)| {
        let typical = resources
            .iter()
            .filter(|resource| {
                resource["id"]
                    .as_str()
                    .is_some_and(|own| own == id || own.starts_with(&format!("{id}-")))
            })
            .find_map(|resource| resource["typicalSeconds"].as_f64());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few seconds"
        )]
        let milliseconds = (typical.unwrap_or_default() * 1000.0 / SCALE) as u64;
        json!({"operation": describe, "after": create, "withinMilliseconds": milliseconds,
               "times": 0, "kind": "rewrite", "from": there, "to": before})
    });
    Ok(json!(rules))
}

async fn faults(project: &Project, rules: &Value) -> Result<()> {
    let client = reqwest::Client::new();
    let faults = format!("{}/_bme/faults", project.endpoint);
    client.delete(&faults).send().await?.error_for_status()?;
    client.post(&faults).json(rules).send().await?.error_for_status()?;
    Ok(())
}
