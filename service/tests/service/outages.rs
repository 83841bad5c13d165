//! Redis or Postgres gone: every call answers, nothing is done twice, and it recovers by itself.

use std::time::{Duration, Instant};

use bme_service::app::Timings;
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    Call, Instance, Process, Proxy, Redis, Rule, World, client, eventually, redis_connection,
    shared, unique_email, unique_key,
};

const PATH: &str = "/api/transactions";
const BODY: &str =
    r#"{"type":"income","amount":1,"currency":"USD","category":"Gift","date":"2026-11-23"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_key_still_makes_one_row() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let config = world.with_redis(&redis.url());
    let instances = [Instance::start(&config).await, Instance::start(&config).await];
    let user = world.user().await;
    let before = unique_key();
    let first = Call::post(PATH, BODY).by(&user).key(&before).send(&instances[0]).await;
    assert_eq!(first.status, 201, "{first}");

    redis.stop();
    let repeated = Call::post(PATH, BODY).by(&user).key(&before).send(&instances[1]).await;
    assert_eq!((repeated.status, &repeated.body), (201, &first.body), "{repeated}");
    assert_eq!(repeated.header("idempotent-replayed"), Some("true"));

    let during = unique_key();
    let requests = (0..20).map(|number| {
        let call = Call::post(PATH, BODY).by(&user).key(&during);
        let url = instances[number % 2].url.clone();
        tokio::spawn(async move { call.try_send(&url).await.unwrap() })
    });
    let mut bodies = std::collections::HashSet::new();
    for request in requests.collect::<Vec<_>>() {
        let reply = request.await.unwrap();
        assert_eq!(reply.status, 201, "{reply}");
        bodies.insert(reply.body);
    }
    assert_eq!(bodies.len(), 1);
    assert_eq!(world.count_transactions().await, 2);

    redis.start_again();
    eventually("the instances to find Redis again", async || {
        Call::get("/ready").send(&instances[0]).await.status == 200
            && Call::get("/ready").send(&instances[1]).await.status == 200
    })
    .await;
    let repeated = Call::post(PATH, BODY).by(&user).key(&during).send(&instances[0]).await;
    assert!(bodies.contains(&repeated.body), "{repeated}");
    // The new Redis learned the answer.
    let mut connection = redis_connection(&redis.url()).await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("idempotency:*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(world.count_transactions().await, 2);
}

