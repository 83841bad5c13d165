//! Jobs in the hands of workers, with a model that misbehaves.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bme_service::{entity, voice::consumer::Consumer};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    entities::{body, path},
    entity_values::valid,
    harness::{Call, User, eventually},
    voice_memory::{Model, Stage, calls},
};

pub(crate) fn lunch() -> (&'static str, Value) {
    let args = json!({ "type": "expense", "amount": 12.5, "currency": "EUR", "category": "Food",
                       "date": "2026-11-23" });
    ("add_transaction", args)
}

pub(crate) fn start(consumer: Arc<Consumer>) -> (CancellationToken, JoinHandle<bool>) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(consumer.run(stop)))
}

pub(crate) async fn say(stage: &Stage, user: &User, more: &Value) -> String {
    let mut body = json!({ "transcript": "canary transcript", "today": "2026-11-23" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let call = Call::post("/api/voice/understand", &body.to_string()).by(user);
    let reply = call.send(&stage.instance).await;
    assert_eq!(reply.status, 202, "{reply}");
    reply.json()["pollUrl"].as_str().unwrap().to_owned()
}

/// A job with audio.
pub(crate) async fn audio_of(stage: &Stage, user: &User, mime_type: &str, bytes: &[u8]) -> String {
    let body = json!({ "audio": STANDARD.encode(bytes), "mimeType": mime_type }).to_string();
    let reply = Call::post("/api/voice/understand", &body).by(user).send(&stage.instance).await;
    assert_eq!(reply.status, 202, "{reply}");
    reply.json()["pollUrl"].as_str().unwrap().to_owned()
}

/// How a job stands now.
pub(crate) async fn status(stage: &Stage, user: &User, poll: &str) -> String {
    let document = Call::get(poll).by(user).send(&stage.instance).await.json();
    document["status"].as_str().unwrap().to_owned()
}

pub(crate) async fn ended(stage: &Stage, user: &User, poll: &str) -> Value {
    let mut document = Value::Null;
    eventually("a job to end", async || {
        document = Call::get(poll).by(user).send(&stage.instance).await.json();
        ["completed", "failed"].contains(&document["status"].as_str().unwrap())
    })
    .await;
    document
}

/// One job with one worker and these answers, from submission to its end.
async fn one(
    stage: &Stage,
    user: &User,
    script: Vec<(u16, String)>,
    then: (u16, String),
) -> (Value, usize) {
    let model = Model::start(script, then).await;
    let (stop, running) = start(stage.consumer(&model));
    let poll = say(stage, user, &json!({})).await;
    let document = ended(stage, user, &poll).await;
    stop.cancel();
    assert!(running.await.unwrap());
    (document, model.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_done_and_forgotten() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch(), ("unknown", json!({}))])).await;
    let (stop, running) = start(stage.consumer(&model));
    let poll = say(&stage, &user, &json!({})).await;
    let document = ended(&stage, &user, &poll).await;
    assert_eq!(document["status"], "completed", "{document}");
    assert_eq!(document["result"]["changed"], true);
    assert_eq!(document["result"]["actions"][0]["item"]["amount"], 12.5);
    assert_eq!(document["result"]["actions"][1]["status"], "unknown");
    let (headers, request) = model.last.lock().unwrap().take().unwrap();
    assert_eq!(headers["x-goog-api-key"], "canary-key");
    assert_eq!(request["contents"][0]["parts"][0]["text"], "canary transcript");

    let proposed = say(&stage, &user, &json!({ "execute": false })).await;
    let document = ended(&stage, &user, &proposed).await;
    assert_eq!(document["result"]["actions"][0]["status"], "proposed");
    assert_eq!(document["result"]["changed"], false);
    assert_eq!(stage.world.count_transactions().await, 1);
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM voice_jobs WHERE transcript IS NOT NULL OR model_answer IS NOT NULL",
    )
    .fetch_one(&stage.world.pool)
    .await
    .unwrap();
    assert_eq!(kept, 0);

    let poll = audio_of(&stage, &user, "audio/ogg", b"OggS").await;
    assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
    let (_, request) = model.last.lock().unwrap().take().unwrap();
    assert_eq!(request["contents"][0]["parts"][0]["inlineData"]["data"], "T2dnUw==");
    eventually("the audio to go", async || stage.blobs.0.lock().unwrap().is_empty()).await;
    stop.cancel();
    assert!(running.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_is_asked_again_and_then_the_job_fails() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    for status in [429, 500, 0] {
        let (document, asked) =
            one(&stage, &user, vec![(status, "x".into())], calls(&[lunch()])).await;
        assert_eq!((document["status"].as_str(), asked), (Some("completed"), 2), "{document}");
    }
    assert_eq!(stage.world.count_transactions().await, 3);
    let injected = |args: Value| calls(&[lunch(), ("add_transaction", args)]);
    let mut foreign = lunch().1;
    foreign["userId"] = json!(user.id);
    let mut huge = lunch().1;
    huge["amount"] = json!(1e300);
    for (answer, code) in [
        ((503, "x".into()), "provider-unavailable"),
        ((400, "x".into()), "provider-refused"),
        ((200, "<html>".into()), "provider-answer-invalid"),
        (injected(foreign), "provider-answer-invalid"),
        (injected(huge), "provider-answer-invalid"),
    ] {
        let (document, _) = one(&stage, &user, vec![], answer).await;
        assert_eq!(
            (document["status"].as_str(), document["code"].as_str()),
            (Some("failed"), Some(code))
        );
    }
    assert_eq!(stage.world.count_transactions().await, 3);
    let logged: Vec<String> =
        sqlx::query_scalar("SELECT detail::text FROM app_logs WHERE event = 'voice-job-failed'")
            .fetch_all(&stage.world.pool)
            .await
            .unwrap();
    assert_eq!(logged.len(), 5);
    assert!(logged.iter().all(|detail| !detail.contains("canary")), "{logged:?}");
}

