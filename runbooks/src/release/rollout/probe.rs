//! Asks the release itself, through the load balancer.

use serde_json::Value;

/// Whom to ask for what.
pub(super) struct Probe<'a> {
    pub(super) http: &'a reqwest::Client,
    /// Base URL, without a trailing slash.
    pub(super) url: &'a str,
    /// The release that must answer.
    pub(super) tag: &'a str,
    /// No task of another release runs any more, so whoever answers is of this one.
    pub(super) alone: bool,
}

impl Probe<'_> {
    /// `Err` says what is missing.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let (ready, body) = self.get("/ready").await?;
        if ready != 200 {
            let detail = body["detail"].as_str().unwrap_or_default();
            return Err(format!("GET {}/ready answers {ready}: {detail}", self.url));
        }
        if body["release"] != *self.tag && !self.alone {
            return Err("tasks of the old release still run".into());
        }
        let (health, body) = self.get("/health").await?;
        if health != 200 || body["release"] != *self.tag {
            let release = &body["release"];
            return Err(format!("GET {}/health answers {health} of release {release}", self.url));
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<(u16, Value), String> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    /// What a probe for `v2` says about a service with these answers.
    async fn ask(
        ready: (u16, &'static str),
        health: (u16, &'static str),
        alone: bool,
    ) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |request: Request<Incoming>| async move {
                    let (status, body) =
                        if request.uri().path() == "/ready" { ready } else { health };
                    let body = Full::new(Bytes::from_static(body.as_bytes()));
                    Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let http = reqwest::Client::new();
        let said = Probe { http: &http, url: &url, tag: "v2", alone }.ask().await;
        server.abort();
        said
    }

    const READY: (u16, &str) = (200, r#"{"status":"ready"}"#);
    const HEALTH: (u16, &str) = (200, r#"{"status":"ok","release":"v2"}"#);

    #[tokio::test]
    async fn a_ready_release_is_good() {
        assert_eq!(ask(READY, HEALTH, true).await, Ok(()));
    }

    #[tokio::test]
    async fn an_old_task_that_is_ready_proves_nothing() {
        assert!(ask(READY, HEALTH, false).await.unwrap_err().contains("old release"));
        let named = (200, r#"{"status":"ready","release":"v2"}"#);
        assert_eq!(ask(named, HEALTH, false).await, Ok(()));
    }

    #[tokio::test]
    async fn a_release_that_is_not_ready_says_why() {
        let ready = (503, r#"{"detail":"Not ready: redis."}"#);
        assert!(ask(ready, HEALTH, true).await.unwrap_err().ends_with("503: Not ready: redis."));
    }

    #[tokio::test]
    async fn the_old_release_does_not_pass_for_the_new() {
        let health = (200, r#"{"status":"ok","release":"v1"}"#);
        assert!(ask(READY, health, true).await.unwrap_err().contains("v1"));
    }
}
