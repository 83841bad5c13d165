//! Who calls `/mcp`.

use async_trait::async_trait;
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use uuid::Uuid;

use crate::{
    app::App,
    auth::{Principal, bearer_token},
    config::McpAccess,
    problem::Problem,
};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// `mcp/read`.
    pub read: bool,
    /// `mcp/write`.
    pub write: bool,
}

/// Who calls, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user whose data it is about.
    pub user: Uuid,
    /// What was granted.
    pub scopes: Scopes,
}

/// Checks access tokens that carry scopes.
#[async_trait]
pub trait ScopedTokens: Send + Sync {
    /// Who the token of a request belongs to. None without a valid one.
    async fn check(&self, head: &mut Parts) -> Result<Option<Caller>, Problem>;
}

/// Tokens of `AUTH_MODE=local` have no scopes, so that they never open `/mcp`.
#[async_trait]
impl ScopedTokens for App {
    async fn check(&self, head: &mut Parts) -> Result<Option<Caller>, Problem> {
        let principal = Principal::of_request(head, self).await?;
        Ok(principal.map(|principal| {
            let granted = principal.scopes();
            let scopes = Scopes { read: granted.mcp_read, write: granted.mcp_write };
            Caller { user: principal.user, scopes }
        }))
    }
}

/// Who sent a request, or the answer that tells how to sign in.
pub async fn auth(
    access: &McpAccess,
    tokens: &dyn ScopedTokens,
    head: &mut Parts,
) -> Result<Caller, Problem> {
    let caller = match access {
        McpAccess::Off => None,
        McpAccess::Secret { .. } => bearer_token(&head.headers)
            .and_then(|token| holder_of_secret(access, token))
            .map(|user| Caller { user, scopes: Scopes { read: true, write: true } }),
        McpAccess::Scopes { .. } => tokens.check(head).await?,
    };
    caller.ok_or_else(|| match access {
        McpAccess::Scopes { resource, .. } => Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A valid access token is needed.",
        )
        .with_header(header::WWW_AUTHENTICATE, challenge(resource, "mcp/read", None)),
        _ => Problem::unauthorized(),
    })
}

/// Whom the static secret is bound to, if this is it.
pub fn holder_of_secret(access: &McpAccess, token: &str) -> Option<Uuid> {
    let McpAccess::Secret { secret, user } = access else { return None };
    is_same(token, secret.expose()).then_some(*user)
}

/// 403 for a token that lacks a scope (RFC 6750, section 3.1).
pub(super) fn insufficient_scope(access: &McpAccess, scope: &str) -> Problem {
    let problem = Problem::new(
        StatusCode::FORBIDDEN,
        "insufficient-scope",
        format!("The access token lacks the scope {scope}."),
    );
    match access {
        McpAccess::Scopes { resource, .. } => problem.with_header(
            header::WWW_AUTHENTICATE,
            challenge(resource, scope, Some("insufficient_scope")),
        ),
        _ => problem,
    }
}

/// The challenge that leads a client to the authorization server (RFC 9728, section 5.1).
fn challenge(resource: &str, scope: &str, error: Option<&str>) -> HeaderValue {
    let origin = resource.strip_suffix("/mcp").unwrap_or(resource);
    let error = error.map(|error| format!("error=\"{error}\", ")).unwrap_or_default();
    let text = format!(
        "Bearer {error}resource_metadata=\"{origin}/.well-known/oauth-protected-resource/mcp\", \
         scope=\"{scope}\""
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// Compares digests, so that neither the place of a difference nor a length shows in the time.
fn is_same(one: &str, other: &str) -> bool {
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    verify_slices_are_equal(hash(one).as_ref(), hash(other).as_ref()).is_ok()
}
