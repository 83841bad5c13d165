//! How telemetry leaves the process: one HTTP client for all receivers.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

/// Longest wait for a receiver's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes: receivers answer with a few counters at most.
const MAX_ANSWER: usize = 64 * 1024;

/// The client. It trusts the roots that are compiled in, because the image has no certificate store,
/// and follows nobody elsewhere.
pub(super) fn build() -> Result<reqwest::Client, reqwest::Error> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| reqwest::Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()?;
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
}

/// The way to the OpenTelemetry collector. The SDK exports from threads of its own, where reqwest
/// finds no runtime, so requests run on the one that was current at the start.
#[derive(Debug)]
pub(crate) struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    reached: AtomicBool,
}

impl Collector {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self { client, runtime: Handle::current(), reached: AtomicBool::new(true) }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        let outcome = sending.await.map_err(HttpError::from).and_then(|answer| answer);
        let reached = outcome.as_ref().is_ok_and(|answer| answer.status().is_success());
        if self.reached.swap(reached, Ordering::Relaxed) != reached {
            if reached {
                tracing::info!("telemetry is delivered again");
            } else {
                tracing::warn!("telemetry is not delivered");
            }
        }
        outcome
    }
}

async fn send(
    client: reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request).await?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err("the receiver's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    *response.body_mut() = body.into();
    Ok(response)
}
