//! The whole road, once: from nothing to a running release, a second one, back, drift, and away.

mod assistant;
mod cognito;
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../../../service/tests/service/harness/mcp_client.rs"]
mod mcp_client;
mod permissions;
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../../../service/tests/service/harness/python.rs"]
mod python;
mod voice;

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_cloudwatch as cloudwatch;
use aws_sdk_ec2 as ec2;
use bme_tests::{Project, ask, difference, eventually, inventory, said};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_road() -> Result<()> {
    let mut project = Project::new()?;
    // One person sends a burst of 500.
    project.configure("[compute.environment]\nRATE_LIMIT_PER_MINUTE = \"1000000\"\n")?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    project.forget_calls().await?;
    // All of it as a user who may do what `bme policy` prints.
    project.enforce_iam().await?;
    project.run(&["--yes", "provision"])?;
    project.run(&["--yes", "deploy", "--tag", "v0.1.0"])?;
    let first = status_is_complete(&project)?;
    a_second_run_changes_nothing(&project).await?;
    the_service_describes_itself(&project).await?;
    let user = a_transaction_is_made_once(&project).await?;
    voice::what_is_said_becomes_a_transaction(&project, &user).await?;
    the_container_is_the_pushed_image(&project, &first)?;
    a_new_release_and_back(&project, &first).await?;
    a_release_has_its_own_secrets(&project, &first).await?;
    bme_tests::one_key_over_two_containers(&project.url, &processes(&project)?).await?;
    assistant::does_what_it_is_allowed(&project, &user).await?;
    cognito::signs_users_in(&project).await?;
    destroy_leaves_nothing(&project, &empty).await
}

fn status_is_complete(project: &Project) -> Result<String> {
    let status = project.json(&["status"])?;
    let steps = status["steps"].as_array().context("no steps")?;
    ensure!(steps.len() == 10, "{status:#}");
    ensure!(steps.iter().all(|step| step["state"] == "complete"), "{status:#}");
    ensure!(status["release"]["tag"] == "v0.1.0", "{status:#}");
    let digest = status["release"]["digest"].as_str().context("no digest")?;
    ensure!(digest.starts_with("sha256:"), "{digest}");
    Ok(digest.to_owned())
}

async fn a_second_run_changes_nothing(project: &Project) -> Result<()> {
    project.forget_calls().await?;
    let end = project.last_event(&["provision"])?;
    ensure!(end["awsCalls"]["mutating"] == 0, "{end}");
    let calls = project.calls().await?;
    ensure!(!calls.is_empty(), "nothing was recorded");
    let mutating: Vec<_> = calls.iter().filter(|call| call["mutating"] == true).collect();
    ensure!(mutating.is_empty(), "{mutating:#?}");
    Ok(())
}

/// Whoever has registered.
struct User {
    id: String,
    token: String,
}

/// Through the load balancer, and as a client generator would read it.
async fn the_service_describes_itself(project: &Project) -> Result<()> {
    let answer = reqwest::get(format!("{}/openapi.json", project.url)).await?;
    let document: Value = answer.error_for_status()?.json().await?;
    ensure!(document["openapi"] == "3.1.0", "{document}");
    ensure!(document["paths"]["/api/transactions"]["post"].is_object(), "{document}");
    Ok(())
}

