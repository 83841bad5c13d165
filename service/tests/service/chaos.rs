//! Postgres and Redis cut, frozen and slowed down under load, and back: from outside, with the built
//! binary and its own time limits.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bme_service::{app::Timings, auth, database::Database};
use reqwest::Method;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{
    Call, Process, Proxy, Reply, Rule, User, World, client, eventually, shared, unique_email,
    unique_key,
};

const PATH: &str = "/api/transactions";
const GOAL: &str = r#"{"type":"savings","target":100,"period":"monthly"}"#;
const BODY: &str =
    r#"{"type":"income","amount":3,"currency":"USD","category":"Gift","date":"2026-11-23"}"#;

/// What a busy machine may add to the time limit of a request, and what `/health` may take at most:
/// it asks nobody.
const SLACK: Duration = Duration::from_secs(2);

/// How long a person may wait, after everything is back, until each kind of request succeeds again.
/// Without optimisation a connection to Postgres costs a tenth of a second of work.
const RECOVERY: Duration = Duration::from_secs(20);

/// `/ready` tells the truth this long after it has changed.
const TRUTH: Duration = Duration::from_secs(2);

/// What the question itself may take beside the load, on a machine that others use too.
const TRUTH_SLACK: Duration = Duration::from_secs(1);

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(6);

/// An answer that is slower than every time limit of the service on one statement or command.
const SLOW: Duration = Duration::from_secs(5);

/// Connections of a process to Postgres.
const POOL: usize = 10;

const FAULTS: [Rule; 3] = [Rule::Refuse, Rule::Freeze, Rule::Slow(SLOW)];

/// What the load consists of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Create,
    Change,
    /// Of nothing that exists, which only the database knows.
    Delete,
    Login,
}

/// Requests of each kind at the same time: together more than the pool has connections.
const WORKERS: [(Kind, usize); 5] =
    [(Kind::Read, 6), (Kind::Create, 6), (Kind::Change, 2), (Kind::Delete, 2), (Kind::Login, 2)];

/// A process with proxies before what it depends on.
struct Rig {
    world: World,
    postgres: Proxy,
    redis: Proxy,
    process: Process,
    /// The body of a login that succeeds.
    login: String,
}

impl Rig {
    async fn start() -> Self {
        let world = World::new().await;
        let postgres = Proxy::start(shared().postgres_port).await;
        let redis = Proxy::start(shared().redis_port()).await;
        let mut config = world.with_database_port(postgres.port);
        config.redis = world.with_redis(&format!("redis://127.0.0.1:{}", redis.port)).redis;
        let process = Process::start("api", &config, &[]).await;
        let account =
            json!({ "email": unique_email(), "password": "a long password", "name": "A" });
        let registered = Call::post("/api/auth/register", &account.to_string());
        assert_eq!(registered.try_send(&process.url).await.unwrap().status, 201);
        let login = json!({ "email": account["email"], "password": account["password"] });
        Self { world, postgres, redis, process, login: login.to_string() }
    }

    async fn ready(&self) -> Reply {
        Call::get("/ready").try_send(&self.process.url).await.unwrap()
    }

    /// Waits until `/ready` names these parts and no others as failed.
    async fn tells(&self, failed: &[&str]) {
        let started = Instant::now();
        loop {
            let ready = self.ready().await;
            if names(&ready) == failed {
                return;
            }
            let took = started.elapsed();
            assert!(took < TRUTH + TRUTH_SLACK, "not {failed:?} after {took:?}: {ready}");
        }
    }

    /// One fault of one part under load, and what comes after it.
    async fn endure(&self, part: &str, proxy: &Proxy, fault: Rule) {
        let load = Load::start(self).await;
        load.is_served("before the fault").await;
        proxy.set(fault);
        self.tells(&[part]).await;
        if part == "redis" {
            load.is_served("without Redis").await;
        }
        let ends = Instant::now() + FAULT;
        while Instant::now() < ends {
            assert!(names(&self.ready().await).iter().any(|name| name == part), "{fault:?}");
        }
        proxy.set(Rule::Pass);
        self.tells(&[]).await;
        load.is_served("after the fault").await;
        let load = load.stop().await;
        self.whole_pool().await;
        self.is_exactly_once(load).await;
    }

    /// As many transactions as the pool has places are open at the same time, and not one more. The
    /// pool is no part of what `/ready` asks.
    async fn whole_pool(&self) {
        let user = self.world.user().await;
        let block = self.world.block_transactions().await;
        let mut posts = JoinSet::new();
        for _ in 0..POOL {
            let call = Call::post(PATH, BODY).by(&user);
            let url = self.process.url.clone();
            posts.spawn(async move {
                // A new connection can take a busy machine longer than the pool waits.
                let mut period = period(50);
                while call.clone().try_send(&url).await.unwrap().status != 201 {
                    period.tick().await;
                }
            });
        }
        self.world.wait_for_blocked(10).await;
        let one_more = Call::get(PATH).by(&user).try_send(&self.process.url).await.unwrap();
        assert_eq!(one_more.problem(503), "database-unavailable");
        self.tells(&[]).await;
        block.rollback().await.unwrap();
        posts.join_all().await;
    }

