//! Releases: build, ship, run, restore.
//!
//! A release is an image, named by its digest, with what it ran with. [`deploy`](Deploy::deploy)
//! makes one out of the source and [`rollback`](Deploy::rollback) takes an older one from its
//! record; from there on both go the same way.

mod build;
mod deploy;
mod error;
mod image;
mod log;
mod migrate;
mod permissions;
pub mod records;
mod registry;
mod rollout;
mod secrets;
mod tag;
mod web;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{aws::secretsmanager::fingerprint, engine::Fault};

pub(crate) use build::missing_tools;
pub use build::{Built, build};
pub use deploy::{Deploy, Outcome, Phase, Source};
pub use error::Error;
pub use image::{Blob, File, Image};
pub(crate) use permissions::permissions;
pub use registry::Registry;
pub use tag::{BadTag, Tag};

/// The errors of releases.
pub(crate) const FAULTS: &[Fault] =
    &[migrate::WRONG_IMAGE, records::INVALID_RECORD, registry::NO_REPOSITORY];

/// One release record: what a rollback restores, and which versions of the secrets there were. Holds no
/// secret, only version ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The git tag, `v1.2.3`.
    pub tag: String,
    /// `sha256:…` of the image manifest.
    pub digest: String,
    /// Repository URI with the digest, as the task definitions name it.
    pub image: String,
    /// When it was deployed, RFC 3339.
    pub deployed_at: String,
    /// Environment variables that the environment file added to the containers.
    pub configuration: BTreeMap<String, String>,
    /// Version ids of the secrets that the containers read, by secret name. A rollback restores those of
    /// the secrets that belong to the release, and records today's of the others, see
    /// [`compute::Version`](crate::steps::compute::Version).
    pub secret_versions: BTreeMap<String, String>,
    /// Prefix of the web assets in the bucket, `releases/v1.2.3/…`.
    pub web: String,
    /// Highest migration that the release brings.
    pub schema: i64,
}

impl Release {
    /// Whether both run the same: everything but the time.
    pub fn same_as(&self, other: &Self) -> bool {
        Self { deployed_at: String::new(), ..self.clone() }
            == Self { deployed_at: String::new(), ..other.clone() }
    }

    /// When it was deployed, seconds since 1970.
    pub(crate) fn deployed(&self) -> Option<i64> {
        self.deployed_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
    }

    /// What stands in its task definitions for its versions of the secrets of these names. Ids of versions
    /// are no secrets (trap 11), of which this is a hash.
    pub(crate) fn versions_mark<'a>(&self, names: impl Iterator<Item = &'a str>) -> String {
        let versions: BTreeMap<_, _> =
            names.filter_map(|name| Some((name, self.secret_versions.get(name)?))).collect();
        fingerprint(&serde_json::json!(versions).to_string())
    }
}

/// What the graph put out that a release runs on.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Name or ARN of the ECS cluster.
    pub cluster: String,
    /// URI of the ECR repository, without a tag.
    pub repository: String,
    /// Family of the task definition that migrates.
    pub migrate_family: String,
    /// Subnets in which the migration runs, without public addresses.
    pub subnets: Vec<String>,
    /// Security groups with which the migration runs.
    pub security_groups: Vec<String>,
    /// The services that run the release.
    pub services: Vec<Service>,
    /// The secrets that the containers read.
    pub secrets: Vec<Secret>,
    /// The bucket of the web assets.
    pub web_bucket: String,
    /// Base URL under which `/health` and `/ready` of the API answer, without a trailing slash.
    pub url: String,
}

/// One secret that the containers read.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Its name, as the record has it.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Whether they read the version that the record names, not today's.
    pub of_release: bool,
}

/// One ECS service that runs the release.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// ARN of its target group.
    pub target_group: Option<String>,
}

/// How far a deploy or a rollback is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Progress {
    /// A line of the build.
    Building {
        /// As cargo writes it.
        line: String,
    },
    /// The image is made.
    Image {
        /// `sha256:…` of the manifest.
        digest: String,
        /// Size of all blobs, bytes.
        bytes: usize,
    },
    /// One blob of the image is in the repository.
    Pushed {
        /// `sha256:…`.
        digest: String,
        /// Its size, bytes.
        bytes: usize,
        /// It was there before.
        existed: bool,
    },
    /// The migration's task has reached a state.
    Migrating {
        /// Id of the task.
        task: String,
        /// ECS's word.
        status: String,
    },
    /// The web assets of the release are in the bucket.
    Web {
        /// Files uploaded now.
        uploaded: usize,
        /// Files that were there.
        existed: usize,
    },
    /// The release gets versions of secrets that are not today's.
    FormerSecrets {
        /// The release.
        tag: String,
        /// Names of the secrets.
        secrets: Vec<String>,
    },
    /// The services are being changed.
    Applying {
        /// To this release.
        tag: String,
    },
    /// A service has come closer to the release.
    Rollout {
        /// Which.
        service: String,
        /// Tasks wanted.
        desired: i32,
        /// New tasks that run.
        running: i32,
        /// New tasks that the load balancer calls healthy; none without a target group.
        healthy: Option<usize>,
    },
    /// The release failed and the one before is put back.
    Restoring {
        /// The release that is put back.
        tag: String,
        /// Why.
        cause: String,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Building { line } => write!(f, "build: {line}"),
            Self::Image { digest, bytes } => write!(f, "image {digest}, {} KiB", bytes / 1024),
            Self::Pushed { digest, existed: true, .. } => write!(f, "layer {digest} was there"),
            Self::Pushed { digest, bytes, .. } => {
                write!(f, "layer {digest} pushed, {} KiB", bytes / 1024)
            }
            Self::Migrating { task, status } => write!(f, "migration {task}: {status}"),
            Self::Web { uploaded, existed } => {
                write!(f, "web assets: {uploaded} uploaded, {existed} were there")
            }
            Self::FormerSecrets { tag, secrets } => {
                let secrets = secrets.join(", ");
                write!(f, "{tag} has its own versions again, not today's, of {secrets}")
            }
            Self::Applying { tag } => write!(f, "the services change to {tag}"),
            Self::Rollout { service, desired, running, healthy: Some(healthy) } => {
                write!(f, "{service}: {running} of {desired} new tasks run, {healthy} healthy")
            }
            Self::Rollout { service, desired, running, healthy: None } => {
                write!(f, "{service}: {running} of {desired} new tasks run")
            }
            Self::Restoring { tag, cause } => write!(f, "{cause}; {tag} is put back"),
        }
    }
}

/// Who is told how far it is.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);
