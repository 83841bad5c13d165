//! Repeated requests: one key, one effect, one answer.
//!
//! The truth is the row in `idempotency_keys`, written in the transaction of the effect itself.
//! Redis holds the in-flight lock (the fast 409) and a copy of the answer; without it everything
//! stays right and only gets slower. See [`Idempotency::run`] for the course of a request.

mod call;
mod key;
mod lock;
mod row;
mod value;

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use axum::{http::StatusCode, response::Response};
use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::PgConnection;
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::Uuid;

pub use call::Call;
pub use key::{IDEMPOTENCY_KEY, Key, X_IDEMPOTENCY_KEY};
pub use value::{Answer, Hash, IDEMPOTENT_REPLAYED, Value};

use crate::{app::Timings, database::Database, kv::Kv, metrics, problem::Problem, telemetry};
use call::Attempt;
use lock::{Begun, Lock};

/// A request that runs for longer than this may have lost its process.
const USUAL_DURATION: Duration = Duration::from_millis(500);

/// The effect of a request: it works on the given transaction and must not commit it.
pub type Effect<'c> = BoxFuture<'c, Result<Answer, Problem>>;

/// The guard of creating requests.
#[derive(Clone, Debug)]
pub struct Idempotency {
    database: Database,
    kv: Kv,
    timings: Timings,
    /// Whether an answer that cannot be replayed fails its request. It is a mistake of the programmer,
    /// which a debug build shows and which costs a caller of a release nothing.
    strict: bool,
}

/// How an attempt ended.
enum Outcome {
    /// Committed together with its row.
    Answered {
        answer: Answer,
        /// What the row holds.
        kept: Answer,
    },
    /// The key had a row already; this attempt's effect is rolled back.
    Duplicate,
    /// Rolled back, nothing to keep.
    Failed(Problem),
    /// The connection was lost while committing: only the row can tell.
    InDoubt,
}

impl Idempotency {
    /// A guard over one database and one Redis.
    pub fn new(database: Database, kv: Kv, timings: Timings) -> Self {
        Self { database, kv, timings, strict: cfg!(debug_assertions) }
    }

    /// The guard as it is in a release build, in any build.
    #[must_use]
    pub fn in_release(self) -> Self {
        Self { strict: false, ..self }
    }

