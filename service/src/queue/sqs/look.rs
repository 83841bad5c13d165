//! Looking through the dead letters, which SQS gives out like any other messages.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use aws_sdk_sqs::types::Message as Received;
use tokio::time::Instant;

use super::{
    QueueError, SqsQueue,
    body::{handle, id},
    calls::BATCH,
};

/// How long a dead letter is hidden from others while it is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Longest look through the dead letters, which have no index.
const LOOK_THROUGH: Duration = Duration::from_secs(20);

/// One look through the dead letters. What is not deleted can be seen by others again after
/// [`Look::end`], or after [`LOOK`].
pub(super) struct Look<'a> {
    queue: &'a SqsQueue,
    deadline: Instant,
    /// Ids of messages.
    seen: HashSet<String>,
    /// The newest receipt handles by ids.
    hidden: HashMap<String, String>,
}

impl<'a> Look<'a> {
    pub(super) fn new(queue: &'a SqsQueue) -> Self {
        let deadline = Instant::now() + LOOK_THROUGH;
        Self { queue, deadline, seen: HashSet::new(), hidden: HashMap::new() }
    }

    /// Letters that were not seen before; none when that were all, or time is over.
    pub(super) async fn next(&mut self) -> Result<Vec<Received>, QueueError> {
        if Instant::now() >= self.deadline {
            return Ok(Vec::new());
        }
        // A poll that may wait asks all servers, one that may not only some.
        let (url, wait) = (&self.queue.0.dead_url, Duration::from_secs(1));
        let mut letters = self.queue.receive_from(url, BATCH, wait, LOOK).await?;
        for letter in &letters {
            self.hidden.insert(id(letter).to_owned(), handle(letter).to_owned());
        }
        letters.retain(|letter| self.seen.insert(id(letter).to_owned()));
        Ok(letters)
    }

    pub(super) async fn delete(&mut self, letter: &Received) {
        self.hidden.remove(id(letter));
        self.queue.delete(&self.queue.0.dead_url, handle(letter)).await;
    }

    pub(super) async fn end(self) {
        for handle in self.hidden.into_values() {
            let call = self.queue.0.client.change_message_visibility();
            let call = call.queue_url(&self.queue.0.dead_url).receipt_handle(handle);
            if let Err(error) = call.visibility_timeout(0).send().await {
                let error = QueueError::from(error);
                tracing::warn!(%error, "a dead letter stays hidden for a while");
            }
        }
    }
}
