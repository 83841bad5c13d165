//! What every queue does.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bme_service::queue::{Depth, QueueError};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    ATTEMPTS, LONG, SHORT, assert_empty, assert_nothing_comes,
    backend::{Backend, Memory, Redis, Sqs},
    enqueue, message, next, only_dead,
};

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        $(
            mod $case {
                use super::*;

                #[tokio::test(flavor = "multi_thread")]
                async fn in_memory() {
                    super::$case::<Memory>().await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn in_redis() {
                    super::$case::<Redis>().await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn in_sqs() {
                    super::$case::<Sqs>().await;
                }
            }
        )*
    };
}

conformance!(
    a_job_enqueued_twice_comes_once,
    an_ended_lease_redelivers_and_the_old_holder_is_told,
    an_extended_lease_keeps,
    retries_count_wait_and_end_in_one_dead_letter,
    a_released_delivery_does_not_count,
    what_cannot_be_read_is_dead_and_holds_nobody_up,
    dead_letters_are_listed_and_come_back,
    a_dropped_receive_loses_nothing,
    a_receive_that_waits_gets_what_arrives,
    the_deliveries_of_a_killed_worker_go_to_another,
    silent_holders_are_counted_apart_from_attempts,
    two_workers_share_without_overlap,
    the_depth_is_told,
);

async fn a_job_enqueued_twice_comes_once<B: Backend>() {
    let backend = B::new(LONG).await;
    let (one, other) = (backend.worker(), backend.worker());
    let message = enqueue(&*one).await;
    assert!(!one.enqueue(&message).await.unwrap());
    assert!(!other.enqueue(&message).await.unwrap());
    let delivery = next(&*other).await;
    assert_eq!((&delivery.message, delivery.attempt), (&message, 1));
    let age = time::OffsetDateTime::now_utc() - delivery.enqueued_at;
    assert!(age.abs() < Duration::from_mins(1), "{age}");
    assert_nothing_comes(&*one).await;
    other.ack(&delivery).await.unwrap();
    // Done is done.
    assert!(!one.enqueue(&message).await.unwrap());
    assert_empty(&*one).await;
}

async fn an_ended_lease_redelivers_and_the_old_holder_is_told<B: Backend>() {
    let backend = B::new(SHORT).await;
    let queue = backend.worker();
    enqueue(&*queue).await;
    let old = next(&*queue).await;
    // The same process gets it again: that must not make the old holder the new one.
    let new = next(&*queue).await;
    assert_eq!((&new.message, new.attempt), (&old.message, 1));
    let lost = [
        queue.extend(&old).await,
        queue.retry(&old, Duration::ZERO, "late").await.map(drop),
        queue.release(&old, Duration::ZERO).await,
        queue.dead_letter(&old, "late").await,
        queue.ack(&old).await,
    ];
    for answer in lost {
        assert!(matches!(answer, Err(QueueError::LostLease)), "{answer:?}");
    }
    queue.ack(&new).await.unwrap();
    let again = queue.ack(&new).await;
    assert!(matches!(again, Err(QueueError::LostLease)), "{again:?}");
    assert_empty(&*queue).await;
}

async fn an_extended_lease_keeps<B: Backend>() {
    let lease = Duration::from_secs(3);
    let backend = B::new(lease).await;
    let (holder, other) = (backend.worker(), backend.worker());
    enqueue(&*holder).await;
    let delivery = next(&*holder).await;
    let deadline = Instant::now() + 2 * lease + SHORT;
    let mut period = interval(lease / 6);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let extending = async {
        while Instant::now() < deadline {
            period.tick().await;
            holder.extend(&delivery).await.unwrap();
        }
    };
    let watching = async {
        while Instant::now() < deadline {
            assert_nothing_comes(&*other).await;
        }
    };
    tokio::join!(extending, watching);
    holder.ack(&delivery).await.unwrap();
    assert_empty(&*other).await;
}

async fn retries_count_wait_and_end_in_one_dead_letter<B: Backend>() {
    let backend = B::new(LONG).await;
    let queue = backend.worker();
    let message = enqueue(&*queue).await;
    let after = Duration::from_secs(2);
    let mut retried_at = Instant::now();
    for attempt in 1..=ATTEMPTS {
        let delivery = next(&*queue).await;
        assert_eq!(delivery.attempt, attempt);
        assert!(attempt == 1 || retried_at.elapsed() >= after, "{:?}", retried_at.elapsed());
        let reason = ["first", "second", "last"][usize::try_from(attempt).unwrap() - 1];
        retried_at = Instant::now();
        let dead = queue.retry(&delivery, after, reason).await.unwrap();
        assert_eq!(dead, attempt == ATTEMPTS);
    }
    assert_nothing_comes(&*queue).await;
    let dead = only_dead(&*queue).await;
    assert_eq!(dead.job_id, Some(message.job_id));
    assert_eq!((dead.reason.as_str(), dead.attempts), ("last", ATTEMPTS));
    assert_eq!(dead.first_reason.as_deref(), Some("first"));
    let age = time::OffsetDateTime::now_utc() - dead.at;
    assert!(age.abs() < Duration::from_mins(1), "{age}");
    let lived = dead.at - dead.enqueued_at.unwrap();
    assert!(lived >= after * (ATTEMPTS - 1) && lived < Duration::from_mins(1), "{lived}");
}

