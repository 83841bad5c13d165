//! Jobs whose messages, workers or leases get lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bme_service::queue::{MemoryQueue, Queue as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::eventually,
    voice_memory::{Answer, Model, Stage, calls},
    voice_worker::{audio_of, ended, lunch, say, start, status},
};

impl Stage {
    /// As if nobody had worked on open jobs for long.
    async fn age(&self) {
        sqlx::query("UPDATE voice_jobs SET enqueued_at = now() - interval '10 minutes'")
            .execute(&self.world.pool)
            .await
            .unwrap();
    }

    /// As after the death of every worker, a lease later.
    async fn end_leases(&self) {
        self.world.wait_for_idle().await;
        self.queue.expire();
        sqlx::query("UPDATE voice_jobs SET lease_until = now() WHERE lease_until IS NOT NULL")
            .execute(&self.world.pool)
            .await
            .unwrap();
    }

    async fn logged(&self, event: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM app_logs WHERE event = $1")
            .bind(event)
            .fetch_one(&self.world.pool)
            .await
            .unwrap()
    }

    async fn reasons(&self) -> Vec<String> {
        let letters = self.queue.dead(10).await.unwrap();
        letters.into_iter().map(|letter| letter.reason).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_message_was_lost_is_enqueued_again_and_only_then() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let consumer = stage.consumer(&model);
    let polls = [say(&stage, &user, &json!({})).await, say(&stage, &user, &json!({})).await];
    // A young job may still be on its way.
    stage.queue.lose();
    consumer.relay_once().await.unwrap();
    assert_eq!(stage.queue.messages().len(), 0);
    stage.age().await;
    for _ in 0..2 {
        consumer.relay_once().await.unwrap();
        assert_eq!(stage.queue.messages().len(), 2);
    }
    // It waits behind others: that is no loss.
    stage.age().await;
    consumer.relay_once().await.unwrap();
    assert_eq!((stage.queue.messages().len(), stage.logged("voice-job-relayed").await), (2, 2));
    let (stop, running) = start(consumer);
    for poll in &polls {
        assert_eq!(ended(&stage, &user, poll).await["status"], "completed");
    }
    stop.cancel();
    assert!(running.await.unwrap());
    // What has ended is nobody's loss either.
    stage.queue.lose();
    stage.age().await;
    stage.consumer(&model).relay_once().await.unwrap();
    assert_eq!((stage.queue.messages().len(), stage.world.count_transactions().await), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_died_before_its_row_was_there_comes_back() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let consumer = stage.consumer(&model);
    let poll = say(&stage, &user, &json!({})).await;
    let delivery = stage.delivery().await;
    stage.queue.dead_letter(&delivery, "no such job").await.unwrap();
    stage.age().await;
    consumer.relay_once().await.unwrap();
    assert_eq!((stage.reasons().await.len(), stage.logged("voice-jobs-put-back").await), (0, 1));
    let delivery = stage.delivery().await;
    assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
    assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_killed_three_workers_is_dead_without_a_fourth() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let consumer = stage.consumer(&model);
    let poll = say(&stage, &user, &json!({})).await;
    for _ in 0..3 {
        stage.delivery().await;
        stage.queue.expire();
    }
    let delivery = stage.delivery().await;
    assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
    let document = ended(&stage, &user, &poll).await;
    assert_eq!((&document["status"], &document["code"]), (&json!("failed"), &json!("stalled")));
    assert_eq!((stage.reasons().await, model.count()), (vec!["stalled".to_owned()], 0));
    assert_eq!(stage.logged("voice-job-failed").await, 1);
}

/// However often its message is made anew, as a first attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_back_for_ever_is_given_up() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let silent = Model::start(vec![], (0, String::new())).await;
    let poll = say(&stage, &user, &json!({})).await;
    let mut killed = 0;
    while status(&stage, &user, &poll).await != "failed" {
        assert!(killed < 20, "for ever");
        let (consumer, delivery) = (stage.consumer(&silent), stage.delivery().await);
        let handling =
            tokio::spawn(
                async move { consumer.handle(&delivery, &CancellationToken::new()).await },
            );
        eventually("a call of the model, or the end", async || {
            silent.count() > killed || handling.is_finished()
        })
        .await;
        if !handling.is_finished() {
            handling.abort();
            killed += 1;
            let message = stage.queue.messages().remove(0);
            stage.queue.lose();
            stage.queue.duplicate(&message);
        }
        stage.end_leases().await;
    }
    // Three failures and two silent holders is what a job may have.
    assert_eq!((killed, stage.reasons().await), (5, vec!["attempts-exhausted".to_owned()]));
    assert_eq!(stage.logged("voice-job-failed").await, 1);

    // An operator may put it back all the same, and it begins anew.
    assert_eq!(stage.queue.redrive(&[]).await.unwrap(), 1);
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let delivery = stage.delivery().await;
    assert!(stage.consumer(&model).handle(&delivery, &CancellationToken::new()).await);
    assert_eq!(status(&stage, &user, &poll).await, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_with_audio_can_be_put_back() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let refusing = Model::start(vec![], (400, "no".into())).await;
    let poll = audio_of(&stage, &user, "audio/ogg", b"OggS....").await;
    let delivery = stage.delivery().await;
    assert!(stage.consumer(&refusing).handle(&delivery, &CancellationToken::new()).await);
    assert_eq!(ended(&stage, &user, &poll).await["code"], "provider-refused");
    let job = delivery.message.job_id;
    assert_eq!(stage.queue.redrive(&[job]).await.unwrap(), 1);
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let delivery = stage.delivery().await;
    assert!(stage.consumer(&model).handle(&delivery, &CancellationToken::new()).await);
    assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
    assert!(stage.blobs.0.lock().unwrap().is_empty());
}

/// The worker notes the failure, and ends before it tells the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_was_noted_before_a_crash_reaches_the_dead_letters() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let refusing = Model::start(vec![], (400, "no".into())).await;
    let consumer = stage.consumer(&refusing);
    let poll = say(&stage, &user, &json!({})).await;
    let delivery = stage.delivery().await;
    stage.queue.down.store(true, Ordering::Release);
    assert!(!consumer.handle(&delivery, &CancellationToken::new()).await, "the queue was not told");
    stage.queue.down.store(false, Ordering::Release);
    assert_eq!(
        (status(&stage, &user, &poll).await.as_str(), stage.reasons().await.len()),
        ("failed", 0)
    );
    stage.queue.expire();
    let delivery = stage.delivery().await;
    assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
    assert_eq!(stage.reasons().await, ["provider-refused"]);
    assert_eq!((refusing.count(), stage.logged("voice-job-failed").await), (1, 1));
}

/// Of the delivery and of the row: each alone stops the holder, before anything is committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_stops_the_work_before_its_effects() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    for (round, of_the_row) in [(1, false), (2, true)] {
        let model = Model::start(vec![], calls(&[lunch()])).await;
        let lease = Duration::from_millis(600);
        let consumer = Arc::new(stage.consumer_with(&model, stage.queue.clone(), lease));
        let poll = say(&stage, &user, &json!({})).await;
        let delivery = stage.delivery().await;
        let blocking = stage.world.block_transactions().await;
        let handling = tokio::spawn({
            let consumer = consumer.clone();
            async move { consumer.handle(&delivery, &CancellationToken::new()).await }
        });
        stage.world.wait_for_blocked(1).await;
        if of_the_row {
            sqlx::query(
                "UPDATE voice_jobs SET lease_token = gen_random_uuid() WHERE state = 'processing'",
            )
            .execute(&stage.world.pool)
            .await
            .unwrap();
        } else {
            stage.queue.expire();
        }
        // It stops while its statement still waits.
        let stopped = tokio::time::timeout(Duration::from_secs(10), handling).await;
        assert!(stopped.expect("it was told").unwrap());
        blocking.rollback().await.unwrap();
        stage.world.wait_for_idle().await;
        assert_eq!(stage.world.count_transactions().await, round - 1);
        assert_eq!(status(&stage, &user, &poll).await, "processing");

