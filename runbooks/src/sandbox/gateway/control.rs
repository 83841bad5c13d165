//! The gateway's own paths under `/_bme/`: the record of calls, IAM, faults, quotas, reset, and the
//! web bucket that HAProxy serves.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::answer::{self, Answer, Body};
use super::faults::Rule;
use super::identify::Call;
use super::{Gateway, hosts, web};
use crate::sandbox::error::Error;
use crate::sandbox::{postgres, redis};

/// Answers a control request; `path` is what follows `/_bme/`.
pub(super) async fn answer(
    gateway: &Gateway,
    path: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Some(file) = path.strip_prefix("web/") {
        return web::answer(gateway, file).await;
    }
    let method = request.method().clone();
    let answer = match (&method, path) {
        (&Method::GET, "calls") => {
            let since =
                request.uri().query().and_then(|query| query.strip_prefix("since=")).unwrap_or("0");
            match since.parse() {
                Ok(since) => json(&gateway.record.since(since)),
                Err(_) => text(StatusCode::BAD_REQUEST, "since must be a number"),
            }
        }
        (&Method::DELETE, "calls") => {
            gateway.record.clear();
            no_content()
        }
        (&Method::GET, "iam") => json(&gateway.iam.told()),
        (&Method::PUT, "iam") => {
            gateway.iam.start();
            no_content()
        }
        (&Method::DELETE, "iam") => {
            gateway.iam.stop();
            no_content()
        }
        (&Method::GET, "held") => json(&gateway.faults.held()),
        (&Method::POST, "faults") => match request.into_body().collect().await {
            Ok(body) => add_faults(gateway, &body.to_bytes()),
            Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::DELETE, "faults") => {
            gateway.faults.clear();
            no_content()
        }
        (&Method::PUT, "stale") => {
            let answers = request.uri().query().and_then(|query| query.strip_prefix("answers="));
            match answers.and_then(|answers| answers.parse().ok()) {
                Some(answers) => {
                    gateway.stale.lag(answers);
                    no_content()
                }
                None => text(StatusCode::BAD_REQUEST, "answers must be a number"),
            }
        }
        (&Method::POST, "quotas") => match request.into_body().collect().await {
            Ok(body) => match serde_json::from_slice(&body.to_bytes()) {
                Ok(values) => {
                    gateway.quotas.set(values);
                    no_content()
                }
                Err(error) => text(StatusCode::BAD_REQUEST, &format!("no values by code: {error}")),
            },
            Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::DELETE, "quotas") => {
            gateway.quotas.clear();
            no_content()
        }
        (&Method::GET, "health") => json(&serde_json::json!({ "status": "ok" })),
        (&Method::POST, "reconcile") => done(reconcile(gateway).await),
        (&Method::POST, "reset") => done(reset(gateway).await),
        _ => text(StatusCode::NOT_FOUND, "no such control path"),
    };
    answer.into_response()
}

/// Brings the hosts file and Redis to what the state says: at the start, and after one of them
/// was started anew.
pub(super) async fn reconcile(gateway: &Gateway) -> Result<(), Error> {
    hosts::update(gateway)?;
    configure_cache(gateway).await
}

/// Gives Redis the AUTH tokens and host names of all replication groups.
pub(super) async fn configure_cache(gateway: &Gateway) -> Result<(), Error> {
    let tokens: Vec<String> = gateway
        .additions
        .all()
        .into_iter()
        .flat_map(|(_, regional)| regional.caches.into_values().flatten())
        .collect();
    hosts::update(gateway)?;
    redis::configure(
        &gateway.paths,
        &gateway.state,
        &tokens,
        &hosts::cache_certificate_names(gateway),
    )
    .await
}

/// The answer to a call whose effect on the sandbox's own processes failed.
pub(super) fn failed(call: &Call, error: &Error) -> Answer {
    tracing::error!(service = call.service, operation = call.operation, %error, "the sandbox could not follow the call");
    answer::error(
        call,
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalFailure",
        &format!("sandbox: {error}"),
    )
}

async fn reset(gateway: &Gateway) -> Result<(), Error> {
    gateway.upstream.control("POST", "/_ministack/reset").await?;
    gateway.additions.clear();
    gateway.idempotency.clear();
    gateway.web.forget();
    gateway.faults.clear();
    gateway.iam.stop();
    gateway.stale.lag(0);
    gateway.quotas.clear();
    reconcile(gateway).await?;
    redis::wipe(&gateway.paths).await?;
    postgres::wipe(&gateway.paths).await?;
    gateway.record.clear();
    Ok(())
}

/// One rule or a list of them.
fn add_faults(gateway: &Gateway, body: &[u8]) -> Answer {
    let parsed = serde_json::from_slice::<Vec<Rule>>(body)
        .or_else(|_| serde_json::from_slice::<Rule>(body).map(|rule| vec![rule]));
    match parsed {
        Ok(rules) => {
            gateway.faults.add(rules);
            no_content()
        }
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("no valid rule: {error}")),
    }
}

fn done(result: Result<(), Error>) -> Answer {
    match result {
        Ok(()) => no_content(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer::new(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(status: StatusCode, message: &str) -> Answer {
    Answer::new(status, "text/plain", format!("{message}\n"))
}

fn no_content() -> Answer {
    Answer::new(StatusCode::NO_CONTENT, "text/plain", "")
}
