//! podman's Docker-compatible API socket, with storage, network and configuration of the
//! sandbox's own: what one sandbox's emulator starts, no other sandbox sees.

use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::process::{self, Daemon};
use super::{Paths, State, write};

pub(super) const NAME: &str = "podman";

/// Writes the configuration and starts the API service.
pub(super) async fn start(paths: &Paths, state: &State) -> Result<(), Error> {
    configure(paths, state)?;
    let mut command = base(paths);
    command.extend(["system", "service", "--time=0"].map(str::to_owned));
    command.push(format!("unix://{}", socket(paths)));
    let _ = std::fs::remove_file(socket(paths));
    Daemon { name: NAME, command, environment: environment(paths) }.start(&paths.directory)?;
    process::wait_until(&paths.directory, NAME, 60, || ready(paths)).await.map_err(|error| {
        match error {
            Error::NotReady { log, .. } => Error::Podman { reason: log },
            other => other,
        }
    })
}

/// True when the API socket takes connections.
pub(super) async fn ready(paths: &Paths) -> bool {
    tokio::net::UnixStream::connect(socket(paths)).await.is_ok()
}

/// Stops and removes every container of this sandbox.
pub(super) async fn remove_containers(paths: &Paths) -> Result<(), Error> {
    if !paths.containers_conf().exists() {
        return Ok(());
    }
    let mut command = base(paths);
    command.extend(["rm", "--all", "--force", "--time", "2", "--volumes"].map(str::to_owned));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let variables = environment(paths);
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    process::run_with(&words, &variables, None).await.map(drop)
}

/// Ends the service; the containers must have been removed before.
pub(super) async fn stop(paths: &Paths) -> Result<(), Error> {
    process::stop(&paths.directory, NAME, "TERM", Duration::from_secs(5)).await?;
    // The storage's own mount, which keeps the directory from being removed.
    let _ = process::run(&["umount", &paths.storage().join("overlay").to_string_lossy()]).await;
    Ok(())
}

/// Ends the monitors of `exec` sessions, which outlive their containers: the API keeps them for
/// minutes, in case somebody asks for an exit code.
pub(super) async fn stop_monitors(paths: &Paths) {
    let storage = paths.storage().to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("conmon") && line.contains(&storage) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let _ = process::run(&["sh", "-c", "kill -s KILL \"$0\"", &pid]).await;
        }
    }
}

/// Path of the API socket, for `DOCKER_HOST`.
pub(super) fn socket(paths: &Paths) -> String {
    paths.runtime.join("podman.sock").to_string_lossy().into_owned()
}

fn base(paths: &Paths) -> Vec<String> {
    vec![
        "podman".into(),
        "--root".into(),
        paths.storage().to_string_lossy().into_owned(),
        "--runroot".into(),
        paths.runtime.join("containers").to_string_lossy().into_owned(),
    ]
}

fn environment(paths: &Paths) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    vec![
        ("CONTAINERS_CONF".into(), text(&paths.containers_conf())),
        ("CONTAINERS_REGISTRIES_CONF".into(), text(&paths.podman().join("registries.conf"))),
        // No credentials of the user: the sandbox's registry asks for none.
        ("REGISTRY_AUTH_FILE".into(), text(&paths.podman().join("auth.json"))),
    ]
}

fn configure(paths: &Paths, state: &State) -> Result<(), Error> {
    let networks = paths.podman().join("networks");
    std::fs::create_dir_all(&networks).map_err(|e| Error::io("create", &networks, e))?;
    let (network, bridge, gateway) =
        (state.network(), state.network().bridge(), state.network().gateway());
    write(&networks.join(format!("{bridge}.json")), &network.definition().to_string())?;

    // runc, cgroupfs and limits inside our own: they work in virtual machines and privileged
    // containers too, where crun, systemd and raised limits do not.
    let configuration = format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
base_hosts_file = "{hosts}"
host_containers_internal_ip = "{gateway}"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 1
lock_type = "file"
tmp_dir = "{temporary}"
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
default_network = "{bridge}"
default_subnet = "{subnet}"
"#,
        hosts = paths.hosts().display(),
        temporary = paths.runtime.join("libpod").display(),
        networks = networks.display(),
        subnet = network.subnet(),
    );
    write(&paths.containers_conf(), &configuration)?;

    // Containers' images come straight from the emulator's registry: pulls are no work of bme.
    let registries = format!(
        "[[registry]]\nprefix = \"{account}.dkr.ecr.{region}.amazonaws.com\"\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n",
        account = state.settings.account,
        region = state.settings.region,
        port = state.emulator_port,
    );
    write(&paths.podman().join("registries.conf"), &registries)?;
    write(&paths.podman().join("auth.json"), "{}")?;
    // podman refuses to pull without a policy; distributions put one there only with extras.
    let policy = Path::new("/etc/containers/policy.json");
    if !policy.exists() {
        std::fs::create_dir_all("/etc/containers").map_err(|e| Error::io("create", policy, e))?;
        write(policy, "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}\n")?;
    }
    Ok(())
}
