//! Where traces, metrics and errors go.

use std::net::SocketAddr;

use opentelemetry_sdk::trace::Sampler;
use sentry::types::Dsn;

use super::reader::{Reader, is_http_url};

/// Where traces and metrics go. The default sends nothing anywhere.
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// `OTEL_SERVICE_NAME`, by default named after the sub-command.
    pub service_name: String,
    /// `METRICS_ADDRESS`, default `127.0.0.1:9090`; `off` is None. Not for the public: the listener
    /// asks nobody who they are.
    pub metrics: Option<SocketAddr>,
    /// `SENTRY_DSN`: where panics, 5xx and dead jobs are reported.
    pub sentry: Option<Dsn>,
    /// Present when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
    pub otlp: Option<OtlpConfig>,
}

/// The OpenTelemetry collector. `OTEL_EXPORTER_OTLP_HEADERS` is read by the exporter itself.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, without the `/v1/traces` that the protocol appends.
    pub endpoint: String,
    /// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`, default `parentbased_always_on`.
    pub sampler: Sampler,
}

impl Reader<'_> {
    pub(super) fn telemetry(&mut self, service_name: &str) -> TelemetryConfig {
        TelemetryConfig {
            service_name: self.get("OTEL_SERVICE_NAME").unwrap_or_else(|| service_name.to_owned()),
            metrics: self.metrics(),
            sentry: self.sentry(),
            otlp: self.otlp(),
        }
    }

    fn metrics(&mut self) -> Option<SocketAddr> {
        if self.get("METRICS_ADDRESS").as_deref() == Some("off") {
            return None;
        }
        let default = SocketAddr::from(([127, 0, 0, 1], 9090));
        Some(self.parsed("METRICS_ADDRESS", default, "an address with a port, or off"))
    }

    fn sentry(&mut self) -> Option<Dsn> {
        let dsn = self.get("SENTRY_DSN")?.parse().ok();
        if dsn.is_none() {
            self.problem("SENTRY_DSN is not the URL that Sentry shows as a project's DSN");
        }
        dsn
    }

    fn otlp(&mut self) -> Option<OtlpConfig> {
        let sampler = self.sampler();
        let endpoint = self.get("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        if !is_http_url(&endpoint) {
            self.problem("OTEL_EXPORTER_OTLP_ENDPOINT is not an http or https URL");
        }
        Some(OtlpConfig { endpoint: endpoint.trim_end_matches('/').to_owned(), sampler })
    }

    /// The names of the OpenTelemetry specification ("General SDK configuration").
    fn sampler(&mut self) -> Sampler {
        let ratio = self.parsed("OTEL_TRACES_SAMPLER_ARG", 1.0, "a ratio such as 0.1");
        if !(0.0..=1.0).contains(&ratio) {
            self.problem("OTEL_TRACES_SAMPLER_ARG is not between 0 and 1");
        }
        let root = |name: &str| match name {
            "always_on" => Some(Sampler::AlwaysOn),
            "always_off" => Some(Sampler::AlwaysOff),
            "traceidratio" => Some(Sampler::TraceIdRatioBased(ratio)),
            _ => None,
        };
        let name = self.get("OTEL_TRACES_SAMPLER");
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let sampler = match name.strip_prefix("parentbased_") {
            Some(name) => root(name).map(|root| Sampler::ParentBased(Box::new(root))),
            None => root(name),
        };
        sampler.unwrap_or_else(|| {
            self.problem(
                "OTEL_TRACES_SAMPLER is not one of always_on, always_off, traceidratio, \
                 or one of these after parentbased_",
            );
            Sampler::AlwaysOff
        })
    }
}