    /// Every key of a load has exactly one row in the end, also those whose answer was 503.
    async fn is_exactly_once(&self, load: Load) {
        let client = client();
        let keys = load.keys.lock().unwrap().clone();
        for key in &keys {
            // A commit that never arrived leaves its lock, whose lease is 30 s.
            let call = Call::post(PATH, BODY).by(&load.user).key(key);
            let mut period = period(500);
            let settled = async {
                loop {
                    period.tick().await;
                    let reply = call.clone().send_by(&client, &self.process.url).await.unwrap();
                    match reply.status {
                        201 => return,
                        409 => assert_eq!(reply.problem(409), "request-in-progress"),
                        _ => assert_eq!(reply.problem(503), "database-unavailable"),
                    }
                }
            };
            timeout(Timings::default().lease + RECOVERY, settled).await.expect("a key settles");
        }
        assert!(!keys.is_empty());
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM transactions WHERE user_id = $1")
            .bind(load.user.id)
            .fetch_one(&self.world.pool)
            .await
            .unwrap();
        assert_eq!(rows, i64::try_from(keys.len()).unwrap());
    }
}

/// The parts that `/ready` calls failed; all others it calls ok.
fn names(ready: &Reply) -> Vec<String> {
    let checks = ready.json()["checks"].clone();
    let checks = checks.as_object().unwrap_or_else(|| panic!("no checks in {ready}")).clone();
    let failed: Vec<_> =
        checks.iter().filter(|(_, state)| *state != "ok").map(|(name, _)| name.clone()).collect();
    assert_eq!(checks.keys().collect::<Vec<_>>(), ["database", "redis"]);
    if failed.is_empty() {
        assert_eq!(ready.status, 200, "{ready}");
    } else {
        assert_eq!(ready.problem(503), "not-ready");
    }
    failed
}

/// Requests without a pause, until it is stopped. Each must be answered in time, with success or with
/// a 503 that says when to come again.
struct Load {
    user: User,
    stop: CancellationToken,
    workers: JoinSet<()>,
    /// Successes of each kind.
    served: Arc<Mutex<[usize; WORKERS.len()]>>,
    /// Idempotency keys that were sent.
    keys: Arc<Mutex<Vec<String>>>,
    /// What `/health` took each time.
    health: Arc<Mutex<Vec<Duration>>>,
}

impl Load {
    async fn start(rig: &Rig) -> Self {
        let mut load = Self {
            user: rig.world.user().await,
            stop: CancellationToken::new(),
            workers: JoinSet::new(),
            served: Arc::default(),
            keys: Arc::default(),
            health: Arc::default(),
        };
        let client = client();
        let url = rig.process.url.clone();
        let goal =
            Call::post("/api/goals", GOAL).by(&load.user).send_by(&client, &url).await.unwrap();
        assert_eq!(goal.status, 201, "{goal}");
        let goal = format!("/api/goals/{}", goal.json()["id"].as_str().unwrap());
        for (kind, count) in WORKERS {
            for _ in 0..count {
                let (client, url, stop) = (client.clone(), url.clone(), load.stop.clone());
                let (served, keys) = (load.served.clone(), load.keys.clone());
                let (user, login, goal) = (load.user.clone(), rig.login.clone(), goal.clone());
                let work = async move {
                    let mut period = period(200);
                    while stop.run_until_cancelled(period.tick()).await.is_some() {
                        let call = match kind {
                            Kind::Read => Call::get(PATH).by(&user),
                            Kind::Create => {
                                let key = unique_key();
                                keys.lock().unwrap().push(key.clone());
                                Call::post(PATH, BODY).by(&user).key(&key)
                            }
                            Kind::Change => {
                                Call::new(Method::PATCH, &goal).by(&user).json("{\"target\":200}")
                            }
                            Kind::Delete => {
                                let none = format!("{PATH}/{}", Uuid::now_v7());
                                Call::new(Method::DELETE, &none).by(&user)
                            }
                            Kind::Login => Call::post("/api/auth/login", &login),
                        };
                        match answered(kind, call, &client, &url).await {
                            None => served.lock().unwrap()[kind as usize] += 1,
                            Some(pause) => {
                                let _ = timeout(pause, stop.cancelled()).await;
                            }
                        }
                    }
                };
                load.workers.spawn(work);
            }
        }
        let (health, stop) = (load.health.clone(), load.stop.clone());
        let watch = async move {
            let mut period = period(100);
            while stop.run_until_cancelled(period.tick()).await.is_some() {
                let started = Instant::now();
                let reply = Call::get("/health").send_by(&client, &url).await.unwrap();
                assert_eq!(reply.status, 200, "{reply}");
                health.lock().unwrap().push(started.elapsed());
            }
        };
        load.workers.spawn(watch);
        load
    }

