//! What can go wrong with the sandbox, each with the mend.

use std::path::{Path, PathBuf};

/// A failure of the sandbox. `Display` says what failed and why, [`Error::hint`] the mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens where a part of the sandbox must.
    #[error("address {address} is in use by {holder}")]
    PortInUse {
        /// `host:port`.
        address: String,
        /// The process that holds it, as well as it can be told.
        holder: String,
    },
    /// A program is missing and could not be installed.
    #[error("{tool} is missing and could not be installed: {reason}")]
    MissingTool {
        /// The program or library.
        tool: String,
        /// Why the installation was not possible.
        reason: String,
        /// The command that a person can run instead.
        mend: String,
    },
    /// The file system is full.
    #[error("no space left on the device of {path}")]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The sandbox needs a network bridge and containers, thus root.
    #[error("the sandbox needs root: it makes a network bridge and runs containers")]
    NotRoot,
    /// The sandbox runs on Linux only.
    #[error("the sandbox runs on Linux only: it needs network bridges and containers")]
    NotLinux,
    /// podman is there but cannot run.
    #[error("podman cannot run here: {reason}")]
    Podman {
        /// Its own words.
        reason: String,
    },
    /// A part was started but did not become ready in time.
    #[error("{part} did not become ready within {seconds} s; its last lines:\n{log}")]
    NotReady {
        /// The part's name.
        part: &'static str,
        /// How long was waited.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// A helper program failed.
    #[error("`{program}` failed: {reason}")]
    Command {
        /// The command line, shortened.
        program: String,
        /// The end of its standard error.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done: `write`, `read`, `start`…
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The sandbox's state file cannot be understood.
    #[error("the state file {path} is damaged: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The emulator or the gateway answered with an error to the sandbox's own request.
    #[error("{request}: {reason}")]
    Request {
        /// What was asked.
        request: String,
        /// What came back.
        reason: String,
    },
    /// The sandbox is not running.
    #[error("the sandbox in {directory} is not running")]
    NotRunning {
        /// The sandbox's directory.
        directory: PathBuf,
    },
}

impl Error {
    /// The next command or action that mends this failure.
    pub fn hint(&self) -> String {
        match self {
            Self::PortInUse { .. } => {
                "stop that process, or choose other ports in the [sandbox] table of the environment file".into()
            }
            Self::MissingTool { mend, .. } => mend.clone(),
            Self::NoSpace { path } => format!("free some space on the device of {}", path.display()),
            Self::NotRoot => "run the command with sudo, or inside a virtual machine or container in which you are root".into(),
            Self::NotLinux => "run it in a Linux virtual machine".into(),
            Self::Podman { .. } => {
                "`podman info` shows what is missing; a container needs --privileged to run podman inside".into()
            }
            Self::NotReady { .. } => "`bme sandbox down`, then `bme sandbox up`; the whole log is in the sandbox directory under log/".into(),
            Self::Command { .. } | Self::Io { .. } | Self::Certificate(_) | Self::Request { .. } => {
                "mend the cause and run `bme sandbox up` again: what runs is kept".into()
            }
            Self::State { path, .. } => format!("`bme sandbox down`, remove {} and run `bme sandbox up`", path.display()),
            Self::NotRunning { .. } => "`bme sandbox up`".into(),
        }
    }

    /// Wraps an operating-system error; a full disk gets its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Io { action, path: path.to_owned(), source }
    }
}
