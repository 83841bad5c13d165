//! SQS in particular: without Redis, and with the dead letters that SQS makes itself.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode};
use bme_service::{
    aws,
    queue::{Queue, QueueError, SqsQueue},
};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

use super::{
    ATTEMPTS, LONG, assert_empty,
    backend::{Backend, Sqs, kv},
    enqueue, message, next, only_dead,
};
use crate::harness::{eventually, shared};

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

/// A worker that is killed there leaves the message as well, and the next one buries it again.
#[tokio::test(flavor = "multi_thread")]
async fn letters_of_one_unreadable_message_are_one() {
    let backend = Sqs::new(LONG).await;
    let queue = backend.worker();
    for text in ["no message", "another one"] {
        backend.poison(text).await;
        assert!(queue.receive(1, Duration::ZERO).await.unwrap().is_empty());
    }
    let letters = backend.client.receive_message().queue_url(&backend.dead_url);
    let letters = letters.message_attribute_names("All").visibility_timeout(0);
    let letters = letters.send().await.unwrap().messages.unwrap();
    let again = backend.client.send_message().queue_url(&backend.dead_url);
    let again = again.set_message_body(letters[0].body.clone());
    again.set_message_attributes(letters[0].message_attributes.clone()).send().await.unwrap();
    assert_eq!(queue.depth().await.unwrap().dead, 3);
    assert_eq!(queue.dead(10).await.unwrap().len(), 2);
    assert_eq!(queue.redrive(&[]).await.unwrap(), 2);
    assert_eq!(queue.depth().await.unwrap().dead, 0);
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

/// SQS as far as one test needs it: `answer` gives status and body for an operation's name. The names
/// that were called.
async fn scripted(
    answer: impl Fn(&str) -> (StatusCode, String) + Clone + Send + Sync + 'static,
) -> (SqsQueue, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let called = asked.clone();
    let router = axum::Router::new().fallback(move |headers: HeaderMap| {
        let name = headers["x-amz-target"].to_str().unwrap().replace("AmazonSQS.", "");
        called.lock().unwrap().push(name.clone());
        let answer = answer(&name);
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let credentials = aws_sdk_sqs::config::Credentials::new("key", "secret", None, None, "test");
    let sdk = aws::loader()
        .endpoint_url(&endpoint)
        .region(aws_config::Region::new("us-east-1"))
        .credentials_provider(credentials)
        .load()
        .await;
    let url = format!("{endpoint}/000000000000/voice");
    let redis = kv(&shared().redis_url());
    (SqsQueue::new(&sdk, (&url, &url), redis, LONG, ATTEMPTS), asked)
}

/// What a receive answers: one message.
fn received() -> (StatusCode, String) {
    let body = json!({ "attempt": 1, "stalled": 0, "enqueuedAt": 1, "message": message() });
    let message = json!({ "MessageId": "id", "ReceiptHandle": "handle", "Body": body.to_string() });
    (StatusCode::OK, json!({ "Messages": [message] }).to_string())
}

fn refusal(code: &str) -> (StatusCode, String) {
    let body = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "no" });
    (StatusCode::BAD_REQUEST, body.to_string())
}

/// A receive whose answer got lost may have assigned messages, so nothing repeats it unasked.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_receive_is_asked_once_and_a_throttled_send_again() {
    let (queue, asked) = scripted(|_| refusal("RequestThrottled")).await;
    let started = Instant::now();
    let answer = queue.receive(1, Duration::from_secs(1)).await;
    assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
    assert_eq!(*asked.lock().unwrap(), ["ReceiveMessage"]);
    let answer = queue.enqueue(&message()).await;
    assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
    assert_eq!(asked.lock().unwrap()[1..], ["SendMessage"; 3]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// After 12 h SQS refuses to hide a message any longer, with `InvalidParameterValue`.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_sqs_does_not_extend_is_lost() {
    for code in ["InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"] {
        let (queue, asked) =
            scripted(move |name| if name == "ReceiveMessage" { received() } else { refusal(code) })
                .await;
        let delivery = next(&queue).await;
        for answer in [queue.extend(&delivery).await, queue.ack(&delivery).await] {
            assert!(matches!(answer, Err(QueueError::LostLease)), "{code}: {answer:?}");
        }
        // Nothing more is done with it.
        assert_eq!(*asked.lock().unwrap(), ["ReceiveMessage", "ChangeMessageVisibility"]);
    }
}

/// SIGTERM comes in the middle of a long poll, which then brings a message.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_waits_for_the_poll_in_flight_and_gives_back_what_it_brings() {
    let (arrive, arrived) = mpsc::channel::<()>();
    let arrived = Arc::new(Mutex::new(arrived));
    let (queue, asked) = scripted(move |name| {
        if name != "ReceiveMessage" {
            return (StatusCode::OK, "{}".to_owned());
        }
        tokio::task::block_in_place(|| arrived.lock().unwrap().recv()).unwrap();
        received()
    })
    .await;
    let receiving = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(1, Duration::from_secs(20)).await }
    });
    eventually("a poll", async || !asked.lock().unwrap().is_empty()).await;
    receiving.abort();
    assert!(receiving.await.unwrap_err().is_cancelled());
    let mut closing = queue.close();
    let early = timeout(Duration::from_millis(500), &mut closing).await;
    assert!(early.is_err(), "the poll has not ended");
    arrive.send(()).unwrap();
    timeout(Duration::from_secs(10), closing).await.unwrap().unwrap();
    // Sent anew without a delay, with its count of attempts, and deleted.
    let calls = ["ReceiveMessage", "ChangeMessageVisibility", "SendMessage", "DeleteMessage"];
    assert_eq!(*asked.lock().unwrap(), calls);
}

/// Without a poll in flight there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_without_a_poll_is_immediate() {
    let (queue, asked) = scripted(|_| refusal("RequestThrottled")).await;
    timeout(Duration::from_secs(1), queue.close()).await.unwrap().unwrap();
    assert!(asked.lock().unwrap().is_empty());
}

/// SQS refuses more than 15 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_longer_delay_than_sqs_allows_is_shortened() {
    let backend = Sqs::new(LONG).await;
    let queue = backend.worker();
    enqueue(&*queue).await;
    let delivery = next(&*queue).await;
    queue.release(&delivery, Duration::from_hours(1)).await.unwrap();
    assert_eq!(queue.depth().await.unwrap().waiting, 1);
}
