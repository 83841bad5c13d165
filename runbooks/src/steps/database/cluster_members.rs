//! The members of a cluster as RDS describes them, and what follows from them.

use aws_sdk_rds::{
    primitives::DateTime,
    types::{ClusterPendingModifiedValues, DbCluster as LiveCluster},
};
use serde_json::{Value, json};

use super::server::{DbServerOutput, is_broken, major};
use crate::{
    aws::rds::live_tags,
    engine::Condition,
    prices::{Item, Prices},
    steps::network::POSTGRES_PORT,
};

/// Whether a modification of the cluster changes the member.
pub(super) fn is_modified(path: &str) -> bool {
    !path.starts_with("tags")
        && !matches!(path, "automaticallyAfterDays" | "status" | "formerParameterGroups")
}

/// Whether a change, or one to another version, is under way.
pub(super) fn is_changing(cluster: &LiveCluster) -> bool {
    let pending = cluster.pending_modified_values();
    let status = cluster.status().unwrap_or_default();
    (status != "available" && !is_broken(status))
        || pending.is_some_and(|pending| pending.engine_version().is_some())
}

/// What others need of it.
pub(super) fn output(cluster: &LiveCluster) -> DbServerOutput {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    DbServerOutput {
        id: text(cluster.db_cluster_identifier()),
        arn: text(cluster.db_cluster_arn()),
        endpoint: text(cluster.endpoint()),
        port: cluster.port().unwrap_or(POSTGRES_PORT),
        master_secret_arn: text(
            cluster.master_user_secret().and_then(|secret| secret.secret_arn()),
        ),
        deletion_protection: cluster.deletion_protection().unwrap_or_default(),
        created: cluster.cluster_create_time().map_or(0, DateTime::secs),
        storage_gib: 0,
        secret_changed: 0,
    }
}

/// The members of desired as they are, or as they are about to be: a change under way is no
/// difference.
pub(super) fn properties(cluster: &LiveCluster, rotation_days: Option<i64>) -> Value {
    let pending = cluster.pending_modified_values();
    let version = pending.and_then(|p| p.engine_version()).or(cluster.engine_version());
    let retention = pending.and_then(ClusterPendingModifiedValues::backup_retention_period);
    let groups = cluster.vpc_security_groups().iter();
    let mut groups: Vec<_> = groups.filter_map(|group| group.vpc_security_group_id()).collect();
    groups.sort_unstable();
    json!({
        "engine": cluster.engine(),
        "status": cluster.status().filter(|status| is_broken(status)).unwrap_or("available"),
        "engineVersion": version.map(major),
        "databaseName": cluster.database_name(),
        "masterUsername": cluster.master_username(),
        "manageMasterUserPassword": cluster.master_user_secret().is_some(),
        "automaticallyAfterDays": rotation_days,
        "storageEncrypted": cluster.storage_encrypted(),
        "backupRetentionPeriod": retention.or(cluster.backup_retention_period()),
        "deletionProtection": cluster.deletion_protection(),
        "copyTagsToSnapshot": cluster.copy_tags_to_snapshot(),
        "dbSubnetGroup": cluster.db_subnet_group(),
        "dbClusterParameterGroup": cluster.db_cluster_parameter_group(),
        "vpcSecurityGroupIds": groups,
        "tags": live_tags(cluster.tag_list()),
    })
}

/// "Viewing DB cluster status", Aurora user guide. What serves while it is being changed or backed up
/// is usable. Only a cluster that never came to be holds nothing and is made again; one that is broken
/// otherwise shows it as a member that differs.
pub(super) fn condition(cluster: &LiveCluster) -> Condition {
    let status = cluster.status().unwrap_or_default();
    let never_was =
        cluster.cluster_create_time().is_none() && cluster.latest_restorable_time().is_none();
    match status {
        "available" => Condition::Ready,
        "deleting" => Condition::Deleting(status.into()),
        "failed" if never_was => Condition::Failed(status.into()),
        status if is_broken(status) => Condition::Usable,
        "backing-up"
        | "failing-over"
        | "maintenance"
        | "modifying"
        | "promoting"
        | "resetting-master-credentials"
        | "storage-optimization"
        | "update-iam-db-auth" => Condition::Usable,
        _ => Condition::Pending(status.into()),
    }
}

/// The secret that RDS keeps the master user's password in. Instances are paid for themselves, storage
/// and requests to it by their use.
pub(super) fn monthly_cost(prices: Prices, properties: &Value) -> Option<f64> {
    let secrets = if properties["manageMasterUserPassword"] == true { 1.0 } else { 0.0 };
    Some(secrets * prices.monthly(Item::Secret)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_under_way_is_no_difference() {
        let pending = ClusterPendingModifiedValues::builder()
            .engine_version("16.4")
            .backup_retention_period(7)
            .build();
        let cluster = LiveCluster::builder()
            .engine_version("15.7")
            .backup_retention_period(1)
            .pending_modified_values(pending)
            .build();
        let properties = properties(&cluster, None);
        assert_eq!(properties["engineVersion"], "16");
        assert_eq!(properties["backupRetentionPeriod"], 7);
    }

    #[test]
    fn a_cluster_that_fails_over_is_usable() {
        let of = |status| condition(&LiveCluster::builder().status(status).build());
        assert_eq!(of("failing-over"), Condition::Usable);
        assert_eq!(of("upgrading"), Condition::Pending("upgrading".into()));
        assert_eq!(of("deleting"), Condition::Deleting("deleting".into()));
    }

    #[test]
    fn only_a_cluster_that_never_was_is_made_again() {
        let failed = LiveCluster::builder().status("failed");
        assert!(matches!(condition(&failed.clone().build()), Condition::Failed(_)));
        let lived = failed.cluster_create_time(DateTime::from_secs(1)).build();
        assert_eq!(condition(&lived), Condition::Usable);
        assert_eq!(properties(&lived, None)["status"], "failed");
    }

    #[test]
    fn a_last_snapshot_has_the_same_name_as_long_as_it_is_the_same_cluster() {
        let of = |seconds| {
            let cluster = LiveCluster::builder().db_cluster_identifier("bme-a-cluster");
            output(&cluster.cluster_create_time(DateTime::from_secs(seconds)).build())
        };
        assert_eq!(of(17).final_snapshot(), "bme-a-cluster-final-17");
        assert_ne!(of(17).final_snapshot(), of(18).final_snapshot());
    }
}
