//! The preflight: good on a fresh account, and each thing that would stop a run named with its mend.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ask, difference, element, inventory, query, said};
use serde_json::{Value, json};

/// Version of IAM's query protocol.
const IAM: &str = "2010-05-08";

#[tokio::test(flavor = "multi_thread")]
async fn what_would_stop_a_run_is_named_before_it() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    project.forget_calls().await?;

    good_on_a_fresh_account(&project)?;
    let mutating: Vec<_> = project.calls().await?;
    let mutating: Vec<_> = mutating.iter().filter(|call| call["mutating"] == true).collect();
    ensure!(mutating.is_empty(), "doctor changes nothing: {mutating:#?}");
    let changed = difference(&empty, &inventory(&project).await?);
    ensure!(changed.is_empty(), "doctor changes nothing: {changed:#?}");

    a_name_that_another_has(&project).await?;
    a_quota_that_is_used_up(&project).await?;
    an_account_outside_the_list(&project)?;
    a_call_that_is_refused(&project).await?;
    a_user_without_permissions(&project).await?;

    project.run(&["sandbox", "down"])?;
    nobody_answers(&project)
}

fn good_on_a_fresh_account(project: &Project) -> Result<()> {
    let report = project.json(&["doctor"])?;
    for (member, expected) in
        [("env", "local"), ("account", "000000000000"), ("region", "us-east-1")]
    {
        ensure!(report[member] == expected, "{report:#}");
    }
    ensure!(report["summary"]["fail"] == 0, "{report:#}");
    for name in ["identity", "account", "clock", "region", "permissions", "names"] {
        ensure!(check(&report, name)?["state"] == "ok", "{name}: {report:#}");
    }
    for quota in ["vpcs", "elastic-ips", "nat-gateways", "fargate-vcpus", "database-instances"] {
        let found = check(&report, &format!("quota/{quota}"))?;
        ensure!(found["state"] == "ok", "{found:#}");
    }
    let count = |state: &str| {
        let checks = report["checks"].as_array().into_iter().flatten();
        checks.filter(|check| check["state"] == state).count()
    };
    for state in ["ok", "warn", "fail"] {
        ensure!(report["summary"][state] == count(state), "{report:#}");
    }
    let text = project.run(&["doctor"])?;
    ensure!(text.contains("quota/vpcs") && text.contains("0 fail"), "{text}");
    Ok(())
}

async fn a_name_that_another_has(project: &Project) -> Result<()> {
    let name = "bme-local-auth-token";
    let secret = json!({ "Name": name, "SecretString": "{}" });
    ask(project, "secretsmanager", "secretsmanager.CreateSecret", &secret).await?;
    let report = failed(&project.bme(&["--output", "json", "doctor"]).output()?)?;
    let clash = check(&report, "name/cache/auth-token")?;
    ensure!(clash["state"] == "fail", "{clash:#}");
    ensure!(clash["message"].as_str().is_some_and(|text| text.contains(name)), "{clash:#}");
    ensure!(clash["hint"].as_str().is_some_and(|text| text.contains("bme:env=local")), "{clash:#}");
    let delete = json!({ "SecretId": name, "ForceDeleteWithoutRecovery": true });
    ask(project, "secretsmanager", "secretsmanager.DeleteSecret", &delete).await?;
    project.json(&["doctor"])?;
    Ok(())
}

async fn a_quota_that_is_used_up(project: &Project) -> Result<()> {
    let client = reqwest::Client::new();
    let quotas = format!("{}/_bme/quotas", project.endpoint);
    let none = json!({ "L-F678F1CE": 0, "L-3032A538": 0.25 });
    client.post(&quotas).json(&none).send().await?.error_for_status()?;
    let report = failed(&project.bme(&["--output", "json", "doctor"]).output()?)?;
    for (name, code) in [("quota/vpcs", "L-F678F1CE"), ("quota/fargate-vcpus", "L-3032A538")] {
        let quota = check(&report, name)?;
        ensure!(quota["state"] == "fail", "{quota:#}");
        ensure!(quota["hint"].as_str().is_some_and(|hint| hint.contains(code)), "{quota:#}");
    }
    ensure!(report["summary"]["fail"] == 2, "{report:#}");
    client.delete(&quotas).send().await?.error_for_status()?;
    project.json(&["doctor"])?;
    Ok(())
}

