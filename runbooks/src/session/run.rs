//! One run of a command that changes something: its lock, its events, its record, its end.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Session, consent};
use crate::{
    engine::{
        Class, Error, Fault, Graph, Interrupt, ResourceId, Timings,
        apply::{Applied, Context, Failure},
        events::{AwsCalls, Event, Events, Outcome},
        lock::{Holder, Lock, LockError, acquire},
        pause,
        plan::Plan,
    },
    release,
    state::{LOCK, RECORDS},
};

/// Another run holds the lock.
pub const LOCKED: Fault = Fault {
    code: "locked",
    cause: "another run works on this environment",
    mend: "wait for it with `--lock-wait 10m`; a run that died loses the lock by itself",
};

/// How a run works.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Calls in flight at once, instead of the environment's.
    pub parallelism: Option<usize>,
    /// How long another run is waited for.
    pub lock_wait: Duration,
    /// Whoever asked for it has said that data may be lost for good.
    pub allow_data_loss: bool,
    /// The plan that was shown and agreed to; none when nobody was asked. What is done under the lock may
    /// be less than that, never more.
    pub agreed: Option<Plan>,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Resources made.
    pub created: usize,
    /// Resources changed in place.
    pub updated: usize,
    /// Resources made anew.
    pub replaced: usize,
    /// Resources deleted.
    pub deleted: usize,
    /// Resources that were right.
    pub unchanged: usize,
    /// The whole run, seconds.
    pub seconds: f64,
    /// Calls that only read.
    pub read: u64,
    /// Calls that may have changed something.
    pub mutating: u64,
}

impl Summary {
    /// Resources that are not as they were.
    pub fn changed(&self) -> usize {
        self.created + self.updated + self.replaced + self.deleted
    }
}

/// Why a run did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another run holds the lock.
    #[error("locked by {} since {}, last seen beating {}", .0.holder, .0.since, .0.last_beat)]
    Locked(Holder),
    /// Nobody has said that data may be lost; nothing was changed.
    #[error("this would lose the data of {}", names(.0))]
    DataLoss(Vec<ResourceId>),
    /// It is more than the plan that was agreed to; nothing was changed.
    #[error("things have changed since the plan was made: it would also change {}", names(.0))]
    Grown(Vec<ResourceId>),
    /// They are protected against deletion, and no run has taken that off; nothing was changed.
    #[error("protected against deletion: {}", names(.0))]
    Protected(Vec<ResourceId>),
    /// Ctrl-C.
    #[error("interrupted; run the command again to go on where it stopped")]
    Interrupted,
    /// Resources failed; the others are done.
    #[error("{} of the resources failed", .failures.len())]
    Failed {
        /// What failed.
        failures: Vec<Failure>,
        /// What was not tried for that reason.
        held_back: usize,
        /// What was done all the same.
        summary: Summary,
    },
    /// The release failed; the one before runs again.
    #[error("the release failed and was rolled back: {0}")]
    RolledBack(release::Error),
    /// The release failed before anything was changed, or could not be rolled back.
    #[error(transparent)]
    Release(release::Error),
    /// A call outside any resource failed after resources had been worked on.
    #[error("{error}")]
    Stopped {
        /// The call.
        error: Error,
        /// What was done all the same.
        summary: Summary,
    },
    /// A call outside any resource failed.
    #[error(transparent)]
    Aws(#[from] Error),
}

impl RunError {
    /// The same, with what was done before.
    fn after(self, summary: Summary) -> Self {
        match self {
            Self::Aws(error) if summary.changed() + summary.unchanged > 0 => {
                Self::Stopped { error, summary }
            }
            error => error,
        }
    }
}

fn names(ids: &[ResourceId]) -> String {
    ids.iter().map(ResourceId::as_str).collect::<Vec<_>>().join(", ")
}

impl From<LockError> for RunError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(holder) => Self::Locked(holder),
            LockError::Interrupted => Self::Interrupted,
            LockError::Store(error) => Self::Aws(error),
        }
    }
}

