//! The table `app_logs`: what an operator has to know later, besides the log lines.

use serde_json::Value;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

/// The levels of the column `level`.
pub const LEVELS: [&str; 3] = ["info", "warn", "error"];

/// Writes a row. `detail` holds ids, codes and counts, never what a user said or wrote.
pub async fn write(
    database: impl PgExecutor<'_>,
    level: &'static str,
    event: &'static str,
    request_id: Option<&str>,
    user: Option<Uuid>,
    detail: Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO app_logs (id, level, event, request_id, user_id, detail)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(Uuid::now_v7())
    .bind(level)
    .bind(event)
    .bind(request_id)
    .bind(user)
    .bind(Json(detail))
    .execute(database)
    .await?;
    Ok(())
}