async fn a_transaction_is_made_once(project: &Project) -> Result<User> {
    let client = reqwest::Client::new();
    let ready: Value = client
        .get(format!("{}/ready", project.url))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    ensure!(ready["checks"] == json!({"database": "ok", "redis": "ok"}), "{ready}");
    let account =
        json!({"email": "road@example.com", "password": "correct horse battery", "name": "Road"});
    let register =
        client.post(format!("{}/api/auth/register", project.url)).json(&account).send().await?;
    ensure!(register.status() == 201, "{}", register.text().await?);
    let login = client
        .post(format!("{}/api/auth/login", project.url))
        .json(&account_without_name())
        .send()
        .await?;
    let session: Value = login.error_for_status()?.json().await?;
    let token = session["token"].as_str().context("no token")?;
    let body = json!({
        "type": "expense", "amount": 12.50, "currency": "EUR", "category": "Food",
        "date": "2026-11-23", "description": "lunch", "isRecurring": false,
    });
    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = client
            .post(format!("{}/api/transactions", project.url))
            .bearer_auth(token)
            .header("X-Idempotency-Key", "0198c5a4-0000-7000-8000-000000000001")
            .json(&body)
            .send()
            .await?;
        let status = answer.status();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        answers.push((status.as_u16(), replayed, answer.text().await?));
    }
    ensure!(answers[0].0 == 201 && !answers[0].1, "{answers:?}");
    ensure!(answers[1].0 == 201 && answers[1].1, "{answers:?}");
    ensure!(answers[0].2 == answers[1].2, "{answers:?}");
    let list =
        client.get(format!("{}/api/transactions", project.url)).bearer_auth(token).send().await?;
    let list: Value = list.error_for_status()?.json().await?;
    ensure!(list["items"].as_array().map(Vec::len) == Some(1), "{list}");
    let id = session["user"]["id"].as_str().context("no user")?;
    Ok(User { id: id.to_owned(), token: token.to_owned() })
}

fn account_without_name() -> Value {
    json!({"email": "road@example.com", "password": "correct horse battery"})
}

/// The container runtime is asked, not bme: digest, user, and that there is no shell.
fn the_container_is_the_pushed_image(project: &Project, digest: &str) -> Result<()> {
    let all = podman(project, &["ps", "--format", "{{.ID}} {{.Image}}"])?;
    let all = String::from_utf8(all.stdout)?;
    let container = all
        .lines()
        .find(|line| line.contains(digest))
        .and_then(|line| line.split(' ').next())
        .with_context(|| format!("no container runs {digest}:\n{all}"))?;
    let user = podman(project, &["inspect", "--format", "{{.Config.User}}", container])?;
    ensure!(String::from_utf8(user.stdout)?.trim().starts_with("65532"), "it runs as another user");
    let shell = podman(project, &["exec", container, "/bin/sh", "-c", "true"])?;
    ensure!(!shell.status.success(), "the image has a shell");
    Ok(())
}

/// Podman, at the socket of the sandbox.
fn podman(project: &Project, arguments: &[&str]) -> Result<std::process::Output> {
    let socket = processes(project)?
        .iter()
        .filter(|line| line.contains("system service"))
        .find_map(|line| {
            line.split(' ').find(|word| word.starts_with("unix://")).map(ToOwned::to_owned)
        })
        .context("the sandbox has no container runtime")?;
    Ok(std::process::Command::new("podman").args(["--url", &socket]).args(arguments).output()?)
}

