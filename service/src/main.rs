//! The binary: chooses the sub-command, reads the environment, and turns the outcome into an exit
//! code.

use std::{env, io::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use bme_service::{
    app::{App, AppError, Lifecycle, Timings},
    config::{self, ApiConfig, MigrateConfig, WorkerConfig},
    healthcheck, metrics, migrate, routes, server, telemetry,
    voice::QUEUE,
    worker,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: bme-service api | worker | migrate | openapi | healthcheck";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let outcome = match (arguments.next().as_deref(), arguments.next()) {
        (Some("api"), None) => api().await,
        (Some("worker"), None) => work().await,
        (Some("migrate"), None) => migrate().await,
        (Some("openapi"), None) => print_openapi(),
        (Some("healthcheck"), None) => check_health(),
        _ => return fail(2, USAGE),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("bme-service: {}", chain(&error))),
    }
}

async fn api() -> anyhow::Result<()> {
    let config = ApiConfig::read(&lookup)?;
    install_tls()?;
    let telemetry = telemetry::start(&config.http, &config.telemetry)?;
    let outcome = serve(config).await;
    telemetry.finish().await;
    outcome
}

async fn serve(config: ApiConfig) -> anyhow::Result<()> {
    let bind = config.http.bind;
    let stop = stop_on_signal()?;
    // Before anything else: until the rest is there, `/health` says that it starts.
    let listener =
        TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    let lifecycle = Lifecycle::new(&config.http.release);
    let starting = routes::starting(&config.http, lifecycle.clone());
    let mut keepers = Vec::new();
    let making = async {
        let app = App::connect(config, Timings::default(), lifecycle.clone()).await?;
        metrics::observe_pool(&app.database);
        if let Some(voice) = &app.voice {
            metrics::observe_queue(QUEUE, voice.queue.clone());
        }
        keepers.extend([
            tokio::spawn(app.kv.clone().keep()),
            tokio::spawn(app.database.clone().keep()),
            tokio::spawn(app.clone().keep_keys()),
        ]);
        Ok::<_, AppError>(routes::router(app))
    };
    let clean = server::start(listener, starting, making, lifecycle.clone(), stop).await?;
    for keeper in keepers {
        keeper.abort();
    }
    if !clean {
        bail!("some requests were still running after 25 s");
    }
    Ok(())
}

async fn work() -> anyhow::Result<()> {
    let config = WorkerConfig::read(&lookup)?;
    install_tls()?;
    let telemetry = telemetry::start(&config.http, &config.telemetry)?;
    let outcome = worker::run(config, stop_on_signal()?).await;
    telemetry.finish().await;
    if !outcome? {
        bail!("some work was still running after 25 s");
    }
    Ok(())
}

async fn migrate() -> anyhow::Result<()> {
    telemetry::init(config::environment(&lookup));
    install_tls()?;
    let migrated = migrate::run(&MigrateConfig::read(&lookup)?).await?;
    tracing::info!(
        known = migrated.known,
        version = migrated.version,
        role = migrated.role,
        "schema is up to date"
    );
    Ok(())
}

fn check_health() -> anyhow::Result<()> {
    Ok(healthcheck::run(config::bind_address(&lookup)?)?)
}

/// The OpenAPI document with the routes of every mode.
fn print_openapi() -> anyhow::Result<()> {
    let (_, document) = routes::api(true).split();
    writeln!(std::io::stdout(), "{document:#}").context("standard output is closed")
}

/// The one TLS provider of the process.
fn install_tls() -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("another TLS provider is installed already");
    }
    Ok(())
}

/// Cancelled by SIGTERM (ECS) or SIGINT (a terminal).
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

fn lookup(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// The error and its causes; a cause that the text before it already tells is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// One clear line on standard error.
fn fail(code: u8, message: &str) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}
