//! Retries by class, pauses, and the interrupt.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Class, Error};

/// All timings of the engine; see the `[engine]` table of an environment file.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Calls in flight at once.
    pub concurrency: usize,
    /// Pause between two looks at something pending.
    pub poll: Duration,
    /// Share of a typical time that passes before the first look, 0 to 1.
    pub first_look: f64,
    /// First pause after a failed call; doubles.
    pub backoff: Duration,
    /// How long a transient error is retried.
    pub retry: Duration,
    /// How long a pending resource may take, as a multiple of its typical time.
    pub patience: u32,
    /// How long a deletion may take: what AWS detaches by itself (network interfaces of load
    /// balancers and proxies) lingers for minutes.
    pub deletion: Duration,
    /// Lease of the lock.
    pub lease: Duration,
    /// Renewal of the lease.
    pub beat: Duration,
    /// Read-after-write lag that is waited out after an answer was lost.
    pub lag: Duration,
    /// Longest rollout.
    pub rollout: Duration,
}

/// Tells the work to stop: once means finish what is in flight, twice is left to the process.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// The pair of a switch and what watches it.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether somebody has pressed Ctrl-C.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it.
    pub async fn set(&mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Sleeps. The one place where the engine does, so that a bare sleep anywhere else is a lint.
#[expect(clippy::disallowed_methods, reason = "every pause of the engine is bounded by its caller")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

impl Timings {
    /// The pause before try number `attempt` (from 0): doubling, full jitter over its upper half.
    pub fn backoff(&self, attempt: u32) -> Duration {
        let ceiling = self.backoff.saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(20));
        ceiling.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    /// A poll pause, jittered by a third so that pollers of one run spread out.
    pub fn poll(&self) -> Duration {
        self.poll.mul_f64(fastrand::f64().mul_add(0.33, 0.83))
    }

    /// How long a call that ended so is repeated; `None` when that would not help.
    pub(super) fn bound(&self, class: Class) -> Option<Duration> {
        match class {
            Class::Throttled | Class::InUse | Class::Conflict | Class::Unknown => Some(self.retry),
            // AWS IAM User Guide: changes may take "several seconds" to be visible everywhere.
            Class::Propagating => Some(self.retry.min(Duration::from_mins(1))),
            // A connection that is refused was not carried out; a restart takes seconds.
            Class::Unreachable => Some(self.retry.min(Duration::from_secs(3))),
            Class::AlreadyExists | Class::NotFound | Class::Fatal => None,
        }
    }

    /// Repeats a call that may be repeated blindly (a read, an update to a fixed value) while its
    /// error is transient.
    pub async fn repeat<T, F, Fut>(&self, mut call: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let start = Instant::now();
        let mut attempt = 0;
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(bound) = self.bound(error.class) else { return Err(error) };
            let wait = self.backoff(attempt);
            if start.elapsed() + wait > bound {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "calling again");
            pause(wait).await;
            attempt += 1;
        }
    }
}