/// The second attempt comes after about two seconds, each further one after twice the time before.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_twice_as_far_apart_each_time() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], (200, "<html>".into())).await;
    let consumer = stage.consumer_with(&model, stage.queue.clone(), Duration::from_mins(1));
    // More than the queue in memory counts to.
    let consumer = Consumer { attempts: 5, ..consumer };
    say(&stage, &user, &json!({})).await;
    for attempt in 1..=3 {
        let delivery = stage.delivery().await;
        assert_eq!(delivery.attempt, attempt);
        assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
        let after = stage.queue.retried.lock().unwrap().pop().unwrap();
        let most = Duration::from_secs(2_u64.pow(attempt));
        assert!(after >= most / 2 && after <= most, "{attempt}: {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_unambiguous_match_is_changed() {
    let stage = Stage::new().await;
    let (user, other) = (stage.world.user().await, stage.world.user().await);
    let goal = r#"{"type":"savings","target":100,"period":"monthly"}"#;
    let mut ids = Vec::new();
    for owner in [&user, &user, &other] {
        let made = Call::post("/api/goals", goal).by(owner).send(&stage.instance).await;
        ids.push(made.json()["id"].as_str().unwrap().to_owned());
    }
    let edit =
        |selector: Value| ("edit_goal", json!({ "match": selector, "changes": { "target": 200 } }));
    for (selector, status, candidates) in [
        (json!({ "type": "savings" }), "ambiguous", 2),
        (json!({ "type": "calories" }), "not-found", 0),
        (json!({ "id": ids[2] }), "not-found", 0),
    ] {
        let (document, _) = one(&stage, &user, vec![], calls(&[lunch(), edit(selector)])).await;
        assert_eq!(document["result"]["changed"], false, "{document}");
        let actions = &document["result"]["actions"];
        assert_eq!(
            (actions[0]["status"].as_str(), actions[1]["status"].as_str()),
            (Some("not-applied"), Some(status))
        );
        assert_eq!(actions[1]["candidates"].as_array().unwrap().len(), candidates);
    }
    assert_eq!(stage.world.count_transactions().await, 0);
    let (document, _) = one(&stage, &user, vec![], calls(&[edit(json!({ "id": ids[0] }))])).await;
    assert_eq!(document["result"]["actions"][0]["item"]["target"], 200.0, "{document}");
    let delete = ("delete_goal", json!({ "match": { "target": 100 } }));
    let (document, _) = one(&stage, &user, vec![], calls(&[delete])).await;
    assert_eq!(document["result"]["actions"][0]["item"]["id"], ids[1].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_added_edited_and_deleted() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    // What the model calls the kinds.
    let nouns = ["transaction", "schedule", "workout", "food_entry", "sleep", "goal"];
    for (noun, entity) in nouns.into_iter().zip(entity::ALL) {
        let items = async || {
            let list = Call::get(&path(entity)).by(&user).send(&stage.instance).await.json();
            list["items"].as_array().unwrap().clone()
        };
        let act = async |verb: &str, args: Value| {
            let name = format!("{verb}_{noun}");
            let (document, _) = one(&stage, &user, vec![], calls(&[(name.as_str(), args)])).await;
            let action = document["result"]["actions"][0].clone();
            assert_eq!(action["status"], "applied", "{name}: {document}");
            assert_eq!(action["intent"], verb, "{name}: {document}");
            action["item"].clone()
        };
        let wanted: Value = serde_json::from_str(&body(entity, "", "")).unwrap();
        let made = act("add", wanted.clone()).await;
        for field in entity.fields {
            assert_eq!(made[field.name], wanted[field.name], "{noun}: {made}");
        }
        assert_eq!(items().await, std::slice::from_ref(&made), "{noun}");

        let last = entity.fields.last().unwrap();
        let other: Value = serde_json::from_str(&valid(last)[1]).unwrap();
        let mut changes = json!({});
        changes[last.name] = other.clone();
        let edited =
            act("edit", json!({ "match": { "id": made["id"] }, "changes": changes })).await;
        assert_eq!((&edited["id"], &edited[last.name]), (&made["id"], &other), "{noun}");
        assert_eq!(items().await, [edited], "{noun}");

        // By what it holds.
        let first = entity.fields[0].name;
        let mut selector = json!({});
        selector[first] = wanted[first].clone();
        let deleted = act("delete", json!({ "match": selector })).await;
        assert_eq!(deleted["id"], made["id"], "{noun}");
        assert!(items().await.is_empty(), "{noun}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_anywhere_leave_every_effect_once() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let mut polls = Vec::new();
    for _ in 0..100 {
        polls.push(say(&stage, &user, &json!({})).await);
    }
    for message in stage.queue.messages().iter().step_by(3) {
        stage.queue.duplicate(message);
    }
    // Short: a statement that was still in a killed worker's buffer may take a lease much later.
    let lease = Duration::from_secs(2);
    let consumer = || Arc::new(stage.consumer_with(&model, stage.queue.clone(), lease));
    let mut seed: u64 = 0x5eed;
    for _ in 0..12 {
        let kills = [consumer(), consumer()].map(|consumer| {
            let stop = CancellationToken::new();
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let life = Duration::from_millis(20 + (seed >> 33) % 150);
            tokio::time::timeout(life, async move {
                // Dropping the set aborts what runs in it at whatever it waits for.
                let mut set = tokio::task::JoinSet::new();
                for delivery in
                    consumer.voice.queue.receive(8, Duration::from_millis(10)).await.unwrap()
                {
                    let (consumer, stop) = (Arc::clone(&consumer), stop.clone());
                    set.spawn(async move { consumer.handle(&delivery, &stop).await });
                }
                while set.join_next().await.is_some() {}
            })
        });
        let [first, second] = kills;
        let _ = tokio::join!(first, second);
        // A statement outlives the worker that sent it, and may take a lease after its death.
        stage.world.wait_for_idle().await;
        stage.queue.free();
        // None of the jobs is to blame, however often it is hit.
        sqlx::query(
            "UPDATE voice_jobs SET lease_until = now(), attempts = 0 WHERE lease_until IS NOT NULL",
        )
        .execute(&stage.world.pool)
        .await
        .unwrap();
    }
    let running = [start(consumer()), start(consumer())];
    for poll in &polls {
        let document = ended(&stage, &user, poll).await;
        assert!(document["status"] == "completed", "{document}");
    }
    for (stop, task) in running {
        stop.cancel();
        assert!(task.await.unwrap());
    }
    assert_eq!(stage.world.count_transactions().await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_back_what_does_not_end() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let stuck = Model::start(vec![], (0, String::new())).await;
    let poll = say(&stage, &user, &json!({})).await;
    let give_back = CancellationToken::new();
    let consumer = stage.consumer(&stuck);
    let delivery = stage.delivery().await;
    let handling = tokio::spawn({
        let give_back = give_back.clone();
        async move { consumer.handle(&delivery, &give_back).await }
    });
    eventually("the model to be asked", async || stuck.count() > 0).await;
    give_back.cancel();
    assert!(handling.await.unwrap());
    assert_eq!(status(&stage, &user, &poll).await, "queued");
    let model = Model::start(vec![], calls(&[lunch()])).await;
    let (stop, running) = start(stage.consumer(&model));
    assert_eq!(ended(&stage, &user, &poll).await["status"], "completed");
    stop.cancel();
    assert!(running.await.unwrap());
}
