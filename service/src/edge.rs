//! What surrounds every request: its id, its own task, its time limit, panics, problem documents,
//! security headers and the one access line.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    app::{Lifecycle, Phase},
    metrics,
    problem::{PROBLEM_JSON, Problem},
    rate_limit,
    request_id::{RequestId, X_REQUEST_ID},
    routes::health,
    telemetry,
};

/// The socket's other end, put into the request by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Facts that handlers add to the access line.
#[derive(Clone, Debug, Default)]
pub struct AccessLine {
    user: Arc<OnceLock<Uuid>>,
}

impl AccessLine {
    /// Names the signed-in user.
    pub fn set_user(&self, user: Uuid) {
        let _ = self.user.set(user);
    }
}

/// Settings of the edge.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Phase and tasks in flight.
    pub lifecycle: Lifecycle,
    /// Longest time for one request.
    pub request_timeout: std::time::Duration,
    /// Whether to send `Strict-Transport-Security`.
    pub hsts: bool,
}

/// The middleware. The rest of the stack runs in a task of its own: a client that goes away does
/// not cancel it, and the drain waits for it.
pub async fn surround(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let line = AccessLine::default();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(line.clone());

    let tasks = edge.lifecycle.tasks.clone();
    let span = tracing::info_span!("request", request_id = id.as_str());
    let trace =
        span.in_scope(|| telemetry::request_span(&method, route.as_deref(), request.headers()));
    trace.record("request_id", id.as_str());
    let task = async move {
        let rest = AssertUnwindSafe(next.run(request)).catch_unwind();
        let ended = timeout(edge.request_timeout, rest).await;
        let mut response = match ended {
            Ok(Ok(response)) => response,
            Err(_) => {
                tracing::error!("request timed out");
                Problem::unavailable("timeout", "The request took too long.", 5).into_response()
            }
            Ok(Err(_)) => {
                tracing::error!("handler panicked");
                Problem::internal().into_response()
            }
        };
        let code = response.extensions().get().map(Problem::code);
        response = as_problem(response, &id);
        decorate(response.headers_mut(), &id, &edge);
        // The probes of load balancers and containers would drown the rest.
        let probe = matches!(route.as_deref(), Some("/health" | "/ready"))
            && response.status().is_success();
        let status = response.status().as_u16();
        let route = route.as_deref().unwrap_or("unmatched");
        // The probes answer 503 on purpose, and so does a process that starts.
        let on_purpose = matches!(route, "/health" | "/ready") || code == Some(health::STARTING);
        if status >= 500 && !on_purpose {
            telemetry::failed(&method, route, response.status(), code, id.as_str());
        }
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let user = line.user.get().map(tracing::field::display);
        let trace_id = telemetry::trace_id();
        telemetry::answered(status, line.user.get());
        metrics::request(&method, route, response.status(), started.elapsed());
        let method = method.as_str();
        if probe {
            tracing::debug!(
                target: "access", method, route, status, ms, user_id = user, trace_id, "request"
            );
        } else {
            tracing::info!(
                target: "access", method, route, status, ms, user_id = user, trace_id, "request"
            );
        }
        response
    };
    match tasks.spawn(telemetry::watched(task).instrument(trace).instrument(span)).await {
        Ok(response) => response,
        // Only a runtime that shuts down aborts the task: nobody is left to read the answer.
        Err(_) => Problem::internal().respond("aborted"),
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Turns every error response into a problem document: our own, and those that axum answers by
/// itself (404, 405 and the like).
fn as_problem(mut response: Response, id: &RequestId) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // JSON is an error of the Model Context Protocol, which has its own form.
        None if is_error(status)
            && ![Some(&PROBLEM_JSON), Some(&JSON)]
                .contains(&response.headers().get(header::CONTENT_TYPE)) =>
        {
            Problem::from_status(status)
        }
        None => return response,
    };
    let mut document = problem.respond(id.as_str());
    let own = document.headers().clone();
    // Allow of a 405, Set-Cookie of a refused refresh, what is left of the rate limit.
    let kept = [header::ALLOW, header::SET_COOKIE].into_iter().chain(rate_limit::HEADERS);
    for name in kept.filter(|name| !own.contains_key(name)) {
        for value in response.headers().get_all(&name) {
            document.headers_mut().append(&name, value.clone());
        }
    }
    document
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn decorate(headers: &mut HeaderMap, id: &RequestId, edge: &Edge) {
    const FIXED: [(HeaderName, &str); 7] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if edge.hsts {
        let value = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if edge.lifecycle.phase() == Phase::Draining {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(X_REQUEST_ID, id.header());
}

/// The client's address: the entry that the outermost of our own `hops` proxies appended to
/// `X-Forwarded-For`. Entries further left are whatever the client wrote.
pub fn client_ip(headers: &HeaderMap, peer: SocketAddr, hops: usize) -> IpAddr {
    let forwarded = headers
        .get_all(HeaderName::from_static("x-forwarded-for"))
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect::<Vec<_>>();
    hops.checked_sub(1)
        .and_then(|right| forwarded.iter().rev().nth(right))
        .and_then(|entry| {
            let bare = entry.trim_start_matches('[').trim_end_matches(']');
            bare.parse()
                .ok()
                .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        })
        .unwrap_or_else(|| peer.ip())
        .to_canonical()
}

/// An IPv6 caller owns at least a /64 (RFC 6177): one address of it is no caller.
pub(crate) fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{:x?}", &ip.segments()[..4]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_cannot_choose_its_address() {
        let peer: SocketAddr = "10.0.0.9:1".parse().unwrap();
        let mut headers = HeaderMap::new();
        let ip = |headers: &HeaderMap, hops| client_ip(headers, peer, hops).to_string();
        assert_eq!(ip(&headers, 1), "10.0.0.9");
        headers.append("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 1.2.3.4"));
        headers.append("x-forwarded-for", HeaderValue::from_static("[2001:db8::1]:443"));
        assert_eq!(ip(&headers, 0), "10.0.0.9");
        assert_eq!(ip(&headers, 1), "2001:db8::1");
        assert_eq!(ip(&headers, 2), "1.2.3.4");
        assert_eq!(ip(&headers, 9), "10.0.0.9");
    }
}
