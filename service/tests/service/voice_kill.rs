//! Workers as processes of their own: killed and frozen at random times under a thousand jobs, and
//! ended as a deployment ends them.

use std::{
    collections::{HashMap, HashSet},
    env,
    time::{Duration, Instant, SystemTime},
};

use bme_service::queue::Depth;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    harness::{Process, User, World, unique_key},
    voice_backend::{Backend, OnRedis, OnSqs},
    voice_memory::{Answer, Model, calls},
};

/// Jobs of one test.
const JOBS: usize = 1000;

/// Seconds that a delivery and a job belong to a worker that says nothing: the shortest allowed.
const LEASE_S: u64 = 5;

/// Worker processes that are killed.
const WORKERS: usize = 3;

/// Jobs in one worker's hands.
const CONCURRENCY: usize = 8;

/// Tries of a job that fails.
const ATTEMPTS: u32 = 2;

/// Messages that no release can read.
const UNREADABLE: usize = 5;

/// After so many ended jobs no worker is killed any more.
const KILL_UNTIL: i64 = 800;

/// Everything ends within this time, also beside all the other tests.
const PATIENCE: Duration = Duration::from_mins(4);

/// What the model answers to a job: from the job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As many function calls.
    Acts(usize),
    /// Always 503.
    Fails,
    /// Always 400.
    Refused,
    /// Never an answer that can be read.
    Garbage,
}

impl Kind {
    fn of(job: usize) -> Self {
        match job % 100 {
            7 => Self::Fails,
            17 => Self::Refused,
            27 => Self::Garbage,
            _ => Self::Acts(1 + job % 3),
        }
    }

    /// What its row and its dead letter say when nothing killed its workers.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Acts(_) => None,
            Self::Fails => Some("provider-unavailable"),
            Self::Refused => Some("provider-refused"),
            Self::Garbage => Some("provider-answer-invalid"),
        }
    }

    fn answer(self, job: usize) -> (u16, String) {
        match self {
            Self::Acts(count) => {
                let actions: Vec<_> = (0..count)
                    .map(|n| {
                        let args = json!({ "type": "expense", "amount": 1, "currency": "EUR",
                            "category": "Food", "date": "2026-11-23",
                            "description": effect(job, n) });
                        ("add_transaction", args)
                    })
                    .collect();
                calls(&actions)
            }
            Self::Fails => (503, "busy".into()),
            Self::Refused => (400, "no".into()),
            Self::Garbage => (200, "<html>".into()),
        }
    }
}

/// The description of the transaction that action `n` of a job makes.
fn effect(job: usize, n: usize) -> String {
    format!("job {job} action {n}")
}

/// A model that knows a job by its transcript and takes `5 ms` to `45 ms`.
async fn model() -> Model {
    Model::answering(|request| {
        let said = request["contents"][0]["parts"][0]["text"].as_str().unwrap();
        let job = said.strip_prefix("job ").unwrap().parse().unwrap();
        let (status, text) = Kind::of(job).answer(job);
        let after = Duration::from_millis(5 + (job as u64 * 7919) % 40);
        Answer { after, ..(status, text).into() }
    })
    .await
}

/// Random numbers from a seed (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// The environment of the processes under test, besides the harness's.
fn environment(backend: &impl Backend, model: &Model, attempt_s: u64) -> Vec<(String, String)> {
    let mut all = backend.environment();
    for (name, value) in [
        ("GEMINI_BASE_URL", model.url.clone()),
        ("GEMINI_MODEL", "test-model".into()),
        ("GEMINI_ATTEMPT_SECONDS", attempt_s.to_string()),
        ("VOICE_WORKER_CONCURRENCY", CONCURRENCY.to_string()),
        ("VOICE_WORKER_ATTEMPTS", ATTEMPTS.to_string()),
        ("VOICE_LEASE_SECONDS", LEASE_S.to_string()),
    ] {
        all.push((name.to_owned(), value));
    }
    all
}

/// A database, a queue, and what the processes need.
struct Stage<B> {
    world: World,
    backend: B,
    model: Model,
    variables: Vec<(String, String)>,
}

impl<B: Backend> Stage<B> {
    async fn new(model: Model, attempt_s: u64) -> Self {
        let world = World::new().await;
        let backend = B::new(ATTEMPTS).await;
        let variables = environment(&backend, &model, attempt_s);
        Self { world, backend, model, variables }
    }

