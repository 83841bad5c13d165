//! State of the operations that the gateway adds, by account and region, in `DIR/gateway.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identify::Scope;
use crate::sandbox::error::Error;
use crate::sandbox::{Paths, write_private};

/// What one account has in one region beyond the emulator.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Regional {
    /// X-Ray groups by name.
    pub(super) groups: BTreeMap<String, Value>,
    /// X-Ray sampling rule records by name.
    pub(super) sampling_rules: BTreeMap<String, Value>,
    /// Scalable targets by namespace, resource and dimension.
    pub(super) scalable_targets: BTreeMap<String, Value>,
    /// Scaling policies by target and name.
    pub(super) scaling_policies: BTreeMap<String, Value>,
    /// WAF logging configurations by the web ACL's ARN.
    pub(super) waf_logging: BTreeMap<String, Value>,
    /// Tags of all of these, by ARN.
    pub(super) tags: BTreeMap<String, BTreeMap<String, String>>,
    /// VPC endpoints.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    /// RDS instances that are no members of a cluster.
    pub(super) databases: BTreeMap<String, Database>,
    /// Clusters of Aurora.
    pub(super) clusters: BTreeMap<String, Database>,
    /// RDS instances that are members of a cluster.
    pub(super) cluster_instances: BTreeSet<String>,
    /// RDS Proxies.
    pub(super) proxies: BTreeSet<String>,
    /// ElastiCache replication groups with their AUTH tokens, the newest last.
    pub(super) caches: BTreeMap<String, Vec<String>>,
}

/// What the emulator does not keep of an RDS instance or cluster.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Database {
    pub(super) master_user: String,
    /// The database made with it.
    pub(super) initial: Option<String>,
    /// Of the managed master user password.
    pub(super) secret_arn: Option<String>,
    pub(super) log_exports: BTreeSet<String>,
}

/// What the emulator does not keep of an interface VPC endpoint.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) groups: BTreeSet<String>,
    pub(super) private_dns: bool,
}

/// All of it, written on every change.
pub(super) struct Additions {
    path: PathBuf,
    regions: Mutex<BTreeMap<String, Regional>>,
}

impl Additions {
    pub(super) fn load(paths: &Paths) -> Result<Self, Error> {
        let path = paths.directory.join("gateway.json");
        let regions = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| Error::State { path: path.clone(), reason: e.to_string() })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        Ok(Self { path, regions: Mutex::new(regions) })
    }

    /// Reads what `scope` has.
    pub(super) fn read<R>(&self, scope: &Scope, read: impl FnOnce(&Regional) -> R) -> R {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        match regions.get(&key(scope)) {
            Some(regional) => read(regional),
            None => read(&Regional::default()),
        }
    }

    /// Changes what `scope` has and writes it down.
    pub(super) fn change<R>(&self, scope: &Scope, change: impl FnOnce(&mut Regional) -> R) -> R {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(regions.entry(key(scope)).or_default());
        self.write(&regions);
        result
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.clear();
        self.write(&regions);
    }

    /// Region and additions of every scope.
    pub(super) fn all(&self) -> Vec<(String, Regional)> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let region = |key: &String| {
            key.split_once('/').map_or_else(String::new, |(_, region)| region.to_owned())
        };
        regions.iter().map(|(key, regional)| (region(key), regional.clone())).collect()
    }

    fn write(&self, regions: &BTreeMap<String, Regional>) {
        let written = serde_json::to_string(regions)
            .map_err(|e| Error::State { path: self.path.clone(), reason: e.to_string() })
            .and_then(|text| write_private(&self.path, &text));
        if let Err(error) = written {
            // The call has had its effect; only a restart of the gateway would lose it.
            tracing::error!(%error, "the gateway's state was not written");
        }
    }
}

fn key(scope: &Scope) -> String {
    format!("{}/{}", scope.account, scope.region)
}
