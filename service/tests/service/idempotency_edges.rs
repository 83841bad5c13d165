//! What an operator sees of idempotency, an answer that is too large to be kept, and a Redis that is
//! too old.

use std::time::Duration;

use axum::{
    extract::FromRequestParts as _,
    http::{Request, StatusCode},
    response::Response,
};
use bme_service::{
    body::MAX_BODY,
    idempotency::{Answer, Call as IdempotentCall, IDEMPOTENT_REPLAYED, Idempotency},
    problem::Problem,
};
use http_body_util::BodyExt as _;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::time::timeout;

use crate::{
    harness::{
        Call, Instance, Process, Proxy, Rule, Side, User, World, eventually, redis_connection,
        shared, unique_key,
    },
    idempotency::effect,
};

const PATH: &str = "/api/transactions";
const BODY: &str =
    r#"{"type":"expense","amount":4.75,"currency":"EUR","category":"Food","date":"2026-11-23"}"#;
const OTHER_BODY: &str =
    r#"{"type":"expense","amount":4.85,"currency":"EUR","category":"Food","date":"2026-11-23"}"#;

/// How the copy to Redis begins on the wire: a script with a key and three arguments.
const FINISH: &[u8] = b"*7\r\n$7\r\nEVALSHA";

fn post(user: &User, key: &str) -> Call {
    Call::post(PATH, BODY).by(user).key(key)
}

/// Redis loses everything that it knows of a user's keys.
async fn forget(user: &User) {
    let mut redis = redis_connection(&shared().redis_url()).await;
    let keys: Vec<String> = redis.keys(format!("idempotency:{}:*", user.id)).await.unwrap();
    for key in keys {
        let _: () = redis.del(key).await.unwrap();
    }
}

/// Each result is counted with its route, and so is what happens to the lock. The binary's budget for
/// Redis is 50 ms: where a busy machine exceeds it, the same is tried with another key.
#[tokio::test(flavor = "multi_thread")]
async fn every_result_is_counted_by_route() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().redis_port()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = world.with_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    let process = Process::start("api", &config, &[("METRICS_ADDRESS", &address)]).await;
    let user = world.user().await;
    let send = async |call: Call| call.try_send(&process.url).await.unwrap();
    let is_shown = async |name: &str, label: &str| {
        let scraped = Call::get("/metrics").try_send(&format!("http://{address}")).await.unwrap();
        let text = String::from_utf8(scraped.body.to_vec()).unwrap();
        let route = format!("route=\"{PATH}\"");
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        lines.any(|line| {
            let (labels, value) = line.rsplit_once(' ').unwrap();
            let count: f64 = value.parse().unwrap();
            labels.contains(&route) && labels.contains(label) && count > 0.0
        })
    };
    let counted =
        async |result: &str| is_shown("idem_total", &format!("result=\"{result}\"")).await;

    eventually("new, replay and mismatch", async || {
        let key = unique_key();
        assert_eq!(send(post(&user, &key)).await.status, 201);
        send(post(&user, &key)).await;
        send(Call::post(PATH, OTHER_BODY).by(&user).key(&key)).await;
        counted("new").await && counted("replay").await && counted("mismatch").await
    })
    .await;
    assert!(is_shown("idem_lease_remaining_seconds_count", "").await);

    eventually("a running request and a lost lock", async || {
        let key = unique_key();
        let block = world.block_transactions().await;
        let first = tokio::spawn({
            let (url, call) = (process.url.clone(), post(&user, &key));
            async move { call.try_send(&url).await.unwrap() }
        });
        world.wait_for_blocked(1).await;
        // Without the lock in Redis a second one would wait behind the first for the database.
        let second = timeout(Duration::from_secs(5), send(post(&user, &key))).await;
        forget(&user).await;
        block.rollback().await.unwrap();
        assert_eq!(first.await.unwrap().status, 201);
        second.is_ok() && counted("in_progress").await && counted("lost_owner").await
    })
    .await;

    eventually("a copy that failed and its repair", async || {
        let key = unique_key();
        proxy.set(Rule::CutOn(Side::Client, FINISH));
        let first = send(post(&user, &key)).await;
        proxy.set(Rule::Pass);
        assert_eq!(first.status, 201, "{first}");
        eventually("the key to settle", async || send(post(&user, &key)).await.status == 201).await;
        is_shown("idem_finish_failed_total", "").await && counted("repair").await
    })
    .await;
}

