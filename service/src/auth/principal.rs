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
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let user = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .and_then(|(_, token)| app.authority.as_ref()?.check(token.trim()))
            .ok_or_else(Problem::unauthorized)?;
        if let Some(line) = parts.extensions.get::<AccessLine>() {
            line.set_user(user);
        }
        Ok(Self { user })
    }
}
