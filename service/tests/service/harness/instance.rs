//! Instances of the service: in this process, or the built binary.

use std::{net::Ipv4Addr, process::Stdio, time::Duration};

use bme_service::{
    app::{App, Timings},
    config::{ApiConfig, Secret},
    routes, server,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Call, JWT_SECRET, eventually};

/// An instance in this process. It stops with the test's runtime.
pub(crate) struct Instance {
    pub(crate) url: String,
    pub(crate) app: App,
    _stop: CancellationToken,
    _server: JoinHandle<bool>,
}

/// With a Redis budget that a busy machine does not exceed: what is tested with it is what happens
/// while Redis answers.
pub(crate) fn timings() -> Timings {
    Timings {
        idempotency_redis: Duration::from_secs(1),
        rate_limit_redis: Duration::from_secs(1),
        // What these take from the request's time.
        body: Duration::from_secs(7),
        ..Timings::default()
    }
}

impl Instance {
    pub(crate) async fn start(config: &ApiConfig) -> Self {
        Self::with_timings(config, timings()).await
    }

    pub(crate) async fn with_timings(config: &ApiConfig, timings: Timings) -> Self {
        Self::of(App::new(config.clone(), timings).unwrap()).await
    }

    /// With a state of the test's own.
    pub(crate) async fn of(app: App) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(app.kv.clone().keep());
        tokio::spawn(app.database.clone().keep());
        let serving = server::serve(
            listener,
            routes::router(app.clone()),
            app.lifecycle.clone(),
            stop.clone(),
        );
        Self { url, app, _stop: stop, _server: tokio::spawn(serving) }
    }
}

/// The built binary. It is killed when the test ends.
pub(crate) struct Process {
    pub(crate) url: String,
    pub(crate) port: u16,
    pub(crate) child: Child,
    /// Of both standard output and standard error.
    lines: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// Starts a sub-command on a free port and waits until `/health` answers 200.
    pub(crate) async fn start(subcommand: &str, config: &ApiConfig, more: &[(&str, &str)]) -> Self {
        let process = Self::spawn(subcommand, config, more).await;
        eventually("the binary to serve", async || {
            Call::get("/health").try_send(&process.url).await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        process
    }

    /// As [`Process::start`], without waiting for it.
    pub(crate) async fn spawn(subcommand: &str, config: &ApiConfig, more: &[(&str, &str)]) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = command(subcommand, config);
        command.env("BIND_ADDRESS", format!("127.0.0.1:{port}")).envs(more.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(copy(child.stdout.take().unwrap(), sender.clone()));
        tokio::spawn(copy(child.stderr.take().unwrap(), sender));
        Self { url: format!("http://127.0.0.1:{port}"), port, child, lines }
    }

    /// Ends it as ECS does and waits until it has exited well.
    pub(crate) async fn end(&mut self) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
        assert!(sent.success());
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    }

    /// Every line that is left, once it has ended.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.lines.recv().await {
            lines.push(line);
        }
        lines
    }

    /// The next line of its output that `wanted` accepts, with all that came before it.
    pub(crate) async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let line = tokio::time::timeout(Duration::from_secs(20), self.lines.recv())
                .await
                .unwrap_or_else(|_| panic!("no such line in {before:#?}"))
                .unwrap_or_else(|| panic!("the output ended: {before:#?}"));
            if wanted(&line) {
                return (line, before);
            }
            before.push(line);
        }
    }
}

async fn copy(stream: impl AsyncRead + Unpin, lines: mpsc::UnboundedSender<String>) {
    let mut stream = BufReader::new(stream).lines();
    while let Ok(Some(line)) = stream.next_line().await {
        if lines.send(line).is_err() {
            return;
        }
    }
}

/// A sub-command of the built binary with the environment of a configuration and nothing else.
pub(crate) fn command(subcommand: &str, config: &ApiConfig) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bme-service"));
    let database = &config.database;
    command
        .arg(subcommand)
        .env_clear()
        .env("APP_ENV", "production")
        .env("RELEASE_TAG", "v0.0.0-test")
        .env("TRUSTED_PROXY_HOPS", config.http.trusted_proxy_hops.to_string())
        .env("DATABASE_HOST", &database.host)
        .env("DATABASE_PORT", database.port.to_string())
        .env("DATABASE_NAME", &database.name)
        .env("DATABASE_USER", &database.user)
        .env("DATABASE_PASSWORD", database.password.as_ref().map_or("", Secret::expose))
        .env("DATABASE_SSL_VERIFY", "false")
        .env("REDIS_URL", config.redis.url.expose())
        .env("RATE_LIMIT_PER_MINUTE", config.limits.rest.to_string())
        .env("RATE_LIMIT_LOGIN_PER_MINUTE", config.limits.login.to_string())
        .env("RATE_LIMIT_VOICE_PER_MINUTE", config.limits.voice.to_string())
        .env("JWT_SECRET", JWT_SECRET)
        // Many run at once.
        .env("METRICS_ADDRESS", "off")
        .env("GEMINI_API_KEY", "a-test-key");
    command
}
