//! The in-flight lock and the replay cache, in Redis.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::Script;

use super::{
    call::Attempt,
    value::{Answer, Value, pending_prefix},
};
use crate::{
    kv::{Kv, KvError},
    metrics,
};

/// How long Redis replays an answer; the row in Postgres protects for longer.
const REPLAY_TTL: Duration = Duration::from_hours(24);

/// `SET NX GET` for a Redis before 7.0, which refuses the two together.
static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])
         if value then return value end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return false",
    )
});

/// Sets a new value, or deletes where it is empty, if the present one begins with the proof.
static COMPARE_AND_SET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])
         if not value or string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
         if ARGV[2] == '' then redis.call('DEL', KEYS[1])
         else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
         return 1",
    )
});

/// What Redis knew when an attempt began.
#[derive(Debug)]
pub(super) enum Begun {
    /// Nothing: the lock is this attempt's.
    Owned,
    /// A value of another attempt.
    Found {
        value: Value,
        /// As Redis holds it: the proof for replacing exactly this value.
        raw: Vec<u8>,
    },
    /// No answer, or one that is not ours. The lock may or may not be this attempt's.
    Unknown,
}

/// The lock of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lock<'a> {
    pub(super) kv: &'a Kv,
    pub(super) attempt: &'a Attempt,
    /// A template, for the metrics.
    pub(super) route: &'a str,
    pub(super) begun: Instant,
    pub(super) lease: Duration,
    pub(super) budget: Duration,
}

impl Lock<'_> {
    /// One key per request: it fits a cluster, cannot be injected into, and has a fixed length.
    fn key(&self) -> String {
        format!(
            "idempotency:{}:{}",
            self.attempt.user,
            URL_SAFE_NO_PAD.encode(self.attempt.key_hash.0)
        )
    }

    /// Takes the lock, or tells what is there, in one round trip.
    pub(super) async fn begin(&self) -> Begun {
        let pending = Value::Pending {
            fingerprint: self.attempt.fingerprint,
            token: self.attempt.token,
            deadline_ms: now_ms().saturating_add(millis(self.lease)),
        };
        match self.take(&pending.encode()).await {
            Ok(None) => Begun::Owned,
            Ok(Some(raw)) => {
                if let Some(value) = Value::decode(&raw) {
                    return Begun::Found { value, raw };
                }
                tracing::error!("a value under the idempotency prefix in Redis is not ours");
                Begun::Unknown
            }
            Err(error) => {
                tracing::warn!(%error, "idempotency goes on through Postgres alone");
                Begun::Unknown
            }
        }
    }

    /// The value that was there before; none where the lock is this attempt's now.
    async fn take(&self, pending: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if self.kv.is_before_7() {
            let mut invocation = BEGIN.key(self.key());
            invocation.arg(pending).arg(millis(self.lease));
            return self.kv.script(&invocation, self.budget).await;
        }
        let mut command = redis::cmd("SET");
        command.arg(self.key()).arg(pending).arg("NX").arg("GET");
        command.arg("PX").arg(millis(self.lease));
        self.kv.query(&command, self.budget).await
    }

    /// What the value of this attempt's own lock begins with.
    fn proof(&self) -> Vec<u8> {
        pending_prefix(self.attempt.fingerprint, &self.attempt.token)
    }

    /// Keeps the answer for replays, if the lock is still this attempt's.
    pub(super) async fn finish(&self, answer: Answer) {
        metrics::idempotency_lease(self.route, self.lease.saturating_sub(self.begun.elapsed()));
        match self.replace(&self.proof(), Some(answer)).await {
            Some(true) => {}
            Some(false) => metrics::idempotency(self.route, "lost_owner"),
            None => metrics::idempotency_finish_failed(self.route),
        }
    }

    /// Gives the lock up without an answer, if it is still this attempt's.
    pub(super) async fn release(&self) {
        if self.replace(&self.proof(), None).await == Some(false) {
            metrics::idempotency(self.route, "lost_owner");
        }
    }

    /// Replaces exactly the value that was found by the answer that the row in Postgres holds.
    pub(super) async fn repair(&self, found: &[u8], answer: Answer) {
        if self.replace(found, Some(answer)).await == Some(true) {
            metrics::idempotency(self.route, "repair");
        }
    }

    /// As [`Lock::repair`], where the lock is this attempt's own: another one's ended without a copy.
    pub(super) async fn repair_own(&self, answer: Answer) {
        self.repair(&self.proof(), answer).await;
    }

    /// Whether the lock was still the one; None where Redis does not tell.
    async fn replace(&self, proof: &[u8], answer: Option<Answer>) -> Option<bool> {
        let value = answer.map_or_else(Vec::new, |answer| {
            Value::Done { fingerprint: self.attempt.fingerprint, answer }.encode()
        });
        let mut invocation = COMPARE_AND_SET.key(self.key());
        invocation.arg(proof).arg(value).arg(millis(REPLAY_TTL));
        match self.kv.script::<i64>(&invocation, self.budget).await {
            Ok(1) => Some(true),
            // The row is the truth, so there is nothing to mend.
            Ok(_) => {
                tracing::info!("idempotency lock was no longer ours");
                Some(false)
            }
            Err(error) => {
                tracing::warn!(%error, "idempotency lock not updated; its lease ends it");
                None
            }
        }
    }
}

/// Milliseconds from now until a deadline of [`Value::Pending`].
pub(super) fn remaining(deadline_ms: u64) -> Duration {
    Duration::from_millis(deadline_ms.saturating_sub(now_ms()))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