/// One run of a command that changes something.
pub(crate) struct Run<'a> {
    session: &'a Session,
    command: &'a str,
    lock_wait: Duration,
    allow_data_loss: bool,
    agreed: Option<&'a Plan>,
    pub(crate) timings: Timings,
    pub(crate) events: &'a Events,
    pub(crate) interrupt: &'a Interrupt,
    start: Instant,
    since: Timestamp,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        session: &'a Session,
        command: &'a str,
        options: &'a Options,
        events: &'a Events,
        interrupt: &'a Interrupt,
    ) -> Self {
        let mut timings = session.timings.clone();
        timings.concurrency = options.parallelism.unwrap_or(timings.concurrency);
        Self {
            session,
            command,
            lock_wait: options.lock_wait,
            allow_data_loss: options.allow_data_loss,
            agreed: options.agreed.as_ref(),
            timings,
            events,
            interrupt,
            start: Instant::now(),
            since: Timestamp::now(),
        }
    }

    pub(crate) fn started(&self, resources: usize, estimated_seconds: f64) {
        self.events.emit(Event::RunStarted {
            command: self.command.to_owned(),
            env: self.session.environment.name.clone(),
            account: self.session.aws.account.clone(),
            region: self.session.aws.region.clone(),
            resources,
            estimated_seconds,
        });
    }

    pub(crate) async fn lock(&self) -> Result<Lock, RunError> {
        let state = &self.session.state;
        self.timings.repeat(|| state.ensure()).await?;
        let mut taken = self.take().await;
        // The end of a destroy that was waited for takes the bucket with it.
        if matches!(&taken, Err(LockError::Store(error)) if error.class == Class::NotFound) {
            self.timings.repeat(|| state.ensure()).await?;
            taken = self.take().await;
        }
        let lock = taken?;
        self.session.aws.calls.guard(Some(lock.fence().clone()));
        if lock.after_unclean_end {
            self.events.note("the run before ended without a word and no longer has the lock; going on from what is there");
            // What it made last may not be visible yet.
            pause(self.timings.lag).await;
        }
        Ok(lock)
    }

    async fn take(&self) -> Result<Lock, LockError> {
        let state = &self.session.state;
        let me = Holder {
            holder: me(),
            run: self.events.run().to_owned(),
            since: self.since.to_string(),
            last_beat: String::new(),
        };
        acquire(
            state.store(),
            state.key(LOCK),
            me,
            self.lock_wait,
            &self.timings,
            self.events,
            self.interrupt,
        )
        .await
    }

    /// Whether what is about to be done was agreed to, and takes away nothing of what is live and
    /// `protected`. It is asked again under the lock, since others may have worked until then.
    pub(super) fn agrees_to(&self, plan: &Plan, protected: &[ResourceId]) -> Result<(), RunError> {
        let taken_away = consent::taken_away(plan, protected);
        if !taken_away.is_empty() {
            return Err(RunError::Protected(taken_away));
        }
        let losing = plan.losing_data();
        if !self.allow_data_loss && !losing.is_empty() {
            return Err(RunError::DataLoss(losing));
        }
        let grown = self.agreed.map(|agreed| consent::grown(agreed, plan)).unwrap_or_default();
        if grown.is_empty() { Ok(()) } else { Err(RunError::Grown(grown)) }
    }

    pub(crate) fn context<'b>(&'b self, graph: &'b Graph, lock: &'b Lock) -> Context<'b> {
        Context {
            graph,
            timings: &self.timings,
            events: self.events,
            interrupt: self.interrupt,
            fence: lock.fence(),
            allow_data_loss: self.allow_data_loss,
        }
    }

    /// Writes the record, releases the lock, whatever happened, and tells how it ended and what was
    /// `applied` until then.
    pub(crate) async fn end(
        &self,
        lock: Lock,
        applied: Applied,
        ended: Result<(), RunError>,
    ) -> Result<Summary, RunError> {
        // Whether it was made is not known, and may not be visible yet to whoever comes next.
        if applied.failures.iter().any(|failure| failure.error.class == Class::Unknown) {
            pause(self.timings.lag).await;
        }
        let summary = self.summary(&applied);
        if let Err(error) = ended {
            self.close(lock, Outcome::Failed, &summary).await;
            return Err(error.after(summary));
        }
        self.close(lock, outcome(&applied), &summary).await;
        self.result(applied)
    }

    /// Like [`Run::end`] for a destroy that has left nothing: the records go too, that of this run is
    /// not written. The lock goes last, since whoever has it next writes records of his own.
    pub(super) async fn vanished(&self, lock: Lock, applied: Applied) -> Result<Summary, RunError> {
        let state = &self.session.state;
        if let Err(error) = self.timings.repeat(|| state.empty()).await {
            self.close(lock, Outcome::Failed, &self.summary(&applied)).await;
            return Err(emptied_in_part(error));
        }
        // A lock that is still there keeps the bucket.
        let removed = match self.release(lock).await {
            Ok(()) => self.timings.repeat(|| state.remove()).await,
            Err(error) => Err(error),
        };
        let outcome = if removed.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.events.emit(finished(outcome, &self.summary(&applied)));
        removed.map_err(emptied_in_part)?;
        self.result(applied)
    }

    /// Like [`Run::end`] for a deploy: what was applied before a failure was put right by it.
    pub(super) async fn shipped(
        &self,
        lock: Lock,
        applied: Applied,
        shipped: Result<(), release::Error>,
    ) -> Result<Summary, RunError> {
        let Err(error) = shipped else { return self.end(lock, applied, Ok(())).await };
        self.events.note(error.to_string());
        let (outcome, error) = match error {
            release::Error::RolledBack { .. } => (Outcome::RolledBack, RunError::RolledBack(error)),
            release::Error::Interrupted { .. } => (Outcome::Interrupted, RunError::Interrupted),
            _ => (Outcome::Failed, RunError::Release(error)),
        };
        self.close(lock, outcome, &self.summary(&applied)).await;
        Err(error)
    }

    /// The record is history: that it could not be written does not undo what was done. But in a new
    /// bucket it is all that tells others that this run was there (see `holds`), so that the lock is left
    /// in its place. A lock that could not be released ends by its lease too; one that was lost is another
    /// run's by now.
    async fn close(&self, lock: Lock, outcome: Outcome, summary: &Summary) {
        let end = finished(outcome, summary);
        if let Err(lost) = lock.fence().check() {
            self.events.note(format!("no record of this run is written: {}", lost.message));
            self.events.emit(end);
            return;
        }
        let name = format!("{RECORDS}{}.jsonl", self.events.run());
        let (state, record) = (&self.session.state, self.events.record(&end).into_bytes());
        let written = self.timings.repeat(|| state.write(&name, record.clone())).await;
        if let Err(error) = written {
            self.events.note(format!(
                "the record of this run could not be written, so its lock ends by its lease: {error}"
            ));
            drop(lock);
            self.session.aws.calls.guard(None);
            self.events.emit(end);
            return;
        }
        // Told by it; nothing of what was done hangs on it.
        let _ = self.release(lock).await;
        self.events.emit(end);
    }

    async fn release(&self, lock: Lock) -> Result<(), Error> {
        let released = lock.release().await;
        if let Err(error) = &released {
            self.events
                .note(format!("the lock could not be released and ends by its lease: {error}"));
        }
        self.session.aws.calls.guard(None);
        released
    }

    /// Tells the end of a run that was told to have begun and did not get as far as the lock.
    pub(super) fn refused(&self, error: RunError) -> RunError {
        let outcome = match error {
            RunError::Interrupted => Outcome::Interrupted,
            _ => Outcome::Failed,
        };
        self.events.emit(finished(outcome, &self.summary(&Applied::default())));
        error
    }

    /// Tells the end of a run that needed no lock, since there was nothing to do.
    pub(crate) fn finish(&self, applied: Applied) -> Result<Summary, RunError> {
        self.events.emit(finished(outcome(&applied), &self.summary(&applied)));
        self.result(applied)
    }

    fn result(&self, applied: Applied) -> Result<Summary, RunError> {
        let summary = self.summary(&applied);
        match outcome(&applied) {
            Outcome::Done | Outcome::RolledBack => Ok(summary),
            Outcome::Interrupted => Err(RunError::Interrupted),
            Outcome::Failed => Err(RunError::Failed {
                failures: applied.failures,
                held_back: applied.held_back.len(),
                summary,
            }),
        }
    }

    fn summary(&self, applied: &Applied) -> Summary {
        let calls = self.session.calls();
        Summary {
            created: applied.created,
            updated: applied.updated,
            replaced: applied.replaced,
            deleted: applied.deleted,
            unchanged: applied.unchanged,
            seconds: self.start.elapsed().as_secs_f64(),
            read: calls.read,
            mutating: calls.mutating,
        }
    }
}

