//! The local sandbox: the whole stack on a laptop, against real processes.
//!
//! Parts, each a detached process with a pid file and a log in the sandbox directory:
//! an AWS emulator (control plane and image registry), our [`gateway`] in front of it, podman's
//! API socket for the tasks' containers, PostgreSQL and Redis with TLS under the sandbox's own
//! authority, and HAProxy as load balancer and edge. Several sandboxes run side by side, each
//! with its own directory, ports and network bridge.

mod certificates;
mod emulator;
mod error;
pub mod gateway;
mod haproxy;
mod install;
mod network;
mod podman;
mod postgres;
mod process;
mod redis;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::Error;
use state::{Paths, State, lock_file, remove, write, write_private};

/// What a sandbox is called and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// State, logs and data; made when missing.
    pub directory: PathBuf,
    /// The application's port on 127.0.0.1 (HAProxy).
    pub port: u16,
    /// The AWS endpoint's port on 127.0.0.1 (the gateway).
    pub gateway_port: u16,
    /// Name of the environment whose target group and web bucket are served.
    pub environment: String,
    /// The account of requests whose access key is no account number; 12 digits.
    pub account: String,
    /// The region of the environment.
    pub region: String,
}

/// A running sandbox.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Where the application answers: `http://127.0.0.1:PORT`.
    pub url: String,
    /// The AWS endpoint: `http://127.0.0.1:GATEWAY_PORT`.
    pub endpoint_url: String,
    /// Certificate of the authority that PostgreSQL's and Redis's certificates are under.
    pub ca_pem: PathBuf,
    /// The host's address on the sandbox's bridge: PostgreSQL is at port 5432 of it, Redis at
    /// 6379, and the gateway at its port.
    pub bridge_address: std::net::Ipv4Addr,
}

/// The parts and whether they run.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// True when every part runs.
    pub running: bool,
    /// In the order in which they are started.
    pub parts: Vec<Part>,
}

/// One part of the sandbox.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// `postgres`, `redis`, `podman`, `emulator`, `gateway` or `haproxy`, and `gemini (stand-in)`,
    /// which the gateway serves.
    pub name: &'static str,
    /// True when its process lives.
    pub running: bool,
    /// The process, when it lives.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: String,
}

const PARTS: [&str; 6] =
    [postgres::NAME, redis::NAME, podman::NAME, emulator::NAME, gateway::NAME, haproxy::NAME];

