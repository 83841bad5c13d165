//! How a command ends.

use std::{io, path::PathBuf, process::ExitCode};

use bme_runbooks::{
    engine,
    environment::Problem,
    sandbox,
    session::{LOCKED, RunError, SessionError},
};

/// The exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Bad usage, or an environment file that is not valid.
    Invalid = 2,
    /// `plan --check` found changes.
    Changes = 3,
    /// Another run holds the lock.
    Locked = 4,
    /// A deploy failed and the release before runs again.
    RolledBack = 5,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::Invalid,
        Self::Changes,
        Self::Locked,
        Self::RolledBack,
        Self::Interrupted,
    ];

    /// What it means and what to do then.
    pub(crate) fn about(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("everything was done, or there was nothing to do", "go on"),
            Self::Failed => (
                "something failed; what did not need it is done and stays",
                "mend what the error names and run the same command again: it goes on where it stopped",
            ),
            Self::Invalid => (
                "bad usage, or an environment file that is not valid; nothing was begun",
                "mend what the message names; `bme COMMAND --help` tells the flags",
            ),
            Self::Changes => (
                "`bme plan --check` found something to change; nothing was changed",
                "read the plan, then run `bme provision`",
            ),
            Self::Locked => (LOCKED.cause, LOCKED.mend),
            Self::RolledBack => (
                "the release did not come up, and the one before it runs again",
                "read the task's last log lines in the output, mend the cause, deploy again",
            ),
            Self::Interrupted => (
                "Ctrl-C or SIGTERM: what was in flight is finished, nothing new was begun",
                "run the same command again: it goes on where it stopped",
            ),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The command line asks for something that can't be.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The environment file has problems.
    #[error("the environment file has problems")]
    Environment(Vec<Problem>),
    /// Sandbox or AWS did not let us in.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// The run ended early.
    #[error(transparent)]
    Run(Box<RunError>),
    /// A call failed.
    #[error(transparent)]
    Aws(Box<engine::Error>),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The saved plan is not what would be done now.
    #[error("things have changed since {} was written", .0.display())]
    StalePlan(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {what}: {source}")]
    Io {
        /// `write x.toml`.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The answer was no.
    #[error("nothing was done")]
    Declined,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl From<SessionError> for Stop {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

impl From<engine::Error> for Stop {
    fn from(error: engine::Error) -> Self {
        Self::Aws(Box::new(error))
    }
}

impl Stop {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Environment(_) => Exit::Invalid,
            Self::Interrupted => Exit::Interrupted,
            Self::Run(error) => match **error {
                RunError::Locked(_) => Exit::Locked,
                RunError::RolledBack(_) => Exit::RolledBack,
                RunError::DataLoss(_) | RunError::Protected(_) => Exit::Invalid,
                RunError::Interrupted => Exit::Interrupted,
                _ => Exit::Failed,
            },
            _ => Exit::Failed,
        }
    }
}
