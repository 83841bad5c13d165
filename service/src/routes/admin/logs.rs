//! `GET /api/admin/logs`.

use axum::{
    extract::{RawQuery, State},
    http::Method,
    response::Response,
};
use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Administrator, operation, page, page_of, paging};
use crate::{
    app::App,
    app_log, calendar,
    openapi::{Api, query},
    page::{cursor_parameter, limit_parameter},
    problem::Problem,
    query::Query,
};

#[derive(Debug, sqlx::FromRow)]
struct LogLine {
    id: Uuid,
    level: String,
    event: String,
    request_id: Option<String>,
    user_id: Option<Uuid>,
    detail: Json<Value>,
    created_at: OffsetDateTime,
}

/// The route.
pub(super) fn api() -> Api {
    Api::default().schema("LogLine", log_schema()).route(
        "/admin/logs",
        [operation(Method::GET, "listLogs", "What an operator has to know, newest first")
            .parameter(query("level", "Only lines of this level.", level_schema()))
            .parameter(limit_parameter())
            .parameter(cursor_parameter())
            .answers(200, page_of("LogLine"))
            .on(list_logs)],
    )
}

fn level_schema() -> Value {
    json!({ "type": "string", "enum": app_log::LEVELS })
}

fn log_schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "level", "event", "requestId", "userId", "detail", "createdAt"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "level": level_schema(),
            "event": { "type": "string" },
            "requestId": { "type": ["string", "null"] },
            "userId": { "type": ["string", "null"], "format": "uuid" },
            "detail": { "type": "object" },
            "createdAt": { "type": "string", "format": "date-time" },
        },
    })
}

/// `GET /api/admin/logs[?level=…][&limit=1..100][&cursor=…]`.
async fn list_logs(
    _: Administrator,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let level = query.take("level", "must be one of info, warn, error", |text| {
        app_log::LEVELS.into_iter().find(|level| *level == text)
    });
    let (limit, cursor) = paging(&mut query);
    query.finish()?;
    let lines: Vec<LogLine> = sqlx::query_as(
        "SELECT id, level, event, request_id, user_id, detail, created_at FROM app_logs
         WHERE id < $1 AND ($2::text IS NULL OR level = $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(cursor)
    .bind(level)
    .bind(i64::from(limit) + 1)
    .fetch_all(&app.database)
    .await?;
    let json = |line: &LogLine| {
        json!({
            "id": line.id,
            "level": line.level,
            "event": line.event,
            "requestId": line.request_id,
            "userId": line.user_id,
            "detail": line.detail.0,
            "createdAt": calendar::format_instant(line.created_at),
        })
    };
    Ok(page(&lines, limit, json, |line| line.id))
}
