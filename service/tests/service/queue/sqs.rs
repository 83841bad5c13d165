//! SQS in particular: without Redis, and with the dead letters that SQS makes itself.

use std::time::Duration;

use bme_service::queue::Queue;
use serde_json::json;

use super::{
    LONG, assert_empty,
    backend::{Backend, Sqs},
    enqueue, message, next, only_dead,
};
use crate::harness::shared;

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_jobs_are_still_enqueued() {
    let backend = Sqs::new(LONG).await;
    // Nothing listens there.
    let queue = backend.worker_with("redis://127.0.0.1:1");
    let message = enqueue(&queue).await;
    let delivery = next(&queue).await;
    assert_eq!(delivery.message, message);
    queue.ack(&delivery).await.unwrap();
    assert_empty(&queue).await;
}

/// The redrive policy moves the body as it is; and a crash between sending a dead letter and
/// deleting the message makes two letters of one job.
#[tokio::test(flavor = "multi_thread")]
async fn letters_that_sqs_moved_and_letters_that_are_there_twice_are_one_of_each_job() {
    let backend = Sqs::new(LONG).await;
    let queue = backend.worker_with(&shared().redis_url());
    let message = message();
    let body = json!({ "attempt": 2, "stalled": 0, "enqueuedAt": 1, "message": message });
    for _ in 0..2 {
        backend.send(&backend.dead_url, &body.to_string()).await;
    }
    let dead = only_dead(&queue).await;
    assert_eq!(dead.job_id, Some(message.job_id));
    assert_eq!((dead.reason.as_str(), dead.attempts), ("received-too-often", 2));
    assert_eq!(queue.redrive(&[message.job_id]).await.unwrap(), 1);
    let delivery = next(&queue).await;
    assert_eq!((&delivery.message, delivery.attempt), (&message, 1));
    queue.ack(&delivery).await.unwrap();
    assert_empty(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_receive_of_dead_letters_is_listed() {
    let backend = Sqs::new(LONG).await;
    let queue = backend.worker();
    for number in 0..25 {
        backend.poison(&format!("no message {number}")).await;
    }
    assert!(queue.receive(10, Duration::ZERO).await.unwrap().is_empty());
    while queue.depth().await.unwrap().waiting > 0 {
        assert!(queue.receive(10, Duration::ZERO).await.unwrap().is_empty());
    }
    assert_eq!(queue.dead(100).await.unwrap().len(), 25);
    assert_eq!(queue.dead(12).await.unwrap().len(), 12);
    assert_eq!(queue.redrive(&[]).await.unwrap(), 25);
}
