//! The row of a job. Every write of a worker names its lease token: a worker whose lease was taken
//! over changes nothing any more.

use std::time::Duration;

use serde_json::json;
use sqlx::{PgConnection, PgExecutor};
use time::Date;
use uuid::Uuid;

use crate::{app_log, database::Database, pii::Transcript, queue::Message, telemetry};

/// A message may be older than this before the relay looks whether it still exists, in seconds.
const RELAY_AFTER_SECONDS: i32 = 300;

/// A job in this worker's hands.
#[derive(sqlx::FromRow)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// What was said, or
    pub transcript: Option<Transcript>,
    /// where the audio lies,
    pub blob: Option<String>,
    /// and of which type it is.
    pub mime_type: Option<String>,
    /// The language that the client named.
    pub lang: Option<String>,
    /// The user's day.
    pub today: Date,
    /// The user's time zone.
    pub timezone: String,
    /// Whether the actions are carried out, or only reported.
    pub execute: bool,
    /// The request that made it.
    pub request_id: String,
    /// The proof that it is ours.
    pub lease_token: Uuid,
    /// A valid answer of the model, from an attempt that did not finish.
    pub model_answer: Option<Transcript>,
    /// How often work on it was begun and neither ended nor given back, this time included.
    pub attempts: i32,
}

/// What taking a job found.
pub enum Taken {
    /// It is ours now.
    Job(Box<Job>),
    /// Somebody else's at the moment.
    Busy,
    /// It has ended with a result.
    Completed,
    /// It has ended without one, with this code.
    Failed(String),
    /// There is no such row, or not yet.
    Absent,
}

/// Takes a job whose lease is free; `lease` is how long its holder may say nothing. A job that has
/// failed is only taken when it was `put_back` by an operator, and counts its attempts anew.
pub async fn take(
    database: &Database,
    id: Uuid,
    lease: Duration,
    put_back: bool,
) -> Result<Taken, sqlx::Error> {
    let job: Option<Job> = sqlx::query_as(
        "UPDATE voice_jobs
         SET state = 'processing', code = NULL, lease_token = $2,
             lease_until = now() + make_interval(secs => $3),
             attempts = CASE state WHEN 'failed' THEN 1 ELSE attempts + 1 END
         WHERE id = $1 AND (lease_until IS NULL OR lease_until < now())
           AND (state IN ('queued', 'processing') OR (state = 'failed' AND $4))
         RETURNING id, user_id, transcript, blob, mime_type, lang, today, timezone, execute,
                   request_id, lease_token, model_answer, attempts",
    )
    .bind(id)
    .bind(Uuid::now_v7())
    .bind(lease.as_secs_f64())
    .bind(put_back)
    .fetch_optional(database)
    .await?;
    if let Some(job) = job {
        return Ok(Taken::Job(Box::new(job)));
    }
    let row: Option<(String, Option<String>)> =
        sqlx::query_as("SELECT state, code FROM voice_jobs WHERE id = $1")
            .bind(id)
            .fetch_optional(database)
            .await?;
    Ok(match row {
        None => Taken::Absent,
        // A failed job has a code: the table checks it.
        Some((_, Some(code))) => Taken::Failed(code),
        Some((state, None)) if state == "completed" => Taken::Completed,
        Some((_, None)) => Taken::Busy,
    })
}

impl Job {
    /// Holds it for another lease; false when it was lost.
    pub async fn extend(&self, database: &Database, lease: Duration) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE voice_jobs SET lease_until = now() + make_interval(secs => $3)
             WHERE id = $1 AND lease_token = $2",
        )
        .bind(self.id)
        .bind(self.lease_token)
        .bind(lease.as_secs_f64())
        .execute(database)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives it back, for anybody. `tried` keeps the attempt counted.
    pub async fn release(&self, database: &Database, tried: bool) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE voice_jobs SET state = 'queued', lease_token = NULL, lease_until = NULL,
                 attempts = CASE WHEN $3 THEN attempts ELSE greatest(attempts - 1, 0) END
             WHERE id = $1 AND lease_token = $2",
        )
        .bind(self.id)
        .bind(self.lease_token)
        .bind(tried)
        .execute(database)
        .await?;
        Ok(())
    }

    /// Keeps the model's answer; false when the lease was lost.
    pub async fn keep_answer(
        &self,
        database: &Database,
        answer: &str,
    ) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE voice_jobs SET model_answer = $3 WHERE id = $1 AND lease_token = $2",
        )
        .bind(self.id)
        .bind(self.lease_token)
        .bind(answer)
        .execute(database)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that action `n` is applied; false when it was applied before.
    pub async fn claim(&self, database: &mut PgConnection, n: usize) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "INSERT INTO voice_job_actions (key, job_id, user_id) VALUES ($1, $2, $3)
             ON CONFLICT (key) DO NOTHING",
        )
        .bind(format!("job:{}:{n}", self.id))
        .bind(self.id)
        .bind(self.user_id)
        .execute(database)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends it with a result and erases what was said; false when the lease was lost.
    pub async fn complete(
        &self,
        database: impl PgExecutor<'_>,
        result: &str,
    ) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE voice_jobs
             SET state = 'completed', result = $3::jsonb, transcript = NULL, blob = NULL,
                 model_answer = NULL, lease_token = NULL, lease_until = NULL
             WHERE id = $1 AND lease_token = $2",
        )
        .bind(self.id)
        .bind(self.lease_token)
        .bind(result)
        .execute(database)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends it without one, and tells the operator. False when the lease was lost.
    pub async fn fail(
        &self,
        database: &Database,
        code: &'static str,
        attempts: u32,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = database.begin().await?;
        let done = sqlx::query(
            "UPDATE voice_jobs
             SET state = 'failed', code = $3, model_answer = NULL, lease_token = NULL,
                 lease_until = NULL
             WHERE id = $1 AND lease_token = $2",
        )
        .bind(self.id)
        .bind(self.lease_token)
        .bind(code)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let detail = json!({ "jobId": self.id, "code": code, "attempts": attempts });
        let (request_id, user) = (Some(self.request_id.as_str()), Some(self.user_id));
        app_log::write(&mut *tx, "error", "voice-job-failed", request_id, user, detail).await?;
        tx.commit().await?;
        tracing::error!(target: telemetry::DEAD_JOB, job_id = %self.id, request_id = self.request_id, code, attempts, "voice job failed");
        Ok(true)
    }
}

/// Open jobs that nobody has worked on for a while, marked as looked at: their messages.
pub async fn forgotten(database: &Database) -> Result<Vec<Message>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, Option<String>, String)> = sqlx::query_as(
        "UPDATE voice_jobs SET enqueued_at = now()
         WHERE id IN (
             SELECT id FROM voice_jobs
             WHERE state IN ('queued', 'processing')
               AND enqueued_at < now() - make_interval(secs => $1)
               AND (lease_until IS NULL OR lease_until < now())
             ORDER BY enqueued_at LIMIT 100 FOR UPDATE SKIP LOCKED)
         RETURNING id, user_id, blob, request_id",
    )
    .bind(RELAY_AFTER_SECONDS)
    .fetch_all(database)
    .await?;
    let message = |(job_id, user_id, blob, request_id)| Message {
        v: Message::VERSION,
        job_id,
        user_id,
        blob,
        request_id,
        traceparent: None,
    };
    Ok(rows.into_iter().map(message).collect())
}
