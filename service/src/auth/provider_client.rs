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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::{Router, response::Redirect, routing::get};
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::*;

    /// An answer that leads elsewhere would let a provider, or who speaks for it, choose whom this
    /// service asks.
    #[tokio::test]
    async fn follows_nobody_and_reads_no_more_than_it_must() {
        let router = Router::new()
            .route("/there", get(async || "{\"keys\":[]}"))
            .route("/moved", get(async || Redirect::temporary("/there")))
            .route("/large", get(async || format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ANSWER))))
            .route("/page", get(async || "<html>"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = provider_client().unwrap();
        let ask = async |path: &str| fetch::<Value>(client.get(format!("{url}{path}"))).await;
        assert!(ask("/there").await.is_ok());
        let moved = ask("/moved").await;
        assert!(matches!(moved, Err(ProviderError::Status(StatusCode::TEMPORARY_REDIRECT))));
        for path in ["/large", "/page"] {
            assert!(matches!(ask(path).await, Err(ProviderError::Answer)), "{path}");
        }
    }
}