async fn a_released_delivery_does_not_count<B: Backend>() {
    let backend = B::new(LONG).await;
    let queue = backend.worker();
    let message = enqueue(&*queue).await;
    // More often than attempts and silent holders are allowed.
    for round in 0..6 {
        let delivery = next(&*queue).await;
        assert_eq!((&delivery.message, delivery.attempt), (&message, 1));
        queue.release(&delivery, Duration::from_secs(round % 2)).await.unwrap();
    }
    let delivery = next(&*queue).await;
    queue.ack(&delivery).await.unwrap();
    assert_empty(&*queue).await;
}

async fn what_cannot_be_read_is_dead_and_holds_nobody_up<B: Backend>() {
    let backend = B::new(LONG).await;
    let queue = backend.worker();
    let later = json!({ "v": 99, "jobId": "later" }).to_string();
    let mut huge = serde_json::to_value(message()).unwrap();
    huge["requestId"] = "a".repeat(64 * 1024).into();
    let huge = huge.to_string();
    let poison = ["no JSON at all", "{}", later.as_str(), huge.as_str()];
    for text in poison {
        backend.poison(text).await;
    }
    let message = enqueue(&*queue).await;
    let delivery = next(&*queue).await;
    assert_eq!(delivery.message, message);
    queue.ack(&delivery).await.unwrap();
    assert_nothing_comes(&*queue).await;
    assert_eq!((queue.unreadable(), queue.unreadable()), (poison.len(), 0));
    let dead = queue.dead(10).await.unwrap();
    assert_eq!(dead.len(), poison.len(), "{dead:?}");
    for letter in dead {
        assert_eq!(
            (letter.job_id, letter.reason.as_str(), letter.attempts),
            (None, "unreadable", 0)
        );
    }
    // They can be put back, and are still unreadable.
    assert_eq!(queue.redrive(&[]).await.unwrap(), poison.len());
    assert_nothing_comes(&*queue).await;
    assert_eq!(queue.dead(10).await.unwrap().len(), poison.len());
}

async fn dead_letters_are_listed_and_come_back<B: Backend>() {
    let backend = B::new(LONG).await;
    let queue = backend.worker();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(enqueue(&*queue).await.job_id);
        let delivery = next(&*queue).await;
        assert!(!queue.retry(&delivery, Duration::ZERO, "earlier").await.unwrap());
        let delivery = next(&*queue).await;
        queue.dead_letter(&delivery, "hopeless").await.unwrap();
    }
    assert_nothing_comes(&*queue).await;
    let dead = queue.dead(10).await.unwrap();
    assert_eq!(dead.iter().map(|letter| letter.job_id.unwrap()).collect::<Vec<_>>(), jobs);
    for letter in &dead {
        assert_eq!((letter.reason.as_str(), letter.attempts), ("hopeless", 2));
    }
    assert_eq!(queue.dead(2).await.unwrap().len(), 2);

    assert_eq!(queue.redrive(&[jobs[1], message().job_id]).await.unwrap(), 1);
    let delivery = next(&*queue).await;
    assert_eq!((delivery.message.job_id, delivery.attempt), (jobs[1], 1));
    queue.ack(&delivery).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), Depth { waiting: 0, in_flight: 0, dead: 2 });

    assert_eq!(queue.redrive(&[]).await.unwrap(), 2);
    for _ in 0..2 {
        let delivery = next(&*queue).await;
        assert_eq!(delivery.attempt, 1);
        queue.ack(&delivery).await.unwrap();
    }
    assert_eq!(queue.redrive(&[]).await.unwrap(), 0);
    assert_empty(&*queue).await;
}

async fn a_dropped_receive_loses_nothing<B: Backend>() {
    let backend = B::new(LONG).await;
    let (queue, sender) = (backend.worker(), backend.worker());
    let sent = async {
        let mut sent = HashSet::new();
        for _ in 0..30 {
            sent.insert(enqueue(&*sender).await.job_id);
        }
        sent
    };
    let dropped = async {
        let mut got = Vec::new();
        for round in 0..60 {
            let receiving = queue.receive(3, Duration::from_secs(2));
            // Between what is certainly too short and what may be enough.
            if let Ok(received) = timeout(Duration::from_millis(round % 12), receiving).await {
                got.extend(received.unwrap());
            }
        }
        got
    };
    let (sent, mut got) = tokio::join!(sent, dropped);
    // With leases far longer than this: what was lost would not be back in time.
    while got.len() < sent.len() {
        got.push(next(&*queue).await);
    }
    for delivery in &got {
        assert_eq!(delivery.attempt, 1);
        queue.ack(delivery).await.unwrap();
    }
    assert_eq!(got.iter().map(|delivery| delivery.message.job_id).collect::<HashSet<_>>(), sent);
    assert_empty(&*queue).await;
}

