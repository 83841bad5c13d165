//! A process that starts listens already, and says that it starts.

use std::{future::pending, net::Ipv4Addr, time::Duration};

use axum::{Router, http::StatusCode};
use bme_service::{
    app::{App, Lifecycle, Timings},
    config::ApiConfig,
    routes, server,
};
use tokio::{
    net::TcpListener,
    sync::oneshot::{self, error::RecvError},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{Call, Process, World, client, eventually};

/// A server that has started when the test says so.
struct Starting {
    url: String,
    lifecycle: Lifecycle,
    made: oneshot::Sender<Router>,
    stop: CancellationToken,
    server: JoinHandle<Result<bool, RecvError>>,
}

impl Starting {
    async fn new(config: &ApiConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lifecycle = Lifecycle::new(&config.http.release);
        let router = routes::starting(&config.http, lifecycle.clone());
        let (made, making) = oneshot::channel();
        let stop = CancellationToken::new();
        let serving = server::start(listener, router, making, lifecycle.clone(), stop.clone());
        Self { url, lifecycle, made, stop, server: tokio::spawn(serving) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_a_process_that_starts_is_told_so() {
    let world = World::new().await;
    let starting = Starting::new(&world.config).await;
    // One client, whose connections outlive the start.
    let client = client();
    let get = async |path: &str| Call::get(path).send_by(&client, &starting.url).await.unwrap();
    let health = get("/health").await;
    assert_eq!(health.problem(503), "starting");
    assert_eq!(health.header("retry-after"), Some("1"));
    assert_eq!(health.json()["release"], "v0.0.0-test");
    assert_eq!(health.header("x-content-type-options"), Some("nosniff"));
    for path in ["/ready", "/openapi.json", "/api/transactions", "/mcp", "/nowhere"] {
        assert_eq!(get(path).await.problem(503), "starting", "{path}");
    }

    let (config, lifecycle) = (world.config.clone(), starting.lifecycle.clone());
    let app = App::connect(config, Timings::default(), lifecycle).await.unwrap();
    assert!(starting.made.send(routes::router(app)).is_ok());
    eventually("the service", async || get("/health").await.status == 200).await;
    assert_eq!(get("/nowhere").await.problem(404), "not-found");
    assert_eq!(get("/api/transactions").await.problem(401), "unauthorized");
    starting.stop.cancel();
    assert!(starting.server.await.unwrap().unwrap(), "a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_ends_at_once_and_well() {
    let world = World::new().await;
    let starting = Starting::new(&world.config).await;
    let health = Call::get("/health").try_send(&starting.url).await.unwrap();
    assert_eq!(health.problem(503), "starting");
    starting.stop.cancel();
    // Nobody has to notice first, and nothing is in flight.
    let ended = timeout(Duration::from_secs(10), starting.server).await.unwrap();
    assert!(ended.unwrap().unwrap(), "a clean end");
    assert!(Call::get("/health").try_send(&starting.url).await.is_err());
    assert!(starting.made.is_closed(), "it is not made any more");
}

/// The binary in a region that it has to ask for: of a machine that takes its time, and then fails, so
/// that it is asked several times.
async fn asking_for_its_region(subcommand: &str, world: &World) -> Process {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let metadata = Router::new().fallback(async || {
        let _ = timeout(Duration::from_millis(500), pending::<()>()).await;
        StatusCode::INTERNAL_SERVER_ERROR
    });
    tokio::spawn(async move { axum::serve(listener, metadata).await });
    let env = [
        ("QUEUE", "sqs"),
        ("VOICE_QUEUE_URL", "http://127.0.0.1:1/000000000000/voice"),
        ("VOICE_DEAD_LETTER_QUEUE_URL", "http://127.0.0.1:1/000000000000/dead"),
        ("AUDIO_BUCKET", "audio"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str()),
    ];
    Process::spawn(subcommand, &world.config, &env).await
}

async fn until_it_starts(process: &Process) {
    eventually("the binary to say that it starts", async || {
        let reply = Call::get("/health").try_send(&process.url).await;
        reply.is_ok_and(|reply| reply.problem(503) == "starting")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_says_that_it_starts_and_then_serves() {
    let world = World::new().await;
    for subcommand in ["api", "worker"] {
        let mut process = asking_for_its_region(subcommand, &world).await;
        until_it_starts(&process).await;
        eventually("the binary to serve", async || {
            Call::get("/health").try_send(&process.url).await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        process.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_that_starts_ends_well_on_sigterm() {
    let world = World::new().await;
    for subcommand in ["api", "worker"] {
        let mut process = asking_for_its_region(subcommand, &world).await;
        until_it_starts(&process).await;
        process.end().await;
    }
}

/// Starting waits for neither: they may come later, and `/health` asks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_and_redis_it_starts_all_the_same() {
    let world = World::new().await;
    let mut config = world.with_redis("redis://127.0.0.1:1");
    config.database.port = 1;
    let mut process = Process::start("api", &config, &[]).await;
    let ready = Call::get("/ready").try_send(&process.url).await.unwrap();
    assert_eq!(ready.problem(503), "not-ready");
    process.end().await;
}