/// It began when the release before was running, has something to do, and must not bring that back.
async fn a_provision_waits_for_a_rollback(project: &Project) -> Result<()> {
    let run = |arguments: &[&str]| {
        project.bme(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    let alarm = "bme-local-api-cpu-alarm";
    Aws::of(project).cloudwatch.delete_alarms().alarm_names(alarm).send().await?;
    let client = reqwest::Client::new();
    let faults = format!("{}/_bme/faults", project.endpoint);
    let rule = json!({"operation": "ecs:UpdateService", "kind": "hold_before"});
    client.post(&faults).json(&rule).send().await?.error_for_status()?;
    let rollback = run(&["--yes", "rollback"])?;
    let held = format!("{}/_bme/held", project.endpoint);
    eventually("the rollback to change a service", 60, async || {
        let held: Value = client.get(&held).send().await?.json().await?;
        Ok(held.as_array().is_some_and(|held| !held.is_empty()))
    })
    .await?;
    let provision = run(&["--yes", "provision", "--lock-wait", "120s"])?;
    eventually("the provision to find the lock", 60, async || {
        let calls = project.calls().await?;
        Ok(calls.iter().any(|call| call["operation"] == "PutObject" && call["status"] == 412))
    })
    .await?;
    client.delete(&faults).send().await?.error_for_status()?;
    said(&rollback.wait_with_output()?, &["rollback"], 0)?;
    said(&provision.wait_with_output()?, &["provision", "--lock-wait"], 0)?;
    project.run(&["plan", "--check"])?;
    Ok(())
}

async fn a_new_release_and_back(project: &Project, first: &str) -> Result<()> {
    let source = project.root.path().join("service/src/routes/health.rs");
    let health = std::fs::read_to_string(&source)?;
    let changed = health
        .replace(r#""status": "ok", "release""#, r#""status": "ok", "motto": "second", "release""#);
    ensure!(changed != health, "the health route has changed");
    std::fs::write(&source, changed)?;
    project.run(&["--yes", "deploy", "--tag", "v0.2.0"])?;
    let health = health_of(project).await?;
    ensure!(health["motto"] == "second" && health["release"] == "v0.2.0", "{health}");

    project.forget_calls().await?;
    a_provision_waits_for_a_rollback(project).await?;
    let health = health_of(project).await?;
    ensure!(health["motto"].is_null() && health["release"] == "v0.1.0", "{health}");
    let calls = project.calls().await?;
    let pushes: Vec<_> = calls
        .iter()
        .filter(|call| call["service"] == "registry" && call["mutating"] == true)
        .collect();
    ensure!(pushes.is_empty(), "a rollback pushes nothing: {pushes:#?}");
    let status = project.json(&["status"])?;
    ensure!(status["release"]["digest"] == first, "{status:#}");

    let releases = project.json(&["releases"])?;
    let tags: Vec<_> =
        releases.as_array().context("no list")?.iter().map(|one| &one["tag"]).collect();
    ensure!(tags.contains(&&json!("v0.1.0")) && tags.contains(&&json!("v0.2.0")), "{tags:?}");
    Ok(())
}

/// The secret that only the worker reads.
const KEY: &str = "bme-local-gemini-api-key";

/// Tasks have the versions of secrets that the record of their release names: those of its deploy, whatever
/// is changed afterwards, and again after a rollback.
async fn a_release_has_its_own_secrets(project: &Project, digest: &str) -> Result<()> {
    let definitions = || -> Result<[Value; 2]> {
        let status = project.json(&["status"])?;
        let [api, worker] = [0_usize, 1].map(|number| &status["services"][number]);
        ensure!(api["name"] == "api" && worker["name"] == "worker", "{status:#}");
        Ok([api, worker].map(|service| service["taskDefinition"].clone()))
    };
    let ship = |tag: &str| project.run(&["--yes", "deploy", "--tag", tag, "--image", digest]);
    let put = async |key: &str, version: &str| -> Result<Value> {
        let body = json!({
            "SecretId": KEY,
            "SecretString": json!({ "apiKey": key }).to_string(),
            "ClientRequestToken": version,
        });
        ask(project, "secretsmanager", "secretsmanager.PutSecretValue", &body).await
    };
    let first = keys_of_workers(project)?;
    let [first] = &first[..] else { anyhow::bail!("{} workers have a key", first.len()) };
    let before = definitions()?;
    put("second", "0190b5b2-7f6e-7cc0-8000-000000000002").await?;
    project.run(&["plan", "--check"])?;
    ensure!(definitions()? == before, "a version alone starts nothing");
    ship("v0.3.0")?;
    the_worker_has(project, "second").await?;

    // The first version has no staging label any more.
    put("third", "0190b5b2-7f6e-7cc0-8000-000000000003").await?;
    let rollback = project.bme(&["--yes", "rollback"]).output()?;
    let told = said(&rollback, &["rollback"], 0)?;
    ensure!(
        told.contains(&format!("v0.1.0 has its own versions again, not today's, of {KEY}")),
        "{told}"
    );
    the_worker_has(project, first).await?;
    project.run(&["plan", "--check"])?;

    // The release that runs, deployed once more, has today's, and only who reads it is replaced.
    let before = definitions()?;
    ship("v0.1.0")?;
    the_worker_has(project, "third").await?;
    let after = definitions()?;
    ensure!(after[0] == before[0] && after[1] != before[1], "{before:?}, then {after:?}");
    ship("v0.1.0")?;
    ensure!(definitions()? == after, "the same once more starts nothing");
    project.run(&["plan", "--check"])?;
    a_version_that_is_gone_stops_a_rollback(project).await?;
    ensure!(definitions()? == after, "it changes nothing");
    the_worker_has(project, "third").await
}

/// A version that Secrets Manager has deleted can't be made here: a record names one that never was.
async fn a_version_that_is_gone_stops_a_rollback(project: &Project) -> Result<()> {
    let mut record = project.json(&["releases", "show", "v0.1.0"])?;
    record["tag"] = json!("v0.0.9");
    record["secretVersions"][KEY] = json!("0190b5b2-7f6e-7cc0-8000-000000000009");
    let region = &project.region;
    let bucket = format!("{}/bme-state-000000000000-{region}", project.endpoint);
    // The sandbox's root; signatures are not checked.
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=000000000000/20261123/{region}/s3/aws4_request, SignedHeaders=host, Signature=0"
    );
    let put = reqwest::Client::new().put(format!("{bucket}/local/releases/v0.0.9.json"));
    let put = put.header("authorization", authorization).body(record.to_string());
    put.send().await?.error_for_status()?;
    project.forget_calls().await?;
    let rollback = ["--yes", "rollback", "--to", "v0.0.9"];
    let told = said(&project.bme(&rollback).output()?, &rollback, 1)?;
    ensure!(told.contains(KEY) && told.contains("has deleted"), "{told}");
    ensure!(told.contains("bme deploy --tag v0.0.9 --image sha256:"), "{told}");
    let calls = project.calls().await?;
    let changes: Vec<_> =
        calls.iter().filter(|call| call["service"] == "ecs" && call["mutating"] == true).collect();
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

/// Soon: the container of a former worker may take a moment to end.
async fn the_worker_has(project: &Project, key: &str) -> Result<()> {
    eventually("the worker has the key", 60, async || Ok(keys_of_workers(project)? == [key])).await
}

/// The keys of the Gemini API that the running workers have, asked of the container runtime.
fn keys_of_workers(project: &Project) -> Result<Vec<String>> {
    let all = String::from_utf8(podman(project, &["ps", "--quiet"])?.stdout)?;
    let mut keys = Vec::new();
    for id in all.lines() {
        let format = "{{.Config.Cmd}} {{json .Config.Env}}";
        let one = podman(project, &["inspect", "--format", format, id])?;
        let one = String::from_utf8(one.stdout)?;
        // Nothing is told of one that has ended since.
        let Some(environment) = one.strip_prefix("[worker] ") else { continue };
        let environment: Vec<String> = serde_json::from_str(environment)?;
        let key = environment.iter().find_map(|pair| pair.strip_prefix("GEMINI_API_KEY="));
        keys.push(key.context("a worker without a key")?.to_owned());
    }
    Ok(keys)
}

async fn health_of(project: &Project) -> Result<Value> {
    Ok(reqwest::get(format!("{}/health", project.url)).await?.error_for_status()?.json().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_told_and_mended() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision"])?;
    let aws = Aws::of(&project);
    // A rule removed, a threshold changed, a tag dropped, a flow log deleted, a widget replaced by one
    // of a team: by hand, behind bme's back.
    let groups = aws.ec2.describe_security_groups().send().await?;
    let group = groups
        .security_groups()
        .iter()
        .find(|group| group.group_name() == Some("bme-local-security-group-database"))
        .context("no database group")?;
    let group = group.group_id().unwrap_or_default();
    let of_group = ec2::types::Filter::builder().name("group-id").values(group).build();
    let rules = aws.ec2.describe_security_group_rules().filters(of_group).send().await?;
    let rule = rules
        .security_group_rules()
        .iter()
        .find(|rule| rule.group_id() == Some(group) && rule.is_egress() == Some(false))
        .and_then(|rule| rule.security_group_rule_id())
        .context("no rule")?;
    aws.ec2
        .revoke_security_group_ingress()
        .group_id(group)
        .security_group_rule_ids(rule)
        .send()
        .await?;
    let alarm = aws.cloudwatch.describe_alarms().send().await?;
    let alarm = alarm
        .metric_alarms()
        .iter()
        .find(|alarm| alarm.alarm_name() == Some("bme-local-api-cpu-alarm"));
    let alarm = alarm.context("no CPU alarm")?;
    aws.cloudwatch
        .put_metric_alarm()
        .set_alarm_name(alarm.alarm_name.clone())
        .set_comparison_operator(alarm.comparison_operator.clone())
        .set_evaluation_periods(alarm.evaluation_periods)
        .set_metric_name(alarm.metric_name.clone())
        .set_namespace(alarm.namespace.clone())
        .set_period(alarm.period)
        .set_statistic(alarm.statistic.clone())
        .set_dimensions(alarm.dimensions.clone())
        .set_alarm_actions(alarm.alarm_actions.clone())
        .set_datapoints_to_alarm(alarm.datapoints_to_alarm)
        .set_treat_missing_data(alarm.treat_missing_data.clone())
        .threshold(12.0)
        .send()
        .await?;
    let vpcs = aws.vpcs().await?;
    aws.ec2
        .delete_tags()
        .resources(vpcs.first().context("no VPC")?)
        .tags(ec2::types::Tag::builder().key("bme:resource").build())
        .send()
        .await?;
    let log = aws.flow_log().await?.context("no flow log")?;
    aws.ec2.delete_flow_logs().flow_log_ids(&log).send().await?;
    let mut body = aws.dashboard().await?;
    body["widgets"][0] = json!({"type": "text", "properties": {"markdown": "the team's own"}});
    aws.cloudwatch
        .put_dashboard()
        .dashboard_name(DASHBOARD)
        .dashboard_body(body.to_string())
        .send()
        .await?;

    let plan = project.json(&["plan"])?;
    let changes: Vec<_> = plan["changes"]
        .as_array()
        .context("no changes")?
        .iter()
        .filter(|change| !matches!(change["action"].as_str(), Some("none" | "deferred")))
        .collect();
    let paths = |id: &str| -> Vec<&str> {
        let change = changes.iter().find(|change| change["id"] == id);
        let fields = change.and_then(|change| change["fields"].as_array());
        fields.into_iter().flatten().filter_map(|field| field["path"].as_str()).collect()
    };
    ensure!(changes.len() == 5, "{changes:#?}");
    ensure!(
        changes.iter().all(|change| match change["id"].as_str() {
            Some("network/flow-log") => change["action"] == "create",
            _ => change["action"] == "update",
        }),
        "{changes:#?}"
    );
    ensure!(paths("observability/dashboard") == ["widgets.Requests a minute"], "{changes:#?}");
    ensure!(paths("network/vpc") == ["tags.bme:resource"], "{changes:#?}");
    ensure!(paths("observability/api-cpu-alarm").contains(&"threshold"), "{changes:#?}");
    ensure!(paths("network/security-group-rules-database").len() == 1, "{changes:#?}");

    let end = project.last_event(&["provision"])?;
    ensure!(end["updated"] == 4 && end["created"] == 1 && end["replaced"] == 0, "{end}");
    ensure!(aws.flow_log().await?.is_some_and(|new| new != log), "the flow log is the deleted one");
    let widgets = aws.dashboard().await?["widgets"].clone();
    let widgets = widgets.as_array().context("no widgets")?;
    ensure!(widgets[0]["properties"]["title"] == "Requests a minute", "{widgets:#?}");
    ensure!(widgets.iter().any(|widget| widget["type"] == "text"), "{widgets:#?}");
    let end = project.last_event(&["provision"])?;
    ensure!(end["awsCalls"]["mutating"] == 0, "{end}");
    Ok(())
}

async fn destroy_leaves_nothing(
    project: &Project,
    empty: &std::collections::BTreeMap<String, usize>,
) -> Result<()> {
    project.run(&["--yes", "destroy"])?;
    permissions::are_exact(project).await?;
    let left = difference(empty, &inventory(project).await?);
    ensure!(left.is_empty(), "destroy left {left:#?}");
    let plan = project.json(&["plan"])?;
    let left: Vec<_> = plan["changes"]
        .as_array()
        .context("no changes")?
        .iter()
        .filter(|change| !matches!(change["action"].as_str(), Some("create" | "deferred")))
        .collect();
    ensure!(left.is_empty(), "{left:#?}");

    project.run(&["sandbox", "down"])?;
    for port in project.ports() {
        eventually("the port is free", 10, async || {
            Ok(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .await?;
    }
    eventually(
        "no process of the sandbox is left",
        20,
        async || Ok(processes(project)?.is_empty()),
    )
    .await
    .with_context(|| format!("{:#?}", processes(project)))?;
    Ok(())
}

/// Command lines of the processes that name the project's directory.
fn processes(project: &Project) -> Result<Vec<String>> {
    let directory = project.root.path().to_string_lossy().into_owned();
    Ok(std::fs::read_dir("/proc")?
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&directory))
        .collect())
}

const DASHBOARD: &str = "bme-local-dashboard";

struct Aws {
    ec2: ec2::Client,
    cloudwatch: cloudwatch::Client,
}

impl Aws {
    fn of(project: &Project) -> Self {
        let credentials = ec2::config::Credentials::new("000000000000", "test", None, None, "test");
        Self {
            ec2: ec2::Client::from_conf(
                ec2::Config::builder()
                    .behavior_version_latest()
                    .region(ec2::config::Region::new("us-east-1"))
                    .endpoint_url(&project.endpoint)
                    .credentials_provider(credentials.clone())
                    .build(),
            ),
            cloudwatch: cloudwatch::Client::from_conf(
                cloudwatch::Config::builder()
                    .behavior_version_latest()
                    .region(cloudwatch::config::Region::new("us-east-1"))
                    .endpoint_url(&project.endpoint)
                    .credentials_provider(credentials)
                    .build(),
            ),
        }
    }

    /// Id of the flow log.
    async fn flow_log(&self) -> Result<Option<String>> {
        let logs = self.ec2.describe_flow_logs().send().await?;
        Ok(logs.flow_logs().first().and_then(|log| log.flow_log_id().map(ToOwned::to_owned)))
    }

    /// Body of the dashboard.
    async fn dashboard(&self) -> Result<Value> {
        let answer = self.cloudwatch.get_dashboard().dashboard_name(DASHBOARD).send().await?;
        Ok(serde_json::from_str(answer.dashboard_body().context("no body")?)?)
    }

    /// Ids of the VPCs that carry the environment's name.
    async fn vpcs(&self) -> Result<Vec<String>> {
        let vpcs = self.ec2.describe_vpcs().send().await?;
        Ok(vpcs
            .vpcs()
            .iter()
            .filter(|vpc| vpc.tags().iter().any(|tag| tag.value() == Some("bme-local-vpc")))
            .filter_map(|vpc| vpc.vpc_id().map(ToOwned::to_owned))
            .collect())
    }
}
