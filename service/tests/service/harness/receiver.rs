//! An HTTP server that keeps what it is sent: the other end of telemetry.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, body, extract::Request};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<(String, Bytes)>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { url, ..Self::default() };
        let kept = Arc::clone(&receiver.received);
        let router = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path().to_owned();
            let bytes = body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            kept.lock().unwrap().push((path, bytes));
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        receiver
    }

    /// The bodies sent to a path.
    pub(crate) fn bodies(&self, path: &str) -> Vec<Bytes> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|(found, _)| found == path).map(|(_, body)| body.clone()).collect()
    }

    /// The spans that came as OTLP, each with the attributes of its process.
    pub(crate) fn spans(&self) -> Vec<(Span, Vec<KeyValue>)> {
        let decode = |body: Bytes| ExportTraceServiceRequest::decode(body).unwrap();
        let of_processes =
            self.bodies("/v1/traces").into_iter().flat_map(move |body| decode(body).resource_spans);
        of_processes
            .flat_map(|process| {
                let resource = process.resource.unwrap_or_default().attributes;
                let spans = process.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.map(move |span| (span, resource.clone())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The names of the metrics that came as OTLP.
    pub(crate) fn metrics(&self) -> Vec<String> {
        self.bodies("/v1/metrics")
            .into_iter()
            .flat_map(|body| ExportMetricsServiceRequest::decode(body).unwrap().resource_metrics)
            .flat_map(|process| process.scope_metrics)
            .flat_map(|scope| scope.metrics)
            .map(|metric| metric.name)
            .collect()
    }

    /// Asserts that none of these texts was sent, as text in whatever encoding is not compressed.
    pub(crate) fn has_none_of(&self, canaries: &[&str]) {
        for (path, body) in &*self.received.lock().unwrap() {
            let text = String::from_utf8_lossy(body);
            for canary in canaries {
                assert!(!text.contains(canary), "{canary} sent to {path}: {text}");
            }
        }
    }
}

/// An attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}
