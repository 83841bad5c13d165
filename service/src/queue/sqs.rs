//! The queue in Amazon SQS: a standard queue and a queue of dead letters.
//!
//! A message carries its own count of attempts, because `ApproximateReceiveCount` also rises when a
//! delivery is given back. `retry` and `release` therefore send the message anew, changed, and delete
//! the old one; what the count of receives says beyond 1 is then how many holders fell silent. A
//! crash between the two calls leaves a second copy, which the job's row makes harmless. The redrive
//! policy of the queue is only a backstop and must allow more receives than that.
//!
//! SQS lets an old receipt handle delete a message that somebody else holds by now, so this process
//! keeps the ends of its own leases and does nothing with a delivery after them.

mod body;
mod calls;
mod look;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::{Client, types::Message as Received};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{
    DeadLetter, Delivery, Depth, MARKER_LIFETIME, Message, Queue, QueueError, UNREADABLE,
    redis::marker,
};
use crate::{kv::Kv, telemetry};
use body::{Body, handle, id, letter, receives, subject};
use calls::seconds;
use look::Look;

/// Longest wait for the marker of an enqueued job; without Redis nothing is lost.
const MARKER_BUDGET: Duration = Duration::from_millis(250);

/// The queue in SQS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqsQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    url: String,
    dead_url: String,
    kv: Kv,
    lease: Duration,
    attempts: u32,
    /// What this process holds, by receipt handle.
    held: Mutex<HashMap<String, Held>>,
    unreadable: AtomicUsize,
    /// Polls, and what gives back what they brought for nobody.
    polls: TaskTracker,
}

#[derive(Clone, Debug)]
struct Held {
    body: Body,
    until: Instant,
}

impl SqsQueue {
    /// The queue with these URLs, the second one of the dead letters. Redis knows what was enqueued.
    pub fn new(
        sdk: &SdkConfig,
        (url, dead_url): (&str, &str),
        kv: Kv,
        lease: Duration,
        attempts: u32,
    ) -> Self {
        Self(Arc::new(Inner {
            client: Client::new(sdk),
            url: url.to_owned(),
            dead_url: dead_url.to_owned(),
            kv,
            lease,
            attempts,
            held: Mutex::default(),
            unreadable: AtomicUsize::new(0),
            polls: TaskTracker::new(),
        }))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Each change is one call, which cannot be half done.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a delivery whose lease has not ended.
    fn holds(&self, delivery: &Delivery) -> Result<Body, QueueError> {
        let mut held = self.held();
        let found = held.get(&delivery.handle).filter(|held| held.until > Instant::now());
        let body = found.map(|held| held.body.clone());
        if body.is_none() {
            held.remove(&delivery.handle);
        }
        body.ok_or(QueueError::LostLease)
    }

    async fn poll(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let received = self.receive_from(&self.0.url, max, wait, self.0.lease).await?;
        // A tenth for the answer's way here.
        let until = Instant::now() + self.0.lease * 9 / 10;
        self.held().retain(|_, held| held.until > Instant::now());
        let mut deliveries = Vec::new();
        for message in received {
            match self.accept(&message, until).await {
                Ok(delivery) => deliveries.extend(delivery),
                // Its lease ends, and it comes again.
                Err(error) => tracing::warn!(%error, "message not moved to the dead letters"),
            }
        }
        Ok(deliveries)
    }

    /// A delivery, or none if the message is dead now.
    async fn accept(
        &self,
        received: &Received,
        until: Instant,
    ) -> Result<Option<Delivery>, QueueError> {
        let handle = handle(received);
        let text = received.body().unwrap_or_default();
        let body = serde_json::from_str::<Body>(text).ok();
        let read = body.and_then(|body| body.message().map(|message| (body, message)));
        let Some((mut body, message)) = read else {
            tracing::error!(target: telemetry::DEAD_JOB, queue = "voice", code = UNREADABLE, "a message of the queue cannot be read");
            self.bury(text, handle, Some(id(received)), UNREADABLE, 0).await?;
            self.0.unreadable.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        body.stalled += receives(received).saturating_sub(1);
        let delivery = Delivery {
            message,
            attempt: body.attempt,
            stalled: body.stalled,
            enqueued_at: body.enqueued_at(),
            handle: handle.to_owned(),
        };
        self.held().insert(handle.to_owned(), Held { body, until });
        Ok(Some(delivery))
    }

    /// Sends the message anew as `body`, and deletes the one that is held.
    async fn replace(
        &self,
        delivery: &Delivery,
        body: &Body,
        after: Duration,
    ) -> Result<(), QueueError> {
        // The server says whose it is, and leaves time for the two calls.
        self.extend(delivery).await?;
        self.send(&body.text(), after).await?;
        self.delete(&self.0.url, &delivery.handle).await;
        self.held().remove(&delivery.handle);
        Ok(())
    }
}

/// A poll in a task of its own: when the caller goes away, what it was given goes back.
struct Polling {
    queue: SqsQueue,
    task: Option<JoinHandle<Result<Vec<Delivery>, QueueError>>>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        let (Some(task), Ok(runtime)) = (self.task.take(), Handle::try_current()) else { return };
        let queue = self.queue.clone();
        let giving_back = async move {
            for delivery in task.await.ok().and_then(Result::ok).unwrap_or_default() {
                if let Err(error) = queue.release(&delivery, Duration::ZERO).await {
                    tracing::warn!(%error, "a delivery for nobody was not given back");
                }
            }
        };
        self.queue.0.polls.spawn_on(giving_back, &runtime);
    }
}

#[async_trait]
impl Queue for SqsQueue {
    /// A standard queue does not know what was sent before, so Redis does: the marker is written
    /// after the message, for a crash in between must not lose it. Two enqueues at the same moment,
    /// or without Redis, may make two messages.
    async fn enqueue(&self, message: &Message) -> Result<bool, QueueError> {
        let marker = marker("voice", message.job_id);
        let exists = redis::cmd("EXISTS").arg(&marker).to_owned();
        match self.0.kv.query(&exists, MARKER_BUDGET).await {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "enqueued without knowing whether it was before"),
        }
        let value = serde_json::to_value(message).expect("a message is a map with text keys");
        self.send(&Body::new(value).text(), Duration::ZERO).await?;
        let mut mark = redis::cmd("SET");
        mark.arg(&marker).arg(1).arg("EX").arg(MARKER_LIFETIME.as_secs());
        if let Err(error) = self.0.kv.query::<()>(&mark, MARKER_BUDGET).await {
            tracing::warn!(%error, "an enqueued job is not marked as such");
        }
        Ok(true)
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let queue = self.clone();
        let task = self.0.polls.spawn(async move { queue.poll(max, wait).await });
        let mut polling = Polling { queue: self.clone(), task: Some(task) };
        let Some(task) = polling.task.as_mut() else { return Ok(Vec::new()) };
        let answer = task.await;
        polling.task = None;
        answer.unwrap_or_else(|error| Err(QueueError::Unreachable(error.to_string())))
    }

