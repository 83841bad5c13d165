//! Who calls: the extractor that every protected route takes first.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use uuid::Uuid;

use crate::{app::App, edge::AccessLine, problem::Problem};

/// The signed-in user.
#[derive(Clone, Copy, Debug)]
pub struct Principal {
    /// The user's id: the stable subject of the token.
    pub user: Uuid,
    scopes: Scopes,
}

/// What an access token was granted for beyond signing in. The tokens of this service have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// `mcp/read`.
    pub mcp_read: bool,
    /// `mcp/write`.
    pub mcp_write: bool,
    /// There are scopes, and all of them are of `/mcp`: granted to an assistant, not to a person.
    pub assistant_only: bool,
}

impl Scopes {
    /// Reads the claim `scope`, a list separated by spaces (RFC 8693, section 4.2).
    pub fn parse(claim: &str) -> Self {
        let has = |name| claim.split(' ').any(|scope| scope == name);
        let mut granted = claim.split(' ').filter(|scope| !scope.is_empty()).peekable();
        Self {
            mcp_read: has("mcp/read"),
            mcp_write: has("mcp/write"),
            assistant_only: granted.peek().is_some()
                && granted.all(|scope| scope.starts_with("mcp/")),
        }
    }
}

impl Principal {
    /// A user whose token has these scopes.
    pub fn new(user: Uuid, scopes: Scopes) -> Self {
        Self { user, scopes }
    }

    /// The scopes of the token.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Whose access token this is, in either mode. None if it is not valid.
    pub async fn of_token(token: &str, app: &App) -> Result<Option<Self>, Problem> {
        match (&app.authority, &app.cognito) {
            (Some(authority), _) => {
                Ok(authority.check(token).map(|user| Self::new(user, Scopes::default())))
            }
            (None, Some(cognito)) => cognito.check(token, &app.database).await,
            (None, None) => Ok(None),
        }
    }
}

/// The token in `Authorization: Bearer` (RFC 6750, section 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // The rate limit has asked already: whose token it is costs a question to Postgres.
        let principal = if let Some(principal) = parts.extensions.get::<Self>() {
            *principal
        } else {
            let token = bearer_token(&parts.headers).ok_or_else(Problem::unauthorized)?;
            Self::of_token(token, app).await?.ok_or_else(Problem::unauthorized)?
        };
        if let Some(line) = parts.extensions.get::<AccessLine>() {
            line.set_user(principal.user);
        }
        if principal.scopes.assistant_only {
            return Err(insufficient_scope());
        }
        Ok(principal)
    }
}

/// 403 for a token that was not granted for this (RFC 6750, section 3.1).
fn insufficient_scope() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "insufficient-scope",
        "The access token was granted for the Model Context Protocol only.",
    )
    .with_header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer error=\"insufficient_scope\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_scopes_only() {
        let both = Scopes { mcp_read: true, mcp_write: true, assistant_only: false };
        assert_eq!(Scopes::parse("openid mcp/write mcp/read"), both);
        assert_eq!(Scopes::parse("mcp/reader xmcp/write mcp"), Scopes::default());
        assert!(Scopes::parse(" mcp/read").assistant_only);
        assert!(!Scopes::parse("").assistant_only && !Scopes::parse(" ").assistant_only);
    }
}
