//! `worker`: keeps its connection to Redis, deletes what has expired, answers the health check and
//! drains on SIGTERM. It consumes no queue yet.

use axum::{Router, extract::State, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::Lifecycle,
    config::WorkerConfig,
    database::{self, Suspicion},
    edge::Edge,
    kv::Kv,
    maintenance, metrics, routes, server,
};

/// Runs until `stop` is cancelled. Returns whether everything in flight finished.
pub async fn run(config: WorkerConfig, stop: CancellationToken) -> anyhow::Result<bool> {
    let suspicion = Suspicion::default();
    let database = database::pool(&config.database, suspicion.clone());
    metrics::observe_pool(&database);
    let kv = Kv::new(&config.redis)?;
    let lifecycle = Lifecycle::new(&config.http.release);
    let listener = TcpListener::bind(config.http.bind).await?;
    let keeper = tokio::spawn(kv.clone().keep());
    let maintenance = tokio::spawn(maintenance::keep(database, suspicion));
    let clean = server::serve(listener, router(lifecycle.clone(), kv), lifecycle, stop).await;
    keeper.abort();
    maintenance.abort();
    Ok(clean)
}

fn router(lifecycle: Lifecycle, kv: Kv) -> Router {
    let edge = Edge {
        lifecycle: lifecycle.clone(),
        request_timeout: std::time::Duration::from_secs(5),
        suspicion: crate::database::Suspicion::default(),
        hsts: false,
    };
    let ready =
        get(|State(kv): State<Kv>| async move { routes::health::readiness(None, &kv).await });
    Router::new()
        .route("/ready", ready)
        .with_state(kv)
        .route("/health", get(routes::health::health).with_state(lifecycle))
        .layer(axum::middleware::from_fn_with_state(edge, crate::edge::surround))
}
