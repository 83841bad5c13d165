//! The lock: one object with a lease, taken, renewed and released by compare-and-swap.
//!
//! A holder that dies leaves a lease that nobody renews; whoever waits sees by its own clock that
//! the object has not changed for a whole lease and takes it over. A holder that was stopped past
//! its lease notices by its own clock before it makes another mutating call, see [`Fence`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    Class, Error, Fault, Interrupt, Timings,
    events::{Event, Events},
    pause,
};

/// A store with compare-and-swap, of which S3's conditional writes are one.
#[async_trait]
pub trait Store: Send + Sync {
    /// The object and its version.
    async fn get(&self, key: &str) -> Result<Option<(String, Vec<u8>)>, Error>;
    /// Writes it if there is none; `None` when there is one.
    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error>;
    /// Writes it if it still has `version`; `None` when it has changed.
    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error>;
    /// Deletes it if it still has `version`.
    async fn delete(&self, key: &str, version: &str) -> Result<(), Error>;
}

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `user@host (pid 123)`.
    pub holder: String,
    /// The run.
    pub run: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Last sign of life, RFC 3339.
    pub last_beat: String,
}

impl Holder {
    /// Nobody: what `by` leaves in the place of a holder that is known to be dead. Whoever takes the lock
    /// next need not wait, but has as much in doubt as after a lease that has run out.
    pub fn nobody(by: String) -> Self {
        let now = Timestamp::now().to_string();
        Self { holder: by, run: String::new(), since: now.clone(), last_beat: now }
    }

    /// Whether the lock was taken away and nobody has had it since.
    pub fn is_nobody(&self) -> bool {
        self.run.is_empty()
    }

    /// What the object says; one that can't be read is somebody's all the same.
    pub(crate) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| Self {
            holder: "unknown".into(),
            run: "unknown".into(),
            since: String::new(),
            last_beat: String::new(),
        })
    }
}

/// The lock as somebody has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who holds it.
    pub holder: Holder,
    /// Changes with every beat.
    pub(crate) version: String,
}

/// Who holds the lock; `None` when nobody does.
pub async fn held(store: &dyn Store, key: &str) -> Result<Option<Held>, Error> {
    let object = store.get(key).await?;
    let held = object.map(|(version, body)| Held { holder: Holder::read(&body), version });
    Ok(held.filter(|held| !held.holder.is_nobody()))
}

/// Takes the lock away from whom `seen` names, if he has not beaten since; what stays in its place has
/// the next run go on as after a lease that has run out. Otherwise changes nothing, and tells who holds
/// it now.
pub async fn take_away(
    store: &dyn Store,
    key: &str,
    seen: &Held,
    by: String,
    timings: &Timings,
) -> Result<Option<Held>, Error> {
    let nobody = body(&Holder::nobody(by));
    let replaced = timings.repeat(|| store.replace(key, &seen.version, nobody.clone())).await?;
    // Not written, or written by a call whose answer was lost.
    if replaced.is_some() { Ok(None) } else { timings.repeat(|| held(store, key)).await }
}

/// Refusals of a release after which the lock is left to its lease.
const REFUSALS: usize = 5;

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("locked by {} since {}, last seen beating {}", .0.holder, .0.since, .0.last_beat)]
    Held(Holder),
    /// Ctrl-C while waiting.
    #[error("interrupted while waiting for the lock")]
    Interrupted,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] Error),
}

pub(super) const LOST: Fault = Fault {
    code: "lock-lost",
    cause: "this run was stopped for longer than its lease, so another run may have gone on",
    mend: "run the command again: it goes on where things are now",
};

/// The end of a lease by two clocks: the monotonic one stands still while a laptop sleeps, the other
/// one can be set back.
#[derive(Clone, Copy, Debug)]
struct Until(Instant, SystemTime);

impl Until {
    fn after(lease: Duration) -> Self {
        Self(Instant::now() + lease, SystemTime::now() + lease)
    }

