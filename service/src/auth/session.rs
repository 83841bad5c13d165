//! Refresh tokens: random, kept as SHA-256, rotated at every use. A token used twice revokes its
//! whole family (RFC 9700, section 4.14.2).

use axum::http::{HeaderMap, HeaderValue, header};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::random_token::{hash, random_token};
use crate::{config::Secret, database::Database, problem::Problem};

/// Name of the cookie.
pub const REFRESH_COOKIE: &str = "bme_refresh";

/// A session ends this long after the login, however often it was refreshed.
const SESSION_LIFETIME: Duration = Duration::days(30);

/// An open session with the one refresh token that is valid now.
#[derive(Debug)]
pub struct Session {
    /// Id of the family.
    pub id: Uuid,
    /// Whose it is.
    pub user: Uuid,
    /// The token for the cookie.
    pub token: Secret,
    /// When the family ends.
    pub expires_at: OffsetDateTime,
}

/// What a refresh token was good for.
#[derive(Debug)]
pub enum Refreshed {
    /// It was valid and is used up now.
    Rotated(Session),
    /// It is unknown, expired, revoked, or was used before.
    Refused,
}

/// Opens a session.
pub async fn open(database: &mut PgConnection, user: Uuid) -> Result<Session, Problem> {
    let id = Uuid::now_v7();
    let expires_at = OffsetDateTime::now_utc() + SESSION_LIFETIME;
    sqlx::query("INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(user)
        .bind(expires_at)
        .execute(&mut *database)
        .await?;
    let token = insert_token(database, id).await?;
    Ok(Session { id, user, token, expires_at })
}

/// Uses up a refresh token for the next one.
pub async fn refresh(database: &Database, token: &str) -> Result<Refreshed, Problem> {
    type Row = (Uuid, Uuid, OffsetDateTime, bool, bool);
    let mut tx = database.begin().await?;
    // Both rows are locked, so that two uses of one family follow each other.
    let row: Option<Row> = sqlx::query_as(
        "SELECT s.id, s.user_id, s.expires_at,
                s.revoked_at IS NULL AND s.expires_at > now() AS open,
                t.used_at IS NOT NULL AS used
         FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
         WHERE t.token_hash = $1 FOR UPDATE OF t, s",
    )
    .bind(hash(token).as_ref())
    .fetch_optional(&mut *tx)
    .await?;
    let Some((id, user, expires_at, true, reused)) = row else {
        return Ok(Refreshed::Refused);
    };
    if reused {
        sqlx::query("UPDATE sessions SET revoked_at = now() WHERE id = $1")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        tracing::warn!(session = %id, user_id = %user, "refresh token reused: session revoked");
        return Ok(Refreshed::Refused);
    }
    sqlx::query("UPDATE refresh_tokens SET used_at = now() WHERE token_hash = $1")
        .bind(hash(token).as_ref())
        .execute(&mut *tx)
        .await?;
    let token = insert_token(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Refreshed::Rotated(Session { id, user, token, expires_at }))
}

/// Revokes the family of a token, if there is one.
pub async fn revoke(database: &Database, token: &str) -> Result<(), Problem> {
    sqlx::query(
        "UPDATE sessions SET revoked_at = now()
         WHERE revoked_at IS NULL AND id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)",
    )
    .bind(hash(token).as_ref())
    .execute(database)
    .await?;
    Ok(())
}

async fn insert_token(database: &mut PgConnection, session: Uuid) -> Result<Secret, Problem> {
    let token = random_token()?;
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id) VALUES ($1, $2)")
        .bind(hash(&token).as_ref())
        .bind(session)
        .execute(database)
        .await?;
    Ok(Secret::new(token))
}

/// The `Set-Cookie` of a session. The path covers every version of the API.
pub fn cookie(session: &Session, secure: bool) -> HeaderValue {
    let seconds = (session.expires_at - OffsetDateTime::now_utc()).whole_seconds().max(0);
    set_cookie(session.token.expose(), seconds, secure)
}

/// The `Set-Cookie` that removes the cookie.
pub fn clear_cookie(secure: bool) -> HeaderValue {
    set_cookie("", 0, secure)
}

fn set_cookie(value: &str, max_age: i64, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!(
        "{REFRESH_COOKIE}={value}; Path=/api; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"
    );
    let mut header = HeaderValue::try_from(text).expect("base64url and numbers are header-safe");
    header.set_sensitive(true);
    header
}

/// The refresh token among a request's cookies.
pub fn token_in(headers: &HeaderMap) -> Option<&str> {
    cookie_in(headers, REFRESH_COOKIE)
}

/// The value of a cookie that is not empty.
pub(super) fn cookie_in<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == wanted && !value.is_empty())
        .map(|(_, value)| value)
}
