//! One key, one effect, one answer. Each defect that is known from other implementations has its
//! test here.

use std::{
    collections::HashSet,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::FromRequestParts as _,
    http::{Request, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bme_service::{
    idempotency::{Answer, Call as IdempotentCall, Effect},
    problem::Problem,
};
use redis::AsyncCommands as _;
use serde_json::json;
use sqlx::PgConnection;

use crate::harness::{
    Call, Instance, Process, Proxy, Reply, Rule, Side, User, World, eventually, redis_connection,
    shared, token_for, unique_key,
};

/// How the copy to Redis begins on the wire: a script with four arguments. The rate limit's has three.
const FINISH: &[u8] = b"*7\r\n$7\r\nEVALSHA";

const PATH: &str = "/api/transactions";
const BODY: &str =
    r#"{"type":"expense","amount":12.50,"currency":"EUR","category":"Food","date":"2026-11-23"}"#;
const OTHER_BODY: &str =
    r#"{"type":"expense","amount":13.50,"currency":"EUR","category":"Food","date":"2026-11-23"}"#;

fn post(user: &User, key: &str) -> Call {
    Call::post(PATH, BODY).by(user).key(key)
}

#[track_caller]
fn assert_replay(first: &Reply, second: &Reply) {
    assert_eq!(second.status, first.status, "{second}");
    assert_eq!(second.body, first.body);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);
    for name in ["content-type", "location"] {
        assert_eq!(second.header(name), first.header(name));
    }
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(second.header("set-cookie"), None);
}

/// Repeats a request for as long as it is answered 409, as a client does.
async fn settled(call: Call, instance: &Instance) -> Reply {
    let mut settled = None;
    eventually("a request to settle", async || {
        let reply = call.clone().send(instance).await;
        let done = reply.status != 409;
        settled = Some(reply);
        done
    })
    .await;
    settled.unwrap()
}

/// The Redis keys of a user.
async fn redis_keys(user: &User) -> Vec<String> {
    let mut redis = redis_connection(&shared().redis_url()).await;
    redis.keys(format!("idempotency:{}:*", user.id)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_is_replayed_byte_for_byte() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let first = post(&user, &key).send(&instance).await;
    assert_eq!(first.status, 201, "{first}");
    assert_replay(&first, &post(&user, &key).send(&instance).await);
    // The IETF spelling is the same key; a token after a refresh is the same user.
    let refreshed = User { id: user.id, token: token_for(user.id) };
    let ietf =
        Call::post(PATH, BODY).by(&refreshed).header("idempotency-key", &format!("\"{key}\""));
    assert_replay(&first, &ietf.send(&instance).await);
    assert_eq!(world.count_transactions().await, 1);

    // Without a valid token there is no replay.
    let anonymous = Call::post(PATH, BODY).key(&key).send(&instance).await;
    assert_eq!(anonymous.problem(401), "unauthorized");

    // Without a key nothing is guarded.
    for _ in 0..2 {
        assert_eq!(Call::post(PATH, BODY).by(&user).send(&instance).await.status, 201);
    }
    assert_eq!(world.count_transactions().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request_of_one_user() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (user, other) = (world.user().await, world.user().await);
    let key = unique_key();
    let first = post(&user, &key).send(&instance).await;
    assert_eq!(first.status, 201);

    let other_body = Call::post(PATH, OTHER_BODY).by(&user).key(&key);
    assert_eq!(other_body.clone().send(&instance).await.problem(422), "idempotency-key-reused");
    let other_route = Call::post("/api/v1/transactions", BODY).by(&user).key(&key);
    assert_eq!(other_route.send(&instance).await.problem(422), "idempotency-key-reused");
    let other_query = Call::post(&format!("{PATH}?a=1"), BODY).by(&user).key(&key);
    assert_eq!(other_query.send(&instance).await.problem(422), "idempotency-key-reused");

    let others = post(&other, &key).send(&instance).await;
    assert_eq!(others.status, 201);
    assert_eq!(others.header("idempotent-replayed"), None);
    assert_ne!(others.body, first.body);

    // The same without the copy in Redis: the row knows.
    let mut redis = redis_connection(&shared().redis_url()).await;
    let _: () = redis.del(redis_keys(&user).await).await.unwrap();
    assert_eq!(other_body.send(&instance).await.problem(422), "idempotency-key-reused");
    assert_replay(&first, &post(&user, &key).send(&instance).await);
    assert_eq!(world.count_transactions().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_keys_are_refused() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for key in ["short", "0123456789 abcdef", &"k".repeat(256)] {
        assert_eq!(
            post(&user, key).send(&instance).await.problem(400),
            "idempotency-key-malformed"
        );
    }
    let two = post(&user, &unique_key()).header("idempotency-key", &unique_key());
    assert_eq!(two.send(&instance).await.problem(400), "idempotency-key-ambiguous");
    assert_eq!(world.count_transactions().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_over_two_instances_make_one_row() {
    let world = World::new().await;
    let instances = [Instance::start(&world.config).await, Instance::start(&world.config).await];
    let user = world.user().await;
    let key = unique_key();
    let requests = (0..100).map(async |number| {
        let url = &instances[number % 2].url;
        let mut settled = None;
        eventually("one of a hundred requests to settle", async || {
            let reply = post(&user, &key).try_send(url).await.unwrap();
            match reply.status {
                409 => assert_eq!(reply.problem(409), "request-in-progress"),
                // A hundred connections may wait for ten of the database's longer than 2 s.
                503 => assert_eq!(reply.problem(503), "database-unavailable"),
                _ => {
                    settled = Some(reply);
                    return true;
                }
            }
            let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=5).contains(&seconds));
            false
        })
        .await;
        settled.unwrap()
    });
    let mut bodies = HashSet::new();
    let mut originals = 0;
    for reply in futures_util::future::join_all(requests).await {
        assert_eq!(reply.status, 201, "{reply}");
        originals += usize::from(reply.header("idempotent-replayed").is_none());
        bodies.insert(reply.body);
    }
    assert_eq!((bodies.len(), originals), (1, 1));
    assert_eq!(world.count_transactions().await, 1);
}

/// The built binary twice, with its own time limits; nobody repeats anything before all have ended.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_over_two_processes_make_one_row() {
    let world = World::new().await;
    let (one, two) = tokio::join!(
        Process::start("api", &world.config, &[]),
        Process::start("api", &world.config, &[]),
    );
    let user = world.user().await;
    let key = unique_key();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let requests = (0..500).map(async |number| {
        let url = [&one.url, &two.url][number % 2];
        let request = client
            .post(format!("{url}{PATH}"))
            .bearer_auth(&user.token)
            .header("content-type", "application/json")
            .header("x-idempotency-key", &key)
            .body(BODY);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let again = response.headers().contains_key("retry-after");
        let original = !response.headers().contains_key("idempotent-replayed");
        (status, again, original, response.bytes().await.unwrap())
    });
    let mut bodies = HashSet::new();
    let mut originals = 0;
    for (status, again, original, body) in futures_util::future::join_all(requests).await {
        match status {
            201 => {
                originals += usize::from(original);
                bodies.insert(body);
            }
            409 | 503 => assert!(again, "{status} tells when to try again"),
            _ => panic!("{status} {body:?}"),
        }
    }
    assert!(originals <= 1 && bodies.len() <= 1, "{originals} {bodies:?}");
    let settled = post(&user, &key);
    let mut last = None;
    eventually("the key to settle", async || {
        let reply = settled.clone().try_send(&one.url).await.unwrap();
        let done = reply.status == 201;
        last = Some(reply);
        done
    })
    .await;
    bodies.insert(last.unwrap().body);
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(world.count_transactions().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_is_answered_409() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let block = world.block_transactions().await;
    let first = tokio::spawn({
        let (url, call) = (instance.url.clone(), post(&user, &key));
        async move { call.try_send(&url).await.unwrap() }
    });
    world.wait_for_blocked(1).await;
    let second = post(&user, &key).send(&instance).await;
    assert_eq!(second.problem(409), "request-in-progress");
    assert_eq!(second.header("retry-after"), Some("5"));
    let mismatch = Call::post(PATH, OTHER_BODY).by(&user).key(&key).send(&instance).await;
    assert_eq!(mismatch.problem(422), "idempotency-key-reused");
    block.rollback().await.unwrap();
    let first = first.await.unwrap();
    assert_eq!(first.status, 201, "{first}");
    assert_replay(&first, &post(&user, &key).send(&instance).await);
}

/// The lease of a slow attempt ends and a second attempt takes the lock: neither the effect nor the
/// kept answer may come from both.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_lost_its_lock_overwrites_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let block = world.block_transactions().await;
    let mut running = Vec::new();
    for number in 1..=2 {
        let (url, call) = (instance.url.clone(), post(&user, &key));
        running.push(tokio::spawn(async move { call.try_send(&url).await.unwrap() }));
        world.wait_for_blocked(number).await;
        if number == 1 {
            let mut redis = redis_connection(&shared().redis_url()).await;
            let _: () = redis.del(redis_keys(&user).await).await.unwrap();
        }
    }
    block.rollback().await.unwrap();
    let first = running.remove(0).await.unwrap();
    let second = running.remove(0).await.unwrap();
    assert_eq!((first.status, second.status), (201, 201), "{first} {second}");
    assert_eq!(first.body, second.body);
    assert_eq!(world.count_transactions().await, 1);
    let third = post(&user, &key).send(&instance).await;
    assert_eq!(third.body, first.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_a_dead_process_ends_with_its_lease() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    // The process dies with the transaction open: nothing is committed.
    let block = world.block_transactions().await;
    let mut process = Process::start("api", &world.config, &[]).await;
    let request = tokio::spawn({
        let (url, call) = (process.url.clone(), post(&user, &key));
        async move { call.try_send(&url).await }
    });
    world.wait_for_blocked(1).await;
    process.child.kill().await.unwrap();
    assert!(request.await.unwrap().is_err());
    block.rollback().await.unwrap();

    let keys = redis_keys(&user).await;
    // The binary's budget for Redis is 50 ms: on a busy machine it may have gone on without it.
    if let [lock] = keys.as_slice() {
        let mut redis = redis_connection(&shared().redis_url()).await;
        let left: i64 = redis.pttl(lock).await.unwrap();
        assert!((1..=30_000).contains(&left), "{left}");
        assert_eq!(post(&user, &key).send(&instance).await.problem(409), "request-in-progress");
        // The rest of the lease, in short.
        let _: bool = redis.pexpire(lock, 300).await.unwrap();
    }
    assert_eq!(settled(post(&user, &key), &instance).await.status, 201);
    assert_eq!(world.count_transactions().await, 1);
}

/// kill -9 between the commit and the copy to Redis, so before the answer.
#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_the_retry_replays() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    // After its Redis budget of 50 ms the binary answers without the copy. If the kill was later
    // than that, this run of the race proves nothing: try again.
    for committed in 1..=20 {
        let proxy = Proxy::start(shared().redis_port()).await;
        let config = world.with_redis(&format!("redis://127.0.0.1:{}", proxy.port));
        let mut process = Process::start("api", &config, &[]).await;
        let key = unique_key();
        proxy.set(Rule::FreezeOn(Side::Client, FINISH));
        let mut matches = proxy.matches();
        let request = tokio::spawn({
            let (url, call) = (process.url.clone(), post(&user, &key));
            async move { call.try_send(&url).await }
        });
        matches.changed().await.unwrap();
        process.child.kill().await.unwrap();
        let unanswered = request.await.unwrap().is_err();
        assert_eq!(world.count_transactions().await, committed, "committed before the copy");

        let retry = settled(post(&user, &key), &instance).await;
        assert_eq!(retry.status, 201, "{retry}");
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
        let again = post(&user, &key).send(&instance).await;
        assert_eq!(again.body, retry.body);
        assert_eq!(world.count_transactions().await, committed);
        if unanswered {
            return;
        }
    }
    panic!("the process answered before every kill");
}

/// The connection to Postgres dies while the COMMIT is on its way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_decided_by_the_row() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let instance = Instance::start(&world.with_database_port(proxy.port)).await;
    let user = world.user().await;
    let key = unique_key();
    proxy.set(Rule::CutOn(Side::Server, b"COMMIT\0"));
    let doubtful = post(&user, &key).send(&instance).await;
    assert_eq!(doubtful.problem(503), "outcome-unknown");
    assert_eq!(doubtful.header("retry-after"), Some("30"));
    proxy.set(Rule::Pass);
    assert_eq!(world.count_transactions().await, 1);
    let retry = settled(post(&user, &key), &instance).await;
    assert_eq!(retry.status, 201, "{retry}");
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));

    // And when the COMMIT never arrived: nothing happened, and the lock is neither kept for ever
    // nor given up at once.
    let key = unique_key();
    proxy.set(Rule::CutOn(Side::Client, b"COMMIT\0"));
    assert_eq!(post(&user, &key).send(&instance).await.problem(503), "outcome-unknown");
    proxy.set(Rule::Pass);
    assert_eq!(post(&user, &key).send(&instance).await.problem(409), "request-in-progress");
    let mut redis = redis_connection(&shared().redis_url()).await;
    let _: () = redis.del(redis_keys(&user).await).await.unwrap();
    let retry = post(&user, &key).send(&instance).await;
    assert_eq!((retry.status, retry.header("idempotent-replayed")), (201, None), "{retry}");
    assert_eq!(world.count_transactions().await, 2);
}

