//! The web bucket as CloudFront would serve it: files, and `/index.html` for the application's
//! own paths, which have no extension.

use std::sync::{Mutex, PoisonError};

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use hyper::{Response, StatusCode};

use super::answer::{Answer, Body};
use super::identify::Scope;
use super::rds::in_blocks;
use super::{Gateway, upstream::Upstream};
use crate::sandbox::Settings;

/// The bucket's name, once it is known.
#[derive(Default)]
pub(super) struct Bucket(Mutex<Option<String>>);

impl Bucket {
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `file` (a path without its leading slash) from the environment's web bucket.
pub(super) async fn answer(gateway: &Gateway, file: &str) -> Response<Body> {
    let settings = &gateway.state.settings;
    let scope = Scope { account: settings.account.clone(), region: settings.region.clone() };
    if gateway.web.known().is_none() {
        let found = find(&gateway.upstream, &scope, settings).await;
        *gateway.web.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
    let Some(bucket) = gateway.web.known() else {
        return unavailable();
    };
    let last = file.rsplit('/').next().unwrap_or_default();
    let key = if last.contains('.') { file } else { "index.html" };
    let response = gateway.upstream.s3(&scope, &format!("/{bucket}/{key}")).await;
    match response.status() {
        StatusCode::OK => served(response),
        StatusCode::NOT_FOUND if key == "index.html" => {
            // Not deployed yet, or the bucket is another one now.
            gateway.web.forget();
            unavailable()
        }
        _ => problem(StatusCode::NOT_FOUND, "Not Found", "no such file in the web bucket"),
    }
}

/// Only what a browser may see of an S3 answer.
fn served(response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut shown = Response::new(body);
    for name in [
        CONTENT_TYPE,
        CACHE_CONTROL,
        ETAG,
        LAST_MODIFIED,
        hyper::header::CONTENT_LENGTH,
        hyper::header::CONTENT_ENCODING,
    ] {
        if let Some(value) = parts.headers.get(&name) {
            shown.headers_mut().insert(name, value.clone());
        }
    }
    shown
}

/// The bucket of the environment whose name speaks of the web.
async fn find(upstream: &Upstream, scope: &Scope, settings: &Settings) -> Option<String> {
    use http_body_util::BodyExt;
    let listed = upstream.s3(scope, "/").await.into_body().collect().await.ok()?.to_bytes();
    let names = std::cell::RefCell::new(Vec::new());
    in_blocks(&String::from_utf8_lossy(&listed), "Name", |name| {
        names.borrow_mut().push(name.to_owned());
        String::new()
    });
    let names = names.into_inner();
    let web: Vec<&String> = names.iter().filter(|name| name.contains("web")).collect();
    web.iter()
        .find(|name| name.contains(&settings.environment))
        .or(web.first())
        .map(|name| (*name).clone())
}

fn unavailable() -> Response<Body> {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "Service Unavailable",
        "no web application is deployed yet",
    )
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, title: &str, detail: &str) -> Response<Body> {
    let body = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    Answer::new(status, "application/problem+json", body.to_string()).into_response()
}
