//! The voice assistant: from the load balancer over the queue to the worker, the model and back.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, eventually};
use serde_json::{Value, json};

use super::User;

/// The model is the sandbox's stand-in, which `bme sandbox status` tells.
pub(crate) async fn what_is_said_becomes_a_transaction(
    project: &Project,
    user: &User,
) -> Result<()> {
    let sandbox = project.json(&["sandbox", "status"])?;
    let parts = sandbox["parts"].as_array().context("no parts")?;
    let stand_in = parts.iter().find(|part| part["name"] == "gemini (stand-in)");
    ensure!(stand_in.is_some_and(|part| part["running"] == true), "{sandbox:#}");

    let client = reqwest::Client::new();
    let get = async |path: &str| -> Result<Value> {
        let answer = client.get(format!("{}{path}", project.url)).bearer_auth(&user.token).send();
        Ok(answer.await?.error_for_status()?.json().await?)
    };
    let job = client
        .post(format!("{}/api/voice/understand", project.url))
        .bearer_auth(&user.token)
        .json(&json!({"transcript": "add expense 9.90 food, please", "today": "2026-11-22"}))
        .send()
        .await?;
    ensure!(job.status() == 202, "{}", job.text().await?);
    let job: Value = job.json().await?;
    let job = format!("/api/jobs/{}", job["jobId"].as_str().context("no job")?);
    eventually("the job is completed", 60, async || Ok(get(&job).await?["status"] == "completed"))
        .await
        .with_context(|| format!("{job} of the log of the worker"))?;
    let list = get("/api/transactions").await?;
    let said: Vec<_> = list["items"]
        .as_array()
        .context("no list")?
        .iter()
        .filter(|item| item["amount"] == json!(9.9))
        .collect();
    ensure!(said.len() == 1, "{list:#}");
    ensure!(said[0]["category"] == "Food" && said[0]["date"] == "2026-11-22", "{list:#}");
    eventually("the queue is empty", 20, async || {
        let queue = &project.json(&["status"])?["queue"];
        Ok(queue["visible"] == 0 && queue["inFlight"] == 0 && queue["dead"] == 0)
    })
    .await
}
