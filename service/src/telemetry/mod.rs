//! What the process tells its operators: log lines, metrics, traces where a collector is
//! configured, and errors where Sentry is.
//!
//! Log lines are JSON in production and staging and readable locally. Spans are exported when they
//! belong to this crate at level info, or carry the target [`TARGET`]: those are invisible to the
//! log and cost nothing without a collector. Statements of sqlx become spans where it reports them.

mod database;
mod http_client;
mod messaging;
mod sentry;
mod trace;

use std::{sync::Arc, thread, time::Duration};

use ::sentry::Client;
use opentelemetry_sdk::{metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tokio::{sync::oneshot, time::timeout};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use messaging::{job_span, process_span, send_span};
pub use sentry::{DEAD_JOB, failed, watched};
pub use trace::{TARGET, answered, follow, request_span, trace_id, traceparent};

use crate::{
    config::{Environment, HttpConfig, TelemetryConfig},
    metrics,
};
pub(crate) use http_client::Collector;

/// Whatever `RUST_LOG` says: rmcp logs whole messages at info and debug, with what a user said in
/// them, and spans that are for traces only would hide the request's id.
const ALWAYS: [&str; 2] = ["rmcp=warn", "trace=off"];

/// Longest wait at exit for what is still to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The HTTP client cannot be built.
    #[error("telemetry has no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter refuses its settings.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is not usable: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// What runs beside the service until [`Telemetry::finish`].
#[derive(Debug)]
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    meters: SdkMeterProvider,
    sentry: Option<Arc<Client>>,
}

/// Log lines only. `RUST_LOG` overrides the filter. A second call does nothing, so that tests may
/// share a process.
pub fn init(environment: Environment) {
    install(environment, None, false);
}

/// Log lines, metrics, and traces where they are configured. Needs a Tokio runtime and the TLS
/// provider of the process.
pub fn start(http: &HttpConfig, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let resource = trace::resource(config, http);
    let mut tracer = None;
    let mut pushed = None;
    let client = http_client::build()?;
    if let Some(otlp) = &config.otlp {
        let collector = Arc::new(Collector::new(client.clone()));
        tracer = Some(trace::provider(otlp, resource.clone(), Arc::clone(&collector))?);
        pushed = Some(metrics::pushed(otlp, collector)?);
    }
    let sentry = config.sentry.as_ref().map(|dsn| sentry::start(dsn, http, client));
    install(http.environment, tracer.as_ref(), sentry.is_some());
    sentry::watch_panics();
    let meters = metrics::start(config.metrics, pushed, resource);
    Ok(Telemetry { tracer, meters, sentry })
}

fn install(environment: Environment, tracer: Option<&SdkTracerProvider>, reports: bool) {
    let filter = EnvFilter::try_from_default_env()
        // sqlx logs statements at debug and slow statements at warn, with their text but no values.
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let filter = ALWAYS.iter().fold(filter, |filter, directive| {
        filter.add_directive(directive.parse().expect("a directive of ours"))
    });
    let registry = tracing_subscriber::registry()
        .with(tracer.map(trace::layer))
        .with(tracer.map(database::layer))
        .with(reports.then(sentry::layer));
    let outcome = if environment == Environment::Local {
        let readable = fmt::layer().with_writer(std::io::stderr);
        registry.with(readable.with_filter(filter)).try_init()
    } else {
        let json = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stdout);
        registry.with(json.with_filter(filter)).try_init()
    };
    drop(outcome);
}

impl Telemetry {
    /// Sends what is left, for at most two seconds. Call it last.
    pub async fn finish(self) {
        let Self { tracer, meters, sentry } = self;
        // Each waits without a runtime, and the process must not wait for them any longer.
        let all = tokio::join!(
            within(move || tracer.is_none_or(|it| it.shutdown_with_timeout(FLUSH_TIMEOUT).is_ok())),
            within(move || meters.shutdown_with_timeout(FLUSH_TIMEOUT).is_ok()),
            within(move || sentry.is_none_or(|client| client.close(Some(FLUSH_TIMEOUT)))),
        );
        if all != (true, true, true) {
            let (spans, metrics, errors) = all;
            tracing::warn!(spans, metrics, errors, "the last of these were not all delivered");
        }
    }
}

/// Whether a blocking call succeeds in time; it keeps its thread when it does not.
async fn within(call: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (done, finished) = oneshot::channel();
    thread::spawn(move || {
        // Nobody listens when the time is over.
        let _ = done.send(call());
    });
    matches!(timeout(FLUSH_TIMEOUT, finished).await, Ok(Ok(true)))
}