    async fn extend(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.holds(delivery)?;
        let asked = Instant::now();
        let call = self.0.client.change_message_visibility().queue_url(&self.0.url);
        let call = call.receipt_handle(&delivery.handle).visibility_timeout(seconds(self.0.lease));
        match call.send().await {
            Ok(_) => {
                if let Some(held) = self.held().get_mut(&delivery.handle) {
                    held.until = asked + self.0.lease;
                }
                Ok(())
            }
            Err(error) => Err(self.refused(delivery, &error)),
        }
    }

    async fn ack(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.holds(delivery)?;
        let call = self.0.client.delete_message().queue_url(&self.0.url);
        match call.receipt_handle(&delivery.handle).send().await {
            Ok(_) => {
                self.held().remove(&delivery.handle);
                Ok(())
            }
            Err(error) => Err(self.refused(delivery, &error)),
        }
    }

    async fn retry(
        &self,
        delivery: &Delivery,
        after: Duration,
        reason: &str,
    ) -> Result<bool, QueueError> {
        let mut body = self.holds(delivery)?;
        if body.attempt >= self.0.attempts {
            self.dead_letter(delivery, reason).await?;
            return Ok(true);
        }
        body.attempt += 1;
        body.first_reason.get_or_insert_with(|| reason.to_owned());
        self.replace(delivery, &body, after).await?;
        Ok(false)
    }

    async fn release(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError> {
        let body = self.holds(delivery)?;
        self.replace(delivery, &body, after).await
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let mut body = self.holds(delivery)?;
        self.extend(delivery).await?;
        body.first_reason.get_or_insert_with(|| reason.to_owned());
        self.bury(&body.text(), &delivery.handle, None, reason, body.attempt).await?;
        self.held().remove(&delivery.handle);
        Ok(())
    }

    fn unreadable(&self) -> usize {
        self.0.unreadable.swap(0, Ordering::Relaxed)
    }

    /// SQS's own, approximate counts.
    async fn depth(&self) -> Result<Depth, QueueError> {
        let [visible, delayed, in_flight] = self.attributes(&self.0.url).await?;
        let dead = self.attributes(&self.0.dead_url).await?;
        Ok(Depth { waiting: visible + delayed, in_flight, dead: dead.iter().sum() })
    }

    // The age of the oldest message only CloudWatch knows (`ApproximateAgeOfOldestMessage`).
    fn system(&self) -> &'static str {
        "aws_sqs"
    }

    /// A long poll cannot be called back: what it brings until its end would be nobody's for a lease.
    async fn close(&self) -> Result<(), QueueError> {
        self.0.polls.close();
        self.0.polls.wait().await;
        Ok(())
    }

    /// SQS has no order and no index: these are dead letters, the oldest first, each subject once.
    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let (mut look, mut found, mut subjects) = (Look::new(self), Vec::new(), HashSet::new());
        while found.len() < limit {
            let mut letters = look.next().await?;
            if letters.is_empty() {
                break;
            }
            letters.retain(|letter| subjects.insert(subject(letter)));
            found.extend(letters.iter().map(letter));
        }
        look.end().await;
        found.sort_by_key(|letter| letter.at);
        found.truncate(limit);
        Ok(found)
    }

    async fn redrive(&self, jobs: &[Uuid]) -> Result<usize, QueueError> {
        let (mut look, mut count, mut back) = (Look::new(self), 0, HashSet::new());
        loop {
            let letters = look.next().await?;
            if letters.is_empty() {
                break;
            }
            for received in letters {
                let job = letter(&received).job_id;
                if !jobs.is_empty() && job.is_none_or(|job| !jobs.contains(&job)) {
                    continue;
                }
                // A second letter of one subject only goes away.
                if back.insert(subject(&received)) {
                    let text = received.body().unwrap_or_default();
                    // What cannot be read goes back as it is: a later release may know better.
                    let first = serde_json::from_str::<Body>(text)
                        .map_or_else(|_| text.to_owned(), |body| Body::new(body.message).text());
                    self.send(&first, Duration::ZERO).await?;
                    count += 1;
                }
                look.delete(&received).await;
            }
        }
        look.end().await;
        Ok(count)
    }
}