    /// Answers a request at most once per key.
    ///
    /// `prepare` validates the body; its refusal is not kept. `effect` does the work on a
    /// transaction. Without a key both simply run.
    pub async fn run<T, P, E>(
        &self,
        user: Uuid,
        call: &Call,
        body: &[u8],
        prepare: P,
        effect: E,
    ) -> Result<Response, Problem>
    where
        P: FnOnce(&[u8]) -> Result<T, Problem>,
        E: for<'c> FnOnce(T, &'c mut PgConnection) -> Effect<'c>,
    {
        let Some(key) = &call.key else {
            return self.run_unguarded(prepare(body)?, effect).await;
        };
        let outcome = self.run_guarded(user, key, call, body, prepare, effect).await;
        metrics::idempotency(&call.route, result(&outcome));
        outcome
    }

    async fn run_guarded<T, P, E>(
        &self,
        user: Uuid,
        key: &Key,
        call: &Call,
        body: &[u8],
        prepare: P,
        effect: E,
    ) -> Result<Response, Problem>
    where
        P: FnOnce(&[u8]) -> Result<T, Problem>,
        E: for<'c> FnOnce(T, &'c mut PgConnection) -> Effect<'c>,
    {
        let attempt =
            Attempt::new(user, key, call.fingerprint(body)).ok_or_else(Problem::internal)?;
        let lock = Lock {
            kv: &self.kv,
            attempt: &attempt,
            route: &call.route,
            begun: Instant::now(),
            lease: self.timings.lease,
            budget: self.timings.idempotency_redis,
        };
        match lock.begin().await {
            Begun::Owned | Begun::Unknown => {}
            Begun::Found { value: Value::Done { fingerprint, answer }, .. } => {
                return replay(fingerprint == attempt.fingerprint, answer);
            }
            Begun::Found { value: Value::Pending { fingerprint, deadline_ms, .. }, raw } => {
                return self.while_pending(&lock, fingerprint, deadline_ms, &raw).await;
            }
        }
        let input = match prepare(body) {
            Ok(input) => input,
            Err(problem) => {
                lock.release().await;
                return Err(problem);
            }
        };
        match self.execute(&attempt, call, input, effect).await {
            Outcome::Answered { answer, kept } => {
                lock.finish(kept).await;
                answer.respond().ok_or_else(Problem::internal)
            }
            Outcome::Duplicate => self.replay_row(&lock).await,
            Outcome::Failed(problem) => {
                lock.release().await;
                Err(problem)
            }
            Outcome::InDoubt => Err(Problem::unavailable(
                "outcome-unknown",
                "The outcome is not known yet. Repeat the request with the same idempotency key.",
                self.timings.lease.as_secs(),
            )),
        }
    }

    async fn run_unguarded<T, E>(&self, input: T, effect: E) -> Result<Response, Problem>
    where
        E: for<'c> FnOnce(T, &'c mut PgConnection) -> Effect<'c>,
    {
        let answer = self.timings.limit(async {
            let mut tx = self.database.begin().await?;
            let answer = effect(input, &mut tx).await?;
            tx.commit().await?;
            Ok(answer)
        });
        answer.await?.respond().ok_or_else(Problem::internal)
    }

    /// Another attempt holds the lock. If it died after its commit, its row tells; only a lock that
    /// is held for longer than requests usually take is worth the question, so that a burst of
    /// repetitions does not queue for the database.
    async fn while_pending(
        &self,
        lock: &Lock<'_>,
        fingerprint: Hash,
        deadline_ms: u64,
        raw: &[u8],
    ) -> Result<Response, Problem> {
        if fingerprint != lock.attempt.fingerprint {
            return Err(reused());
        }
        let remaining = lock::remaining(deadline_ms);
        if self.timings.lease.saturating_sub(remaining) >= USUAL_DURATION {
            match row::find(&self.database, lock.attempt).await {
                Ok(Some(row)) => {
                    let same = row.fingerprint == lock.attempt.fingerprint;
                    if same {
                        lock.repair(raw, row.answer.clone()).await;
                    }
                    return replay(same, row.answer);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "whether a pending request is done is not known");
                }
            }
        }
        let seconds = remaining.as_millis().div_ceil(1000).clamp(1, 5);
        Err(Problem::new(
            StatusCode::CONFLICT,
            "request-in-progress",
            "A request with this idempotency key is still running.",
        )
        .retry_after(u64::try_from(seconds).unwrap_or(5)))
    }

    /// The transaction lost against an earlier one with the same key.
    async fn replay_row(&self, lock: &Lock<'_>) -> Result<Response, Problem> {
        let row = match row::find(&self.database, lock.attempt).await {
            Ok(Some(row)) => row,
            // It expired between the two statements, or the database went away.
            Ok(None) => return Err(Problem::unavailable("busy", "Repeat the request.", 1)),
            Err(error) => return Err(error.into()),
        };
        let same = row.fingerprint == lock.attempt.fingerprint;
        if same {
            lock.repair_own(row.answer.clone()).await;
        } else {
            lock.release().await;
        }
        replay(same, row.answer)
    }

    /// Runs the effect in a transaction and writes its answer as the last statement.
    async fn execute<T, E>(&self, attempt: &Attempt, call: &Call, input: T, effect: E) -> Outcome
    where
        E: for<'c> FnOnce(T, &'c mut PgConnection) -> Effect<'c>,
    {
        let committing = AtomicBool::new(false);
        let span = tracing::debug_span!(
            target: telemetry::TARGET,
            "transaction",
            otel.kind = "client",
            db.system.name = "postgresql",
        );
        let transaction = self.transaction(attempt, call, input, effect, &committing);
        let transaction = AssertUnwindSafe(transaction.instrument(span));
        match timeout(self.timings.execution, transaction.catch_unwind()).await {
            Ok(Ok(Ok(outcome))) => outcome,
            Ok(Ok(Err(error))) => Outcome::Failed(error.into()),
            _ if committing.load(Ordering::Acquire) => Outcome::InDoubt,
            Err(_) => {
                tracing::error!("transaction timed out");
                Outcome::Failed(Problem::unavailable("timeout", "The request took too long.", 5))
            }
            Ok(Err(_)) => {
                tracing::error!("handler panicked");
                Outcome::Failed(Problem::internal())
            }
        }
    }

    async fn transaction<T, E>(
        &self,
        attempt: &Attempt,
        call: &Call,
        input: T,
        effect: E,
        committing: &AtomicBool,
    ) -> Result<Outcome, sqlx::Error>
    where
        E: for<'c> FnOnce(T, &'c mut PgConnection) -> Effect<'c>,
    {
        let mut tx = self.database.begin().await?;
        let answer = match effect(input, &mut tx).await {
            Ok(answer) => answer,
            Err(problem) if is_kept(problem.status()) => {
                // A decision about this very request: its effect goes, the decision stays.
                tx.rollback().await?;
                tx = self.database.begin().await?;
                decision(&problem, call)
            }
            Err(problem) => return Ok(Outcome::Failed(problem)),
        };
        let kept = if answer.is_replayable() {
            answer.clone()
        } else {
            let (route, bytes) = (call.route.as_str(), answer.body.len());
            tracing::error!(route, bytes, "an answer cannot be replayed");
            if self.strict {
                tx.rollback().await?;
                return Ok(Outcome::Failed(Problem::internal()));
            }
            decision(&not_replayable(answer.status), call)
        };
        if !row::insert(&mut tx, attempt, &kept).await? {
            tx.rollback().await?;
            return Ok(Outcome::Duplicate);
        }
        committing.store(true, Ordering::Release);
        match tx.commit().await {
            Ok(()) => Ok(Outcome::Answered { answer, kept }),
            // The server itself says that it did not commit.
            Err(error) if is_refusal(&error) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "outcome of a commit is not known");
                Ok(Outcome::InDoubt)
            }
        }
    }
}

