//! Calls that fail, once each: a run ends well all the same, or with a clear error after which a plain
//! second run does. What is there in the end is what an undisturbed run leaves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, inventory};
use serde_json::{Value, json};

/// Runs that a fault may take: the one it meets and the plain one after it.
const RUNS: usize = 2;

const PROVISION: [&str; 2] = ["--yes", "provision"];
const DESTROY: [&str; 2] = ["--yes", "destroy"];

/// A sandbox, and what is in it with and without the stack.
struct Stage {
    project: Project,
    client: reqwest::Client,
    empty: BTreeMap<String, usize>,
    whole: BTreeMap<String, usize>,
}

impl Stage {
    async fn new() -> Result<Self> {
        let project = Project::new()?;
        project.run(&["sandbox", "up"])?;
        let empty = inventory(&project).await?;
        project.run(&["--yes", "provision"])?;
        let whole = inventory(&project).await?;
        project.run(&["--yes", "destroy"])?;
        Ok(Self { project, client: reqwest::Client::new(), empty, whole })
    }

    async fn faults(&self, rules: &Value) -> Result<()> {
        let faults = format!("{}/_bme/faults", self.project.endpoint);
        self.client.delete(&faults).send().await?.error_for_status()?;
        self.client.post(&faults).json(rules).send().await?.error_for_status()?;
        Ok(())
    }

    /// A provision and a destroy, both under the faults.
    async fn endures(&self, what: &str, rules: Value) -> Result<BTreeSet<String>> {
        self.faults(&rules).await?;
        self.runs(&PROVISION, &self.whole).await.with_context(|| format!("{what}: provision"))?;
        let hit = self.hit().await?;
        ensure!(!hit.is_empty(), "{what}: no call of the provision was hit");
        self.project.run(&["plan", "--check"]).with_context(|| format!("{what}: plan"))?;
        self.faults(&rules).await?;
        self.runs(&DESTROY, &self.empty).await.with_context(|| format!("{what}: destroy"))?;
        Ok(hit)
    }

