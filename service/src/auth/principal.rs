//! Who calls: the extractor that every protected route takes first.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
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
}

impl Scopes {
    /// Reads the claim `scope`, a list separated by spaces (RFC 8693, section 4.2).
    pub fn parse(claim: &str) -> Self {
        let has = |name| claim.split(' ').any(|scope| scope == name);
        Self { mcp_read: has("mcp/read"), mcp_write: has("mcp/write") }
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

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(Problem::unauthorized)?;
        let principal = Self::of_token(token, app).await?.ok_or_else(Problem::unauthorized)?;
        if let Some(line) = parts.extensions.get::<AccessLine>() {
            line.set_user(principal.user);
        }
        Ok(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_scopes_only() {
        let both = Scopes { mcp_read: true, mcp_write: true };
        assert_eq!(Scopes::parse("openid mcp/write mcp/read"), both);
        assert_eq!(Scopes::parse("mcp/reader xmcp/write mcp"), Scopes::default());
    }
}
