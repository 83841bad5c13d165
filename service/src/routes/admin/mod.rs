//! `/api/admin/…`: the operator's log and the accounts. Who is an administrator the database says at
//! every call, not the token.

mod logs;
mod users;

use axum::{
    extract::FromRequestParts,
    http::{Method, StatusCode, request::Parts},
    response::Response,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::crud::json_response;
use crate::{
    app::App,
    auth::Principal,
    openapi::{Access, Api, Operation, reference},
    page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT},
    problem::Problem,
    query::Query,
};

/// A user whose role in the database is admin.
#[derive(Clone, Copy, Debug)]
pub struct Administrator {
    /// The user's id.
    pub user: Uuid,
}

impl FromRequestParts<App> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let user = Principal::from_request_parts(parts, app).await?.user;
        let role: Option<String> = sqlx::query_scalar("SELECT role FROM users WHERE id = $1")
            .bind(user)
            .fetch_optional(&app.database)
            .await?;
        match role.as_deref() {
            Some("admin") => Ok(Self { user }),
            Some(_) => Err(Problem::forbidden("Only administrators may do this.")),
            // The account was deleted while its token is still valid.
            None => Err(Problem::unauthorized()),
        }
    }
}

/// The routes. Where Cognito keeps the accounts, none is created here.
pub fn api(own_accounts: bool) -> Api {
    logs::api().merge(users::api(own_accounts))
}

/// An operation of administrators.
fn operation(method: Method, id: &str, summary: &str) -> Operation {
    Operation::new(method, id, summary).access(Access::Admin)
}

fn page_of(schema: &str) -> Value {
    json!({
        "type": "object",
        "required": ["items", "nextCursor"],
        "properties": {
            "items": { "type": "array", "items": reference(schema) },
            "nextCursor": { "type": ["string", "null"] },
        },
    })
}

/// Limit, and the id that the page begins after: ids are ordered by time.
fn paging(query: &mut Query) -> (u8, Uuid) {
    let limit = query.take("limit", "must be a number from 1 to 100", |text| {
        text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
    });
    let cursor = query.take("cursor", "must be a nextCursor of this list", Cursor::decode);
    (limit.unwrap_or(DEFAULT_LIMIT), cursor.unwrap_or(Cursor::START).id)
}

/// Up to `limit` of the rows; one row more only tells that there is more.
fn page<T>(rows: &[T], limit: u8, json: impl Fn(&T) -> Value, id: impl Fn(&T) -> Uuid) -> Response {
    let limit = usize::from(limit);
    let items: Vec<_> = rows.iter().take(limit).map(json).collect();
    let last = rows.get(limit - 1).filter(|_| rows.len() > limit);
    let next = last.map(|row| Cursor { id: id(row), ..Cursor::START }.encode());
    let body = json!({ "items": items, "nextCursor": next });
    json_response(StatusCode::OK, body.to_string())
}
