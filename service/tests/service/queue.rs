//! The queue and the blob store: one suite for all backends, then what is special about each.

mod backend;
mod blobs;
mod conformance;
mod redis;
mod schedule;
mod sqs;

use std::time::{Duration, Instant};

use bme_service::queue::{DeadLetter, Delivery, Depth, Message, Queue};
use uuid::Uuid;

/// Failed attempts that a job has in these tests.
const ATTEMPTS: u32 = 3;

/// A lease that ends during a test.
const SHORT: Duration = Duration::from_secs(2);

/// A lease that does not.
const LONG: Duration = Duration::from_mins(2);

fn message() -> Message {
    Message {
        v: Message::VERSION,
        job_id: Uuid::now_v7(),
        user_id: Uuid::now_v7(),
        blob: Some("a/pointer".into()),
        request_id: "a-request".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

async fn enqueue(queue: &dyn Queue) -> Message {
    let message = message();
    queue.enqueue(&message).await.unwrap();
    message
}

/// The next delivery; fails after 20 s.
async fn next(queue: &dyn Queue) -> Delivery {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(delivery) = queue.receive(1, Duration::from_secs(1)).await.unwrap().pop() {
            return delivery;
        }
    }
    panic!("no delivery within 20 s: {:?}", queue.depth().await);
}

async fn assert_nothing_comes(queue: &dyn Queue) {
    let deliveries = queue.receive(10, Duration::from_secs(1)).await.unwrap();
    assert!(deliveries.is_empty(), "{deliveries:?}");
}

async fn assert_empty(queue: &dyn Queue) {
    assert_nothing_comes(queue).await;
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
}

/// The only dead letter.
async fn only_dead(queue: &dyn Queue) -> DeadLetter {
    let mut dead = queue.dead(10).await.unwrap();
    assert_eq!(dead.len(), 1, "{dead:?}");
    dead.remove(0)
}