/// The effect is done but Redis does not take the answer: the client still gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_does_not_fail_the_request() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().redis_port()).await;
    let instance =
        Instance::start(&world.with_redis(&format!("redis://127.0.0.1:{}", proxy.port))).await;
    let user = world.user().await;
    let key = unique_key();
    proxy.set(Rule::CutOn(Side::Client, FINISH));
    let first = post(&user, &key).send(&instance).await;
    assert_eq!(first.status, 201, "{first}");
    proxy.set(Rule::Pass);
    // Redis still says that it runs; the row says that it is done.
    assert_replay(&first, &settled(post(&user, &key), &instance).await);
    assert_eq!(world.count_transactions().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_does_not_use_up_the_key() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let invalid = Call::post(PATH, "{}").by(&user).key(&key);
    for _ in 0..2 {
        let reply = invalid.clone().send(&instance).await;
        assert_eq!(reply.problem(422), "validation");
        assert_eq!(reply.header("idempotent-replayed"), None);
    }
    let media_type = Call::new(reqwest::Method::POST, PATH).by(&user).key(&key).body(BODY);
    assert_eq!(media_type.send(&instance).await.status, 415);
    let large = Call::post(PATH, &" ".repeat(300 * 1024)).by(&user).key(&key);
    assert_eq!(large.send(&instance).await.status, 413);
    assert_eq!(Call::post(PATH, BODY).key(&key).send(&instance).await.status, 401);
    let mended = post(&user, &key).send(&instance).await;
    assert_eq!((mended.status, mended.header("idempotent-replayed")), (201, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ended_early_is_not_an_empty_success() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let head = head(&user, &key, BODY.len());
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    let cut = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&BODY.as_bytes()[..BODY.len() / 2]).unwrap();
    });
    cut.await.unwrap();
    let whole = post(&user, &key).send(&instance).await;
    assert_eq!((whole.status, whole.header("idempotent-replayed")), (201, None), "{whole}");
    assert_eq!(world.count_transactions().await, 1);
}

