//! Metrics: what the service counts, and the two ways out: `GET /metrics` on an internal listener,
//! and the OpenTelemetry collector.
//!
//! Every attribute comes from a small fixed set: no id, no address, no path.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_prometheus_text_exporter::PrometheusExporter;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::OtlpConfig,
    database::{Database, MAX_CONNECTIONS},
    queue::{Depth, Queue, QueueError},
    telemetry::Collector,
};

/// Bounds in seconds, as the semantic conventions advise for `http.server.request.duration`.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How often a queue is asked how full it is: one or two calls of its backend.
const QUEUE_PERIOD: Duration = Duration::from_secs(10);

/// The name of everything that this service counts.
const METER: &str = "bme-service";

/// Made at first use, so after [`start`] has installed the provider.
static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter(METER);
    Instruments {
        requests: meter
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Requests by route, method and class of status.")
            .with_boundaries(SECONDS.to_vec())
            .build(),
        rate_limit: meter
            .u64_counter("rate_limit.decisions")
            .with_description("Requests by bucket: allowed, refused, or uncounted without Redis.")
            .build(),
        idempotency: meter
            .u64_counter("idem")
            .with_description(
                "Requests with an idempotency key by route: new, replay, in_progress, mismatch; and \
                 of their locks: lost_owner, repair.",
            )
            .build(),
        idempotency_lease: meter
            .f64_histogram("idem_lease_remaining")
            .with_unit("s")
            .with_description("What was left of the lease of a lock when its answer was there.")
            .with_boundaries(vec![0.0, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0])
            .build(),
        idempotency_finish_failed: meter
            .u64_counter("idem_finish_failed")
            .with_description("Answers that Redis did not take for replays.")
            .build(),
        jobs: meter
            .f64_histogram("messaging.process.duration")
            .with_unit("s")
            .with_description(
                "Attempts at jobs by outcome: completed, postponed, lost, or why not.",
            )
            .with_boundaries(SECONDS.to_vec())
            .build(),
    }
});

struct Instruments {
    requests: Histogram<f64>,
    rate_limit: Counter<u64>,
    idempotency: Counter<u64>,
    idempotency_lease: Histogram<f64>,
    idempotency_finish_failed: Counter<u64>,
    jobs: Histogram<f64>,
}

/// The way to the collector, once a minute.
pub(crate) fn pushed(
    config: &OtlpConfig,
    collector: Arc<Collector>,
) -> Result<PeriodicReader<MetricExporter>, ExporterBuildError> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_shared_http_client(collector)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/metrics", config.endpoint))
        .build()?;
    Ok(PeriodicReader::builder(exporter).build())
}

/// Installs the provider of the process, and serves it on `address` where there is one.
pub(crate) fn start(
    address: Option<SocketAddr>,
    pushed: Option<PeriodicReader<MetricExporter>>,
    resource: Resource,
) -> SdkMeterProvider {
    let mut provider = SdkMeterProvider::builder().with_resource(resource);
    if let Some(reader) = pushed {
        provider = provider.with_reader(reader);
    }
    if let Some(address) = address {
        let exporter = PrometheusExporter::builder().without_scope_info().build();
        provider = provider.with_reader(exporter.clone());
        tokio::spawn(serve(address, exporter));
    }
    let provider = provider.build();
    global::set_meter_provider(provider.clone());
    provider
}

/// Another process that has the port must not keep this one from its work.
async fn serve(address: SocketAddr, exporter: PrometheusExporter) {
    let router = Router::new().route("/metrics", get(async move || exposition(&exporter)));
    let served = match TcpListener::bind(address).await {
        Ok(listener) => axum::serve(listener, router).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%error, %address, "metrics are not served");
    }
}

