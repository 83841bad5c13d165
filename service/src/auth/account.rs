//! The table `users`.

use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{database::Database, pii::Email};

/// One row of `users`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Account {
    /// UUID v7.
    pub id: Uuid,
    /// Lower case. None where the identity provider vouches for none.
    pub email: Option<Email>,
    /// As the person wrote it.
    pub name: String,
    /// `user` or `admin`.
    pub role: String,
    /// PHC string. None where somebody else signs the person in.
    pub password_hash: Option<String>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

/// The address belongs to another account.
#[derive(Clone, Copy, Debug)]
pub struct EmailTaken;

/// Creates an account.
pub async fn insert(
    database: impl PgExecutor<'_>,
    email: &str,
    name: &str,
    password_hash: &str,
) -> Result<Result<Account, EmailTaken>, sqlx::Error> {
    let row = sqlx::query_as(
        "INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT users_email_key DO NOTHING
         RETURNING id, email, name, role, password_hash, created_at",
    )
    .bind(Uuid::now_v7())
    .bind(email)
    .bind(name)
    .bind(password_hash)
    .fetch_optional(database)
    .await?;
    Ok(row.ok_or(EmailTaken))
}

/// The account of an address in lower case.
pub async fn find_by_email(
    database: &Database,
    email: &str,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, email, name, role, password_hash, created_at FROM users WHERE email = $1",
    )
    .bind(email)
    .fetch_optional(database)
    .await
}

/// The account of an id.
pub async fn find_by_id(
    database: impl PgExecutor<'_>,
    id: Uuid,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, email, name, role, password_hash, created_at FROM users WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(database)
    .await
}

/// Ends every session of a user.
pub async fn revoke_sessions(database: &mut PgConnection, user: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sessions SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL")
        .bind(user)
        .execute(database)
        .await?;
    Ok(())
}
