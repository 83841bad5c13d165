//! The table `identities`: who signs in with an account of somebody else, and which account here
//! that is.
//!
//! An identity finds its account by provider and subject. A new one is linked to an account that
//! exists only by an e-mail address that the provider says is verified. Registration here does not
//! verify addresses, so the account may have been opened by somebody else in the owner's name: what
//! could sign in to it before (password, sessions, identities) is dropped when the owner appears.

use sqlx::PgConnection;
use uuid::Uuid;

use super::account;
use crate::{database::Database, pii::Email};

/// Name of an account whose provider tells none.
const UNNAMED: &str = "New user";

/// Whom a provider says it is.
#[derive(Debug)]
pub struct Identity<'a> {
    /// As in the table's check.
    pub provider: &'static str,
    /// The provider's stable id of the person.
    pub subject: &'a str,
    /// An e-mail address in any case.
    pub email: Option<&'a Email>,
    /// Whether the provider says that the person holds this address.
    pub email_verified: bool,
    /// The person's name.
    pub name: Option<&'a str>,
}

/// An account has this address, and nobody vouches that it is the same person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmailUnproven;

/// The account of an identity that was seen before.
pub async fn find_by_identity(
    database: &Database,
    provider: &str,
    subject: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT user_id FROM identities WHERE provider = $1 AND subject = $2")
        .bind(provider)
        .bind(subject)
        .fetch_optional(database)
        .await
}

/// The account of an identity: the one it has, the one its verified address has, or a new one.
pub async fn resolve(
    database: &Database,
    identity: &Identity<'_>,
) -> Result<Result<Uuid, EmailUnproven>, sqlx::Error> {
    if let Some(user) = find_by_identity(database, identity.provider, identity.subject).await? {
        return Ok(Ok(user));
    }
    let email = identity.email.map(|email| email.expose().to_lowercase());
    let email = email.as_deref().filter(|email| (3..=254).contains(&email.chars().count()));
    let mut tx = database.begin().await?;
    let owned_by_another = !identity.email_verified
        && sqlx::query_scalar("SELECT EXISTS (SELECT FROM users WHERE email = $1)")
            .bind(email)
            .fetch_one(&mut *tx)
            .await?;
    if owned_by_another {
        return Ok(Err(EmailUnproven));
    }
    // An unverified address would keep its real owner from registering with it.
    let email = email.filter(|_| identity.email_verified);
    let user = if let Some(user) = insert_user(&mut tx, identity, email).await? {
        user
    } else {
        let owned: Option<Uuid> =
            sqlx::query_scalar("SELECT id FROM users WHERE email = $1 FOR UPDATE")
                .bind(email)
                .fetch_optional(&mut *tx)
                .await?;
        // Deleted between the two statements: the person tries again.
        let user = owned.ok_or(sqlx::Error::RowNotFound)?;
        take_possession(&mut tx, user).await?;
        user
    };
    let linked = sqlx::query(
        "INSERT INTO identities (provider, subject, user_id) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(identity.provider)
    .bind(identity.subject)
    .bind(user)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if linked == 1 {
        tx.commit().await?;
        return Ok(Ok(user));
    }
    // A parallel first request of the same identity was faster; its account is the one.
    tx.rollback().await?;
    let user = find_by_identity(database, identity.provider, identity.subject).await?;
    user.map(Ok).ok_or(sqlx::Error::RowNotFound)
}

/// A new account; None if another one has the address.
async fn insert_user(
    database: &mut PgConnection,
    identity: &Identity<'_>,
    email: Option<&str>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let name: String = identity
        .name
        .or_else(|| email?.split('@').next())
        .unwrap_or_default()
        .chars()
        .filter(|char| !char.is_control())
        .take(100)
        .collect();
    let name = if name.trim().is_empty() { UNNAMED } else { name.trim() };
    sqlx::query_scalar(
        "INSERT INTO users (id, email, name, email_verified_at)
         VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END)
         ON CONFLICT ON CONSTRAINT users_email_key DO NOTHING RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(email)
    .bind(name)
    .bind(email.is_some())
    .fetch_optional(database)
    .await
}

/// The holder of the account's mailbox has appeared. If nobody had proved to hold it before, all
/// that could sign in until now is dropped.
pub async fn take_possession(database: &mut PgConnection, user: Uuid) -> Result<(), sqlx::Error> {
    let first = sqlx::query(
        "UPDATE users SET email_verified_at = now(), password_hash = NULL
         WHERE id = $1 AND email_verified_at IS NULL",
    )
    .bind(user)
    .execute(&mut *database)
    .await?
    .rows_affected();
    if first == 1 {
        sqlx::query("DELETE FROM identities WHERE user_id = $1")
            .bind(user)
            .execute(&mut *database)
            .await?;
        account::revoke_sessions(database, user).await?;
    }
    Ok(())
}