/// The client goes away while the handler works: the work goes on and its answer is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_cancels_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let block = world.block_transactions().await;
    let request = head(&user, &key, BODY.len()) + BODY;
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    let stream = sent.await.unwrap();
    world.wait_for_blocked(1).await;
    drop(stream);
    block.rollback().await.unwrap();
    eventually("the row of the client that went away", async || {
        world.count_transactions().await == 1
    })
    .await;
    let retry = settled(post(&user, &key), &instance).await;
    assert_eq!((retry.status, retry.header("idempotent-replayed")), (201, Some("true")), "{retry}");
    assert_eq!(world.count_transactions().await, 1);
}

fn head(user: &User, key: &str, length: usize) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         idempotency-key: {key}\r\ncontent-length: {length}\r\n\r\n",
        user.token
    )
}

/// The names and the lifetimes that clients and operators rely on.
#[tokio::test(flavor = "multi_thread")]
async fn the_copy_lives_for_a_day_and_the_row_for_seven() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    assert_eq!(post(&user, &key).send(&instance).await.status, 201);
    let keys = redis_keys(&user).await;
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, key.as_bytes()));
    assert_eq!(keys, [format!("idempotency:{}:{hash}", user.id)]);
    let mut redis = redis_connection(&shared().redis_url()).await;
    let left: i64 = redis.ttl(&keys[0]).await.unwrap();
    assert!((86_300..=86_400).contains(&left), "{left}");
    let days: i64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM expires_at - created_at)::bigint / 86400 FROM idempotency_keys",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(days, 7);
}

