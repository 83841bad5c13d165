//! `worker`: works on voice jobs, deletes what has expired, answers the health check and drains on
//! SIGTERM.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use tokio::net::TcpListener;
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
    let database = Database::new(&config.database);
    metrics::observe_pool(&database);
    let kv = Kv::new(&config.redis)?;
    let lifecycle = Lifecycle::new(&config.http.release);
    let listener = TcpListener::bind(config.http.bind).await?;
    let keepers = [tokio::spawn(kv.clone().keep()), tokio::spawn(database.clone().keep())];
    let maintenance = tokio::spawn(maintenance::keep(database.clone()));
    let consumer = if let Some(settings) = &config.voice {
        Some(Arc::new(Consumer {
            database: database.clone(),
            voice: Voice::connect(&config.queue, &kv).await,
            gemini: Gemini::new(settings)?,
            concurrency: settings.concurrency,
            attempts: config.queue.attempts,
            lease: config.queue.lease,
        }))
    } else {
        tracing::warn!("GEMINI_API_KEY is not set: voice jobs wait in the queue");
        None
    };
    if let Some(consumer) = &consumer {
        metrics::observe_queue(QUEUE, consumer.voice.queue.clone());
    }
    let working = async {
        match consumer {
            Some(consumer) => consumer.run(stop.clone()).await,
            None => true,
        }
    };
    let parts = Parts { database, kv };
    let serving =
        server::serve(listener, router(lifecycle.clone(), parts), lifecycle, stop.clone());
    let (served, worked) = tokio::join!(serving, working);
    for keeper in keepers {
        keeper.abort();
    }
    maintenance.abort();
    Ok(served && worked)
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