/// The result of a request as it is counted. Whatever ended it, one that met no other is new.
fn result(outcome: &Result<Response, Problem>) -> &'static str {
    match outcome {
        Ok(response) if response.headers().contains_key(IDEMPOTENT_REPLAYED) => "replay",
        Err(problem) if problem.code() == "request-in-progress" => "in_progress",
        Err(problem) if problem.code() == "idempotency-key-reused" => "mismatch",
        _ => "new",
    }
}

/// A problem as the answer that is kept.
fn decision(problem: &Problem, call: &Call) -> Answer {
    let response = problem.respond(call.request_id.as_str());
    let body = problem.render(call.request_id.as_str());
    Answer::of(response.status(), response.headers(), &body)
}

/// What repetitions are told of a request whose answer cannot be told again.
fn not_replayable(status: u16) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "not-replayable",
        "The request was carried out, but its answer cannot be repeated.",
    )
    .with_member("originalStatus", status.into())
}

/// Whether the server refused a COMMIT. A shutdown (SQLSTATE class 57) may arrive after the commit
/// became durable, so it is no refusal.
fn is_refusal(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return false;
    };
    database.code().is_some_and(|code| !code.starts_with("57") && !code.starts_with("08"))
}

/// Whether an error answer is kept: decisions about the request are, while who may call, how often,
/// and in what form may change until the next attempt.
fn is_kept(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status.as_u16(), 400 | 401 | 403 | 405 | 406 | 408 | 413 | 415 | 425 | 429)
}

fn replay(same_request: bool, answer: Answer) -> Result<Response, Problem> {
    if same_request { answer.replay().ok_or_else(Problem::internal) } else { Err(reused()) }
}

fn reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "This idempotency key belongs to a different request.",
    )
}
