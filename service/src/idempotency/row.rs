//! The truth: one row per answered key, written in the transaction of the effect.

use sqlx::{PgConnection, types::Json};

use super::{
    call::Attempt,
    value::{Answer, Hash},
};
use crate::database::Database;

/// What a key was answered before.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) fingerprint: Hash,
    pub(super) answer: Answer,
}

/// Writes the answer. False if the key has one already: then the transaction must be rolled back.
/// A concurrent attempt waits here for the first one's commit or abort. A row past its end counts as
/// absent, whether or not it has been deleted yet.
pub(super) async fn insert(
    database: &mut PgConnection,
    attempt: &Attempt,
    answer: &Answer,
) -> Result<bool, sqlx::Error> {
    let outcome = sqlx::query(
        "INSERT INTO idempotency_keys AS present (user_id, key_hash, fingerprint, status, headers, body, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + interval '7 days')
         ON CONFLICT (user_id, key_hash) DO UPDATE
         SET fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers,
             body = excluded.body, created_at = now(), expires_at = excluded.expires_at
         WHERE present.expires_at <= now()",
    )
    .bind(attempt.user)
    .bind(attempt.key_hash.0.as_slice())
    .bind(attempt.fingerprint.0.as_slice())
    .bind(i16::try_from(answer.status).unwrap_or(i16::MAX))
    .bind(Json(&answer.headers))
    .bind(&answer.body)
    .execute(database)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// The answer of a key, if it has one.
pub(super) async fn find(
    database: &Database,
    attempt: &Attempt,
) -> Result<Option<Row>, sqlx::Error> {
    type Columns = (Vec<u8>, i16, Json<Vec<(String, String)>>, Vec<u8>);
    let row: Option<Columns> = sqlx::query_as(
        "SELECT fingerprint, status, headers, body FROM idempotency_keys
         WHERE user_id = $1 AND key_hash = $2 AND expires_at > now()",
    )
    .bind(attempt.user)
    .bind(attempt.key_hash.0.as_slice())
    .fetch_optional(database)
    .await?;
    let Some((fingerprint, status, Json(headers), body)) = row else {
        return Ok(None);
    };
    let fingerprint = <[u8; 32]>::try_from(fingerprint).map_err(|_| corrupt("fingerprint"))?;
    let status = u16::try_from(status).map_err(|_| corrupt("status"))?;
    Ok(Some(Row { fingerprint: Hash(fingerprint), answer: Answer { status, headers, body } }))
}

fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("idempotency_keys.{column} breaks its check").into())
}