async fn a_receive_that_waits_gets_what_arrives<B: Backend>() {
    let backend = B::new(LONG).await;
    let (queue, sender) = (backend.worker(), backend.worker());
    // The group, the connections.
    assert_nothing_comes(&*queue).await;
    let waited = Instant::now();
    let receiving = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(5, Duration::from_secs(15)).await.unwrap() }
    });
    let nothing_yet = timeout(Duration::from_millis(300), std::future::pending::<()>()).await;
    assert!(nothing_yet.is_err() && !receiving.is_finished());
    let message = enqueue(&*sender).await;
    let received = receiving.await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message, message);
    assert!(waited.elapsed() < Duration::from_secs(10), "{:?}", waited.elapsed());
    queue.ack(&received[0]).await.unwrap();
}

async fn the_deliveries_of_a_killed_worker_go_to_another<B: Backend>() {
    let backend = B::new(SHORT).await;
    let (killed, other) = (backend.worker(), backend.worker());
    let mut jobs = HashSet::new();
    for _ in 0..4 {
        jobs.insert(enqueue(&*killed).await.job_id);
    }
    for _ in 0..4 {
        next(&*killed).await;
    }
    drop(killed);
    let mut taken = HashSet::new();
    for _ in 0..4 {
        let delivery = next(&*other).await;
        assert_eq!(delivery.attempt, 1);
        taken.insert(delivery.message.job_id);
        other.ack(&delivery).await.unwrap();
    }
    assert_eq!(taken, jobs);
    assert_empty(&*other).await;
}

async fn silent_holders_are_counted_apart_from_attempts<B: Backend>() {
    let backend = B::new(Duration::from_secs(1)).await;
    let message = enqueue(&*backend.worker()).await;
    for stalled in 0..3 {
        let delivery = next(&*backend.worker()).await;
        assert_eq!((delivery.attempt, delivery.stalled), (1, stalled));
    }
    // Neither a release nor a failed attempt forgets them; a redrive does.
    let queue = backend.worker();
    let delivery = next(&*queue).await;
    assert_eq!((delivery.attempt, delivery.stalled), (1, 3));
    queue.release(&delivery, Duration::ZERO).await.unwrap();
    let delivery = next(&*queue).await;
    assert_eq!((delivery.attempt, delivery.stalled), (1, 3));
    queue.retry(&delivery, Duration::ZERO, "failed").await.unwrap();
    let delivery = next(&*queue).await;
    assert_eq!((delivery.attempt, delivery.stalled), (2, 3));
    queue.dead_letter(&delivery, "stalled").await.unwrap();
    assert_eq!(only_dead(&*queue).await.job_id, Some(message.job_id));
    assert_eq!(queue.redrive(&[]).await.unwrap(), 1);
    let delivery = next(&*queue).await;
    assert_eq!((delivery.attempt, delivery.stalled), (1, 0));
    queue.ack(&delivery).await.unwrap();
    assert_empty(&*queue).await;
}

async fn two_workers_share_without_overlap<B: Backend>() {
    let backend = B::new(LONG).await;
    let workers = [backend.worker(), backend.worker()];
    let mut sent = HashSet::new();
    for _ in 0..40 {
        sent.insert(enqueue(&*workers[0]).await.job_id);
    }
    let work = workers.each_ref().map(|worker| async move {
        let mut done = Vec::new();
        loop {
            let received = worker.receive(5, Duration::from_secs(1)).await.unwrap();
            if received.is_empty() {
                return done;
            }
            for delivery in received {
                worker.ack(&delivery).await.unwrap();
                done.push(delivery.message.job_id);
            }
        }
    });
    let done = futures_util::future::join_all(work).await.concat();
    assert_eq!(done.len(), sent.len());
    assert_eq!(done.into_iter().collect::<HashSet<_>>(), sent);
    assert_empty(&*workers[1]).await;
}

async fn the_depth_is_told<B: Backend>() {
    let backend = B::new(LONG).await;
    let queue = backend.worker();
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
    for _ in 0..4 {
        enqueue(&*queue).await;
    }
    let later = next(&*queue).await;
    queue.release(&later, Duration::from_mins(1)).await.unwrap();
    let dead = next(&*queue).await;
    queue.dead_letter(&dead, "hopeless").await.unwrap();
    let held = next(&*queue).await;
    assert_eq!(queue.depth().await.unwrap(), Depth { waiting: 2, in_flight: 1, dead: 1 });
    queue.ack(&held).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), Depth { waiting: 2, in_flight: 0, dead: 1 });
}
