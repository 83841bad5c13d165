//! The HTTP client for identity providers: bounded in time and size, no redirects, and the
//! built-in root certificates only, because the image has none of its own.

use std::time::Duration;

use reqwest::{Certificate, Client, RequestBuilder, StatusCode, redirect::Policy};
use serde::de::DeserializeOwned;

/// Longest wait for a provider's whole answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Longest wait for a provider's TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer in bytes; key sets and profiles have a few thousand.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a provider gave nothing usable. It holds no token and no personal data.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No answer, or not in time.
    #[error("no answer from the identity provider: {0}")]
    Connection(reqwest::Error),
    /// An answer with another status than 200.
    #[error("the identity provider answered {0}")]
    Status(StatusCode),
    /// An answer that is too large or not the expected JSON.
    #[error("the identity provider's answer is not usable")]
    Answer,
}

impl From<reqwest::Error> for ProviderError {
    fn from(error: reqwest::Error) -> Self {
        // The URL can have a query.
        Self::Connection(error.without_url())
    }
}

/// The client. It fails only where TLS cannot be set up at all.
pub fn provider_client() -> Result<Client, reqwest::Error> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()?;
    Client::builder()
        .tls_certs_only(roots)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
}

/// Sends a request and reads the JSON of its answer.
pub(super) async fn fetch<T: DeserializeOwned>(
    request: RequestBuilder,
) -> Result<T, ProviderError> {
    let mut response = request.send().await?;
    if response.status() != StatusCode::OK {
        return Err(ProviderError::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ProviderError::Answer);
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|_| ProviderError::Answer)
}
