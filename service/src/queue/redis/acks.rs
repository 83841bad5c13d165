//! Acknowledgements that go to the server together: a script call for each would be most of what a
//! job costs Redis.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{BUDGET, Keys};
use crate::{kv::Kv, queue::QueueError};

/// How long the first one waits for others.
const MOMENT: Duration = Duration::from_millis(2);

/// As many do not wait any longer.
const BATCH: usize = 64;

/// Those that wait. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Acks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kv: Kv,
    keys: Keys,
    consumer: String,
    waiting: Mutex<Vec<Ack>>,
    full: Notify,
}

#[derive(Debug)]
struct Ack {
    id: String,
    /// Whether it was held, or why that is not known.
    done: oneshot::Sender<Result<bool, String>>,
}

impl Acks {
    pub(super) fn new(kv: Kv, keys: Keys, consumer: String) -> Self {
        Self(Arc::new(Inner { kv, keys, consumer, waiting: Mutex::default(), full: Notify::new() }))
    }

    /// Acknowledges an entry. It goes on when the caller does not wait for it.
    pub(super) async fn ack(&self, id: &str) -> Result<(), QueueError> {
        let (done, outcome) = oneshot::channel();
        let count = {
            let mut waiting = self.waiting();
            waiting.push(Ack { id: id.to_owned(), done });
            waiting.len()
        };
        if count == 1 {
            let acks = self.clone();
            tokio::spawn(async move { acks.send().await });
        } else if count == BATCH {
            self.0.full.notify_one();
        }
        match outcome.await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(QueueError::LostLease),
            Ok(Err(error)) => Err(QueueError::Unreachable(error)),
            Err(_) => Err(QueueError::Unreachable("the process ends".to_owned())),
        }
    }

    async fn send(&self) {
        // Either way they go.
        let _ = timeout(MOMENT, self.0.full.notified()).await;
        let batch = mem::take(&mut *self.waiting());
        let mut invocation = self.0.keys.operation("ack");
        invocation.arg(&self.0.consumer);
        for ack in &batch {
            invocation.arg(&ack.id);
        }
        let held = self.0.kv.script::<Vec<i64>>(&invocation, BUDGET).await;
        for (at, ack) in batch.into_iter().enumerate() {
            let outcome = match &held {
                Ok(held) => Ok(held.get(at) == Some(&1)),
                Err(error) => Err(error.to_string()),
            };
            // Who does not wait for it does not want to know.
            let _ = ack.done.send(outcome);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Ack>> {
        // Each change is one call, which cannot be half done.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
