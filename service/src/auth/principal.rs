//! Who calls: the extractor that every protected route takes first.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use uuid::Uuid;

use super::cognito::Cognito;
use crate::{app::App, database::Database, edge::AccessLine, problem::Problem};

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

/// The holder of a valid access token, as the token names it. That costs Postgres nothing, so that
/// the rate limit is decided before anybody is looked up or created there.
#[derive(Clone, Debug)]
pub enum Holder {
    /// A user of this service, whose tokens have no scopes.
    User(Uuid),
    /// A subject of the user pool, and what the token was granted for.
    Subject(String, Scopes),
}

impl Holder {
    /// Who holds the access token of a request, in either mode. None without a valid one. A valid one
    /// is checked once: what it says stays in the request.
    pub async fn of_request(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(Some(known.clone()));
        }
        let Some(token) = bearer_token(&parts.headers) else { return Ok(None) };
        let holder = match (&app.authority, &app.cognito) {
            (Some(authority), _) => authority.check(token).map(Self::User),
            (None, Some(cognito)) => {
                cognito.check(token).await?.map(|(subject, scopes)| Self::Subject(subject, scopes))
            }
            (None, None) => None,
        };
        if let Some(holder) = &holder {
            parts.extensions.insert(holder.clone());
        }
        Ok(holder)
    }

    /// As whom the holder is counted, whatever the token was granted for.
    pub fn caller(&self) -> String {
        match self {
            Self::User(user) => format!("user {user}"),
            Self::Subject(subject, _) => format!("subject {subject}"),
        }
    }

    /// The holder's account, if there is one yet.
    pub async fn known_user(&self, database: &Database) -> Result<Option<Uuid>, sqlx::Error> {
        match self {
            Self::User(user) => Ok(Some(*user)),
            Self::Subject(subject, _) => Cognito::known_account(subject, database).await,
        }
    }
}

impl Principal {
    /// The scopes of the token.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Whose the access token of a request is, in either mode. None without a valid one. At first
    /// sight of a subject an account is made, in the time of a write.
    pub async fn of_request(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        let Some(holder) = Holder::of_request(parts, app).await? else { return Ok(None) };
        match (holder, &app.cognito, bearer_token(&parts.headers)) {
            (Holder::User(user), ..) => Ok(Some(Self { user, scopes: Scopes::default() })),
            (Holder::Subject(subject, scopes), Some(cognito), Some(token)) => {
                let account = cognito.account(token, &subject, &app.database);
                let user = app.timings.limit(account).await?;
                Ok(Some(Self { user, scopes }))
            }
            (Holder::Subject(..), ..) => Ok(None),
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
        let principal = Self::of_request(parts, app).await?.ok_or_else(Problem::unauthorized)?;
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
