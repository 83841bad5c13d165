//! Redis in particular: restarts, silence, answers that get lost, entries from elsewhere.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bme_service::{
    blob,
    config::QueueConfig,
    queue::{self, Depth, Queue, QueueError},
};
use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    LONG, SHORT, assert_empty,
    backend::{self, Backend},
    enqueue, message, next,
};
use crate::harness::{Proxy, Redis, Rule, Side, eventually, redis_connection, shared};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_redis_the_queue_works_again() {
    let mut redis = Redis::start();
    let queue = backend::Redis::new(LONG).await.worker_on(&redis.url());
    let lost = enqueue(&queue).await;
    let delivery = next(&queue).await;

    redis.stop();
    let started = Instant::now();
    let answers = [
        queue.enqueue(&message()).await.map(drop),
        queue.receive(1, Duration::from_secs(1)).await.map(drop),
        queue.extend(&delivery).await,
        queue.depth().await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    // It has lost everything, the group too.
    redis.start_again();
    eventually("the queue", async || queue.depth().await.is_ok()).await;
    let answer = queue.ack(&delivery).await;
    assert!(matches!(answer, Err(QueueError::LostLease)), "{answer:?}");
    // The markers are lost as well, so what was lost can be enqueued again.
    queue.enqueue(&lost).await.unwrap();
    let mut delivery = None;
    eventually("the delivery", async || {
        delivery = queue.receive(1, Duration::from_secs(1)).await.ok().and_then(|mut d| d.pop());
        delivery.is_some()
    })
    .await;
    let delivery = delivery.unwrap();
    assert_eq!(delivery.message, lost);
    queue.ack(&delivery).await.unwrap();
    assert_empty(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_holds_no_call_up() {
    let proxy = Proxy::start(shared().redis_port()).await;
    let name = backend::Redis::new(LONG).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let queue = name.worker_on(&url);
    enqueue(&queue).await;
    let delivery = next(&queue).await;
    proxy.set(Rule::Freeze);
    for _ in 0..2 {
        let started = Instant::now();
        let answer = queue.receive(1, Duration::from_secs(1)).await;
        assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
        let answer = queue.ack(&delivery).await;
        assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

/// The server has assigned the entry, and its answer did not arrive: it comes at the next receive,
/// not after the lease.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_got_lost_is_found_again() {
    let proxy = Proxy::start(shared().redis_port()).await;
    let name = backend::Redis::new(LONG).await;
    let queue = name.worker_on(&format!("redis://127.0.0.1:{}", proxy.port));
    let sender = name.worker();
    let held = enqueue(&*sender).await;
    let held_delivery = next(&queue).await;
    let message = enqueue(&*sender).await;
    let mut matches = proxy.matches();
    proxy.set(Rule::CutOn(Side::Server, b"jobId"));
    let answer = queue.receive(1, Duration::from_secs(2)).await;
    assert!(matches!(answer, Err(QueueError::Unreachable(_))), "{answer:?}");
    matches.changed().await.unwrap();
    proxy.set(Rule::Pass);
    let mut found = None;
    eventually("the entry", async || {
        found = queue.receive(1, Duration::from_secs(1)).await.ok().and_then(|mut d| d.pop());
        found.is_some()
    })
    .await;
    // And what is in somebody's hands is not taken for lost.
    let found = found.unwrap();
    assert_eq!((&found.message, found.attempt), (&message, 1));
    assert_eq!(held_delivery.message, held);
    queue.ack(&held_delivery).await.unwrap();
    queue.ack(&found).await.unwrap();
    assert_empty(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_entries_are_dead_and_kept_whole() {
    let backend = backend::Redis::new(LONG).await;
    let queue = backend.worker();
    backend.add(&[(b"some", b"thing")]).await;
    backend.add(&[(b"\xff\xfe", b"\x00\xff"), (b"message", b"\xff")]).await;
    let message = enqueue(&*queue).await;
    let delivery = next(&*queue).await;
    assert_eq!(delivery.message, message);
    queue.ack(&delivery).await.unwrap();
    let dead = queue.dead(10).await.unwrap();
    let reasons: Vec<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["unreadable", "unreadable"]);
    let mut connection = redis_connection(&shared().redis_url()).await;
    let key = format!("{{q:{}}}:d", backend.name);
    let letters: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    assert_eq!(letters[0].1[..2], [&b"some"[..], b"thing"]);
    assert_eq!(letters[1].1[..4], [&b"\xff\xfe"[..], b"\x00\xff", b"message", b"\xff"]);
}

/// An entry that somebody deleted from the stream is no delivery, and its tombstone goes away.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_entries_leave_no_trace() {
    let backend = backend::Redis::new(SHORT).await;
    let (killed, queue) = (backend.worker(), backend.worker());
    for _ in 0..2 {
        enqueue(&*killed).await;
    }
    let first = next(&*killed).await;
    let second = next(&*killed).await;
    drop(killed);
    let mut connection = redis_connection(&shared().redis_url()).await;
    let key = format!("{{q:{}}}:s", backend.name);
    let deleted: u32 =
        redis::cmd("XDEL").arg(&key).arg(&first.handle).query_async(&mut connection).await.unwrap();
    assert_eq!(deleted, 1);
    let taken = next(&*queue).await;
    assert_eq!(taken.message, second.message);
    queue.ack(&taken).await.unwrap();
    eventually("an empty queue", async || {
        queue.receive(1, Duration::from_millis(100)).await.unwrap().is_empty()
            && queue.depth().await.unwrap() == Depth::default()
    })
    .await;
}

/// Names of consumers are of processes: they must not pile up.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_hold_nothing_are_forgotten() {
    let backend = backend::Redis::new(LONG).await;
    let (gone, holding) = (backend.worker(), backend.worker());
    for worker in [&gone, &holding] {
        enqueue(&**worker).await;
        next(&**worker).await;
    }
    let done = enqueue(&*gone).await;
    let mut connection = redis_connection(&shared().redis_url()).await;
    let key = |what: &str| format!("{{q:{}}}:{what}", backend.name);
    let consumers = redis::cmd("XINFO").arg("CONSUMERS").arg(key("s")).arg("workers").to_owned();
    let count: Vec<redis::Value> = consumers.query_async(&mut connection).await.unwrap();
    assert_eq!(count.len(), 2);
    // One who read something and finished it.
    let third = backend.worker();
    let delivery = next(&*third).await;
    assert_eq!(delivery.message, done);
    third.ack(&delivery).await.unwrap();
    let reclaim = async |connection: &mut redis::aio::MultiplexedConnection| {
        let script = redis::Script::new(include_str!("../../../src/queue/redis/queue.lua"));
        let mut call = script.prepare_invoke();
        call.key(key("s")).key(key("z")).key(key("d")).arg("reclaim").arg("another");
        call.arg(60_000).arg("0-0").arg(0);
        let answer: (String, u64) = call.invoke_async(connection).await.unwrap();
        assert_eq!(answer, ("0-0".to_owned(), 0));
    };
    eventually("an idle consumer to be forgotten", async || {
        reclaim(&mut connection).await;
        let left: Vec<redis::Value> = consumers.query_async(&mut connection).await.unwrap();
        // The two that hold something.
        left.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_batch_of_dead_letters_comes_back() {
    let backend = backend::Redis::new(LONG).await;
    let queue = backend.worker();
    for _ in 0..250 {
        enqueue(&*queue).await;
    }
    let mut jobs = Vec::new();
    while jobs.len() < 250 {
        for delivery in queue.receive(50, Duration::from_secs(1)).await.unwrap() {
            queue.dead_letter(&delivery, "hopeless").await.unwrap();
            jobs.push(delivery.message.job_id);
        }
    }
    assert_eq!(queue.redrive(&jobs[100..150]).await.unwrap(), 50);
    assert_eq!(queue.redrive(&[]).await.unwrap(), 200);
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight, depth.dead), (250, 0, 0));
}

/// More than one call promotes, and more than one call takes away.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_batch_comes_from_silent_holders_and_after_delays() {
    let backend = backend::Redis::new(SHORT).await;
    let (killed, queue) = (backend.worker(), backend.worker());
    let mut sent = HashSet::new();
    for _ in 0..230 {
        sent.insert(enqueue(&*killed).await.job_id);
    }
    let mut held = 0;
    while held < sent.len() {
        held += killed.receive(100, Duration::from_secs(1)).await.unwrap().len();
    }
    drop(killed);
    let (mut stalled, mut done) = (0, HashSet::new());
    eventually("all of them", async || {
        for delivery in queue.receive(100, Duration::from_millis(100)).await.unwrap() {
            // The first time from the dead worker, the second after a delay.
            if done.len() + stalled < sent.len() {
                stalled += 1;
                queue.release(&delivery, Duration::from_millis(500)).await.unwrap();
            } else if done.insert(delivery.message.job_id) {
                assert_eq!((delivery.attempt, delivery.stalled), (1, 1));
                queue.ack(&delivery).await.unwrap();
            }
        }
        done.len() == sent.len()
    })
    .await;
    assert_eq!(done, sent);
    assert_empty(&*queue).await;
}

/// A worker that ends leaves neither its name nor what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_gives_everything_back_at_once() {
    let backend = backend::Redis::new(LONG).await;
    let (leaving, queue) = (backend.worker(), backend.worker());
    leaving.close().await.unwrap();
    for _ in 0..3 {
        enqueue(&*leaving).await;
        next(&*leaving).await;
    }
    leaving.close().await.unwrap();
    let mut connection = redis_connection(&shared().redis_url()).await;
    let key = format!("{{q:{}}}:s", backend.name);
    let consumers = redis::cmd("XINFO").arg("CONSUMERS").arg(key).arg("workers").to_owned();
    let left: Vec<redis::Value> = consumers.query_async(&mut connection).await.unwrap();
    assert_eq!(left.len(), 0);
    for _ in 0..3 {
        let delivery = next(&*queue).await;
        assert_eq!((delivery.attempt, delivery.stalled), (1, 0));
        queue.ack(&delivery).await.unwrap();
    }
    assert_empty(&*queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_counts_no_delivery_and_a_marker_ends_after_a_day() {
    let backend = backend::Redis::new(LONG).await;
    let queue = backend.worker();
    let message = enqueue(&*queue).await;
    let delivery = next(&*queue).await;
    for _ in 0..3 {
        queue.extend(&delivery).await.unwrap();
    }
    let mut connection = redis_connection(&shared().redis_url()).await;
    let key = |what: &str| format!("{{q:{}}}:{what}", backend.name);
    // Id, consumer, idle time and count of deliveries.
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(key("s"))
        .arg("workers")
        .arg("-")
        .arg("+")
        .arg(10)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!((pending.len(), pending[0].3), (1, 1));
    let marker = key(&format!("h:{}", message.job_id));
    let lives: u64 = redis::cmd("TTL").arg(marker).query_async(&mut connection).await.unwrap();
    assert!((86_000..=86_400).contains(&lives), "{lives} s");
    queue.ack(&delivery).await.unwrap();
}

/// Each is answered for itself.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_at_one_moment_are_one_call() {
    let redis = Redis::start();
    let queue = backend::Redis::new(LONG).await.worker_on(&redis.url());
    for _ in 0..40 {
        enqueue(&queue).await;
    }
    let mut held = Vec::new();
    while held.len() < 40 {
        held.extend(queue.receive(40, Duration::from_secs(1)).await.unwrap());
    }
    let done = held.pop().unwrap();
    queue.ack(&done).await.unwrap();
    held.push(done);
    let mut connection = redis_connection(&redis.url()).await;
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    reset.exec_async(&mut connection).await.unwrap();
    let answers = join_all(held.iter().map(|delivery| queue.ack(delivery))).await;
    let (done, others) = answers.split_last().unwrap();
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    assert!(matches!(done, Err(QueueError::LostLease)), "{done:?}");
    let stats = redis::cmd("INFO").arg("commandstats").to_owned();
    let stats: String = stats.query_async(&mut connection).await.unwrap();
    for command in ["evalsha", "xack", "xdel"] {
        assert!(stats.contains(&format!("cmdstat_{command}:calls=1,")), "{command} in {stats}");
    }
    assert_empty(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_queue_and_store_share_one_redis() {
    let redis = Redis::start();
    let (config, kv) = (QueueConfig::default(), backend::kv(&redis.url()));
    let (queue, blobs) = (queue::connect(&config, &kv).await, blob::connect(&config, &kv).await);
    let message = enqueue(&*queue).await;
    let pointer = message.blob.as_deref().unwrap();
    blobs.put(pointer, Bytes::from_static(b"audio"), LONG).await.unwrap();
    let mut delivery = next(&*queue).await;
    assert_eq!(delivery.message, message);
    assert_eq!(blobs.get(pointer).await.unwrap(), Some(Bytes::from_static(b"audio")));
    // The default: the fifth failure is the last.
    for attempt in 1..5 {
        assert_eq!(delivery.attempt, attempt);
        assert!(!queue.retry(&delivery, Duration::ZERO, "failed").await.unwrap());
        delivery = next(&*queue).await;
    }
    assert!(queue.retry(&delivery, Duration::ZERO, "failed").await.unwrap());
}