    /// Waits until every kind has succeeded some times more.
    async fn is_served(&self, when: &str) {
        let before = *self.served.lock().unwrap();
        let deadline = Instant::now() + RECOVERY;
        let mut period = period(50);
        loop {
            period.tick().await;
            let now = *self.served.lock().unwrap();
            if now.iter().zip(before).all(|(now, before)| *now >= before + 3) {
                return;
            }
            assert!(Instant::now() < deadline, "not served {when}: {before:?}, {now:?}");
        }
    }

    /// Waits until every request has been answered.
    async fn stop(mut self) -> Self {
        self.stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        let mut health = self.health.lock().unwrap().clone();
        health.sort();
        let most = health[health.len() * 9 / 10];
        assert!(most < Duration::from_secs(1), "nine in ten /health take {most:?}");
        assert!(*health.last().unwrap() < SLACK, "/health took {health:?}");
        self
    }
}

fn period(millis: u64) -> tokio::time::Interval {
    let mut period = interval(Duration::from_millis(millis));
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    period
}

/// None if a request succeeded, else when to come again.
async fn answered(kind: Kind, call: Call, client: &reqwest::Client, url: &str) -> Option<Duration> {
    let started = Instant::now();
    let reply = call.send_by(client, url).await;
    let took = started.elapsed();
    let reply = reply.unwrap_or_else(|error| panic!("{kind:?} without an answer: {error:?}"));
    assert!(took < Timings::default().request + SLACK, "{kind:?} took {took:?}: {reply}");
    if matches!(reply.status, 200 | 201) || (matches!(kind, Kind::Delete) && reply.status == 404) {
        return None;
    }
    reply.problem(503);
    let seconds = reply.header("retry-after").unwrap_or_else(|| panic!("no Retry-After: {reply}"));
    Some(Duration::from_secs(seconds.parse().unwrap()).min(Duration::from_secs(5)))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_cut_frozen_and_slow_under_load() {
    let rig = Rig::start().await;
    rig.tells(&[]).await;
    for fault in FAULTS {
        rig.endure("database", &rig.postgres, fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cut_frozen_and_slow_under_load() {
    let rig = Rig::start().await;
    rig.tells(&[]).await;
    for fault in FAULTS {
        rig.endure("redis", &rig.redis, fault).await;
    }
}

/// Connections that fall silent while they are on their way back keep no place in the pool, also
/// while nobody asks the server how it is.
#[tokio::test(flavor = "multi_thread")]
async fn no_place_in_the_pool_is_lost_on_the_way_back() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let database = Database::new(&world.with_database_port(proxy.port).database);
    let whole_pool = async || {
        let loans = (0..POOL).map(|_| database.acquire());
        futures_util::future::try_join_all(loans).await
    };
    let mut loans = Vec::new();
    eventually("the whole pool", async || {
        loans = whole_pool().await.unwrap_or_default();
        loans.len() == POOL
    })
    .await;
    proxy.set(Rule::Freeze);
    drop(loans);
    eventually("the silent connections to be closed", async || database.connections() == (0, 0))
        .await;
    proxy.set(Rule::Pass);
    eventually("the whole pool again", async || whole_pool().await.is_ok()).await;
}

/// A transaction that is given up while the server is slow to begin it: whoever has its connection
/// next must not write into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_given_up_while_it_begins_swallows_no_later_write() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let database = Database::new(&world.with_database_port(proxy.port).database);
    eventually("a connection", async || database.acquire().await.is_ok()).await;
    eventually("an idle connection", async || database.connections() == (1, 1)).await;
    proxy.set(Rule::Slow(Duration::from_millis(500)));
    assert!(timeout(Duration::from_millis(100), database.begin()).await.is_err());
    proxy.set(Rule::Pass);
    let used = async || {
        let (all, idle) = database.connections();
        usize::try_from(all).unwrap() > idle
    };
    eventually("the connection to be back or closed", async || !used().await).await;
    let written =
        auth::insert(&database, &unique_email(), "Test", "$argon2id$unused").await.unwrap();
    let id = written.unwrap_or_else(|_| panic!("the address is unique")).id;
    assert!(auth::find_by_id(&world.pool, id).await.unwrap().is_some(), "it is committed");
}
