//! How full the pool and the queue are, as the internal listener tells it.

use std::time::Duration;

use bme_service::{
    config::{RedisConfig, Secret},
    kv::Kv,
    queue::{MemoryQueue, Message, Queue, RedisQueue},
};
use uuid::Uuid;

use crate::harness::{Call, Process, Redis, World, eventually};

const LEASE: Duration = Duration::from_mins(1);

fn message() -> Message {
    Message {
        v: Message::VERSION,
        job_id: Uuid::now_v7(),
        user_id: Uuid::now_v7(),
        blob: None,
        request_id: "a-request".into(),
        traceparent: None,
    }
}

fn redis_queue(url: &str) -> RedisQueue {
    let kv = Kv::new(&RedisConfig { url: Secret::new(url), ssl_ca: None }).unwrap();
    RedisQueue::new(kv, "voice", LEASE, 3)
}

/// Two wait, one is in somebody's hands, and one is dead.
async fn fill(queue: &dyn Queue) {
    for _ in 0..4 {
        queue.enqueue(&message()).await.unwrap();
    }
    let held = queue.receive(2, Duration::from_secs(5)).await.unwrap();
    queue.dead_letter(&held[0], "hopeless").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_message_has_an_age() {
    let redis = Redis::start();
    let (in_redis, in_memory) = (redis_queue(&redis.url()), MemoryQueue::new(LEASE, 3));
    for queue in [&in_redis as &dyn Queue, &in_memory] {
        assert_eq!(queue.oldest().await.unwrap(), Some(Duration::ZERO));
        queue.enqueue(&message()).await.unwrap();
        let grown = async || queue.oldest().await.unwrap() >= Some(Duration::from_millis(50));
        eventually("the age to grow", grown).await;
        // Delayed, it is not younger.
        let held = queue.receive(1, Duration::from_secs(5)).await.unwrap().remove(0);
        queue.release(&held, LEASE).await.unwrap();
        let age = queue.oldest().await.unwrap().unwrap();
        assert!((Duration::from_millis(50)..LEASE).contains(&age), "{age:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_and_queue_are_shown_while_they_are_known() {
    let (world, mut redis) = (World::new().await, Redis::start());
    fill(&redis_queue(&redis.url())).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = world.with_redis(&redis.url());
    let api = Process::start("api", &config, &[("METRICS_ADDRESS", &address)]).await;
    let user = world.user().await;
    let read = Call::get("/api/goals").by(&user).try_send(&api.url).await.unwrap();
    assert_eq!(read.status, 200, "{read}");

    let value = async |name: &str, label: &str| -> Option<f64> {
        let scraped = Call::get("/metrics").try_send(&format!("http://{address}")).await.unwrap();
        let text = String::from_utf8(scraped.body.to_vec()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label))?;
        Some(line.rsplit_once(' ')?.1.parse().unwrap())
    };
    let is = |found: Option<f64>, expected: f64| found == Some(expected);
    for (state, count) in [("waiting", 2.0), ("in_flight", 1.0), ("dead", 1.0)] {
        let label = format!("state=\"{state}\"");
        eventually(state, async || is(value("messaging_queue_messages", &label).await, count))
            .await;
    }
    let age = value("messaging_queue_oldest_message_age_seconds", "voice").await.unwrap();
    assert!(age > 0.0 && age < 60.0, "{age}");
    let busy = value("db_client_connection_count", "used").await.unwrap();
    let idle = value("db_client_connection_count", "idle").await.unwrap();
    assert!((1.0..=10.0).contains(&(busy + idle)), "{busy} and {idle}");
    assert!(is(value("db_client_connection_max", "").await, 10.0));

    redis.stop();
    let gone = async || value("messaging_queue_messages", "dead").await.is_none();
    eventually("the end of a depth that nobody knows", gone).await;
}