        // The next holder does it, without asking the model again.
        stage.end_leases().await;
        let delivery = stage.delivery().await;
        assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
        assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
        assert_eq!((stage.world.count_transactions().await, model.count()), (round, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_longer_than_its_lease_stays_with_its_worker() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let after = Duration::from_millis(3500);
    let model = Model::answering(move |_| Answer { after, ..calls(&[lunch()]).into() }).await;
    let lease = Duration::from_secs(1);
    let queue = Arc::new(MemoryQueue::new(lease, 3));
    let poll = say(&stage, &user, &json!({})).await;
    queue.enqueue(&stage.queue.messages().remove(0)).await.unwrap();
    let workers = [(); 2].map(|()| {
        let mut consumer = stage.consumer_with(&model, queue.clone(), lease);
        let config =
            bme_service::config::VoiceConfig { attempt: Duration::from_secs(8), ..model.config() };
        consumer.gemini = crate::voice_memory::gemini(&config);
        start(Arc::new(consumer))
    });
    assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
    for (stop, running) in workers {
        stop.cancel();
        assert!(running.await.unwrap());
    }
    assert_eq!((model.count(), stage.world.count_transactions().await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_tell_the_queue_is_not_clean() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let after = Duration::from_millis(400);
    let model = Model::answering(move |_| Answer { after, ..calls(&[lunch()]).into() }).await;
    for down in [true, false] {
        let poll = say(&stage, &user, &json!({})).await;
        let (stop, running) = start(stage.consumer(&model));
        eventually("a call of the model", async || model.running() == 1).await;
        stop.cancel();
        stage.queue.down.store(down, Ordering::Release);
        assert_eq!(running.await.unwrap(), !down);
        assert_eq!(status(&stage, &user, &poll).await, "completed");
        stage.queue.down.store(false, Ordering::Release);
        stage.queue.lose();
    }
}

/// A message that no release can read has no job, and still the operator learns of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_logged() {
    let stage = Stage::new().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let queue = Arc::new(MemoryQueue::new(Duration::from_mins(1), 3));
    for text in ["no message", "another"] {
        queue.push_raw(text);
    }
    // A receive ends with the first delivery.
    let user = stage.world.user().await;
    say(&stage, &user, &json!({})).await;
    queue.enqueue(&stage.queue.messages().remove(0)).await.unwrap();
    let (stop, running) =
        start(Arc::new(stage.consumer_with(&model, queue.clone(), Duration::from_mins(1))));
    eventually("the rows", async || stage.logged("voice-message-unreadable").await == 2).await;
    stop.cancel();
    assert!(running.await.unwrap());
    assert_eq!(queue.depth().await.unwrap().dead, 2);
}