    async fn start(&self, subcommand: &str) -> Process {
        let config = self.world.with_redis(&self.backend.redis_url());
        let more: Vec<_> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Process::start(subcommand, &config, &more).await
    }

    /// The ids of jobs with these numbers, submitted over HTTP.
    async fn submit(&self, jobs: std::ops::Range<usize>) -> Vec<Uuid> {
        let mut api = self.start("api").await;
        let user = self.world.user().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/api/voice/understand", api.url);
        let submitted = stream::iter(jobs)
            .map(|job| submit_one(&client, &url, &user, job))
            .buffered(8)
            .collect()
            .await;
        api.end().await;
        submitted
    }

    async fn count(&self, states: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM voice_jobs WHERE state = ANY ($1)")
            .bind(states.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .fetch_one(&self.world.pool)
            .await
            .unwrap()
    }

    /// Waits until so many jobs have ended.
    async fn ended(&self, count: i64) {
        let deadline = Instant::now() + PATIENCE;
        let mut period = interval(Duration::from_millis(100));
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let ended = self.count("completed failed").await;
            if ended >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{ended} of {count}: {:?}", self.depth().await);
        }
    }

    async fn depth(&self) -> Depth {
        self.backend.queue().depth().await.unwrap()
    }
}

/// As a good client does: with a key, and again when the service has no time for it.
async fn submit_one(client: &reqwest::Client, url: &str, user: &User, job: usize) -> Uuid {
    let body = json!({ "transcript": format!("job {job}"), "today": "2026-11-23" }).to_string();
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-idempotency-key", unique_key())
        .bearer_auth(&user.token)
        .body(body);
    let deadline = Instant::now() + PATIENCE;
    let mut period = interval(Duration::from_millis(500));
    loop {
        period.tick().await;
        let answer = request.try_clone().unwrap().send().await.unwrap();
        if answer.status() == 202 {
            let answer: Value = answer.json().await.unwrap();
            return answer["jobId"].as_str().unwrap().parse().unwrap();
        }
        assert!(matches!(answer.status().as_u16(), 409 | 503), "{answer:?}");
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

/// Kills some of the workers, or all, whenever they have begun a random number of jobs, until most
/// jobs have ended. The workers that live on, and the number of kills. By work and not by time: a
/// slow machine must not kill all that is begun.
async fn kill_again_and_again<B: Backend>(
    stage: &Stage<B>,
    mut random: Random,
) -> (Vec<Process>, usize) {
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(stage.start("worker").await);
    }
    let mut kills = 0;
    loop {
        let begun = stage.model.count() + 40 + usize::try_from(random.below(80)).unwrap();
        let mut enough = false;
        stage
            .backend
            .until("the workers to work", async || {
                enough = stage.count("completed failed").await >= KILL_UNTIL;
                enough || stage.model.count() >= begun
            })
            .await;
        if enough {
            return (workers, kills);
        }
        let victims = 1 + random.below((1 << WORKERS) - 1);
        let moment = Duration::from_millis(random.below(60));
        let ended = timeout(moment, workers[0].child.wait()).await;
        assert!(ended.is_err(), "a worker ended by itself: {ended:?}");
        for (at, worker) in workers.iter_mut().enumerate() {
            if (victims >> at) & 1 == 1 {
                worker.child.kill().await.unwrap();
                kills += 1;
                *worker = stage.start("worker").await;
            }
        }
    }
}

/// Stops a worker for longer than its leases and lets it go on, until `stop`: it is alive when others
/// do what it held.
async fn freeze_again_and_again<B: Backend>(
    stage: &Stage<B>,
    mut random: Random,
    stop: &CancellationToken,
) -> Process {
    let mut worker = stage.start("worker").await;
    let id = worker.child.id().unwrap().to_string();
    while !stop.is_cancelled() {
        let awake = Duration::from_millis(50 + random.below(400));
        let ended = timeout(awake, worker.child.wait()).await;
        assert!(ended.is_err(), "a worker ended by itself: {ended:?}");
        signal("-STOP", &id).await;
        let asleep = Duration::from_millis(LEASE_S * 1000 + 500 + random.below(1500));
        let _ = timeout(asleep, stop.cancelled()).await;
        signal("-CONT", &id).await;
    }
    worker
}

async fn signal(name: &str, process: &str) {
    let sent = Command::new("kill").args([name, process]).status().await.unwrap();
    assert!(sent.success());
}

async fn every_job_ends_once<B: Backend>() {
    let seed = env::var("VOICE_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = seed.unwrap_or(u64::from(since.subsec_nanos()));
    say(&format!("VOICE_KILL_SEED={seed}"));
    let started = Instant::now();
    let stage = Stage::<B>::new(model().await, 5).await;
    for number in 0..UNREADABLE {
        stage.backend.poison(&format!("no message {number}")).await;
    }
    let submitting = async {
        let submitted = stage.submit(0..JOBS).await;
        (submitted, started.elapsed())
    };
    let stop = CancellationToken::new();
    let killing = async {
        let killed = kill_again_and_again(&stage, Random(seed)).await;
        stop.cancel();
        killed
    };
    let freezing = freeze_again_and_again(&stage, Random(!seed), &stop);
    let ((mut workers, kills), frozen, (submitted, submitting)) =
        tokio::join!(killing, freezing, submitting);
    workers.push(frozen);
    stage.ended(i64::try_from(JOBS).unwrap()).await;
    let ended = started.elapsed();
    // What its holders were killed over after its end comes once more, to be acknowledged.
    stage
        .backend
        .until("an empty queue", async || {
            let depth = stage.depth().await;
            (depth.waiting, depth.in_flight) == (0, 0)
        })
        .await;
    for worker in &mut workers {
        worker.end().await;
    }
    let dead = check(&stage, &submitted).await;
    say(&format!(
        "{JOBS} jobs, submitted after {submitting:.1?}, ended after {ended:.1?}, {kills} workers \
         killed, {} dead, {} of them stalled, {} calls of the model",
        dead.all,
        dead.stalled,
        stage.model.count()
    ));
    assert!(kills >= 6, "only {kills} kills");
}

/// How many jobs are dead.
struct Dead {
    all: usize,
    /// Because their workers were killed.
    stalled: usize,
}

/// Every job is completed with each of its effects once, or dead with none.
async fn check<B: Backend>(stage: &Stage<B>, submitted: &[Uuid]) -> Dead {
    let rows: Vec<(Uuid, String, Option<String>)> =
        sqlx::query_as("SELECT id, state, code FROM voice_jobs")
            .fetch_all(&stage.world.pool)
            .await
            .unwrap();
    assert_eq!(rows.len(), JOBS);
    let rows: HashMap<_, _> = rows.into_iter().map(|(id, how, code)| (id, (how, code))).collect();
    let effects: Vec<(String, i64)> =
        sqlx::query_as("SELECT description, count(*) FROM transactions GROUP BY description")
            .fetch_all(&stage.world.pool)
            .await
            .unwrap();
    let mut effects: HashMap<_, _> = effects.into_iter().collect();
    let letters = stage.backend.queue().dead(JOBS).await.unwrap();
    let unreadable = letters.iter().filter(|letter| letter.job_id.is_none()).count();
    assert_eq!(unreadable, UNREADABLE);
    let reasons: HashMap<_, _> =
        letters.iter().filter_map(|letter| Some((letter.job_id?, &letter.reason))).collect();
    assert_eq!(reasons.len() + unreadable, letters.len(), "twice among the dead letters");
    let (mut actions, mut stalled) = (0, 0);
    for (job, id) in submitted.iter().enumerate() {
        let kind = Kind::of(job);
        let (how, code) = &rows[id];
        match (how.as_str(), kind) {
            ("completed", Kind::Acts(count)) => {
                for n in 0..count {
                    assert_eq!(effects.remove(&effect(job, n)), Some(1), "job {job}, action {n}");
                }
                assert!(!reasons.contains_key(id), "job {job} is completed and dead");
                actions += i64::try_from(count).unwrap();
            }
            ("failed", _) => {
                assert_eq!(code.as_ref(), reasons.get(id).copied(), "job {job}");
                match (code.as_deref(), kind.code()) {
                    (Some("stalled"), _) | (Some("attempts-exhausted"), Some(_)) => stalled += 1,
                    (code, expected) => assert_eq!(code, expected, "job {job}"),
                }
            }
            _ => panic!("job {job} is {how}, of {kind:?}"),
        }
    }
    assert_eq!(effects, HashMap::new(), "effects of no completed job");
    // A job whose workers were killed three times is taken for what killed them, and one that fails
    // besides has had its attempts before it could say why: both are rare here.
    assert!(stalled < JOBS / 20, "{stalled} jobs stalled");
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM voice_job_actions")
        .fetch_one(&stage.world.pool)
        .await
        .unwrap();
    assert_eq!(applied, actions);
    let logged: Vec<String> = sqlx::query_scalar(
        "SELECT detail ->> 'jobId' FROM app_logs WHERE event = 'voice-job-failed'",
    )
    .fetch_all(&stage.world.pool)
    .await
    .unwrap();
    let logged: HashSet<Uuid> = logged.iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(logged, reasons.keys().copied().collect());
    Dead { all: reasons.len(), stalled }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_killed_workers_leave_every_job_completed_or_dead_and_every_effect_once() {
    every_job_ends_once::<OnRedis>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqs_killed_workers_leave_every_job_completed_or_dead_and_every_effect_once() {
    every_job_ends_once::<OnSqs>().await;
}

/// What SIGTERM finds in a worker's hands is finished, and nothing else is begun.
async fn a_busy_worker_drains<B: Backend>() {
    let after = Duration::from_secs(3);
    let slow = Model::answering(move |_| Answer { after, ..Kind::Acts(1).answer(0).into() });
    let stage = Stage::<B>::new(slow.await, 20).await;
    let jobs = 3 * CONCURRENCY;
    stage.submit(0..jobs).await;
    let mut worker = stage.start("worker").await;
    stage.backend.until("a busy worker", async || stage.model.running() == CONCURRENCY).await;
    let ended = end(&mut worker).await;
    assert!(ended < Duration::from_secs(15), "{ended:?}");
    let held = i64::try_from(CONCURRENCY).unwrap();
    assert_eq!((stage.count("completed").await, stage.model.count()), (held, CONCURRENCY));
    assert_eq!(stage.count("queued").await, i64::try_from(jobs).unwrap() - held);
    let waiting = u64::try_from(jobs - CONCURRENCY).unwrap();
    assert_eq!(stage.depth().await, Depth { waiting, in_flight: 0, dead: 0 });
    let mut next = stage.start("worker").await;
    stage.ended(i64::try_from(jobs).unwrap()).await;
    assert_eq!(stage.world.count_transactions().await, i64::try_from(jobs).unwrap());
    end(&mut next).await;
}

/// What does not end in time is given back at once, and counts no attempt.
async fn a_worker_that_cannot_finish_gives_back<B: Backend>() {
    let hangs = Model::start(vec![], (0, String::new()));
    let stage = Stage::<B>::new(hangs.await, 40).await;
    let jobs = 2 * CONCURRENCY;
    stage.submit(0..jobs).await;
    let mut worker = stage.start("worker").await;
    stage.backend.until("a busy worker", async || stage.model.running() == CONCURRENCY).await;
    let ended = end(&mut worker).await;
    assert!(ended > Duration::from_secs(15), "it did not wait for its jobs: {ended:?}");
    assert_eq!(stage.count("queued").await, i64::try_from(jobs).unwrap());
    let held: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM voice_jobs WHERE lease_token IS NOT NULL OR attempts > 0",
    )
    .fetch_one(&stage.world.pool)
    .await
    .unwrap();
    assert_eq!(held, 0);
    let waiting = u64::try_from(jobs).unwrap();
    assert_eq!(stage.depth().await, Depth { waiting, in_flight: 0, dead: 0 });
    let deliveries = stage.backend.queue().receive(10, Duration::from_secs(1)).await.unwrap();
    assert!(!deliveries.is_empty());
    for delivery in deliveries {
        assert_eq!((delivery.attempt, delivery.stalled), (1, 0));
    }
}

/// Ends a worker as ECS does, which kills after 30 s: it must have ended well within 25 s.
async fn end(worker: &mut Process) -> Duration {
    let asked = Instant::now();
    worker.end().await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_busy_worker_drains_within_25_s() {
    a_busy_worker_drains::<OnRedis>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqs_a_busy_worker_drains_within_25_s() {
    a_busy_worker_drains::<OnSqs>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_worker_that_cannot_finish_gives_back_within_25_s() {
    a_worker_that_cannot_finish_gives_back::<OnRedis>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqs_a_worker_that_cannot_finish_gives_back_within_25_s() {
    a_worker_that_cannot_finish_gives_back::<OnSqs>().await;
}

#[expect(clippy::print_stderr, reason = "the seed and the times of a run")]
fn say(text: &str) {
    eprintln!("{text}");
}
