//! The probes.

use std::time::Duration;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

use crate::{
    app::{App, Lifecycle, Phase},
    database::Database,
    kv::Kv,
    problem::Problem,
};

/// Longest wait for each part.
const PART_TIMEOUT: Duration = Duration::from_secs(1);

/// The code of what a process that starts answers.
pub const STARTING: &str = "starting";

/// `GET /health`: whether this process serves. It asks nothing else, so that an outage of the
/// database does not make ECS replace every task.
pub async fn health(State(lifecycle): State<Lifecycle>) -> Result<Response, Problem> {
    let release = serde_json::Value::from(&*lifecycle.release);
    match lifecycle.phase() {
        Phase::Serving => Ok(json(&serde_json::json!({ "status": "ok", "release": release }))),
        Phase::Starting => Err(starting().with_member("release", release)),
        Phase::Draining => {
            Err(Problem::unavailable("draining", "Draining.", 1).with_member("release", release))
        }
    }
}

/// What a process answers to everything while it starts.
pub fn starting() -> Problem {
    Problem::unavailable(STARTING, "Starting.", 1)
}

/// `GET /ready`: whether the database and Redis answer.
pub async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    readiness(&app.database, &app.kv).await
}

/// Asks each part, both at once.
pub async fn readiness(database: &Database, kv: &Kv) -> Result<Response, Problem> {
    let (database, redis) =
        tokio::join!(database.is_reachable(PART_TIMEOUT), kv.ping(PART_TIMEOUT));
    let parts = [("database", database), ("redis", redis.is_ok())];
    let mut failed = Vec::new();
    let mut checks = serde_json::Map::new();
    for (name, ok) in parts {
        checks.insert(name.to_owned(), if ok { "ok" } else { "failed" }.into());
        if !ok {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(json(&serde_json::json!({ "status": "ready", "checks": checks })));
    }
    let detail = match failed.as_slice() {
        ["database"] => "Not ready: database.",
        ["redis"] => "Not ready: redis.",
        _ => "Not ready: database, redis.",
    };
    Err(Problem::unavailable("not-ready", detail, 1).with_member("checks", checks.into()))
}

fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
