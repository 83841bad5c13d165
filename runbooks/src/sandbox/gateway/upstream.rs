//! The way to the emulator: streamed for calls that are only passed on, whole for those that
//! are completed here, and signed for the gateway's own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::answer::{Answer, Body, whole};
use super::identify::Scope;
use crate::sandbox::error::Error;

/// A request's body: at hand, or still coming.
pub(super) enum Payload {
    Whole(Bytes),
    Streaming(Box<Incoming>),
}

impl Payload {
    pub(super) fn streaming(body: Incoming) -> Self {
        Self::Streaming(Box::new(body))
    }

    pub(super) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Streaming(_) => None,
        }
    }

    /// The body as JSON; `null` when it is none.
    pub(super) fn json(&self) -> Value {
        self.whole().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null)
    }

    fn into_body(self) -> Body {
        match self {
            Self::Whole(bytes) => whole(bytes),
            Self::Streaming(body) => body.map_err(Into::into).boxed_unsync(),
        }
    }
}

/// A client of the emulator.
pub(super) struct Upstream {
    client: Client<HttpConnector, Body>,
    port: u16,
}

impl Upstream {
    pub(super) fn new(port: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Shorter than the emulator's keep-alive of 75 s: no request meets a closing connection.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { client, port }
    }

    /// Passes a request on, streaming both ways.
    pub(super) async fn forward(&self, request: Request<Payload>) -> Response<Body> {
        let (mut parts, payload) = request.into_parts();
        parts.uri = self.uri(&parts.uri);
        parts.headers.remove(CONNECTION);
        parts.headers.remove(EXPECT);
        match self.client.request(Request::from_parts(parts, payload.into_body())).await {
            Ok(response) => {
                let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
                response.headers_mut().remove(CONNECTION);
                response
            }
            Err(error) => unreachable_emulator(&error).into_response(),
        }
    }

    /// Passes a request on with `body` in place of its own, and takes the answer whole.
    pub(super) async fn send(&self, request: &Request<Payload>, body: Bytes) -> Answer {
        let mut copy = Request::new(whole(body.clone()));
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = self.uri(request.uri());
        *copy.headers_mut() = request.headers().clone();
        for name in [CONNECTION, EXPECT, TRANSFER_ENCODING] {
            copy.headers_mut().remove(name);
        }
        copy.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        self.take(copy).await
    }

    /// A call of the gateway's own with a JSON body (`X-Amz-Target` protocols).
    pub(super) async fn json(
        &self,
        scope: &Scope,
        service: &str,
        target: &str,
        body: &Value,
    ) -> Answer {
        let request = self
            .signed(scope, service)
            .method("POST")
            .header("x-amz-target", target)
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .body(whole(body.to_string().into()));
        self.built(request).await
    }

    /// A call of the gateway's own in the query protocol.
    pub(super) async fn query(
        &self,
        scope: &Scope,
        service: &str,
        form: &[(&str, &str)],
    ) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .signed(scope, service)
            .method("POST")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(whole(body.into()));
        self.built(request).await
    }

    /// A read of the gateway's own from S3 (`path` with its leading slash).
    pub(super) async fn s3(&self, scope: &Scope, path: &str) -> Response<Body> {
        let request = self.signed_at(scope, "s3", path).method("GET").body(whole(Bytes::new()));
        match request {
            Ok(request) => match self.client.request(request).await {
                Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                Err(error) => unreachable_emulator(&error).into_response(),
            },
            Err(_) => {
                Answer::new(StatusCode::BAD_REQUEST, "text/plain", "bad path").into_response()
            }
        }
    }

    /// A request to a control path, which must succeed.
    pub(super) async fn control(&self, method: &str, path: &str) -> Result<(), Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .body(whole(Bytes::new()));
        let answer = self.built(request).await;
        if answer.is_success() {
            return Ok(());
        }
        Err(Error::Request {
            request: format!("{method} {path}"),
            reason: format!("{} {}", answer.status, answer.text()),
        })
    }

    fn uri(&self, uri: &Uri) -> Uri {
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap_or_else(|_| uri.clone())
    }

    fn signed(&self, scope: &Scope, service: &str) -> hyper::http::request::Builder {
        self.signed_at(scope, service, "/")
    }

    /// The emulator reads account, region and service from the credential, and checks no
    /// signature unless it is told to enforce IAM.
    fn signed_at(&self, scope: &Scope, service: &str, path: &str) -> hyper::http::request::Builder {
        let Scope { account, region } = scope;
        Request::builder().uri(format!("http://127.0.0.1:{}{path}", self.port)).header(HOST, format!("127.0.0.1:{}", self.port)).header(
            AUTHORIZATION,
            format!("AWS4-HMAC-SHA256 Credential={account}/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"),
        )
    }

    async fn built(&self, request: Result<Request<Body>, hyper::http::Error>) -> Answer {
        match request {
            Ok(request) => self.take(request).await,
            Err(error) => Answer::new(StatusCode::BAD_REQUEST, "text/plain", error.to_string()),
        }
    }

    async fn take(&self, request: Request<Body>) -> Answer {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return unreachable_emulator(&error),
        };
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(CONNECTION);
        match body.collect().await {
            Ok(collected) => {
                Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes() }
            }
            Err(error) => unreachable_emulator(&error),
        }
    }
}

fn unreachable_emulator(error: &dyn std::error::Error) -> Answer {
    let reason =
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    Answer::new(
        StatusCode::BAD_GATEWAY,
        "text/plain",
        format!("the sandbox's emulator does not answer: {reason}"),
    )
}
