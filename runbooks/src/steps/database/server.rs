//! What serves the database: an instance, or a cluster of Aurora. What they have in common.

use serde_json::Value;

use super::{cluster::DbCluster, instance::DbInstance};
use crate::engine::{Error, Handle, Outputs, ResourceId};

/// The name of an instance in its id.
pub(super) const INSTANCE: &str = "instance";
/// The name of a cluster in its id.
pub(super) const CLUSTER: &str = "cluster";

/// A reference to it.
#[derive(Clone)]
pub enum DbServer {
    /// An instance of RDS for `PostgreSQL`.
    Instance(Handle<DbInstance>),
    /// A cluster of Aurora.
    Cluster(Handle<DbCluster>),
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbServerOutput {
    /// Its identifier.
    pub id: String,
    /// ARN.
    pub arn: String,
    /// Host name, of a cluster its writer's; empty until it is known.
    pub endpoint: String,
    /// Port.
    pub port: i32,
    /// ARN of the secret `{"username", "password"}` of the master user; empty until it is known.
    pub master_secret_arn: String,
    pub(super) deletion_protection: bool,
    /// When it was made, seconds since 1970.
    pub(super) created: i64,
    /// GiB that an instance has, or is about to have; a cluster's storage is as large as its data.
    pub(super) storage_gib: i32,
    /// When the master user's secret was changed last, seconds since 1970.
    pub(super) secret_changed: i64,
}

impl DbServerOutput {
    /// The name of its last snapshot: the same however often a deletion is called, another one for
    /// the next server of the name.
    pub(super) fn final_snapshot(&self) -> String {
        format!("{}-final-{}", self.id, self.created)
    }
}

impl DbServer {
    /// Its id.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Instance(instance) => instance.id(),
            Self::Cluster(cluster) => cluster.id(),
        }
    }

    /// What it puts out; an error when it does not exist.
    pub fn get(&self, outputs: &Outputs) -> Result<DbServerOutput, Error> {
        match self {
            Self::Instance(instance) => outputs.get(instance),
            Self::Cluster(cluster) => outputs.get(cluster),
        }
    }
}

/// Nothing of ours can mend the server `name`, and what it holds must not be lost by trying;
/// `operation` told of its status.
pub(super) fn broken(operation: &str, name: &str, status: &Value) -> Error {
    let status = status.as_str().unwrap_or_default();
    Error::fatal(operation, "database-broken", format!("`{name}` is {status}")).with_hint(
        "it is left alone, since it may hold data: its events in the RDS console say why; mend that \
         or restore a snapshot, then run the command again",
    )
}

/// A state that no waiting ends ("Viewing DB instance status", RDS user guide; of clusters "Viewing DB
/// cluster status", Aurora user guide).
pub(super) fn is_broken(status: &str) -> bool {
    matches!(
        status,
        "failed"
            | "restore-error"
            | "insufficient-capacity"
            | "cloning-failed"
            | "migration-failed"
    ) || status.starts_with("incompatible-")
        || status.starts_with("inaccessible-encryption-credentials")
}

/// The major version of `version`: minor ones move by themselves.
pub(super) fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}