/// The emulator reads the account out of the key.
fn an_account_outside_the_list(project: &Project) -> Result<()> {
    let mut doctor = project.bme(&["--output", "json", "doctor"]);
    doctor.env("AWS_ACCESS_KEY_ID", "123456789012").env("AWS_SECRET_ACCESS_KEY", "x");
    let report = failed(&doctor.output()?)?;
    ensure!(report["account"] == "123456789012", "{report:#}");
    let account = check(&report, "account")?;
    ensure!(account["state"] == "fail", "{account:#}");
    ensure!(account["hint"].as_str().is_some_and(|hint| hint.contains("aws.accounts")));
    ensure!(check(&report, "identity")?["state"] == "ok", "{report:#}");
    ensure!(check(&report, "quotas")?["state"] == "warn", "{report:#}");
    Ok(())
}

/// A check that cannot be made warns, and says which call it lacks.
async fn a_call_that_is_refused(project: &Project) -> Result<()> {
    let client = reqwest::Client::new();
    let faults = format!("{}/_bme/faults", project.endpoint);
    let refuse = |operation: &str| {
        json!({
            "operation": operation,
            "times": 0,
            "kind": "status",
            "status": 403,
            "awsErrorCode": "AccessDeniedException",
        })
    };
    let rules = json!([refuse("servicequotas:*"), refuse("ec2:DescribeRegions")]);
    client.post(&faults).json(&rules).send().await?.error_for_status()?;
    let report = project.json(&["doctor"])?;
    for (name, call) in
        [("quota/vpcs", "servicequotas:GetServiceQuota"), ("region", "ec2:DescribeRegions")]
    {
        let found = check(&report, name)?;
        ensure!(found["state"] == "warn", "{found:#}");
        ensure!(found["message"].as_str().is_some_and(|text| text.contains(call)), "{found:#}");
    }
    client.delete(&faults).send().await?.error_for_status()?;
    Ok(())
}

/// Nothing is enforced here (`iam.rs` does), but the policies of a user are simulated as IAM would.
async fn a_user_without_permissions(project: &Project) -> Result<()> {
    query(&project.endpoint, "iam", IAM, "CreateUser&UserName=anna").await?;
    let key = query(&project.endpoint, "iam", IAM, "CreateAccessKey&UserName=anna").await?;
    let (id, secret) = (element(&key, "AccessKeyId")?, element(&key, "SecretAccessKey")?);
    let doctor = || {
        let mut doctor = project.bme(&["--output", "json", "doctor"]);
        doctor.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        doctor.output()
    };
    let report = failed(&doctor()?)?;
    let network = check(&report, "permissions/network")?;
    ensure!(network["state"] == "fail", "{network:#}");
    let message = network["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("user/anna may not") && message.contains("ec2:CreateVpc"),
        "{message}"
    );
    ensure!(network["hint"].as_str().is_some_and(|hint| hint.contains("bme policy")));

    let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
    let put = format!("PutUserPolicy&UserName=anna&PolicyName=all&PolicyDocument={policy}");
    query(&project.endpoint, "iam", IAM, &put).await?;
    let output = doctor()?;
    said(&output, &["doctor"], 0)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(check(&report, "permissions")?["state"] == "ok", "{report:#}");
    Ok(())
}

fn nobody_answers(project: &Project) -> Result<()> {
    let report = failed(&project.bme(&["--output", "json", "doctor"]).output()?)?;
    let identity = check(&report, "identity")?;
    ensure!(identity["state"] == "fail", "{identity:#}");
    ensure!(identity["hint"].as_str().is_some_and(|hint| hint.contains("bme sandbox up")));
    ensure!(report["account"].is_null(), "{report:#}");
    ensure!(check(&report, "names")?["state"] == "warn", "{report:#}");
    Ok(())
}

/// The report of a doctor that found something: exit code 1, and stdout is the document all the same.
fn failed(output: &Output) -> Result<Value> {
    said(output, &["doctor"], 1)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["summary"]["fail"] != 0, "{report:#}");
    Ok(report)
}

fn check<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    let mut checks = report["checks"].as_array().into_iter().flatten();
    checks.find(|check| check["name"] == name).with_context(|| format!("no {name}: {report:#}"))
}
