//! The table `password_resets`: tokens for a new password, one use, 30 minutes.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    account::revoke_sessions,
    identity::take_possession,
    random_token::{hash, random_token},
};
use crate::{config::Secret, database::Database, problem::Problem};

/// How long a token is good for.
const LIFETIME: Duration = Duration::minutes(30);

/// A new token of 256 random bits for a user; earlier ones are void.
pub async fn new_reset_token(database: &Database, user: Uuid) -> Result<Secret, Problem> {
    let token = random_token()?;
    let mut tx = database.begin().await?;
    sqlx::query("DELETE FROM password_resets WHERE user_id = $1")
        .bind(user)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO password_resets (token_hash, user_id, expires_at) VALUES ($1, $2, $3)",
    )
    .bind(hash(&token).as_ref())
    .bind(user)
    .bind(OffsetDateTime::now_utc() + LIFETIME)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Secret::new(token))
}

/// Whether a token is good now. Asked before the password is hashed, which costs.
pub async fn is_reset_token(database: &Database, token: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM password_resets WHERE token_hash = $1 AND expires_at > now())",
    )
    .bind(hash(token).as_ref())
    .fetch_one(database)
    .await
}

/// Uses up a token: the password is the new one and every session ends. None if the token is not
/// good any more.
pub async fn reset_password(
    database: &Database,
    token: &str,
    password_hash: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let mut tx = database.begin().await?;
    let user: Option<Uuid> = sqlx::query_scalar(
        "DELETE FROM password_resets WHERE token_hash = $1 AND expires_at > now()
         RETURNING user_id",
    )
    .bind(hash(token).as_ref())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(user) = user else { return Ok(None) };
    // The token came through the mailbox.
    take_possession(&mut tx, user).await?;
    sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(user)
        .bind(password_hash)
        .execute(&mut *tx)
        .await?;
    revoke_sessions(&mut tx, user).await?;
    tx.commit().await?;
    Ok(Some(user))
}
