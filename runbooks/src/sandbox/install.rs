//! Finds the programs the sandbox is made of, and installs what is missing: from the
//! distribution when we are root on Debian or Ubuntu, the emulator from `PyPI` into a virtual
//! environment that all sandboxes of a user share.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::process;

/// Version of the emulator everything here was checked against.
const EMULATOR: &str = "ministack==1.5.33";
/// What the emulator needs for CBOR (CloudWatch), TLS material and the container socket.
const EMULATOR_EXTRAS: [&str; 3] = ["cbor2==6.3.0", "cryptography==50.0.2", "docker==7.2.0"];

/// Programs by the distribution's package that brings them.
const PACKAGES: [(&str, &str); 10] = [
    ("podman", "podman"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("haproxy", "haproxy"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("psql", "postgresql-client"),
    ("python3", "python3"),
    ("unshare", "util-linux"),
];

/// Where the programs are that are not simply on the path.
pub(super) struct Programs {
    /// Directory of `postgres` and `initdb`.
    pub postgres: PathBuf,
    /// Python interpreter of the emulator's virtual environment.
    pub python: PathBuf,
}

/// The distribution's packages of what is not there.
pub(super) fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if postgres_directory().is_none() {
        missing.push("postgresql");
    }
    if !netavark().is_some_and(|path| path.exists()) {
        missing.extend(["netavark", "aardvark-dns"]);
    }
    missing
}

/// Whether this system has the installer that [`ensure`] uses.
pub(super) fn can_install() -> bool {
    find("apt-get").is_some()
}

/// Finds everything, after installing what is missing.
pub(super) async fn ensure(progress: &(dyn Fn(&str) + Send + Sync)) -> Result<Programs, Error> {
    let missing = missing();
    if !missing.is_empty() {
        progress(&format!("installing {}", missing.join(", ")));
        install_packages(&missing).await?;
    }
    Ok(Programs {
        postgres: postgres_directory().ok_or_else(|| not_found("postgres", "postgresql"))?,
        python: ensure_emulator(progress).await?,
    })
}

/// The full path of `program`, looked for where a login shell of root would.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| candidate.is_file())
}

fn netavark() -> Option<PathBuf> {
    ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// The newest installed PostgreSQL; Debian keeps the server's programs off the path.
fn postgres_directory() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).or_else(|| {
        let directory = find("postgres")?.parent()?.to_owned();
        directory.join("initdb").is_file().then_some(directory)
    })
}

async fn install_packages(packages: &[&str]) -> Result<(), Error> {
    let mend = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let refuse = |reason: String| Error::MissingTool {
        tool: packages.join(", "),
        reason,
        mend: mend.clone(),
    };
    if !can_install() {
        return Err(refuse("this is not a Debian or Ubuntu system (no apt-get)".into()));
    }
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let mut install = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    // Nothing may start by itself and take the ports: the sandbox runs its own processes.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let own_policy = !policy.exists();
    if own_policy {
        let _ = std::fs::write(policy, "#!/bin/sh\nexit 101\n");
        let _ = process::run(&["chmod", "755", "/usr/sbin/policy-rc.d"]).await;
    }
    install.extend(packages);
    // A second attempt with fresh package lists, which a new machine or container lacks.
    let mut result = process::run_with(&install, &quiet, None).await;
    if result.is_err() {
        result = match process::run_with(&["apt-get", "update"], &quiet, None).await {
            Ok(_) => process::run_with(&install, &quiet, None).await,
            Err(error) => Err(error),
        };
    }
    if own_policy {
        let _ = std::fs::remove_file(policy);
    }
    result.map(drop).map_err(|error| match error {
        full @ Error::NoSpace { .. } => full,
        other => refuse(other.to_string()),
    })
}

/// The emulator's Python; the virtual environment is made once per user and version.
async fn ensure_emulator(progress: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let cache = cache_directory();
    std::fs::create_dir_all(&cache).map_err(|e| Error::io("create", &cache, e))?;
    let environment = cache.join(EMULATOR.replace("==", "-"));
    let python = environment.join("bin/python");
    let complete = environment.join("complete");
    if complete.exists() && python.exists() {
        return Ok(python);
    }
    // Sandboxes that start at the same time install it once.
    let _guard = super::lock_file(&cache.join("install.lock")).await?;
    if complete.exists() && python.exists() {
        return Ok(python);
    }
    progress(&format!("installing {EMULATOR} into {}", environment.display()));
    let directory = environment.to_string_lossy().into_owned();
    let interpreter = python.to_string_lossy().into_owned();
    let mut install = vec![
        interpreter.as_str(),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        EMULATOR,
    ];
    install.extend(EMULATOR_EXTRAS);
    let refuse = |error: Error| match error {
        full @ Error::NoSpace { .. } => full,
        other => Error::MissingTool {
            tool: EMULATOR.into(),
            reason: other.to_string(),
            mend: format!(
                "python3 -m venv {directory} && {} && touch {}",
                install.join(" "),
                complete.display()
            ),
        },
    };
    let make = ["python3", "-m", "venv", "--clear", directory.as_str()];
    if process::run(&make).await.is_err() {
        // Debian ships the module without the part that installs pip.
        progress("installing python3-venv");
        install_packages(&["python3-venv"]).await?;
        process::run(&make).await.map_err(refuse)?;
    }
    process::run(&install).await.map_err(refuse)?;
    std::fs::write(&complete, EMULATOR).map_err(|e| Error::io("write", &complete, e))?;
    Ok(python)
}

/// `$XDG_CACHE_HOME/bme`, else `~/.cache/bme`.
fn cache_directory() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/var/cache"));
    base.join("bme")
}

fn not_found(tool: &str, package: &str) -> Error {
    Error::MissingTool {
        tool: tool.into(),
        reason: "the package is there but its programs are not in a known place".into(),
        mend: format!("apt-get install {package}"),
    }
}
