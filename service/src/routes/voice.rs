//! `POST /api/voice/understand` and `GET /api/jobs/{id}`.

use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{crud::json_response, settings::time_zone_schema};
use crate::{
    app::App,
    auth::Principal,
    body::{LimitedJson, text_schema},
    calendar,
    idempotency::Call,
    openapi::{Api, Operation, reference},
    problem::Problem,
    voice::{
        audio::{self, MAX_AUDIO},
        submit::{MAX_TRANSCRIPT, Submission},
    },
};

/// Largest body of a voice request in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// The routes.
pub fn api() -> Api {
    let text = json!({ "type": "string" });
    let state =
        json!({ "type": "string", "enum": ["queued", "processing", "completed", "failed"] });
    let request = json!({ "oneOf": [
        said(&json!(["transcript"]), json!({ "transcript": text_schema(1, MAX_TRANSCRIPT) })),
        said(&json!(["audio", "mimeType"]), json!({
            "audio": {
                "type": "string", "contentEncoding": "base64", "minLength": 4,
                "maxLength": MAX_AUDIO.div_ceil(3) * 4,
                "pattern": "^[A-Za-z0-9+/]+={0,2}$",
            },
            "mimeType": { "type": "string", "maxLength": 100, "pattern": audio::PATTERN },
        })),
    ] });
    let accepted = json!({
        "type": "object",
        "required": ["jobId", "status", "pollUrl"],
        "properties": {
            "jobId": { "type": "string", "format": "uuid" }, "status": state, "pollUrl": text,
        },
    });
    let action = json!({
        "type": "object",
        "required": ["intent", "kind", "status"],
        "properties": {
            "intent": { "type": "string", "enum": ["add", "edit", "delete", "unknown"] },
            "kind": text,
            "status": { "type": "string", "enum": [
                "applied", "proposed", "ambiguous", "not-found", "refused", "not-applied", "unknown",
            ] },
            "item": { "type": "object" },
            "arguments": { "type": "object" },
            "candidates": { "type": "array", "items": { "type": "object" } },
        },
    });
    let job = json!({
        "type": "object",
        "required": ["jobId", "status", "createdAt", "updatedAt"],
        "properties": {
            "jobId": { "type": "string", "format": "uuid" },
            "status": state,
            "result": {
                "type": "object",
                "required": ["changed", "actions"],
                "properties": {
                    "changed": { "type": "boolean" },
                    "actions": { "type": "array", "items": reference("VoiceAction") },
                },
            },
            "code": text,
            "createdAt": { "type": "string", "format": "date-time" },
            "updatedAt": { "type": "string", "format": "date-time" },
        },
    });
    Api::default()
        .schema("VoiceRequest", request)
        .schema("AcceptedJob", accepted)
        .schema("VoiceAction", action)
        .schema("Job", job)
        .route(
            "/voice/understand",
            [Operation::new(Method::POST, "understandVoice", "What was said becomes a job")
                .body(reference("VoiceRequest"))
                .idempotent()
                .located()
                .link("getJob", "/jobId")
                .answers(202, reference("AcceptedJob"))
                .on(understand)],
        )
        .route(
            "/jobs/{id}",
            [Operation::new(Method::GET, "getJob", "One of the user's own jobs")
                .answers(200, reference("Job"))
                .on(job_state)],
        )
}

/// What was said, in one of its two forms, with what both have.
fn said(required: &Value, mut properties: Value) -> Value {
    properties["lang"] = json!({ "type": "string", "pattern": "^[A-Za-z0-9-]{2,35}$" });
    properties["today"] = json!({ "type": "string", "format": "date" });
    properties["timezone"] = time_zone_schema();
    properties["execute"] = json!({ "type": "boolean", "default": true });
    json!({
        "type": "object", "required": required, "properties": properties, "additionalProperties": false,
    })
}

/// `POST /api/voice/understand`.
async fn understand(
    principal: Principal,
    call: Call,
    State(app): State<App>,
    LimitedJson(body): LimitedJson<MAX_BODY>,
) -> Result<Response, Problem> {
    let user = principal.user;
    let Some(voice) = app.voice.clone() else {
        return Err(Problem::unavailable("voice-unavailable", "Voice is not set up here.", 60));
    };
    let (key, request_id) = (call.key_hash(), call.request_id().clone());
    app.idempotency
        .run(user, &call, &body, Submission::parse, |submission, database| {
            Box::pin(async move {
                submission.write(&voice, database, user, key, request_id.as_str()).await
            })
        })
        .await
}

#[derive(sqlx::FromRow)]
struct Row {
    state: String,
    result: Option<String>,
    code: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

/// `GET /api/jobs/{id}`.
async fn job_state(
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let absent = || Problem::not_found("There is no such job.");
    let id = Uuid::try_parse(&id).map_err(|_| absent())?;
    let row: Option<Row> = sqlx::query_as(
        "SELECT state, result::text AS result, code, created_at, updated_at FROM voice_jobs
         WHERE id = $1 AND user_id = $2",
    )
    .bind(id)
    .bind(principal.user)
    .fetch_optional(&app.database)
    .await?;
    let row = row.ok_or_else(absent)?;
    let mut document = json!({
        "jobId": id,
        "status": row.state,
        "createdAt": calendar::format_instant(row.created_at),
        "updatedAt": calendar::format_instant(row.updated_at),
    });
    if let Some(code) = row.code {
        document["code"] = code.into();
    }
    if let Some(result) = row.result {
        document["result"] =
            serde_json::from_str::<Value>(&result).map_err(|_| Problem::internal())?;
    }
    Ok(json_response(StatusCode::OK, document.to_string()))
}