/// Starts what does not run yet. Returns at once when everything runs.
///
/// # Errors
/// See [`Error`]; what was started stays, so that the next call carries on.
pub async fn up(
    settings: &Settings,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Running, Error> {
    if !cfg!(target_os = "linux") {
        return Err(Error::NotLinux);
    }
    let paths = Paths::of(&settings.directory);
    let mut settings = Settings { directory: paths.directory.clone(), ..settings.clone() };
    if settings.account.is_empty() {
        // An environment without an allow-list of accounts: the emulator's own default.
        settings.account = "000000000000".into();
    }
    if let Some(state) = State::load(&paths)?
        && state.settings == settings
        && state.network().exists()
        && PARTS.iter().all(|name| process::running(&paths.directory, name).is_some())
    {
        return Ok(state.as_running(&paths));
    }
    if !is_root() {
        return Err(Error::NotRoot);
    }
    paths.create()?;
    let _guard = lock_file(&paths.directory.join("run/lock")).await?;
    if emulator::has_lost_its_account(&paths) {
        progress(
            "the AWS emulator was killed before it saved its account: starting with an empty one",
        );
        stop_processes(&paths).await?;
        forget(&paths)?;
    }
    let programs = install::ensure(progress).await?;
    let state = match State::load(&paths)? {
        Some(state) if state.settings == settings => state,
        found => {
            stop_processes(&paths).await?;
            State::create(&paths, settings, found).await?
        }
    };
    state.network().ensure().await?;
    certificates::ensure_authority(&paths.certificates())?;
    std::fs::copy(
        paths.certificates().join(certificates::AUTHORITY),
        paths.directory.join(certificates::AUTHORITY),
    )
    .map_err(|e| Error::io("write", &paths.directory.join(certificates::AUTHORITY), e))?;
    gateway::write_hosts_if_missing(&paths, &state)?;

    let dead = |name: &str| process::running(&paths.directory, name).is_none();
    if PARTS.iter().all(|name| dead(name)) {
        process::check_port_free("127.0.0.1", state.settings.port)?;
        process::check_port_free("127.0.0.1", state.settings.gateway_port)?;
    }
    let database = async {
        if dead(postgres::NAME) {
            progress("starting PostgreSQL");
            postgres::start(&paths, &state, &programs.postgres).await?;
        }
        Ok::<(), Error>(())
    };
    let cache = async {
        if dead(redis::NAME) {
            progress("starting Redis");
            redis::start(&paths, &state).await?;
        }
        Ok::<(), Error>(())
    };
    let cloud = async {
        if dead(podman::NAME) {
            progress("starting podman's API socket");
            podman::start(&paths, &state).await?;
        }
        if dead(emulator::NAME) {
            progress("starting the AWS emulator");
            emulator::start(&paths, &state, &programs.python).await?;
        }
        Ok::<(), Error>(())
    };
    tokio::try_join!(database, cache, cloud)?;
    if dead(gateway::NAME) {
        progress("starting the gateway");
        gateway::start(&paths, &state).await?;
    } else {
        gateway::ask(&state, "POST", "/_bme/reconcile").await?;
    }
    if dead(haproxy::NAME) {
        progress("starting HAProxy");
        haproxy::start(&paths, &state).await?;
    }
    Ok(state.as_running(&paths))
}

/// The distribution's packages that this machine lacks for a sandbox, and whether [`up`] would
/// install them.
///
/// # Errors
/// [`Error::NotLinux`] and [`Error::NotRoot`]: no package mends these.
pub fn missing_packages() -> Result<(Vec<&'static str>, bool), Error> {
    if !cfg!(target_os = "linux") {
        return Err(Error::NotLinux);
    }
    if !is_root() {
        return Err(Error::NotRoot);
    }
    Ok((install::missing(), install::can_install()))
}

/// Stops every process, removes the containers and the network; data and state stay for the
/// next [`up`].
///
/// # Errors
/// See [`Error`]; a sandbox that does not run is no error.
pub async fn down(settings: &Settings) -> Result<(), Error> {
    let paths = Paths::of(&settings.directory);
    if !paths.directory.exists() {
        return Ok(());
    }
    paths.create()?;
    let guard = lock_file(&paths.directory.join("run/lock")).await?;
    stop_processes(&paths).await?;
    podman::stop_monitors(&paths).await;
    if let Some(state) = State::load(&paths)? {
        state.network().remove().await;
    }
    let _ = std::fs::remove_dir_all(&paths.runtime);
    drop(guard);
    Ok(())
}

/// The parts and whether they run; starts nothing.
///
/// # Errors
/// [`Error::State`] when the state file cannot be read.
pub fn status(settings: &Settings) -> Result<Status, Error> {
    let paths = Paths::of(&settings.directory);
    let state = State::load(&paths)?;
    let address = |name: &str| match (&state, name) {
        (None, _) => String::new(),
        (Some(_), podman::NAME) => format!("unix://{}", podman::socket(&paths)),
        (Some(state), postgres::NAME) => {
            format!("{}:{}", state.network().gateway(), postgres::PORT)
        }
        (Some(state), redis::NAME) => format!("{}:{}", state.network().gateway(), redis::PORT),
        (Some(state), emulator::NAME) => format!("127.0.0.1:{}", state.emulator_port),
        (Some(state), gateway::NAME) => format!("127.0.0.1:{}", state.settings.gateway_port),
        (Some(state), _) => format!("127.0.0.1:{}", state.settings.port),
    };
    let mut parts: Vec<Part> = PARTS
        .iter()
        .map(|name| {
            let identity = process::running(&paths.directory, name);
            Part {
                name,
                running: identity.is_some(),
                pid: identity.map(|i| i.pid),
                address: address(name),
            }
        })
        .collect();
    let gateway = process::running(&paths.directory, gateway::NAME);
    parts.push(Part {
        name: "gemini (stand-in)",
        running: gateway.is_some(),
        pid: gateway.map(|gateway| gateway.pid),
        address: match state {
            Some(state) => gemini_url(state.settings.gateway_port),
            None => String::new(),
        },
    });
    Ok(Status { running: parts.iter().all(|part| part.running), parts })
}

/// Where the gateway answers the tasks' containers.
pub fn gateway_url(gateway_port: u16) -> String {
    format!("http://{}:{gateway_port}", gateway::HOST)
}

/// Where the stand-in for Gemini answers the tasks' containers.
pub fn gemini_url(gateway_port: u16) -> String {
    format!("{}{}", gateway_url(gateway_port), gateway::GEMINI_PATH)
}

/// Wipes the emulator, the databases, the cache, the containers and the gateway's state, with
/// its record of calls and its faults; the processes stay.
///
/// # Errors
/// [`Error::NotRunning`], or what failed to be wiped.
pub async fn reset(settings: &Settings) -> Result<(), Error> {
    let paths = Paths::of(&settings.directory);
    let state = State::load(&paths)?
        .ok_or_else(|| Error::NotRunning { directory: paths.directory.clone() })?;
    if process::running(&paths.directory, gateway::NAME).is_none() {
        return Err(Error::NotRunning { directory: paths.directory });
    }
    gateway::ask(&state, "POST", "/_bme/reset").await?;
    podman::remove_containers(&paths).await
}

/// Removes what belongs to the emulator's account, while no process runs. The mark that it was
/// lost goes last.
fn forget(paths: &Paths) -> Result<(), Error> {
    ["postgres", "gateway.json", "hosts", "emulator/s3", "emulator/state", "emulator"]
        .iter()
        .try_for_each(|name| remove(&paths.directory.join(name)))
}

/// Every process, from the edge inwards; the emulator writes its state while it still can.
async fn stop_processes(paths: &Paths) -> Result<(), Error> {
    haproxy::stop(paths).await?;
    process::stop(&paths.directory, gateway::NAME, "TERM", Duration::from_secs(3)).await?;
    emulator::stop(paths).await?;
    podman::remove_containers(paths).await?;
    tokio::try_join!(podman::stop(paths), redis::stop(paths), postgres::stop(paths))?;
    Ok(())
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| {
        text.lines()
            .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    })
}
