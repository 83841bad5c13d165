//! The queue of voice jobs: at least once, with leases, attempts and dead letters.
//!
//! A message carries a pointer, never the audio. Whoever holds a delivery extends its lease while it
//! works; a holder that lost it gets [`QueueError::LostLease`] and must stop. No order is promised.

mod memory;
mod redis;
mod sqs;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    aws,
    config::{QueueBackend, QueueConfig},
    kv::Kv,
};

pub use memory::MemoryQueue;
pub use redis::RedisQueue;
pub use sqs::SqsQueue;

/// Longest text of a message in bytes. This service writes less than 1 KiB.
const MESSAGE_MOST: usize = 64 * 1024;

/// How long an enqueued job is known as such: what a client's idempotency key is kept for.
const MARKER_LIFETIME: Duration = Duration::from_hours(24);

/// The queue that the configuration names. Does not wait for it, so that the service starts while it
/// is down.
pub async fn connect(config: &QueueConfig, kv: &Kv) -> Arc<dyn Queue> {
    match &config.backend {
        QueueBackend::Redis => {
            Arc::new(RedisQueue::new(kv.clone(), "voice", config.lease, config.attempts))
        }
        QueueBackend::Sqs { voice_queue_url, dead_letter_queue_url, .. } => {
            let urls = (voice_queue_url.as_str(), dead_letter_queue_url.as_str());
            let sdk = aws::config().await;
            Arc::new(SqsQueue::new(sdk, urls, kv.clone(), config.lease, config.attempts))
        }
    }
}

/// What a message says; the job's row has the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Version of this format, [`Message::VERSION`]. Anything else is dead at once.
    pub v: u8,
    /// The job; also what makes enqueuing idempotent.
    pub job_id: Uuid,
    /// Whose job.
    pub user_id: Uuid,
    /// Key of the audio in the blob store; none for a transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// The request that made it.
    pub request_id: String,
    /// W3C trace context of that request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Message {
    /// The format that this release writes and reads.
    pub const VERSION: u8 = 1;

    /// The message in a backend's text, if this release can read it.
    fn read(text: &str) -> Option<Self> {
        let small = Some(text).filter(|text| text.len() <= MESSAGE_MOST)?;
        serde_json::from_str(small).ok().filter(|message: &Self| message.v == Self::VERSION)
    }

    fn write(&self) -> String {
        serde_json::to_string(self).expect("a message has no map with keys other than strings")
    }
}

/// A message in somebody's hands.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// 1 for the first; deliveries that were released do not count.
    pub attempt: u32,
    /// How many holders fell silent since it was enqueued, or put back from the dead letters: a
    /// message that kills its holders counts no attempts.
    pub stalled: u32,
    /// When it was enqueued.
    pub enqueued_at: OffsetDateTime,
    /// What the backend needs to find it again: a stream entry's id, a receipt handle.
    pub handle: String,
}

/// A message that nobody will work on any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job; none when the message could not be read.
    pub job_id: Option<Uuid>,
    /// Why.
    pub reason: String,
    /// Why its first attempt failed; none when no attempt did.
    pub first_reason: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was enqueued, if that is known.
    pub enqueued_at: Option<OffsetDateTime>,
    /// Since when it is dead.
    pub at: OffsetDateTime,
}

/// The reason of a dead letter whose message this release cannot read.
const UNREADABLE: &str = "unreadable";

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting, delayed ones included.
    pub waiting: u64,
    /// In somebody's hands.
    pub in_flight: u64,
    /// Dead.
    pub dead: u64,
}

/// Why a queue did not do it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The delivery belongs to somebody else by now, or is done.
    #[error("the lease on this delivery was lost")]
    LostLease,
    /// The backend did not answer in time, or refused.
    #[error("the queue is not reachable: {0}")]
    Unreachable(String),
}

/// A queue. Every call is bounded in time and safe to drop.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Adds a message; nothing happens when its job was enqueued before. True when it was added.
    async fn enqueue(&self, message: &Message) -> Result<bool, QueueError>;

    /// Up to `max` messages, waiting up to `wait` for the first. What cannot be read goes to the
    /// dead letters and does not hold up the others.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError>;

    /// Holds it for another lease from now.
    async fn extend(&self, delivery: &Delivery) -> Result<(), QueueError>;

    /// Done: it never comes again.
    async fn ack(&self, delivery: &Delivery) -> Result<(), QueueError>;

    /// Failed: it comes again after a while, as the next attempt; after the last one it is dead.
    /// True when it is dead now.
    async fn retry(
        &self,
        delivery: &Delivery,
        after: Duration,
        reason: &str,
    ) -> Result<bool, QueueError>;

    /// Not tried (shutdown, provider known to be down): it comes again after a while and does not
    /// count as an attempt.
    async fn release(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError>;

    /// Will never work: to the dead letters at once.
    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError>;

    /// How full it is.
    async fn depth(&self) -> Result<Depth, QueueError>;

    /// How long ago the oldest message was enqueued that is not dead, among those that are next: zero
    /// without any, None when the backend does not tell.
    async fn oldest(&self) -> Result<Option<Duration>, QueueError> {
        Ok(None)
    }

    /// `messaging.system` of OpenTelemetry's semantic conventions.
    fn system(&self) -> &'static str {
        "memory"
    }

    /// The oldest dead letters.
    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;

    /// Puts dead letters back as first attempts: of these jobs, or of all when empty. How many.
    async fn redrive(&self, jobs: &[Uuid]) -> Result<usize, QueueError>;

    /// How many messages that could not be read went to the dead letters since the last call.
    fn unreadable(&self) -> usize {
        0
    }

    /// Leaves the queue, at the end of the process: what it still holds comes to others at once. May
    /// take as long as the wait of a [`Queue::receive`] that was dropped.
    async fn close(&self) -> Result<(), QueueError> {
        Ok(())
    }
}
