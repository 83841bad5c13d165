//! What the process tells its operators: log lines, metrics, and traces where a collector is
//! configured.
//!
//! Log lines are JSON in production and staging and readable locally. Spans are exported when they
//! belong to this crate at level info, or carry the target [`TARGET`]: those are invisible to the
//! log and cost nothing without a collector.

mod http_client;
mod trace;

use std::{sync::Arc, thread, time::Duration};

use opentelemetry_sdk::{metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tokio::{sync::oneshot, time::timeout};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use trace::{TARGET, answered, follow, request_span, trace_id, traceparent};

use crate::{
    config::{Environment, HttpConfig, TelemetryConfig},
    metrics,
};
pub(crate) use http_client::Collector;

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
}

/// Log lines only. `RUST_LOG` overrides the filter. A second call does nothing, so that tests may
/// share a process.
pub fn init(environment: Environment) {
    install(environment, None);
}

/// Log lines, metrics, and traces where they are configured. Needs a Tokio runtime and the TLS
/// provider of the process.
pub fn start(http: &HttpConfig, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let resource = trace::resource(config, http);
    let mut tracer = None;
    let mut pushed = None;
    if let Some(otlp) = &config.otlp {
        let collector = Arc::new(Collector::new(http_client::build()?));
        tracer = Some(trace::provider(otlp, resource.clone(), Arc::clone(&collector))?);
        pushed = Some(metrics::pushed(otlp, collector)?);
    }
    install(http.environment, tracer.as_ref());
    let meters = metrics::start(config.metrics, pushed, resource);
    Ok(Telemetry { tracer, meters })
}

fn install(environment: Environment, tracer: Option<&SdkTracerProvider>) {
    let filter = EnvFilter::try_from_default_env()
        // sqlx logs statements at debug and slow statements at warn, with their text but no values.
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let registry = tracing_subscriber::registry().with(tracer.map(trace::layer));
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
        let (done, finished) = oneshot::channel();
        // Both wait without a runtime, and the process must not wait for them any longer.
        thread::spawn(move || {
            let traces = self.tracer.map(|tracer| tracer.shutdown_with_timeout(FLUSH_TIMEOUT));
            let metrics = self.meters.shutdown_with_timeout(FLUSH_TIMEOUT);
            // Nobody listens when the time is over.
            let _ = done.send(traces.is_none_or(|sent| sent.is_ok()) && metrics.is_ok());
        });
        if !matches!(timeout(FLUSH_TIMEOUT, finished).await, Ok(Ok(true))) {
            tracing::warn!("the last spans or metrics were not delivered");
        }
    }
}
