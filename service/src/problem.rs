//! Errors as clients see them: RFC 9457 `application/problem+json`, on every error path.
//!
//! A [`Problem`] is carried to the edge of the stack in the response's extensions and becomes bytes
//! there, because only the edge knows the request id.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

/// Media type of RFC 9457.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// One rejected member of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Name of the member, or of the query parameter.
    pub field: String,
    /// What it must be, for a person.
    pub message: String,
}

/// An error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of the given kind. `code` is stable: clients branch on it.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// The problem with this list of rejected members.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The problem with one further member (RFC 9457, section 3.2).
    #[must_use]
    pub fn with_member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The problem with one further response header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The problem with `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The rejected members.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What is wrong, for a person.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The JSON document for one request.
    pub fn render(&self, request_id: &str) -> Bytes {
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:bme:problem:{}", self.code).into());
        document.insert("title".into(), title(self.status).into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.as_ref().into());
        document.insert("instance".into(), format!("urn:bme:request:{request_id}").into());
        document.insert("code".into(), self.code.into());
        document.insert("requestId".into(), request_id.into());
        // The product's older clients read the text here.
        document.insert("error".into(), self.detail.as_ref().into());
        if !self.errors.is_empty() {
            let errors = self
                .errors
                .iter()
                .map(|error| serde_json::json!({ "field": error.field, "message": error.message }));
            document.insert("errors".into(), errors.collect());
        }
        document.extend(self.members.clone());
        Value::Object(document).to_string().into()
    }

    /// The whole response for one request.
    pub fn respond(&self, request_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.render(request_id)));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers.iter().cloned());
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        response
    }

    /// 400: the request line, a header or the query cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no usable access token. The same answer whatever is wrong with it.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid access token is needed.")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: the user is known and may not do this.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: no such route, or no such item of this user.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 422: the members that break the schema.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation",
            "The request has invalid members.",
        )
        .with_errors(errors)
    }

    /// 500 with a constant text; what happened is in the log only.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong on our side.",
        )
    }

    /// 503 with `Retry-After` in seconds.
    pub fn unavailable(code: &'static str, detail: &'static str, retry_after: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(retry_after)
    }

    /// The problem for a bare status that a library answered by itself.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found("There is nothing at this address."),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                status,
                "method-not-allowed",
                "This address does not support the method; the Allow header lists those it does.",
            ),
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            status if status.is_client_error() => {
                Self::new(status, "bad-request", "The request cannot be processed.")
            }
            _ => Self::internal(),
        }
    }
}

/// Titles are the IANA reason phrases: `type` tells problems apart, not `title`.
fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<sqlx::Error> for Problem {
    /// Logs what happened (never a value of a row) and answers 503 for what passes, 500 otherwise.
    fn from(error: sqlx::Error) -> Self {
        let unavailable =
            || Self::unavailable("database-unavailable", "The database is not available.", 2);
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                tracing::error!(
                    sqlstate = code,
                    constraint = database.constraint(),
                    table = database.table(),
                    "database refused a statement"
                );
                // Classes of Postgres's appendix A: 08 connection, 53 resources, 57 operator
                // intervention, 40 rollback; 55P03 is lock_timeout, 25P0x idle-in-transaction.
                if ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
                    || code == "55P03"
                    || code.starts_with("25P0")
                {
                    unavailable()
                } else {
                    Self::internal()
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Protocol(_) => {
                tracing::warn!(%error, "database not reachable");
                unavailable()
            }
            _ => {
                tracing::error!(%error, "database answer not understood");
                Self::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_every_promised_member() {
        let problem = Problem::invalid(vec![FieldError {
            field: "amount".into(),
            message: "must be greater than 0".into(),
        }])
        .with_member("checks", serde_json::json!({ "redis": "failed" }));
        let document: Value = serde_json::from_slice(&problem.render("r-1")).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:bme:problem:validation",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "The request has invalid members.",
                "instance": "urn:bme:request:r-1",
                "code": "validation",
                "requestId": "r-1",
                "error": "The request has invalid members.",
                "errors": [{ "field": "amount", "message": "must be greater than 0" }],
                "checks": { "redis": "failed" },
            })
        );
    }
}
