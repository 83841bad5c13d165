//! `worker`: works on voice jobs, deletes what has expired, answers the health check and drains on
//! SIGTERM.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    app::Lifecycle,
    config::WorkerConfig,
    database::Database,
    edge::Edge,
    kv::Kv,
    maintenance, metrics, routes, server,
    voice::{QUEUE, Voice, consumer::Consumer, gemini::Gemini},
};

/// What the probes ask.
#[derive(Clone)]
struct Parts {
    database: Database,
    kv: Kv,
}

/// Runs until `stop` is cancelled. Returns whether everything in flight finished or was given back.
/// Without a model's key jobs wait in the queue.
pub async fn run(config: WorkerConfig, stop: CancellationToken) -> anyhow::Result<bool> {
    // Before anything else: until the rest is there, `/health` says that it starts.
    let listener = TcpListener::bind(config.http.bind).await?;
    let lifecycle = Lifecycle::new(&config.http.release);
    let starting = routes::starting(&config.http, lifecycle.clone());
    let database = Database::new(&config.database);
    metrics::observe_pool(&database);
    let kv = Kv::new(&config.redis)?;
    let keepers = [tokio::spawn(kv.clone().keep()), tokio::spawn(database.clone().keep())];
    let maintenance = tokio::spawn(maintenance::keep(database.clone()));
    let (connected, connecting) = oneshot::channel();
    let making = async {
        let consumer = connect(&config, &database, &kv).await?;
        // Whoever waits for it goes on for as long as this.
        let _ = connected.send(consumer);
        let parts = Parts { database: database.clone(), kv: kv.clone() };
        anyhow::Ok(router(lifecycle.clone(), parts))
    };
    let working = async {
        match connecting.await {
            Ok(Some(consumer)) => consumer.run(stop.clone()).await,
            // There is nothing to work with, or it ended while it started.
            Ok(None) | Err(_) => true,
        }
    };
    let serving = server::start(listener, starting, making, lifecycle.clone(), stop.clone());
    let (served, worked) = tokio::join!(serving, working);
    for keeper in keepers {
        keeper.abort();
    }
    maintenance.abort();
    Ok(served? && worked)
}

/// What works on jobs; none without a model's key.
async fn connect(
    config: &WorkerConfig,
    database: &Database,
    kv: &Kv,
) -> anyhow::Result<Option<Arc<Consumer>>> {
    let Some(settings) = &config.voice else {
        tracing::warn!("GEMINI_API_KEY is not set: voice jobs wait in the queue");
        return Ok(None);
    };
    let consumer = Consumer {
        database: database.clone(),
        voice: Voice::connect(&config.queue, kv).await,
        gemini: Gemini::new(settings)?,
        concurrency: settings.concurrency,
        attempts: config.queue.attempts,
        lease: config.queue.lease,
    };
    metrics::observe_queue(QUEUE, consumer.voice.queue.clone());
    Ok(Some(Arc::new(consumer)))
}

fn router(lifecycle: Lifecycle, parts: Parts) -> Router {
    let edge = Edge {
        lifecycle: lifecycle.clone(),
        request_timeout: std::time::Duration::from_secs(5),
        hsts: false,
    };
    let ready = get(|State(parts): State<Parts>| async move {
        routes::health::readiness(&parts.database, &parts.kv).await
    });
    Router::new()
        .route("/ready", ready)
        .with_state(parts)
        .route("/health", get(routes::health::health).with_state(lifecycle))
        .layer(axum::middleware::from_fn_with_state(edge, crate::edge::surround))
}