fn emptied_in_part(error: Error) -> RunError {
    RunError::Aws(error.with_hint(
        "all resources are deleted, some records are left in the state bucket: run `bme destroy` again",
    ))
}

fn outcome(applied: &Applied) -> Outcome {
    if applied.interrupted {
        Outcome::Interrupted
    } else if applied.failures.is_empty() && applied.held_back.is_empty() {
        Outcome::Done
    } else {
        Outcome::Failed
    }
}

fn finished(outcome: Outcome, summary: &Summary) -> Event {
    Event::RunFinished {
        outcome,
        created: summary.created,
        updated: summary.updated,
        replaced: summary.replaced,
        deleted: summary.deleted,
        unchanged: summary.unchanged,
        seconds: summary.seconds,
        aws_calls: AwsCalls { read: summary.read, mutating: summary.mutating },
    }
}

pub(super) fn me() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".into());
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".into());
    format!("{user}@{} (pid {})", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_fails_at_the_end_does_not_hide_what_was_done() {
        let nothing = Summary {
            created: 0,
            updated: 0,
            replaced: 0,
            deleted: 0,
            unchanged: 0,
            seconds: 1.0,
            read: 9,
            mutating: 1,
        };
        let failed = || RunError::Aws(Error::fatal("ec2:DescribeVpcs", "AccessDenied", "no"));
        assert!(matches!(failed().after(nothing), RunError::Aws(_)));
        let done = Summary { created: 2, unchanged: 3, ..nothing };
        let told = failed().after(done);
        assert!(matches!(told, RunError::Stopped { summary, .. } if summary == done), "{told}");
        assert!(matches!(RunError::Interrupted.after(done), RunError::Interrupted));
    }
}
