//! One key over two processes, from outside: a burst of requests, a process killed between the
//! commit and its answer, Redis gone and back.

use std::{collections::HashSet, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::harness::{
    Call, Process, Proxy, Redis, Reply, Rule, Side, User, World, client, eventually,
    redis_connection, shared, unique_key,
};

const PATH: &str = "/api/transactions";
const BODY: &str =
    r#"{"type":"expense","amount":7.25,"currency":"EUR","category":"Food","date":"2026-11-23"}"#;

/// Requests of a burst.
const BURST: usize = 500;

/// Longest time until each of them has its answer: the lease of a lock, and time for a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

fn post(user: &User, key: &str) -> Call {
    Call::post(PATH, BODY).by(user).key(key)
}

/// Repeats a request as a client does, as long as it is told to come again.
async fn settled(client: &reqwest::Client, call: Call, url: &str) -> Reply {
    let mut period = interval(Duration::from_millis(500));
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let repeating = async {
        loop {
            period.tick().await;
            let reply = call.clone().send_by(client, url).await.unwrap();
            match reply.status {
                409 => assert_eq!(reply.problem(409), "request-in-progress"),
                // So many wait longer than 2 s for one of the ten connections to the database.
                503 => assert_eq!(reply.problem(503), "database-unavailable"),
                _ => return reply,
            }
            assert!(reply.header("retry-after").is_some(), "{reply}");
        }
    };
    timeout(PATIENCE, repeating).await.expect("a request settles")
}

/// Sends a burst with one key to two processes; the one body that all were answered.
async fn burst(user: &User, key: &str, processes: &[Process; 2]) -> Vec<u8> {
    let client = client();
    let requests = (0..BURST).map(|at| settled(&client, post(user, key), &processes[at % 2].url));
    let mut bodies = HashSet::new();
    let mut originals = 0;
    for reply in futures_util::future::join_all(requests).await {
        assert_eq!(reply.status, 201, "{reply}");
        originals += usize::from(reply.header("idempotent-replayed").is_none());
        bodies.insert(reply.body);
    }
    assert_eq!((bodies.len(), originals), (1, 1));
    bodies.into_iter().next().unwrap().to_vec()
}

async fn is_ready(process: &Process) -> bool {
    Call::get("/ready").try_send(&process.url).await.unwrap().status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_over_two_processes_make_one_row_with_and_without_redis() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let config = world.with_redis(&redis.url());
    let mut processes =
        [Process::start("api", &config, &[]).await, Process::start("api", &config, &[]).await];
    let user = world.user().await;
    let [before, during, returning, after] = [(); 4].map(|()| unique_key());
    let first = burst(&user, &before, &processes).await;
    assert_eq!(world.count_transactions().await, 1);

    redis.stop();
    burst(&user, &during, &processes).await;
    assert_eq!(world.count_transactions().await, 2);
    let repeated = settled(&client(), post(&user, &before), &processes[1].url).await;
    assert_eq!(repeated.body, first);

    // It comes back in the middle of a burst.
    tokio::join!(burst(&user, &returning, &processes), async {
        tokio::task::block_in_place(|| redis.start_again());
    });
    assert_eq!(world.count_transactions().await, 3);

    eventually("both processes to find Redis again", async || {
        is_ready(&processes[0]).await && is_ready(&processes[1]).await
    })
    .await;
    let last = burst(&user, &after, &processes).await;
    assert_eq!(world.count_transactions().await, 4);
    // The new Redis has what was answered since.
    let mut connection = redis_connection(&redis.url()).await;
    let values: Vec<Vec<u8>> = async {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("idempotency:*").query_async(&mut connection).await?;
        redis::cmd("MGET").arg(keys).query_async(&mut connection).await
    }
    .await
    .unwrap();
    let holds = |value: &Vec<u8>| value.windows(last.len()).any(|window| window == last);
    assert!(values.iter().any(holds), "{} values", values.len());
    for process in &mut processes {
        assert!(process.child.try_wait().unwrap().is_none(), "nobody restarted");
    }
}

/// Postgres has committed and says so, but the process never hears it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_commit_and_the_answer_the_other_process_replays() {
    let world = World::new().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let mut doomed = Process::start("api", &world.with_database_port(proxy.port), &[]).await;
    let other = Process::start("api", &world.config, &[]).await;
    let user = world.user().await;
    let key = unique_key();
    proxy.set(Rule::FreezeOn(Side::Server, b"COMMIT\0"));
    let mut held = proxy.matches();
    let request = tokio::spawn({
        let (url, call) = (doomed.url.clone(), post(&user, &key));
        async move { call.try_send(&url).await }
    });
    timeout(Duration::from_secs(20), held.changed()).await.expect("a commit").unwrap();
    // SIGKILL.
    doomed.child.kill().await.unwrap();
    assert!(request.await.unwrap().is_err(), "nobody was answered");
    assert_eq!(world.count_transactions().await, 1);

    let client = client();
    let retry = settled(&client, post(&user, &key), &other.url).await;
    assert_eq!((retry.status, retry.header("idempotent-replayed")), (201, Some("true")), "{retry}");
    let again = settled(&client, post(&user, &key), &other.url).await;
    assert_eq!(again.body, retry.body);
    let made: String = sqlx::query_scalar("SELECT id::text FROM transactions")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(retry.json()["id"], made);
    assert_eq!(world.count_transactions().await, 1);
}
