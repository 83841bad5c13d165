//! `worker`: works on voice jobs, answers the health check and drains on SIGTERM.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::Lifecycle,
    config::WorkerConfig,
    database::{self, Suspicion},
    edge::Edge,
    kv::Kv,
    routes, server,
    voice::{Voice, consumer::Consumer, gemini::Gemini},
};

/// What the probes ask.
#[derive(Clone)]
struct Parts {
    database: PgPool,
    suspicion: Suspicion,
    kv: Kv,
}

/// Runs until `stop` is cancelled. Returns whether everything in flight finished or was given back.
/// Without a queue it only answers the probes.
pub async fn run(
    config: WorkerConfig,
    voice: Option<Voice>,
    stop: CancellationToken,
) -> anyhow::Result<bool> {
    let suspicion = Suspicion::default();
    let database = database::pool(&config.database, suspicion.clone());
    let kv = Kv::new(&config.redis)?;
    let gemini = Gemini::new(&config.voice)?;
    let lifecycle = Lifecycle::new(&config.http.release);
    let listener = TcpListener::bind(config.http.bind).await?;
    let keeper = tokio::spawn(kv.clone().keep());
    let consuming = async {
        let Some(voice) = voice else { return true };
        let concurrency = config.voice.concurrency;
        let consumer = Consumer { database: database.clone(), voice, gemini, concurrency };
        Arc::new(consumer).run(stop.clone()).await
    };
    let parts = Parts { database: database.clone(), suspicion, kv };
    let serving =
        server::serve(listener, router(lifecycle.clone(), parts), lifecycle, stop.clone());
    let (served, consumed) = tokio::join!(serving, consuming);
    keeper.abort();
    Ok(served && consumed)
}

fn router(lifecycle: Lifecycle, parts: Parts) -> Router {
    let edge = Edge {
        lifecycle: lifecycle.clone(),
        request_timeout: std::time::Duration::from_secs(5),
        suspicion: parts.suspicion.clone(),
        hsts: false,
    };
    let ready = get(|State(parts): State<Parts>| async move {
        routes::health::readiness(Some((&parts.database, &parts.suspicion)), &parts.kv).await
    });
    Router::new()
        .route("/ready", ready)
        .with_state(parts)
        .route("/health", get(routes::health::health).with_state(lifecycle))
        .layer(axum::middleware::from_fn_with_state(edge, crate::edge::surround))
}
