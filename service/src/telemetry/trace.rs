//! Traces: the request's span, what continues it elsewhere, and the way to the collector.

use std::{collections::HashMap, sync::Arc};

use axum::http::{HeaderMap, Method};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        TracerProvider as _,
    },
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use uuid::Uuid;

use super::{TelemetryError, http_client::Collector};
use crate::config::{HttpConfig, OtlpConfig, TelemetryConfig};

/// The target of spans that are for traces only: the log does not show them.
pub const TARGET: &str = "trace";

/// What made the spans: the name of the instrumentation scope.
pub(super) const SCOPE: &str = "bme-service";

/// Most spans that wait for the collector; further ones are dropped.
const QUEUE: usize = 2048;

/// The provider: a bounded batch that never holds a request up.
pub(super) fn provider(
    config: &OtlpConfig,
    resource: Resource,
    collector: Arc<Collector>,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(collector)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", config.endpoint))
        .build()?;
    let batch = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batch).build())
        .with_sampler(config.sampler.clone())
        .with_resource(resource)
        .build())
}

/// What is the same for everything that this process sends.
pub(super) fn resource(config: &TelemetryConfig, http: &HttpConfig) -> Resource {
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", config.service_name.clone()),
            KeyValue::new("service.version", http.release.clone()),
            KeyValue::new("deployment.environment.name", http.environment.name()),
        ])
        .build()
}

/// Turns spans into OpenTelemetry's. Events stay in the log: their texts are not made for others.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(is_exported))
}

/// Whether this is a span that the collector gets.
pub(super) fn is_exported(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().starts_with("bme_service")
        && *metadata.level() <= Level::INFO
        // Their twins of `request_span` and `process_span` are exported.
        && !["request", "job"].contains(&metadata.name());
    metadata.is_span() && (own || metadata.target() == TARGET)
}

/// The span of one request, named by method and route template: a path would hold ids. It continues
/// the caller's trace.
pub fn request_span(method: &Method, route: Option<&str>, headers: &HeaderMap) -> Span {
    let method = method.as_str();
    let span = tracing::debug_span!(
        target: TARGET,
        "http request",
        otel.name = route.map_or(method.to_owned(), |route| format!("{method} {route}")),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        request_id = tracing::field::Empty,
        user_id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        adopt(&span, caller(headers));
    }
    span
}

/// Notes the outcome on the current request's span.
pub fn answered(status: u16, user: Option<&Uuid>) {
    let span = Span::current();
    // Unsigned numbers would be exported as texts.
    span.record("http.response.status_code", i64::from(status));
    if let Some(user) = user {
        span.record("user_id", tracing::field::display(user));
    }
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// W3C Trace Context, or else what a load balancer of AWS writes.
fn caller(headers: &HeaderMap) -> Context {
    let context = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(headers));
    if context.span().span_context().is_valid() {
        return context;
    }
    let amazon = headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok());
    match amazon.and_then(amazon_parent) {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => context,
    }
}

/// `Root=1-{8 hexadecimal digits}-{24};Parent={16};Sampled={0 or 1}`, in any order ("Tracing
/// header" of the X-Ray documentation). Without a parent there is no span to continue.
fn amazon_parent(header: &str) -> Option<SpanContext> {
    let field = |name: &str| {
        header
            .split(';')
            .filter_map(|part| part.trim().split_once('='))
            .find_map(|(found, value)| (found == name).then_some(value))
    };
    let root = field("Root")?.strip_prefix("1-")?.replace('-', "");
    let sampled = field("Sampled") == Some("1");
    let context = SpanContext::new(
        TraceId::from_hex(&root).ok()?,
        SpanId::from_hex(field("Parent")?).ok()?,
        if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
        true,
        TraceState::NONE,
    );
    (root.len() == 32 && context.is_valid()).then_some(context)
}

/// The current span as a `traceparent` (W3C Trace Context, section 3.2), for a message or a request
/// to somebody else. None without a collector.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove("traceparent")
}

/// Makes a span that was not entered yet the child of the span in a `traceparent`.
pub fn follow(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    adopt(span, TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier));
}

/// The trace of the current span in hexadecimal digits.
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

fn adopt(span: &Span, parent: Context) {
    if let Err(reason) = span.set_parent(parent) {
        tracing::debug!(%reason, "a span stays outside of its trace");
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_span_elsewhere_follows() {
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry().with(layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!((traceparent(), trace_id()), (None, None));
            let sender = tracing::info_span!("sender");
            let sent = sender.in_scope(traceparent).unwrap();
            let receiver = tracing::info_span!("receiver");
            follow(&receiver, &sent);
            let onwards = receiver.in_scope(traceparent).unwrap();
            // version, trace, span, flags
            assert_eq!(sent[..36], onwards[..36]);
            assert_ne!(sent[36..52], onwards[36..52]);
            let alone = tracing::info_span!("alone");
            follow(&alone, "nonsense");
            assert_ne!(alone.in_scope(trace_id).unwrap(), sent[3..35]);
        });
    }

    #[test]
    fn reads_the_header_of_a_load_balancer() {
        let header = "Self=1-67891234-0123456789abcdef01234567;Root=1-67891233-abcdef012345678912345678;\
                      Parent=53995c3f42cd8ad8;Sampled=1";
        let parent = amazon_parent(header).unwrap();
        assert_eq!(parent.trace_id().to_string(), "67891233abcdef012345678912345678");
        assert_eq!(parent.span_id().to_string(), "53995c3f42cd8ad8");
        assert!(parent.is_sampled() && parent.is_remote());
        for bad in [
            "",
            "Root=1-67891233-abcdef012345678912345678",
            "Root=1-6789-abcdef;Parent=53995c3f42cd8ad8",
            "Root=1-00000000-000000000000000000000000;Parent=53995c3f42cd8ad8",
            "Root=2-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8",
        ] {
            assert_eq!(amazon_parent(bad), None, "{bad}");
        }
    }
}