    fn is_past(self) -> bool {
        Instant::now() >= self.0 || SystemTime::now() >= self.1
    }
}

/// Whether this run still holds the lock.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Option<Until>>>);

impl Fence {
    /// Refuses once the lease has run out or was lost.
    pub fn check(&self) -> Result<(), Error> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| !until.is_past()) {
            return Ok(());
        }
        Err(LOST.error("bme", LOST.cause))
    }

    /// A fence without a lock, for tests.
    #[cfg(test)]
    pub(super) fn held_for(duration: Duration) -> Self {
        Self(Arc::new(Mutex::new(Some(Until::after(duration)))))
    }

    fn set(&self, until: Option<Until>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// The lock while it is held.
pub struct Lock {
    store: Arc<dyn Store>,
    key: String,
    run: String,
    /// The beat ends when this goes.
    stop: oneshot::Sender<()>,
    /// Answers with the version that it has written last.
    beat: JoinHandle<String>,
    fence: Fence,
    timings: Timings,
    /// The run before ended without releasing it.
    pub after_unclean_end: bool,
}

/// Takes the lock, waiting up to `wait` for another run, and out the lease of one that died.
pub async fn acquire(
    store: Arc<dyn Store>,
    key: String,
    mut me: Holder,
    wait: Duration,
    timings: &Timings,
    events: &Events,
    interrupt: &Interrupt,
) -> Result<Lock, LockError> {
    let start = Instant::now();
    let mut seen: Option<(String, Instant)> = None;
    let mut told = false;
    let mut taking_over = false;
    let (version, until, after_unclean_end) = loop {
        let until = Until::after(timings.lease);
        me.last_beat = Timestamp::now().to_string();
        let body = body(&me);
        if let Some(version) = timings.repeat(|| store.put_new(&key, body.clone())).await? {
            break (version, until, false);
        }
        let Some((version, bytes)) = timings.repeat(|| store.get(&key)).await? else {
            // Just released; a store that goes on to say both is not asked without a pause.
            pause(timings.backoff(0)).await;
            continue;
        };
        let holder = Holder::read(&bytes);
        // An answer to our own write that was lost.
        if holder.run == me.run {
            break (version, until, taking_over);
        }
        let since = match &seen {
            Some((last, since)) if *last == version => *since,
            _ => Instant::now(),
        };
        seen = Some((version.clone(), since));
        if holder.is_nobody() || since.elapsed() >= timings.lease {
            taking_over = true;
            if let Some(version) =
                timings.repeat(|| store.replace(&key, &version, body.clone())).await?
            {
                break (version, until, true);
            }
            continue;
        }
        // A dead holder is waited out even by who does not want to wait: its lease is short.
        let beating = start.elapsed() >= timings.lease + timings.beat;
        if beating && start.elapsed() >= wait {
            return Err(LockError::Held(holder));
        }
        if !told {
            told = true;
            events.emit(Event::LockWaiting {
                holder: holder.holder,
                since: holder.since,
                last_beat: holder.last_beat,
            });
        }
        let mut interrupt = interrupt.clone();
        tokio::select! {
            () = pause(timings.beat / 3) => {}
            () = interrupt.set() => return Err(LockError::Interrupted),
        }
    };
    let fence = Fence(Arc::new(Mutex::new(Some(until))));
    let run = me.run.clone();
    let heart = Heart {
        store: Arc::clone(&store),
        key: key.clone(),
        me,
        version,
        fence: fence.clone(),
        timings: timings.clone(),
        events: events.clone(),
    };
    // After a lease nobody waits for a release any more.
    let timings = Timings { retry: timings.retry.min(timings.lease), ..timings.clone() };
    let (stop, stopped) = oneshot::channel();
    let beat = tokio::spawn(heart.beat(stopped));
    Ok(Lock { store, key, run, stop, beat, fence, timings, after_unclean_end })
}

/// What renews the lease.
struct Heart {
    store: Arc<dyn Store>,
    key: String,
    me: Holder,
    version: String,
    fence: Fence,
    timings: Timings,
    events: Events,
}

impl Heart {
    /// Beats until it is stopped or the lock is lost; answers with the version written last.
    ///
    /// A renewal without an answer is given up while the lease has time for two others: waiting for it
    /// would cost the lease.
    async fn beat(mut self, mut stopped: oneshot::Receiver<()>) -> String {
        let Timings { beat, lease, .. } = self.timings;
        let patience = lease.saturating_sub(beat) / 3;
        let mut wait = beat;
        loop {
            tokio::select! {
                () = pause(wait) => {}
                _ = &mut stopped => return self.version,
            }
            let until = Until::after(lease);
            // A lease that has run out may be somebody else's by now: it is never renewed.
            if self.fence.check().is_err() {
                return self.version;
            }
            self.me.last_beat = Timestamp::now().to_string();
            let missed = match timeout(patience, self.renewed()).await {
                Ok(Ok(Some(version))) => {
                    self.version = version;
                    self.fence.set(Some(until));
                    wait = beat;
                    continue;
                }
                Ok(Ok(None)) => {
                    self.fence.set(None);
                    return self.version;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} ms", patience.as_millis()),
            };
            self.events.note(format!(
                "a beat of the lock was missed, and is tried again while its lease lasts: {missed}"
            ));
            wait = beat / 4;
        }
    }

    /// Writes the object; its new version, or `None` when it is somebody else's or gone.
    async fn renewed(&self) -> Result<Option<String>, Error> {
        let mut version = self.version.clone();
        loop {
            let written = self.store.replace(&self.key, &version, body(&self.me)).await?;
            if written.is_some() {
                return Ok(written);
            }
            // Changed: either our own write whose answer was lost, or somebody else's. Our own was of
            // an earlier beat, and whoever waits counts the lease from then: it is written again.
            match own(&*self.store, &self.key, &self.me.run).await? {
                Some(current) => version = current,
                None => return Ok(None),
            }
        }
    }
}

/// The version of the object, if it is this run's.
async fn own(store: &dyn Store, key: &str, run: &str) -> Result<Option<String>, Error> {
    let Some((version, bytes)) = store.get(key).await? else { return Ok(None) };
    let holder = serde_json::from_slice::<Holder>(&bytes);
    Ok(holder.is_ok_and(|holder| holder.run == run).then_some(version))
}

impl Lock {
    /// Whether it is still held.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Releases it, if it is still ours.
    pub async fn release(self) -> Result<(), Error> {
        let Self { store, key, run, stop, beat, timings, .. } = self;
        // A beat on its way is waited for: torn down it may be carried out all the same, and then what
        // is deleted is no longer the version that is there.
        drop(stop);
        let mut version = beat.await.unwrap_or_default();
        let mut refusals = 0;
        loop {
            // A refusal is an answer; anything else that passes is asked again.
            let refused = timings
                .repeat(|| async {
                    match store.delete(&key, &version).await {
                        Err(error) if error.class == Class::Conflict => Ok(Some(error)),
                        Err(error) if error.class != Class::NotFound => Err(error),
                        _ => Ok(None),
                    }
                })
                .await?;
            let Some(error) = refused else { return Ok(()) };
            refusals += 1;
            // Changed: by a beat whose answer was lost, or it is somebody else's. Or such a beat was
            // just being carried out, and it is not changed yet.
            match timings.repeat(|| own(&*store, &key, &run)).await? {
                Some(_) if refusals == REFUSALS => return Err(error),
                Some(current) => version = current,
                None => return Ok(()),
            }
        }
    }
}

fn body(holder: &Holder) -> Vec<u8> {
    serde_json::to_vec(holder).expect("four strings can be written as JSON")
}
