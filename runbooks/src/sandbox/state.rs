//! What a sandbox remembers between runs, and where its files lie.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Error;
use super::network::Network;
use super::{Running, Settings, certificates, process};

/// What is remembered between runs, in `DIR/sandbox.json`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    /// The emulator's own port, chosen at the first start.
    pub(crate) emulator_port: u16,
    /// Third octet of the sandbox's subnet.
    network: u8,
}

impl State {
    pub(super) fn load(paths: &Paths) -> Result<Option<Self>, Error> {
        let path = paths.state();
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| Error::State { path, reason: e.to_string() }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    /// A new state; a former one of the same directory keeps its network and port.
    pub(super) async fn create(
        paths: &Paths,
        settings: Settings,
        former: Option<Self>,
    ) -> Result<Self, Error> {
        let state = match former {
            Some(former) => Self { settings, ..former },
            None => Self {
                emulator_port: process::free_port()?,
                network: Network::allocate(&paths.directory.to_string_lossy()).await?.0,
                settings,
            },
        };
        let text = serde_json::to_string_pretty(&state)
            .map_err(|e| Error::State { path: paths.state(), reason: e.to_string() })?;
        write(&paths.state(), &text)?;
        Ok(state)
    }

    pub(crate) fn network(&self) -> Network {
        Network(self.network)
    }

    pub(super) fn as_running(&self, paths: &Paths) -> Running {
        Running {
            url: format!("http://127.0.0.1:{}", self.settings.port),
            endpoint_url: format!("http://127.0.0.1:{}", self.settings.gateway_port),
            ca_pem: paths.directory.join(certificates::AUTHORITY),
            bridge_address: self.network().gateway(),
        }
    }
}

/// Where things lie.
#[derive(Clone)]
pub(crate) struct Paths {
    /// The sandbox directory, absolute.
    pub(crate) directory: PathBuf,
    /// Sockets, whose paths must be short, and what must not outlive a reboot.
    pub(crate) runtime: PathBuf,
}

impl Paths {
    pub(crate) fn of(directory: &Path) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let id = hex::encode(&Sha256::digest(directory.as_os_str().as_encoded_bytes())[..6]);
        Self { directory, runtime: PathBuf::from("/run/bme").join(id) }
    }

    /// Private to root: PostgreSQL's socket asks for no password.
    pub(super) fn create(&self) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        for path in [
            self.directory.clone(),
            self.directory.join("log"),
            self.directory.join("run"),
            self.certificates(),
        ] {
            std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.runtime)
            .map_err(|e| Error::io("create", &self.runtime, e))
    }

    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("sandbox.json")
    }

    pub(super) fn certificates(&self) -> PathBuf {
        self.directory.join("certificates")
    }

    pub(super) fn podman(&self) -> PathBuf {
        self.directory.join("podman")
    }

    pub(super) fn containers_conf(&self) -> PathBuf {
        self.podman().join("containers.conf")
    }

    pub(super) fn storage(&self) -> PathBuf {
        self.podman().join("storage")
    }

    /// The hosts file on which every container's is based.
    pub(super) fn hosts(&self) -> PathBuf {
        self.directory.join("hosts")
    }
}

/// Takes an exclusive lock that ends with the returned file (or with the process).
pub(super) async fn lock_file(path: &Path) -> Result<std::fs::File, Error> {
    let path = path.to_owned();
    let failed = path.clone();
    tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    })
    .await
    .unwrap_or_else(|e| Err(std::io::Error::other(e)))
    .map_err(|e| Error::io("lock", &failed, e))
}

/// Writes a file whole: a reader sees the old text or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| Error::io("write", path, e))
}

/// Removes a file or a directory with all that is in it; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// As [`write`], readable by the owner only.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| Error::io("write", path, e))
}
