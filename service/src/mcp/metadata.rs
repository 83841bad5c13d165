//! RFC 9728: which authorization server issues tokens for `/mcp`.

use axum::{
    Router,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::json;

use crate::{app::App, config::McpAccess};

/// The two addresses: for the whole host, and with the path of the resource inserted (section 3.1).
pub(super) fn routes(access: &McpAccess) -> Router<App> {
    let McpAccess::Scopes { resource, issuer } = access else { return Router::new() };
    let document = json!({
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": ["mcp/read", "mcp/write"],
        "bearer_methods_supported": ["header"],
    })
    .to_string();
    let answer = get(async move || -> Response {
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "public, max-age=3600"),
        ];
        (headers, document).into_response()
    });
    Router::new()
        .route("/.well-known/oauth-protected-resource", answer.clone())
        .route("/.well-known/oauth-protected-resource/mcp", answer)
}
