//! Jobs whose database falls silent, refuses them, or is away when the worker is to end.

use std::{sync::Arc, time::Duration};

use bme_service::{database::Database, voice::consumer::Consumer};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    harness::{Proxy, Rule, Side, eventually, shared},
    voice_memory::{Model, Stage, calls},
    voice_worker::{ended, lunch, say, start},
};

/// The time limit of a worker's transaction, the wait until its job comes again, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(10 + 5 + 20);

/// A worker whose connections to Postgres go through a proxy.
async fn behind_a_proxy(stage: &Stage, model: &Model) -> (Proxy, Arc<Consumer>) {
    let proxy = Proxy::start(shared().postgres_port).await;
    let database = Database::new(&stage.world.with_database_port(proxy.port).database);
    tokio::spawn(database.clone().keep());
    let consumer = stage.consumer_with(model, stage.queue.clone(), Duration::from_mins(1));
    (proxy, Arc::new(Consumer { database, ..consumer }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_a_black_hole_keeps_no_place_of_the_worker() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let (proxy, consumer) = behind_a_proxy(&stage, &model).await;
    // As many as the worker has places: its transactions are swallowed in the middle.
    proxy.set(Rule::FreezeOn(Side::Client, b"voice_job_actions"));
    let mut swallowed = proxy.matches();
    let mut polls = Vec::new();
    for _ in 0..consumer.concurrency {
        polls.push(say(&stage, &user, &json!({})).await);
    }
    let places = u32::try_from(polls.len()).unwrap();
    let (stop, running) = start(consumer);
    timeout(PATIENCE, swallowed.wait_for(|count| *count >= places)).await.unwrap().unwrap();
    proxy.set(Rule::Pass);
    let mut period = interval(Duration::from_millis(100));
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let completed = async {
        while stage.world.count_transactions().await < i64::from(places) {
            period.tick().await;
        }
    };
    timeout(PATIENCE, completed).await.expect("every job is carried out");
    for poll in &polls {
        assert_eq!(ended(&stage, &user, poll).await["status"], "completed");
    }
    assert_eq!(stage.world.count_transactions().await, i64::from(places));
    stop.cancel();
    assert!(running.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_in_time_while_its_database_is_silent() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let (proxy, consumer) = behind_a_proxy(&stage, &model).await;
    proxy.set(Rule::FreezeOn(Side::Client, b"voice_job_actions"));
    let mut swallowed = proxy.matches();
    say(&stage, &user, &json!({})).await;
    let (stop, running) = start(consumer);
    timeout(PATIENCE, swallowed.wait_for(|count| *count >= 1)).await.unwrap().unwrap();
    proxy.set(Rule::Freeze);
    stop.cancel();
    let clean = timeout(Duration::from_secs(25), running).await.expect("a drain within 25 s");
    assert!(clean.unwrap(), "its delivery was given back to the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_will_never_take_ends_in_the_dead_letters() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    // Zero to a float, beyond every exponent to Postgres's numeric.
    let exercise = json!({ "name": "squat", "sets": 1, "reps": 1, "weight": 12.5 });
    let workout = json!({ "date": "2026-11-23", "title": "legs", "type": "strength",
                          "durationMinutes": 30, "exercises": [exercise] });
    let (status, answer) = calls(&[("add_workout", workout)]);
    let model = Model::start(vec![], (status, answer.replace("12.5", "1e-99999"))).await;
    let (stop, running) = start(stage.consumer(&model));
    // Only proposed, so that the number is kept as the model wrote it.
    let poll = say(&stage, &user, &json!({ "execute": false })).await;
    let document = ended(&stage, &user, &poll).await;
    assert_eq!(document["code"], "database-refused", "{document}");
    eventually("its dead letter", async || stage.queue.messages().is_empty()).await;
    stop.cancel();
    assert!(running.await.unwrap());
}
