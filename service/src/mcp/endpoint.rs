//! `/mcp` over HTTP: who calls, the message, the protocol's answer, and the record of all three.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRequest as _, Request},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use http_body_util::BodyExt as _;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use serde::{Deserialize, de::IgnoredAny};
use tracing::Instrument as _;

use super::{
    auth::{ScopedTokens, auth, insufficient_scope},
    metadata,
    record::{Message, Outcome, Record},
    server::{Asked, Server},
    tools::Tool,
};
use crate::{
    app::App,
    auth::Holder,
    body::{JsonBody, MAX_BODY},
    config::McpAccess,
    edge::AccessLine,
    problem::Problem,
    request_id::RequestId,
};

type Protocol = StreamableHttpService<Server, NeverSessionManager>;

/// The routes, none where the endpoint is off. `tokens` checks the access tokens of a mode in which
/// they carry scopes.
pub fn routes(app: &App, tokens: Arc<dyn ScopedTokens>) -> Router<App> {
    if matches!(app.mcp.access, McpAccess::Off) {
        return Router::new();
    }
    let protocol = protocol(app);
    let handler = any(async move |app: axum::extract::State<App>, request: Request| {
        handle(&app, &*tokens, &protocol, request).await
    });
    Router::new().route(super::PATH, handler).merge(metadata::routes(&app.mcp.access))
}

/// Stateless: any instance behind the load balancer answers any request.
fn protocol(app: &App) -> Protocol {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .with_allowed_origins(app.mcp.allowed_origins.clone())
        .enforce_origin_validation();
    let config = match &app.mcp.allowed_hosts {
        Some(hosts) => config.with_allowed_hosts(hosts.clone()),
        None => config.disable_allowed_hosts(),
    };
    let server = Server { app: app.clone() };
    StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    )
}

/// Answers, and writes one row about it whatever the answer is.
async fn handle(
    app: &App,
    tokens: &dyn ScopedTokens,
    protocol: &Protocol,
    request: Request,
) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.unwrap_or_else(|| RequestId::of(request.headers()));
    let record = Arc::new(Record::new(id));
    let (outcome, response) = match answer(app, tokens, protocol, &record, request).await {
        Ok(answered) => answered,
        Err(problem) => (Outcome::of_status(problem.status().as_u16()), problem.into_response()),
    };
    if !record.is_written() {
        let outcome = record.noted().unwrap_or(outcome);
        // In a task, so that it goes on when the request's own time is over; a drain waits for it.
        let writing = write(app.clone(), record, outcome).in_current_span();
        let _ = app.lifecycle.tasks.spawn(writing).await;
    }
    response
}

/// Writes the row of a request that has ended. The same row may be in a transaction that has not.
async fn write(app: App, record: Arc<Record>, outcome: Outcome) {
    let writing = app.timings.limit(async {
        record.write(&app.database, outcome).await?;
        Ok(())
    });
    if let Err(problem) = writing.await {
        // The access line still tells who and when, and the log above why.
        tracing::error!(code = problem.code(), ?outcome, "request to /mcp not recorded");
    }
}

/// The row of a request that the rate limit refused before its message was read. The limit asks for
/// one a minute and caller; where the database is away, there is none for that minute.
pub async fn record_refusal(app: App, id: RequestId, holder: Option<Holder>) {
    let record = Record::new(id);
    let writing = app.timings.limit(async {
        if let Some(holder) = &holder
            && let Some(user) = holder.known_user(&app.database).await?
        {
            record.set_user(user);
        }
        record.write(&app.database, Outcome::Refused).await?;
        Ok(())
    });
    if writing.await.is_err() {
        // The access line still tells when, and the log above why.
        tracing::error!("refused request to /mcp not recorded");
    }
}

async fn answer(
    app: &App,
    tokens: &dyn ScopedTokens,
    protocol: &Protocol,
    record: &Arc<Record>,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let access = &app.mcp.access;
    let (mut head, body) = request.into_parts();
    let caller = auth(access, tokens, &mut head).await?;
    record.set_user(caller.user);
    if let Some(line) = head.extensions.get::<AccessLine>() {
        line.set_user(caller.user);
    }
    if !(caller.scopes.read || caller.scopes.write) {
        return Err(insufficient_scope(access, "mcp/read"));
    }
    if head.method != axum::http::Method::POST {
        let request = Request::from_parts(head, Body::empty());
        return Ok(plain(protocol.handle(request).await.map(Body::new)));
    }
    let whole = Request::from_parts(head.clone(), body);
    let JsonBody(body) = JsonBody::from_request(whole, app).await?;
    // What is no message the protocol refuses itself.
    let message: Message = serde_json::from_slice(&body).unwrap_or_default();
    record.set_message(&message);
    let wanted = message.params.name.as_deref().filter(|_| message.method == "tools/call");
    let tool = wanted.and_then(|name| Tool::find(name, &app.mcp.allowed_tools));
    if tool.is_some_and(Tool::writes) && !caller.scopes.write {
        return Err(insufficient_scope(access, "mcp/write"));
    }
    let arguments = message.params.arguments.as_ref().map_or("{}", |text| text.get());
    let asked = Asked { caller, record: record.clone(), arguments: arguments.into() };
    head.extensions.insert(asked);
    let request = Request::from_parts(head, Body::from(body));
    let (head, body) = protocol.handle(request).await.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    Ok(judged(Response::from_parts(head, Body::from(body.clone())), &body))
}

/// An answer of the library without a message of the protocol in it: the edge makes it a problem.
fn plain(response: Response) -> (Outcome, Response) {
    let status = response.status();
    let outcome = Outcome::of_status(status.as_u16());
    if status == StatusCode::FORBIDDEN {
        let problem =
            Problem::forbidden("The headers Host or Origin are not those of this service.");
        return (outcome, problem.into_response());
    }
    (outcome, response)
}

/// How the protocol itself says it went.
fn judged(response: Response, body: &[u8]) -> (Outcome, Response) {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Code>,
        result: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    /// JSON-RPC 2.0, section 5.1: internal error.
    const INTERNAL: i64 = -32603;

    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let answer = serde_json::from_slice(body).ok().filter(|_| is_json);
    match answer {
        Some(Answer { error: Some(Code { code: INTERNAL }), .. }) => (Outcome::Failed, response),
        Some(Answer { error: Some(_), .. }) => (Outcome::Invalid, response),
        Some(Answer { result: Some(_), .. }) => (Outcome::Ok, response),
        _ => plain(response),
    }
}