/// A Redis that accepts and never answers costs a request no more than its budget per call.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_does_not_hold_requests_up() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().redis_port()).await;
    let instance =
        Instance::start(&world.with_redis(&format!("redis://127.0.0.1:{}", proxy.port))).await;
    let user = world.user().await;
    eventually("the first connection", async || {
        Call::get("/ready").send(&instance).await.status == 200
    })
    .await;
    proxy.set(Rule::Freeze);
    let key = unique_key();
    let started = Instant::now();
    let reply = Call::post(PATH, BODY).by(&user).key(&key).send(&instance).await;
    assert_eq!(reply.status, 201, "{reply}");
    // Two calls of 1 s each, which is this instance's budget, and time for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // Logins are still counted, by this instance alone.
    let body = json!({ "email": unique_email(), "password": "wrong" }).to_string();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(Call::post("/api/auth/login", &body).send(&instance).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    // The silent connection stays open and silent: only a new one helps.
    proxy.set(Rule::Pass);
    eventually("a new connection", async || {
        Call::get("/ready").send(&instance).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_names_what_is_missing_and_health_asks_nobody() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let proxy = Proxy::start(shared().postgres_port).await;
    let mut config = world.with_database_port(proxy.port);
    config.redis = world.with_redis(&redis.url()).redis;
    let instance = Instance::start(&config).await;
    let ready = async || Call::get("/ready").send(&instance).await;
    let is_healthy = async || {
        let reply = Call::get("/health").send(&instance).await;
        assert_eq!(reply.json(), json!({ "status": "ok", "release": "v0.0.0-test" }));
    };

    eventually("both parts", async || ready().await.status == 200).await;
    assert_eq!(
        ready().await.json(),
        json!({ "status": "ready", "checks": { "database": "ok", "redis": "ok" } })
    );

    redis.stop();
    let reply = ready().await;
    assert_eq!(reply.problem(503), "not-ready");
    assert_eq!(reply.json()["checks"], json!({ "database": "ok", "redis": "failed" }));
    assert_eq!(reply.json()["detail"], "Not ready: redis.");
    is_healthy().await;

    // Refused, then silent: a silent database must not make the answer late.
    for rule in [Rule::Refuse, Rule::Freeze] {
        proxy.set(rule);
        let missing = json!({ "database": "failed", "redis": "failed" });
        eventually("both to be missing", async || {
            let started = Instant::now();
            let reply = ready().await;
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
            reply.json()["checks"] == missing
        })
        .await;
        is_healthy().await;
    }
    proxy.set(Rule::Refuse);
    proxy.set(Rule::Pass);
    redis.start_again();
    eventually("both parts again", async || ready().await.status == 200).await;
}

/// More probes than a distant server can answer one by one within the time of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_probes_disturbs_nobody() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let process = Process::start("api", &world.with_database_port(proxy.port), &[]).await;
    let user = world.user().await;
    proxy.set(Rule::Slow(Duration::from_millis(20)));
    let client = client();
    let ready = Call::get("/ready");
    eventually("the first answer", async || {
        ready.clone().send_by(&client, &process.url).await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (ready, client, url) = (ready.clone(), client.clone(), process.url.clone());
        probes.spawn(async move { ready.send_by(&client, &url).await.unwrap() });
    }
    for _ in 0..20 {
        let list = Call::get("/api/transactions").by(&user);
        let reply = list.send_by(&client, &process.url).await.unwrap();
        assert_eq!(reply.status, 200, "{reply}");
    }
    for reply in probes.join_all().await {
        assert_eq!(reply.status, 200, "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_every_call_answers_503_and_recovers() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let instance = Instance::start(&world.with_database_port(proxy.port)).await;
    let user = world.user().await;
    let key = unique_key();
    proxy.set(Rule::Refuse);
    for call in [
        Call::get(PATH).by(&user),
        Call::get("/api/balance").by(&user),
        Call::get("/api/auth/me").by(&user),
        Call::post(PATH, BODY).by(&user),
        Call::post(PATH, BODY).by(&user).key(&key),
    ] {
        let started = Instant::now();
        let reply = call.send(&instance).await;
        assert_eq!(reply.problem(503), "database-unavailable");
        assert!(reply.header("retry-after").is_some());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    proxy.set(Rule::Pass);
    eventually("the database again", async || {
        Call::get("/ready").send(&instance).await.status == 200
    })
    .await;
    // The failure was not kept under the key.
    let reply = Call::post(PATH, BODY).by(&user).key(&key).send(&instance).await;
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (201, None), "{reply}");
    assert_eq!(world.count_transactions().await, 1);
}

/// What waits for a lock, or for a server that fell silent, has a connection that others need.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_end_is_given_up() {
    let world = World::new().await;
    let timings = Timings {
        execution: Duration::from_secs(1),
        idempotency_redis: Duration::from_secs(1),
        rate_limit_redis: Duration::from_secs(1),
        body: Duration::from_secs(7),
        ..Timings::default()
    };
    let instance = Instance::with_timings(&world.config, timings).await;
    let user = world.user().await;
    let made = Call::post(PATH, BODY).by(&user).send(&instance).await;
    assert_eq!(made.status, 201, "{made}");
    let one = format!("{PATH}/{}", made.json()["id"].as_str().unwrap());
    let block = world.block_transactions().await;
    for call in [
        Call::post(PATH, BODY),
        Call::post(PATH, BODY).key(&unique_key()),
        Call::new(Method::PATCH, &one).json("{\"amount\":2}"),
        Call::new(Method::DELETE, &one),
    ] {
        let started = Instant::now();
        let reply = call.by(&user).send(&instance).await;
        assert_eq!(reply.problem(503), "timeout");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    block.rollback().await.unwrap();
    world.wait_for_idle().await;
    // A single statement that was given up may have been carried out, a transaction never.
    assert!(world.count_transactions().await <= 1);
}

/// A password that nobody could look at is no attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_postgres_locks_nobody_out() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let proxy = Proxy::start(shared().postgres_port).await;
    let mut config = world.with_database_port(proxy.port);
    config.redis = world.with_redis(&redis.url()).redis;
    let instance = Instance::start(&config).await;
    let account = json!({ "email": unique_email(), "password": "a long password", "name": "A" });
    let registered = Call::post("/api/auth/register", &account.to_string()).send(&instance).await;
    assert_eq!(registered.status, 201, "{registered}");
    let login = async |password: &str| {
        let body = json!({ "email": account["email"], "password": password }).to_string();
        Call::post("/api/auth/login", &body).send(&instance).await
    };
    for with_redis in [true, false] {
        if !with_redis {
            redis.stop();
        }
        assert_eq!(login("wrong").await.status, 401);
        proxy.set(Rule::Refuse);
        for _ in 0..7 {
            assert_eq!(login("a long password").await.problem(503), "database-unavailable");
        }
        proxy.set(Rule::Pass);
        // The attempts that were looked at still count.
        for _ in 0..4 {
            eventually("the database again", async || login("wrong").await.status == 401).await;
        }
        assert_eq!(login("a long password").await.problem(429), "too-many-attempts");
        redis.stop();
        redis.start_again();
        eventually("Redis again", async || Call::get("/ready").send(&instance).await.status == 200)
            .await;
        assert_eq!(login("a long password").await.status, 200);
    }
}

/// Connections that are open but silent, as after the failover of a host that vanished: requests
/// end in time, and the pool is usable again with new connections.
#[tokio::test(flavor = "multi_thread")]
async fn silent_postgres_connections_do_not_exhaust_the_pool() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let timings = Timings {
        request: Duration::from_secs(3),
        body: Duration::from_secs(1),
        execution: Duration::from_secs(1),
        lease: Duration::from_secs(8),
        ..Timings::default()
    };
    let instance = Instance::with_timings(&world.with_database_port(proxy.port), timings).await;
    let user = world.user().await;
    let list = || Call::get(PATH).by(&user);
    let whole_pool = async || {
        let acquired = (0..10).map(|_| instance.app.database.acquire());
        futures_util::future::try_join_all(acquired).await.is_ok()
    };
    eventually("ten connections", whole_pool).await;
    proxy.set(Rule::Freeze);
    let silent = (0..30).map(|_| list().send(&instance));
    for reply in futures_util::future::join_all(silent).await {
        assert_eq!(reply.status, 503, "{reply}");
    }
    // The silent connections stay silent; new ones work.
    proxy.set(Rule::Pass);
    eventually("the pool to recover", async || list().send(&instance).await.status == 200).await;
    eventually("the whole pool to recover", whole_pool).await;
}
