//! ministack: the independent AWS emulator that is the sandbox's control plane and registry.

use std::time::Duration;

use super::error::Error;
use super::process::{self, Daemon};
use super::{Paths, State, podman, write};

pub(super) const NAME: &str = "emulator";

/// Starts the emulator with containers for ECS only: databases and caches are the sandbox's own
/// PostgreSQL and Redis, so the emulator must not look for images of them. `SimulatePrincipalPolicy`
/// is completed: the emulator's own looks at the first resource only and leaves the context out. Flow
/// logs keep the tags that they are made with.
const START: &str = include_str!("emulator/start.py");

/// True when the emulator died before it wrote its account, as when the machine lost power: it
/// would begin with none, but with the buckets' files.
pub(super) fn has_lost_its_account(paths: &Paths) -> bool {
    process::running(&paths.directory, NAME).is_none() && home(paths).join("unsaved").exists()
}

/// Starts the emulator and waits until it answers.
pub(super) async fn start(
    paths: &Paths,
    state: &State,
    python: &std::path::Path,
) -> Result<(), Error> {
    process::check_port_free("127.0.0.1", state.emulator_port)?;
    let home = home(paths);
    let temporary = home.join("tmp");
    std::fs::create_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let script = home.join("start.py");
    write(&script, START)?;
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let environment = vec![
        ("BIND_HOST".into(), "127.0.0.1".into()),
        ("GATEWAY_PORT".into(), state.emulator_port.to_string()),
        ("DOCKER_HOST".into(), format!("unix://{}", podman::socket(paths))),
        ("MINISTACK_ACCOUNT_ID".into(), state.settings.account.clone()),
        ("MINISTACK_REGION".into(), state.settings.region.clone()),
        ("PERSIST_STATE".into(), "1".into()),
        ("STATE_DIR".into(), text(home.join("state"))),
        ("S3_PERSIST".into(), "1".into()),
        ("S3_DATA_DIR".into(), text(home.join("s3"))),
        ("TMPDIR".into(), text(temporary)),
        // No further listeners.
        ("IOT_MTLS_ENABLED".into(), "0".into()),
        ("SFTP_ENABLED".into(), "0".into()),
        ("PYTHONUNBUFFERED".into(), "1".into()),
    ];
    let command = vec![text(python.to_owned()), text(script)];
    Daemon { name: NAME, command, environment }.start(&paths.directory)?;
    process::wait_until(&paths.directory, NAME, 60, || ready(state)).await
}

/// True when the emulator takes connections: it listens once it has restored its state.
pub(super) async fn ready(state: &State) -> bool {
    tokio::net::TcpStream::connect(("127.0.0.1", state.emulator_port)).await.is_ok()
}

/// Ends the emulator, which writes its state first.
pub(super) async fn stop(paths: &Paths) -> Result<(), Error> {
    process::stop(&paths.directory, NAME, "TERM", Duration::from_secs(30)).await
}

fn home(paths: &Paths) -> std::path::PathBuf {
    paths.directory.join("emulator")
}
