//! Deletes what has expired. The worker runs it; several at once do not wait for each other.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::database::Database;

/// Time between two sweeps.
const PERIOD: Duration = Duration::from_hours(1);

/// Rows of one statement: short enough to hold no lock that anybody notices.
const BATCH: i64 = 1000;

/// Longest wait for one statement; the application role's own limit is 15 s.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What expires, with the statement that deletes one batch. Tokens go before their sessions, so that
/// a session's deletion cascades to nothing.
const EXPIRED: [(&str, &str); 8] = [
    (
        "idempotency_keys",
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM idempotency_keys WHERE expires_at < now()
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    (
        "refresh_tokens",
        "DELETE FROM refresh_tokens WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
            WHERE s.expires_at < now()
            LIMIT $1 FOR UPDATE OF t SKIP LOCKED))",
    ),
    (
        "sessions",
        "DELETE FROM sessions WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM sessions WHERE expires_at < now()
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    (
        "app_logs",
        "DELETE FROM app_logs WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM app_logs WHERE created_at < now() - interval '90 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    (
        "password_resets",
        "DELETE FROM password_resets WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM password_resets WHERE expires_at < now()
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    (
        "mcp_audit",
        "DELETE FROM mcp_audit WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM mcp_audit WHERE created_at < now() - interval '90 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    (
        "voice_jobs",
        "DELETE FROM voice_jobs WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM voice_jobs
            WHERE state IN ('completed', 'failed') AND updated_at < now() - interval '90 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
    // What was said in vain is kept no longer than queues keep dead letters (14 days, Amazon SQS
    // quotas): until then an operator may put the job back.
    (
        "transcripts of failed voice jobs",
        "UPDATE voice_jobs SET transcript = NULL WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM voice_jobs
            WHERE state = 'failed' AND transcript IS NOT NULL
              AND updated_at < now() - interval '14 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))",
    ),
];

/// Sweeps at once and then every hour, for ever. Run it in a task; it may be aborted at any time.
pub async fn keep(database: Database) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        if let Err(error) = sweep(&database).await {
            tracing::warn!(%error, "what has expired is not all deleted; the next hour tries again");
        }
    }
}

/// Deletes everything that has expired, in batches.
pub async fn sweep(database: &Database) -> Result<(), sqlx::Error> {
    for (table, statement) in EXPIRED {
        let mut deleted = 0;
        loop {
            let batch = delete(database, statement).await?;
            deleted += batch;
            if batch < BATCH.unsigned_abs() {
                break;
            }
        }
        if deleted > 0 {
            tracing::info!(table, deleted, "expired rows deleted");
        }
    }
    Ok(())
}

async fn delete(database: &Database, statement: &'static str) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(statement).bind(BATCH).execute(database);
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let done = timeout(STATEMENT_TIMEOUT, deleted).await.map_err(late)??;
    Ok(done.rows_affected())
}