fn exposition(exporter: &PrometheusExporter) -> Response {
    let mut text = Vec::new();
    match exporter.export(&mut text) {
        Ok(()) => {
            // Version of the Prometheus text format.
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
                .into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be collected");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Counts a request: rate, errors and duration.
pub fn request(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let class = match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "1xx",
    };
    // A client may make methods up.
    let method = match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    };
    let attributes = [
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_class", class),
    ];
    INSTRUMENTS.requests.record(took.as_secs_f64(), &attributes);
}

/// Counts a decision of the rate limit; None is one that nobody took.
pub fn rate_limit(bucket: &'static str, allowed: Option<bool>) {
    let decision = match allowed {
        Some(true) => "allowed",
        Some(false) => "refused",
        None => "uncounted",
    };
    let attributes = [KeyValue::new("bucket", bucket), KeyValue::new("decision", decision)];
    INSTRUMENTS.rate_limit.add(1, &attributes);
}

/// Counts the result of a request with an idempotency key, and what became of its lock: `lost_owner`,
/// `repair`. `route` is a template.
pub fn idempotency(route: &str, result: &'static str) {
    let attributes = [KeyValue::new("route", route.to_owned()), KeyValue::new("result", result)];
    INSTRUMENTS.idempotency.add(1, &attributes);
}

/// What was left of an attempt's lease when its answer was there: near to nothing, attempts take too
/// long for it.
pub fn idempotency_lease(route: &str, left: Duration) {
    let attributes = [KeyValue::new("route", route.to_owned())];
    INSTRUMENTS.idempotency_lease.record(left.as_secs_f64(), &attributes);
}

/// Counts an answer that Redis did not take: its repetitions ask Postgres.
pub fn idempotency_finish_failed(route: &str) {
    INSTRUMENTS.idempotency_finish_failed.add(1, &[KeyValue::new("route", route.to_owned())]);
}

/// Counts an attempt at a job: rate, errors and duration. `outcome` is one of a few codes.
pub fn job(queue: &'static str, outcome: &'static str, took: Duration) {
    let attributes = [
        KeyValue::new("messaging.destination.name", queue),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("outcome", outcome),
    ];
    INSTRUMENTS.jobs.record(took.as_secs_f64(), &attributes);
}

/// Shows the connections of a pool, used and idle, from now on.
pub fn observe_pool(database: &Database) {
    let database = database.clone();
    global::meter(METER)
        .u64_observable_gauge("db.client.connection.count")
        .with_description("Connections to Postgres by state.")
        .with_callback(move |observer| {
            let (all, idle) = database.connections();
            let idle = u64::try_from(idle).unwrap_or(u64::MAX);
            let used = u64::from(all).saturating_sub(idle);
            observer.observe(idle, &[KeyValue::new("state", "idle")]);
            observer.observe(used, &[KeyValue::new("state", "used")]);
        })
        .build();
    global::meter(METER)
        .u64_observable_gauge("db.client.connection.max")
        .with_description("Connections to Postgres that may be open at once.")
        .with_callback(|observer| observer.observe(MAX_CONNECTIONS.into(), &[]))
        .build();
}

/// Shows how full a queue is, from now on; nothing while its backend does not answer. Needs a Tokio
/// runtime.
pub fn observe_queue(name: &'static str, queue: Arc<dyn Queue>) {
    let seen: Arc<Mutex<Option<Looked>>> = Arc::default();
    let meter = global::meter(METER);
    let queue_name = KeyValue::new("messaging.destination.name", name);
    let (shown, label) = (Arc::clone(&seen), queue_name.clone());
    meter
        .u64_observable_gauge("messaging.queue.messages")
        .with_description("Messages by state: waiting, in flight, dead.")
        .with_callback(move |observer| {
            let Some((depth, _)) = *locked(&shown) else { return };
            let Depth { waiting, in_flight, dead, .. } = depth;
            for (state, count) in [("waiting", waiting), ("in_flight", in_flight), ("dead", dead)] {
                observer.observe(count, &[label.clone(), KeyValue::new("state", state)]);
            }
        })
        .build();
    let shown = Arc::clone(&seen);
    meter
        .f64_observable_gauge("messaging.queue.oldest_message.age")
        .with_unit("s")
        .with_description("Age of the oldest message that is not dead; 0 without any.")
        .with_callback(move |observer| {
            if let Some((_, Some(age))) = *locked(&shown) {
                observer.observe(age.as_secs_f64(), std::slice::from_ref(&queue_name));
            }
        })
        .build();
    tokio::spawn(async move {
        let mut period = interval(QUEUE_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let looked = look(&*queue).await;
            if let Err(error) = &looked {
                tracing::debug!(%error, queue = name, "the depth of a queue is not known");
            }
            *locked(&seen) = looked.ok();
        }
    });
}

/// How full a queue is, and the age of its oldest message where the backend tells it.
type Looked = (Depth, Option<Duration>);

async fn look(queue: &dyn Queue) -> Result<Looked, QueueError> {
    Ok((queue.depth().await?, queue.oldest().await?))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment, which cannot be half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