/// The largest body that is taken makes an answer that is larger still, and is replayed like any other.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_the_largest_body_is_replayed() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let workout = |of_each: usize, besides: usize| {
        // Read as a decimal, the weight comes back as 1.0.
        let exercise = json!({ "name": "a", "sets": 1, "reps": 1, "weight": 1,
                               "notes": "😀".repeat(of_each) });
        json!({ "date": "2026-11-23", "title": "a", "type": "cardio", "durationMinutes": 1,
                "exercises": vec![exercise; 100], "notes": "x".repeat(besides) })
        .to_string()
    };
    let left = MAX_BODY - workout(0, 0).len();
    // Four bytes in each of a hundred.
    let body = workout(left / 400, left % 400);
    assert_eq!(body.len(), MAX_BODY);
    let call = Call::post("/api/workouts", &body).by(&user).key(&unique_key());
    let first = call.clone().send(&instance).await;
    assert_eq!(first.status, 201, "{}", first.status);
    assert!(first.body.len() > MAX_BODY, "{}", first.body.len());
    // From Redis' copy, and from the row.
    for _ in 0..2 {
        let again = call.clone().send(&instance).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
        assert!(again.body == first.body, "other bytes");
        forget(&user).await;
    }
}

/// An answer of 260 KiB is replayed. A larger one is a mistake, which a debug build shows; a release
/// answers it once, its repetitions are told that it was carried out, and nothing is carried out again.
/// Through the library: no route answers so much.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_is_not_replayed() {
    const MOST: usize = 260 * 1024;
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let run = async |guard: &Idempotency, key: &str, length: usize| -> Result<Response, Problem> {
        let request = Request::post(PATH)
            .header("idempotency-key", key)
            .header("content-type", "application/json");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let call = IdempotentCall::from_request_parts(&mut parts, &instance.app).await.unwrap();
        let effect = effect(move |database: &mut PgConnection| {
            Box::pin(async move {
                sqlx::query("UPDATE users SET name = name || '!'").execute(database).await?;
                Ok::<_, Problem>(Answer::json(StatusCode::CREATED, vec![b'1'; length], &[]))
            })
        });
        guard.run(user.id, &call, b"{}", |_| Ok(()), effect).await
    };
    if cfg!(debug_assertions) {
        let problem = run(&instance.app.idempotency, &unique_key(), MOST + 1).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let released = instance.app.idempotency.clone().in_release();
    for (length, replayed) in [(MOST, true), (MOST + 1, false)] {
        let key = unique_key();
        let first = run(&released, &key, length).await.unwrap();
        assert_eq!(first.status(), StatusCode::CREATED);
        assert!(!first.headers().contains_key(IDEMPOTENT_REPLAYED));
        let body = first.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), length);
        // From Redis' copy, and from the row.
        for _ in 0..2 {
            let again = run(&released, &key, length).await.unwrap();
            let status = if replayed { StatusCode::CREATED } else { StatusCode::CONFLICT };
            assert_eq!(again.status(), status, "{length}");
            assert_eq!(again.headers()[IDEMPOTENT_REPLAYED], "true");
            let repeated = again.into_body().collect().await.unwrap().to_bytes();
            if replayed {
                assert_eq!(repeated, body);
            } else {
                let problem: Value = serde_json::from_slice(&repeated).unwrap();
                assert_eq!(problem["code"], "not-replayable");
                assert_eq!(problem["originalStatus"], 201);
            }
            forget(&user).await;
        }
    }
    let name: String =
        sqlx::query_scalar("SELECT name FROM users").fetch_one(&world.pool).await.unwrap();
    assert_eq!(name, "Test!!", "each effect that was answered happened once");
}

/// As Redis 6.2 speaks: it refuses `SET` with both `NX` and `GET`.
const REDIS_6: Rule = Rule::Rewrite(&[
    (b"redis_version:7.", b"redis_version:6."),
    (b"redis_version:8.", b"redis_version:6."),
    (b"$3\r\nGET\r\n$2\r\nPX", b"$3\r\nGOT\r\n$2\r\nPX"),
]);

/// It is named at the start, and the lock works all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_before_7_is_named_and_locks_too() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().redis_port()).await;
    proxy.set(REDIS_6);
    let config = world.with_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    let mut process = Process::start("api", &config, &[]).await;
    let (line, _) = process.line(|line| line.contains("redis is older than 7.0")).await;
    assert!(line.contains("WARN") && line.contains("6."), "{line}");

    let instance = Instance::start(&config).await;
    eventually("a look at the version", async || instance.app.kv.is_before_7()).await;
    let user = world.user().await;
    let key = unique_key();
    let block = world.block_transactions().await;
    let first = tokio::spawn({
        let (url, call) = (instance.url.clone(), post(&user, &key));
        async move { call.try_send(&url).await.unwrap() }
    });
    world.wait_for_blocked(1).await;
    assert_eq!(post(&user, &key).send(&instance).await.problem(409), "request-in-progress");
    block.rollback().await.unwrap();
    let first = first.await.unwrap();
    assert_eq!(first.status, 201, "{first}");
    let replay = post(&user, &key).send(&instance).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(replay.body, first.body);
    assert_eq!(world.count_transactions().await, 1);
}
