//! The Gemini API: one call with a time limit, repeated while that can help.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, header};
use reqwest::{Certificate, Client, Response, redirect};
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};
use tracing::{Span, instrument};

use super::breaker::Breaker;
use crate::config::VoiceConfig;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Calls for one attempt at a job.
const CALLS: u32 = 3;
/// Longest wait before the second call; it doubles.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no answer. No variant holds anything that was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeminiError {
    /// It fails too often at the moment: not asked.
    #[error("the model is left alone for a while")]
    Open,
    /// Out of reach, busy, failing or too slow; it may work later.
    #[error("the model is not available")]
    Unavailable,
    /// It does not accept the request: the same request will never work.
    #[error("the model refused the request with status {0}")]
    Refused(u16),
}

/// The client.
#[derive(Debug)]
pub struct Gemini {
    http: Client,
    url: String,
    model: String,
    key: HeaderValue,
    attempt: Duration,
    deadline: Duration,
    breaker: Breaker,
    places: Semaphore,
}

enum Failed {
    Passing { wait: Option<Duration> },
    Final(u16),
}

impl Gemini {
    /// A client. It trusts the web's roots only and follows no redirection.
    pub fn new(config: &VoiceConfig) -> anyhow::Result<Self> {
        let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|root| Certificate::from_der(root))
            .collect::<Result<Vec<_>, _>>()?;
        let http = Client::builder()
            .tls_certs_only(roots)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .no_proxy()
            .build()?;
        let mut key = HeaderValue::from_str(config.api_key.expose())?;
        key.set_sensitive(true);
        Ok(Self {
            http,
            url: format!("{}/v1beta/models/{}:generateContent", config.base_url, config.model),
            model: config.model.clone(),
            key,
            attempt: config.attempt,
            deadline: config.deadline,
            breaker: Breaker::default(),
            places: Semaphore::new(config.concurrency),
        })
    }

    /// The text of an answer with status 200.
    pub async fn generate(&self, request: &str) -> Result<String, GeminiError> {
        let deadline = tokio::time::Instant::now() + self.deadline;
        timeout_at(deadline, self.repeat(request)).await.unwrap_or(Err(GeminiError::Unavailable))
    }

    async fn repeat(&self, request: &str) -> Result<String, GeminiError> {
        let _place = self.places.acquire().await.map_err(|_| GeminiError::Unavailable)?;
        let mut backoff = BACKOFF;
        for call in 1..=CALLS {
            let leave = self.breaker.enter(Instant::now()).ok_or(GeminiError::Open)?;
            let outcome = timeout(self.attempt, self.call(request)).await;
            let outcome = outcome.unwrap_or(Err(Failed::Passing { wait: None }));
            leave.settle(!matches!(outcome, Err(Failed::Passing { .. })), Instant::now());
            match outcome {
                Ok(text) => return Ok(text),
                Err(Failed::Final(status)) => return Err(GeminiError::Refused(status)),
                Err(Failed::Passing { wait }) if call < CALLS => {
                    pause(wait.unwrap_or_default().max(jitter(backoff))).await;
                    backoff *= 2;
                }
                Err(Failed::Passing { .. }) => {}
            }
        }
        Err(GeminiError::Unavailable)
    }

    #[instrument(
        target = "trace", level = "debug", skip_all,
        fields(
            otel.name = format!("generate_content {}", self.model), otel.kind = "client",
            otel.status_code, gen_ai.operation.name = "generate_content",
            gen_ai.provider.name = "gcp.gemini", gen_ai.request.model = self.model,
            http.response.status_code
        )
    )]
    async fn call(&self, request: &str) -> Result<String, Failed> {
        let passing = |_| {
            Span::current().record("otel.status_code", "ERROR");
            Failed::Passing { wait: None }
        };
        let mut response = self
            .http
            .post(&self.url)
            .header("x-goog-api-key", self.key.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(request.to_owned())
            .send()
            .await
            .map_err(passing)?;
        let status = response.status();
        Span::current().record("http.response.status_code", i64::from(status.as_u16()));
        if !status.is_success() {
            Span::current().record("otel.status_code", "ERROR");
        }
        if status != StatusCode::OK {
            let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            return Err(if may_pass {
                Failed::Passing { wait: retry_after(&response) }
            } else {
                Failed::Final(status.as_u16())
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failed::Passing { wait: None });
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| Failed::Passing { wait: None })
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); dates are not sent by this API.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// A random time up to `most`, so that callers that failed together do not come back together.
pub(super) fn jitter(most: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without random bytes it is the whole time.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return most;
    }
    most * u32::from(u16::from_le_bytes(bytes)) / u32::from(u16::MAX)
}

pub(super) async fn pause(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}
