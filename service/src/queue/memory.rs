//! The queue in memory: for tests, and the plainest statement of what a queue does.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{DeadLetter, Delivery, Depth, Message, Queue, QueueError, UNREADABLE};

/// A queue that ends with its process.
#[derive(Debug)]
pub struct MemoryQueue {
    lease: Duration,
    attempts: u32,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<Uuid>,
    entries: Vec<Entry>,
    dead: Vec<(String, DeadLetter)>,
    unreadable: usize,
}

#[derive(Debug)]
struct Entry {
    text: String,
    job: Option<Uuid>,
    attempt: u32,
    stalled: u32,
    first_reason: Option<String>,
    enqueued_at: OffsetDateTime,
    /// When anybody may have it: a delay's end, or a lease's.
    free_at: Instant,
    holder: Option<String>,
}

impl Entry {
    fn new(text: String, job: Option<Uuid>) -> Self {
        Self {
            text,
            job,
            attempt: 1,
            stalled: 0,
            first_reason: None,
            enqueued_at: OffsetDateTime::now_utc(),
            free_at: Instant::now(),
            holder: None,
        }
    }
}

impl State {
    fn bury(&mut self, at: usize, reason: &str, attempts: u32) {
        let entry = self.entries.swap_remove(at);
        let letter = DeadLetter {
            job_id: entry.job,
            reason: reason.to_owned(),
            first_reason: entry.first_reason.or_else(|| Some(reason.to_owned())),
            attempts,
            enqueued_at: Some(entry.enqueued_at),
            at: OffsetDateTime::now_utc(),
        };
        self.dead.push((entry.text, letter));
    }

    /// Ends leases whose time is over.
    fn expire(&mut self, now: Instant) {
        for entry in &mut self.entries {
            if entry.free_at <= now && entry.holder.take().is_some() {
                entry.stalled += 1;
            }
        }
    }

    fn take(&mut self, max: usize, lease: Duration) -> Vec<Delivery> {
        let now = Instant::now();
        self.expire(now);
        let mut deliveries = Vec::new();
        for at in (0..self.entries.len()).rev() {
            let entry = &mut self.entries[at];
            if deliveries.len() == max || entry.holder.is_some() || entry.free_at > now {
                continue;
            }
            let Some(message) = Message::read(&entry.text) else {
                let tried = entry.attempt - 1;
                self.bury(at, UNREADABLE, tried);
                self.unreadable += 1;
                continue;
            };
            let handle = Uuid::now_v7().to_string();
            entry.holder = Some(handle.clone());
            entry.free_at = now + lease;
            let (attempt, stalled, enqueued_at) = (entry.attempt, entry.stalled, entry.enqueued_at);
            deliveries.push(Delivery { message, attempt, stalled, enqueued_at, handle });
        }
        deliveries
    }

    fn held(&mut self, delivery: &Delivery) -> Result<usize, QueueError> {
        self.expire(Instant::now());
        let holder = Some(&delivery.handle);
        self.entries
            .iter()
            .position(|entry| entry.holder.as_ref() == holder)
            .ok_or(QueueError::LostLease)
    }
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new(lease: Duration, attempts: u32) -> Self {
        Self { lease, attempts, state: Mutex::default(), changed: Notify::new() }
    }

    /// Puts a text into it as it is, readable or not.
    pub fn push_raw(&self, text: &str) {
        self.state().entries.push(Entry::new(text.to_owned(), None));
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between would have to come from the allocator.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn enqueue(&self, message: &Message) -> Result<bool, QueueError> {
        let mut state = self.state();
        let new = state.known.insert(message.job_id);
        if new {
            state.entries.push(Entry::new(message.write(), Some(message.job_id)));
            self.changed.notify_waiters();
        }
        Ok(new)
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let (deliveries, next) = {
                let mut state = self.state();
                let deliveries = state.take(max, self.lease);
                (deliveries, state.entries.iter().map(|entry| entry.free_at).min())
            };
            if !deliveries.is_empty() || Instant::now() >= deadline {
                return Ok(deliveries);
            }
            // Either way it looks again.
            let _ = timeout_at(next.map_or(deadline, |next| next.min(deadline)), changed).await;
        }
    }

    async fn extend(&self, delivery: &Delivery) -> Result<(), QueueError> {
        let mut state = self.state();
        let at = state.held(delivery)?;
        state.entries[at].free_at = Instant::now() + self.lease;
        Ok(())
    }

    async fn ack(&self, delivery: &Delivery) -> Result<(), QueueError> {
        let mut state = self.state();
        let at = state.held(delivery)?;
        state.entries.swap_remove(at);
        Ok(())
    }

    async fn retry(
        &self,
        delivery: &Delivery,
        after: Duration,
        reason: &str,
    ) -> Result<bool, QueueError> {
        let mut state = self.state();
        let at = state.held(delivery)?;
        let entry = &mut state.entries[at];
        entry.first_reason.get_or_insert_with(|| reason.to_owned());
        if entry.attempt >= self.attempts {
            let attempts = entry.attempt;
            state.bury(at, reason, attempts);
            return Ok(true);
        }
        entry.attempt += 1;
        (entry.holder, entry.free_at) = (None, Instant::now() + after);
        self.changed.notify_waiters();
        Ok(false)
    }

    async fn release(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError> {
        let mut state = self.state();
        let at = state.held(delivery)?;
        let entry = &mut state.entries[at];
        (entry.holder, entry.free_at) = (None, Instant::now() + after);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let mut state = self.state();
        let at = state.held(delivery)?;
        let attempts = state.entries[at].attempt;
        state.bury(at, reason, attempts);
        Ok(())
    }

    fn unreadable(&self) -> usize {
        mem::take(&mut self.state().unreadable)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut state = self.state();
        state.expire(Instant::now());
        let held = state.entries.iter().filter(|entry| entry.holder.is_some()).count();
        let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(Depth {
            waiting: count(state.entries.len() - held),
            in_flight: count(held),
            dead: count(state.dead.len()),
        })
    }

    async fn oldest(&self) -> Result<Option<Duration>, QueueError> {
        let first = self.state().entries.iter().map(|entry| entry.enqueued_at).min();
        let age = first.map(|at| OffsetDateTime::now_utc() - at);
        Ok(Some(age.and_then(|age| age.try_into().ok()).unwrap_or_default()))
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(self.state().dead.iter().take(limit).map(|(_, letter)| letter.clone()).collect())
    }

    async fn redrive(&self, jobs: &[Uuid]) -> Result<usize, QueueError> {
        let mut state = self.state();
        let wanted = |letter: &DeadLetter| {
            jobs.is_empty() || letter.job_id.is_some_and(|job| jobs.contains(&job))
        };
        let back: Vec<_> = state.dead.extract_if(.., |(_, letter)| wanted(letter)).collect();
        let count = back.len();
        state.entries.extend(back.into_iter().map(|(text, dead)| Entry::new(text, dead.job_id)));
        self.changed.notify_waiters();
        Ok(count)
    }
}
