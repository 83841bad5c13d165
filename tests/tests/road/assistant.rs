//! The Model Context Protocol with a stock client, through the load balancer, over two containers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ask, eventually};
use serde_json::{Value, json};

use super::{User, mcp_client, processes};

/// The tools that only read, and the one that the environment file allows.
const TOOLS: [&str; 5] =
    ["add_transaction", "get_balance", "list_goals", "list_schedule", "list_transactions"];

pub(crate) async fn does_what_it_is_allowed(project: &Project, user: &User) -> Result<()> {
    ensure!(status_without_token(project).await? == 404, "the endpoint is there unasked");
    project.configure(&format!(
        "[compute.mcp]\nuser = \"{}\"\nallowed_tools = [\"add_transaction\"]\n",
        user.id
    ))?;
    project.allow(&project.printed_policy()?).await?;
    project.run(&["--yes", "provision"])?;
    every_task_answers(project, 401).await?;

    let secret = json!({"SecretId": "bme-local-mcp-secret"});
    let secret = ask(project, "secretsmanager", "secretsmanager.GetSecretValue", &secret).await?;
    let secret: Value = serde_json::from_str(secret["SecretString"].as_str().context("no value")?)?;
    let secret = secret["secret"].as_str().context("no secret")?;
    let transaction = json!({
        "type": "expense", "amount": 3.2, "currency": "EUR", "category": "Food", "date": "2026-11-21",
    });
    let calls = json!([
        ["add_transaction", transaction],
        ["list_transactions", { "limit": 1 }],
        ["get_balance", {}],
        ["add_goal", { "type": "savings", "target": 1, "period": "daily" }],
    ]);
    let both = mcp_client::talk(&format!("{}/mcp", project.url), secret, &calls).await;
    for mode in ["auto", "legacy"] {
        let answers = &both[mode];
        let tools = answers["tools"].as_object().context("no tools")?;
        ensure!(
            tools.keys().map(String::as_str).collect::<BTreeSet<_>>() == TOOLS.into(),
            "{tools:?}"
        );
        let calls = answers["calls"].as_array().context("no calls")?;
        ensure!(calls[..3].iter().all(|call| call["error"] == false), "{calls:#?}");
        let refused = calls[3]["exception"].as_str().unwrap_or_default();
        ensure!(refused.contains("no such tool"), "{calls:#?}");
    }
    let audited = audited(project)?;
    for row in ["add_transaction|ok", "list_transactions|ok", "get_balance|ok", "add_goal|refused"]
    {
        let rows = audited.lines().filter(|line| *line == format!("{}|{row}", user.id)).count();
        ensure!(rows == 2, "{row}, once in each version of the protocol:\n{audited}");
    }
    eventually("both containers have answered", 30, async || Ok(tasks(project).await?.len() == 2))
        .await
}

/// Waits until no task answers otherwise: old ones drain for some seconds.
pub(crate) async fn every_task_answers(project: &Project, status: u16) -> Result<()> {
    eventually("every task answers with the new settings", 120, async || {
        for _ in 0..10 {
            if status_without_token(project).await? != status {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

async fn status_without_token(project: &Project) -> Result<u16> {
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let post = reqwest::Client::new().post(format!("{}/mcp", project.url)).json(&ping);
    Ok(post.header("accept", "application/json, text/event-stream").send().await?.status().as_u16())
}

/// `user|tool|outcome` of every call of a tool.
fn audited(project: &Project) -> Result<String> {
    let socket = processes(project)?
        .iter()
        .filter_map(|line| line.split_once("unix_socket_directories="))
        .find_map(|(_, rest)| rest.split(' ').next().map(ToOwned::to_owned))
        .context("the sandbox has no database")?;
    let query = "SELECT user_id, target, outcome FROM mcp_audit WHERE method = 'tools/call'";
    let psql = std::process::Command::new("psql")
        .args(["-h", &socket, "-U", "postgres", "-d", "bme", "-At", "-c", query])
        .output()?;
    ensure!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    Ok(String::from_utf8(psql.stdout)?)
}

/// Log streams, one for each container, that have lines about the endpoint with a user in them.
async fn tasks(project: &Project) -> Result<BTreeSet<String>> {
    let filter = json!({"logGroupName": "bme-local-api-log-group", "limit": 10_000});
    let events = ask(project, "logs", "Logs_20140328.FilterLogEvents", &filter).await?;
    let events = events["events"].as_array().context("no events")?;
    Ok(events
        .iter()
        .filter(|event| {
            let line = event["message"].as_str().unwrap_or_default();
            line.contains("route=\"/mcp\"") && line.contains("status=200")
        })
        .filter_map(|event| event["logStreamName"].as_str().map(ToOwned::to_owned))
        .collect())
}
