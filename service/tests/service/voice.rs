//! Voice requests over HTTP.

use std::sync::atomic::Ordering;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{Call, Instance, User, World, unique_key},
    voice_memory::Stage,
};

const PATH: &str = "/api/voice/understand";
const SAID: &str =
    r#"{"transcript":"lunch for 12.50","today":"2026-11-23","timezone":"Europe/Berlin"}"#;

fn said(user: &User) -> Call {
    Call::post(PATH, SAID).by(user)
}

async fn jobs(stage: &Stage) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM voice_jobs")
        .fetch_one(&stage.world.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_one_job_that_only_its_owner_sees() {
    let stage = Stage::new().await;
    let (user, other) = (stage.world.user().await, stage.world.user().await);
    let key = unique_key();
    let first = said(&user).key(&key).send(&stage.instance).await;
    assert_eq!(first.status, 202, "{first}");
    let poll = first.json()["pollUrl"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), Some(poll.as_str()));
    let again = said(&user).key(&key).send(&stage.instance).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let others = said(&other).key(&key).send(&stage.instance).await;
    assert_ne!(others.body, first.body);
    assert_eq!((jobs(&stage).await, stage.queue.messages().len()), (2, 2));

    let seen = Call::get(&poll).by(&user).send(&stage.instance).await;
    assert_eq!((seen.status, seen.json()["status"].as_str()), (200, Some("queued")));
    assert_eq!(Call::get(&poll).by(&other).send(&stage.instance).await.problem(404), "not-found");
    let bad = Call::get("/api/jobs/x").by(&user).send(&stage.instance).await;
    assert_eq!(bad.problem(404), "not-found");
    assert_eq!(Call::get(&poll).send(&stage.instance).await.problem(401), "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_fitting_is_refused_and_leaves_nothing() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let ogg = STANDARD.encode("OggS....");
    for (body, status) in [
        ("{".to_owned(), 400),
        ("{}".into(), 422),
        (json!({ "transcript": "" }).to_string(), 422),
        (json!({ "transcript": "a", "audio": ogg, "mimeType": "audio/ogg" }).to_string(), 422),
        (json!({ "transcript": "a", "timezone": "Mars/Base" }).to_string(), 422),
        (json!({ "transcript": "a", "today": "2026-02-30" }).to_string(), 422),
        (json!({ "transcript": "a", "userId": user.id }).to_string(), 422),
        (json!({ "transcript": "a", "mimeType": "audio/ogg" }).to_string(), 422),
        (json!({ "audio": ogg }).to_string(), 422),
        (json!({ "audio": ogg, "mimeType": "audio/x-ogg" }).to_string(), 415),
        (json!({ "audio": ogg, "mimeType": "audio/webm" }).to_string(), 415),
        (json!({ "audio": "T2dnUw", "mimeType": "audio/ogg" }).to_string(), 400),
        (json!({ "transcript": "a".repeat(2 << 20) }).to_string(), 413),
    ] {
        let reply =
            Call::post(PATH, &body).by(&user).key(&unique_key()).send(&stage.instance).await;
        reply.problem(status);
    }
    let plain = Call::new(Method::POST, PATH).header("content-type", "text/plain").body(SAID);
    let plain = plain.by(&user).send(&stage.instance).await;
    assert_eq!(plain.problem(415), "unsupported-media-type");
    // Without a token nothing of the body is looked at.
    let large = "a".repeat(3 << 20);
    assert_eq!(Call::post(PATH, &large).send(&stage.instance).await.problem(401), "unauthorized");
    // The larger limit is this route's only.
    let elsewhere = Call::post("/api/goals", &"a".repeat(300 << 10)).by(&user);
    assert_eq!(elsewhere.send(&stage.instance).await.problem(413), "body-too-large");
    assert_eq!(jobs(&stage).await, 0);

    let audio = [b"OggS".as_slice(), &vec![0; 1 << 20]].concat();
    let body = json!({ "audio": STANDARD.encode(&audio), "mimeType": "audio/ogg; codecs=opus" });
    let taken = Call::post(PATH, &body.to_string()).by(&user).send(&stage.instance).await;
    assert_eq!(taken.status, 202, "{taken}");
    let stored = stage.blobs.0.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(stored, audio);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_down_is_503_and_the_retry_works() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let key = unique_key();
    let body = json!({ "audio": STANDARD.encode("OggS...."), "mimeType": "audio/ogg" }).to_string();
    let call = Call::post(PATH, &body).by(&user).key(&key);
    stage.queue.down.store(true, Ordering::Release);
    let refused = call.clone().send(&stage.instance).await;
    assert_eq!(refused.problem(503), "queue-unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(jobs(&stage).await, 0);
    assert!(stage.blobs.0.lock().unwrap().is_empty());
    stage.queue.down.store(false, Ordering::Release);
    assert_eq!(call.send(&stage.instance).await.status, 202);
    assert_eq!(jobs(&stage).await, 1);

    let world = World::new().await;
    let without = Instance::start(&world.config).await;
    let reply = said(&world.user().await).send(&without).await;
    assert_eq!(reply.problem(503), "voice-unavailable");
}