    /// Runs a command until it ends well, and looks at what is there.
    async fn runs(&self, command: &[&str], expected: &BTreeMap<String, usize>) -> Result<()> {
        let mut said = String::new();
        for run in 1..=RUNS {
            let output = self.project.bme(command).output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                self.faults(&json!([])).await?;
                let other = difference(expected, &inventory(&self.project).await?);
                ensure!(
                    other.is_empty(),
                    "not as undisturbed after {run} runs: {other:#?}\n{said}"
                );
                return Ok(());
            }
            ensure!(
                output.status.code() == Some(1) && stderr.contains("error"),
                "{}: {stderr}",
                output.status
            );
            said.push_str(&stderr);
        }
        anyhow::bail!("not after {RUNS} runs:\n{said}")
    }

    /// From now on so many answers after a creation are of before it.
    async fn hide(&self, answers: u32) -> Result<()> {
        let stale = format!("{}/_bme/stale?answers={answers}", self.project.endpoint);
        self.client.put(stale).send().await?.error_for_status()?;
        Ok(())
    }

    /// The operations that a rule has hit since the record was cleared, which this does.
    async fn hit(&self) -> Result<BTreeSet<String>> {
        let calls = self.project.calls().await?;
        self.project.forget_calls().await?;
        let hit = calls.iter().filter(|call| call["fault"].is_string());
        let name =
            |call: &Value, member: &str| call[member].as_str().unwrap_or_default().to_owned();
        Ok(hit
            .map(|call| format!("{}:{}", name(call, "service"), name(call, "operation")))
            .collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_may_fail_once() -> Result<()> {
    let stage = Stage::new().await?;
    for (what, fault) in [
        (
            "throttled",
            json!({"kind": "status", "status": 400, "awsErrorCode": "ThrottlingException"}),
        ),
        ("answered 503", json!({"kind": "status", "status": 503, "awsErrorCode": "SlowDown"})),
        ("answered 500", json!({"kind": "status", "status": 500})),
        ("cut off", json!({"kind": "cut_before"})),
        ("the answer lost", json!({"kind": "cut_after"})),
    ] {
        let mut rule = fault;
        rule["each"] = true.into();
        stage.endures(what, json!([rule])).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_takes_its_time_with_is_waited_for() -> Result<()> {
    let stage = Stage::new().await?;
    // What public logs show of roles that are a few seconds old.
    let propagating = [
        ("ec2:CreateFlowLogs", "InvalidParameter", "Unable to assume given IAM role"),
        ("rds:CreateDBProxy", "InvalidParameterValue", "The IAM role cannot be assumed by RDS"),
        ("iam:PutRolePolicy", "NoSuchEntity", "The role with name x cannot be found."),
        ("s3:PutBucketPolicy", "MalformedPolicy", "Invalid principal in policy"),
    ];
    let rules = propagating.map(|(operation, code, message)| {
        json!({"operation": operation, "kind": "status", "status": 400, "awsErrorCode": code,
               "message": message, "times": 3})
    });
    stage.endures("a role that is not seen yet", json!(rules)).await?;
    let conflict = json!([{"operation": "s3:PutObject", "kind": "status", "status": 409,
                           "awsErrorCode": "ConditionalRequestConflict", "times": 3}]);
    stage.endures("a conflict about the lock", conflict).await?;

    // What creates, what describes, and the words for: there, on its way, failed.
    let slow = [
        (
            ("elasticache:CreateReplicationGroup", "elasticache:DescribeReplicationGroups"),
            ("Status", "available", "creating", "create-failed"),
        ),
        (
            ("rds:CreateDBProxy", "rds:DescribeDBProxies"),
            ("Status", "available", "creating", "insufficient-resource-limits"),
        ),
        (
            ("ec2:CreateNatGateway", "ec2:DescribeNatGateways"),
            ("state", "available", "pending", "failed"),
        ),
    ];
    let told = |operation: &str, element: &str, from: &str, to: &str| {
        json!({"operation": operation, "kind": "rewrite", "times": 0,
               "from": format!("<{element}>{from}</{element}>"),
               "to": format!("<{element}>{to}</{element}>")})
    };
    for (what, milliseconds, fails) in
        [("long in coming", 1500, false), ("a creation that fails", 600_000, true)]
    {
        let mut rules = Vec::new();
        for ((create, describe), (element, there, pending, failed)) in slow {
            rules.push(told(create, element, there, pending));
            let mut rule = told(describe, element, there, if fails { failed } else { pending });
            rule["after"] = create.into();
            rule["withinMilliseconds"] = milliseconds.into();
            rule["times"] = u64::from(fails).into();
            rules.push(rule);
        }
        let hit = stage.endures(what, json!(rules)).await?;
        for ((_, describe), _) in slow {
            ensure!(hit.contains(describe), "{what}: {describe} is not among {hit:?}");
        }
    }
    Ok(())
}

/// What has been made is not in the next three answers of its service.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_seen_at_once_is_not_made_twice() -> Result<()> {
    let stage = Stage::new().await?;
    let file = stage.project.root.path().join("environments/local.toml");
    let text = std::fs::read_to_string(&file)?;
    // As long as the emulator keeps it back; at AWS it is 15 s.
    std::fs::write(&file, text.replace("lag_milliseconds = 0", "lag_milliseconds = 4000"))?;
    stage.hide(3).await?;
    stage.project.run(&["--yes", "provision"])?;
    stage.hide(0).await?;
    let other = difference(&stage.whole, &inventory(&stage.project).await?);
    ensure!(other.is_empty(), "not as if all had been seen: {other:#?}");
    stage.project.run(&["plan", "--check"])?;
    stage.runs(&DESTROY, &stage.empty).await
}

/// From one call on, no call is let in any more.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_on_the_way_are_told_once_and_nothing_is_lost() -> Result<()> {
    let stage = Stage::new().await?;
    let expired = json!([{"kind": "status", "status": 403, "awsErrorCode": "ExpiredToken",
                          "call": 150, "times": 0}]);
    stage.faults(&expired).await?;
    let output = stage.project.bme(&["--yes", "provision"]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {stderr}", output.status);
    ensure!(stderr.contains("aws sso login"), "{stderr}");
    stage.faults(&json!([])).await?;
    stage.runs(&PROVISION, &stage.whole).await
}

/// A call that never answers is given up after its time, and looked after.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_answer_is_given_up() -> Result<()> {
    let stage = Stage::new().await?;
    let silent = json!([{"operation": "ec2:CreateSubnet", "kind": "hold_after"}]);
    stage.faults(&silent).await?;
    stage.runs(&PROVISION, &stage.whole).await?;
    ensure!(stage.hit().await?.contains("ec2:CreateSubnet"));
    Ok(())
}
