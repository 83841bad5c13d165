//! Why a release did not happen, what is left, and what to do.

use std::path::PathBuf;

use crate::engine;

/// Why a deploy or a rollback failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed. Nothing more is known than what it says.
    #[error(transparent)]
    Call(#[from] Box<engine::Error>),
    /// The build failed; nothing was shipped.
    #[error("{what} failed: {reason}")]
    Build {
        /// What was built.
        what: &'static str,
        /// The last lines of the build, or why it did not start.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A file of the source could not be read; nothing was shipped.
    #[error("`{}` can't be read: {reason}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tag names another image in the repository already; nothing was shipped.
    #[error("tag `{tag}` names the image {existing} already, this source gives {built}")]
    TagTaken {
        /// The tag.
        tag: String,
        /// Digest in the repository.
        existing: String,
        /// Digest of this source.
        built: String,
    },
    /// The repository does not hold the image of a release; nothing was changed.
    #[error("the repository holds no image {digest}")]
    ImageGone {
        /// The digest.
        digest: String,
    },
    /// Secrets Manager no longer has the versions of secrets that a release ran with; nothing was changed.
    #[error("`{tag}` ran with {}, which Secrets Manager has deleted", versions.join(", "))]
    SecretsGone {
        /// The release.
        tag: String,
        /// Digest of its image.
        digest: String,
        /// Each version, with the secret's name.
        versions: Vec<String>,
    },
    /// The migration did not end with exit code 0; the services run what they ran before.
    #[error("the migration of `{tag}` failed: {reason}")]
    Migration {
        /// The release.
        tag: String,
        /// The task's own reason.
        reason: String,
        /// Its last log lines.
        log: Vec<String>,
    },
    /// The new tasks of a service don't run.
    #[error("{service}: {reason}")]
    Rollout {
        /// The service.
        service: String,
        /// The tasks' own reason, or what was still missing at the deadline.
        reason: String,
        /// The last log lines of the task.
        log: Vec<String>,
    },
    /// The new release did not come up; the one before runs again.
    #[error("release `{tag}` failed and `{restored}` runs again: {cause}")]
    RolledBack {
        /// The release that failed.
        tag: String,
        /// The release that runs.
        restored: String,
        /// Why it failed.
        cause: Box<Error>,
    },
    /// The new release did not come up, and neither did the one before.
    #[error("release `{tag}` failed: {cause}; restoring `{previous}` failed too: {restore}")]
    NotRestored {
        /// The release that failed.
        tag: String,
        /// The release before.
        previous: String,
        /// Why the new one failed.
        cause: Box<Error>,
        /// Why the old one did not come back.
        restore: Box<Error>,
    },
    /// The first release did not come up; there is none to go back to.
    #[error("the first release `{tag}` failed: {cause}")]
    FirstFailed {
        /// The release.
        tag: String,
        /// Why.
        cause: Box<Error>,
    },
    /// No record of that release.
    #[error("there is no release `{tag}`")]
    NoSuchRelease {
        /// The tag.
        tag: String,
        /// Tags that there are, newest first.
        known: Vec<String>,
    },
    /// No release before the one that runs.
    #[error("there is no earlier release to go back to")]
    NothingBefore,
    /// Ctrl-C before the services were touched, or while they were changed.
    #[error("interrupted before {before}: {left}")]
    Interrupted {
        /// What had not begun.
        before: &'static str,
        /// In which state everything was left.
        left: &'static str,
    },
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        Self::Call(Box::new(error))
    }
}

impl Error {
    /// The next command or setting to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Call(error) => return error.hint.clone(),
            Self::Build { hint, .. } => hint.clone(),
            Self::Source { .. } => "run the command in the project's directory".into(),
            Self::TagTaken { existing, .. } => format!(
                "a tag names one image for ever: use a new tag, or ship what it names with `--image {existing}`"
            ),
            Self::ImageGone { .. } => {
                "its image has expired from the repository: deploy its git tag again".into()
            }
            Self::SecretsGone { tag, digest, .. } => format!(
                "check `{tag}` out and run it with today's secrets: `bme deploy --tag {tag} --image {digest}`"
            ),
            Self::Migration { .. } => {
                "the services run what they ran before: mend the migration and deploy again".into()
            }
            Self::Rollout { .. } => "the log group of the service in CloudWatch shows more".into(),
            Self::RolledBack { cause, .. } => return cause.hint(),
            Self::NotRestored { .. } => {
                "the services are between two releases: mend the cause, then `bme rollback` or `bme deploy`".into()
            }
            Self::FirstFailed { .. } => "mend the cause and deploy again".into(),
            Self::NoSuchRelease { known, .. } if known.is_empty() => {
                "nothing has been deployed yet: `bme deploy --tag TAG`".into()
            }
            Self::NoSuchRelease { known, .. } => format!("there are {}", known.join(", ")),
            Self::NothingBefore => "`bme releases` lists what there is".into(),
            Self::Interrupted { .. } => "run the command again: it goes on where things are".into(),
        })
    }

    /// The last log lines of the task that failed; empty when no task did.
    pub fn log(&self) -> &[String] {
        match self {
            Self::Migration { log, .. } | Self::Rollout { log, .. } => log,
            Self::RolledBack { cause, .. }
            | Self::NotRestored { cause, .. }
            | Self::FirstFailed { cause, .. } => cause.log(),
            _ => &[],
        }
    }
}