/// A row past its seven days counts as absent, also before it is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_row_protects_no_longer() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let key = unique_key();
    let first = post(&user, &key).send(&instance).await;
    sqlx::query("UPDATE idempotency_keys SET expires_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    let mut redis = redis_connection(&shared().redis_url()).await;
    let _: () = redis.del(redis_keys(&user).await).await.unwrap();
    let later = post(&user, &key).send(&instance).await;
    assert_eq!((later.status, later.header("idempotent-replayed")), (201, None));
    assert_ne!(later.body, first.body);
    assert_replay(&later, &post(&user, &key).send(&instance).await);
}

/// Tells the compiler that the closure works for every lifetime of the connection.
pub(crate) fn effect<E>(effect: E) -> impl for<'c> FnOnce((), &'c mut PgConnection) -> Effect<'c>
where
    E: for<'c> FnOnce(&'c mut PgConnection) -> Effect<'c>,
{
    move |(), database| effect(database)
}

/// What the handler decides about a request is kept, what went wrong beside it is not: through
/// the library, because no route refuses in this way yet.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_kept_and_failures_are_not() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let run = async |key: &str, failure: &'static str| {
        let request = Request::post(PATH)
            .header("idempotency-key", key)
            .header("content-type", "application/json");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let call = IdempotentCall::from_request_parts(&mut parts, &instance.app).await.unwrap();
        let attempts = attempts.clone();
        let effect = effect(move |database: &mut PgConnection| {
            Box::pin(async move {
                attempts.fetch_add(1, Ordering::SeqCst);
                sqlx::query("UPDATE users SET name = 'changed'").execute(database).await?;
                match failure {
                    "decides" => Err(Problem::new(StatusCode::CONFLICT, "sold-out", "Sold out.")),
                    "fails" => Err(Problem::internal()),
                    "throttles" => {
                        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "slow", "Slow down."))
                    }
                    "panics" => panic!("on purpose"),
                    _ => Ok(Answer::json(StatusCode::OK, json!({}).to_string().into(), &[])),
                }
            })
        });
        instance.app.idempotency.run(user.id, &call, b"{}", |_| Ok(()), effect).await
    };
    for (failure, status, kept) in [
        ("decides", 409, true),
        ("fails", 500, false),
        ("throttles", 429, false),
        ("panics", 500, false),
    ] {
        let key = unique_key();
        attempts.store(0, Ordering::SeqCst);
        let status_of = |outcome: Result<axum::response::Response, Problem>| match outcome {
            Ok(response) => response.status().as_u16(),
            Err(problem) => problem.status().as_u16(),
        };
        for _ in 0..2 {
            assert_eq!(status_of(run(&key, failure).await), status, "{failure}");
        }
        assert_eq!(attempts.load(Ordering::SeqCst), if kept { 1 } else { 2 }, "{failure}");
        // After a failure the same key works; a decision stays a decision.
        assert_eq!(status_of(run(&key, "").await), if kept { 409 } else { 200 }, "{failure}");
        // The same without Redis' copy.
        let mut redis = redis_connection(&shared().redis_url()).await;
        let _: () = redis.del(redis_keys(&user).await).await.unwrap();
        assert_eq!(status_of(run(&key, "").await), if kept { 409 } else { 200 }, "{failure}");
        let name: String =
            sqlx::query_scalar("SELECT name FROM users").fetch_one(&world.pool).await.unwrap();
        assert_eq!(name == "changed", !kept, "{failure}");
        sqlx::query("UPDATE users SET name = 'Test'").execute(&world.pool).await.unwrap();
    }
}
