//! The probes.

use std::{pin::pin, time::Duration};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use sqlx::PgPool;
use tokio::time::timeout;

use crate::{
    app::{App, Lifecycle, Phase},
    database::Suspicion,
    kv::Kv,
    problem::Problem,
};

/// Longest wait for each part.
const PART_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /health`: whether this process serves. It asks nothing else, so that an outage of the
/// database does not make ECS replace every task.
pub async fn health(State(lifecycle): State<Lifecycle>) -> Result<Response, Problem> {
    let release = serde_json::Value::from(&*lifecycle.release);
    match lifecycle.phase() {
        Phase::Serving => Ok(json(&serde_json::json!({ "status": "ok", "release": release }))),
        Phase::Starting => {
            Err(Problem::unavailable("starting", "Starting.", 1).with_member("release", release))
        }
        Phase::Draining => {
            Err(Problem::unavailable("draining", "Draining.", 1).with_member("release", release))
        }
    }
}

/// `GET /ready`: whether the database and Redis answer.
pub async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    readiness(Some((&app.database, &app.suspicion)), &app.kv).await
}

/// Asks each part, all at once.
pub async fn readiness(
    database: Option<(&PgPool, &Suspicion)>,
    kv: &Kv,
) -> Result<Response, Problem> {
    let (database, redis) = tokio::join!(
        async {
            match database {
                Some((pool, suspicion)) => Some(database_answers(pool, suspicion).await),
                None => None,
            }
        },
        kv.ping(PART_TIMEOUT),
    );
    let parts = database.map(|ok| ("database", ok)).into_iter().chain([("redis", redis.is_ok())]);
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

async fn database_answers(pool: &PgPool, suspicion: &Suspicion) -> bool {
    let mut asked = pin!(sqlx::query("SELECT 1").execute(pool));
    match timeout(PART_TIMEOUT, asked.as_mut()).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "database not ready");
            false
        }
        Err(_) => {
            suspicion.raise();
            tracing::warn!("database not ready: no answer in time");
            false
        }
    }
}

fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
