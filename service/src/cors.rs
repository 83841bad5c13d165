//! Which web pages may call the API: exact origins, never mirrored, and no request of another site
//! on the routes that the refresh cookie alone authenticates.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use reqwest::Url;

use crate::{config::HttpConfig, problem::Problem};

/// What pages of other origins may send.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, traceparent, tracestate, x-idempotency-key, x-request-id",
);

/// What they may read besides the safelisted headers of the Fetch standard.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "idempotent-replayed, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, x-request-id",
);

/// How long a browser may keep the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The routes below `/api` that read the refresh cookie or set it for whoever asks.
const COOKIE_ROUTES: [&str; 3] = ["/auth/refresh", "/auth/logout", "/auth/exchange-code"];

/// The origins whose pages may call the API with the user's cookie.
#[derive(Clone, Debug)]
pub struct Origins(Arc<[HeaderValue]>);

impl Origins {
    /// `ALLOWED_ORIGINS` and the origin of `PUBLIC_URL`.
    pub fn of(config: &HttpConfig) -> Self {
        let public = config.public_url.as_deref().and_then(origin);
        let all = config.allowed_origins.iter().cloned().chain(public);
        Self(all.filter_map(|origin| HeaderValue::try_from(origin).ok()).collect())
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.contains(origin)
    }
}

/// The origin of an http or https URL as browsers write it (RFC 6454, section 6.2).
pub fn origin(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

/// The outermost middleware: lets allowed origins read the answer, whatever part gave it.
pub async fn share(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let allowed =
        request.headers().get(header::ORIGIN).filter(|origin| origins.allow(origin)).cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
    response
}

/// Inside the edge: answers preflights, and refuses requests of other sites on the cookie's routes.
pub async fn guard(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return preflight(&origins, headers);
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let below = route.strip_prefix("/api/v1").or_else(|| route.strip_prefix("/api"));
    if request.method() == Method::POST
        && below.is_some_and(|path| COOKIE_ROUTES.contains(&path))
        && is_cross_site(&origins, headers)
    {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "cross-site",
            "Pages of other sites may not call this address.",
        )
        .into_response();
    }
    next.run(request).await
}

fn preflight(origins: &Origins, headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if headers.get(header::ORIGIN).is_some_and(|origin| origins.allow(origin)) {
        let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
        response.headers_mut().extend([
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ]);
    }
    response
}

/// Whether a browser says that a page of another origin sent this. A client that sends neither
/// header is no browser of the last years, and carries no cookie against its user's will.
fn is_cross_site(origins: &Origins, headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| origins.allow(origin)) {
        return false;
    }
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = origin else {
        return false;
    };
    // A browser without Sec-Fetch-Site: the page's host must be the one it asks.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let of_page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.is_none() || of_page.map(|(_, host)| host) != host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_origin_and_allowed_ones_use_the_cookie() {
        let origins = Origins([HeaderValue::from_static("https://app.example.org")].into());
        let refused = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect();
            is_cross_site(&origins, &headers)
        };
        let host = ("host", "api.example.org");
        assert!(!refused(&[host]));
        assert!(!refused(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(!refused(&[host, ("sec-fetch-site", "none")]));
        assert!(!refused(&[host, ("origin", "https://api.example.org")]));
        assert!(!refused(&[
            host,
            ("origin", "https://app.example.org"),
            ("sec-fetch-site", "same-site")
        ]));
        assert!(refused(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(refused(&[host, ("sec-fetch-site", "same-site")]));
        assert!(refused(&[host, ("origin", "null")]));
        assert!(refused(&[host, ("origin", "https://app.example.org.evil.example")]));
        assert!(refused(&[("origin", "https://api.example.org")]));
    }

    #[test]
    fn an_origin_has_no_path_and_no_default_port() {
        assert_eq!(
            origin("https://A.example.org:443/x?y").as_deref(),
            Some("https://a.example.org")
        );
        assert_eq!(origin("http://localhost:5173").as_deref(), Some("http://localhost:5173"));
        assert_eq!(origin("null"), None);
        assert_eq!(origin("*"), None);
    }
}
