//! What the process tells its operators: log lines, and traces where a collector is configured.
//!
//! Log lines are JSON in production and staging and readable locally. Spans are exported when they
//! belong to this crate at level info, or carry the target [`TARGET`]: those are invisible to the
//! log and cost nothing without a collector.

mod http_client;
mod trace;

use opentelemetry_sdk::{error::OTelSdkError, trace::SdkTracerProvider};
use tokio::task::JoinError;
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use trace::{TARGET, answered, follow, request_span, trace_id, traceparent};

use crate::config::{Environment, HttpConfig, TelemetryConfig};
use http_client::Collector;

/// Longest wait at exit for what is still to be sent.
const FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

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
}

/// Log lines only. `RUST_LOG` overrides the filter. A second call does nothing, so that tests may
/// share a process.
pub fn init(environment: Environment) {
    install(environment, None);
}

/// Log lines, and traces where they are configured. Needs a Tokio runtime and the TLS provider of
/// the process.
pub fn start(http: &HttpConfig, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let tracer = match &config.otlp {
        Some(otlp) => Some(trace::provider(otlp, http, Collector::new(http_client::build()?))?),
        None => None,
    };
    install(http.environment, tracer.as_ref());
    Ok(Telemetry { tracer })
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
        let Some(tracer) = self.tracer else {
            return;
        };
        let flushed: Result<Result<(), OTelSdkError>, JoinError> =
            tokio::task::spawn_blocking(move || tracer.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last spans were not delivered");
        }
    }
}
