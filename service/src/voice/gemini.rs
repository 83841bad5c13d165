//! The Gemini API: one call with a time limit, repeated while that can help.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use reqwest::{Certificate, Client, Response, redirect};
use serde::Deserialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tracing::{Span, instrument};

use super::breaker::Breaker;
use crate::config::VoiceConfig;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Largest error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;
/// What the type of a `google.rpc.RetryInfo` in the details of an error ends with (AIP-193).
const RETRY_INFO: &str = "/google.rpc.RetryInfo";
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
    Unavailable {
        /// It asked to be left alone for this long.
        wait: Option<Duration>,
    },
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

    /// The text of an answer with status 200. Ends at the deadline; a wait that would end after it
    /// is left to the caller.
    pub async fn generate(&self, request: &str) -> Result<String, GeminiError> {
        let deadline = Instant::now() + self.deadline;
        let (mut call, mut backoff) = (1, BACKOFF);
        loop {
            let wait = match self.ask(request, deadline).await? {
                Ok(text) => return Ok(text),
                Err(Failed::Final(status)) => return Err(GeminiError::Refused(status)),
                Err(Failed::Passing { wait }) => wait,
            };
            let time = wait.unwrap_or_default().saturating_add(jitter(backoff));
            if call == CALLS || time >= deadline.saturating_duration_since(Instant::now()) {
                return Err(GeminiError::Unavailable { wait });
            }
            pause(time).await;
            (call, backoff) = (call + 1, backoff * 2);
        }
    }

    /// One call, in its turn and only while the breaker lets it through.
    async fn ask(
        &self,
        request: &str,
        deadline: Instant,
    ) -> Result<Result<String, Failed>, GeminiError> {
        let place = timeout_at(deadline, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(GeminiError::Unavailable { wait: None }) };
        let leave = self.breaker.enter(Instant::now().into_std()).ok_or(GeminiError::Open)?;
        let end = deadline.min(Instant::now() + self.attempt);
        let outcome = timeout_at(end, self.call(request)).await;
        let outcome = outcome.unwrap_or(Err(Failed::Passing { wait: None }));
        let succeeded = !matches!(outcome, Err(Failed::Passing { .. }));
        leave.settle(succeeded, Instant::now().into_std());
        Ok(outcome)
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
            // Only what the request itself is to blame for. A key or a model that is not known (401,
            // 403, 404) is the operator's to mend, and no reason to give up what waits.
            let may_pass = !matches!(status.as_u16(), 400 | 413);
            if !may_pass {
                return Err(Failed::Final(status.as_u16()));
            }
            let header = retry_after(&response);
            let body = read(&mut response, MAX_ERROR).await;
            // None is less than any time.
            let wait = header.max(body.and_then(|body| retry_info(&body)));
            return Err(Failed::Passing { wait });
        }
        let body = read(&mut response, MAX_ANSWER).await;
        let text = body.and_then(|body| String::from_utf8(body).ok());
        text.ok_or(Failed::Passing { wait: None })
    }
}

/// The body, unless it is larger than `most` or does not arrive whole.
async fn read(response: &mut Response, most: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > most {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); dates are not sent by this API.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The delay of a `google.rpc.RetryInfo` among the details of an error, which this API sends instead
/// of a header.
fn retry_info(body: &[u8]) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Answer {
        error: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        details: Vec<Detail>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detail {
        #[serde(rename = "@type")]
        kind: String,
        retry_delay: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let details = answer.error.details;
    let info = details.into_iter().find(|detail| detail.kind.ends_with(RETRY_INFO))?;
    // A `google.protobuf.Duration` in JSON: seconds, with up to nine digits after the point, and `s`.
    let seconds = info.retry_delay?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Secret;

    /// A probe that is given up, by its caller or by its time limit, is not the last one.
    #[tokio::test]
    async fn a_probe_that_is_dropped_lets_the_next_one_through() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // It takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gemini = Gemini::new(&VoiceConfig {
            concurrency: 4,
            api_key: Secret::new("key"),
            base_url: format!("http://{}", silent.local_addr().unwrap()),
            model: "model".into(),
            attempt: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
        })
        .unwrap();
        // Opened long enough ago to be asked again.
        let opened = std::time::Instant::now().checked_sub(Duration::from_secs(20)).unwrap();
        while let Some(leave) = gemini.breaker.enter(opened) {
            leave.settle(false, opened);
        }
        for _ in 0..3 {
            let probe = gemini.generate("{}");
            tokio::pin!(probe);
            assert!(
                timeout(Duration::from_millis(100), &mut probe).await.is_err(),
                "it is let through"
            );
            assert_eq!(gemini.generate("{}").await, Err(GeminiError::Open), "one at a time");
        }
    }
}
