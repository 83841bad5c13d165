//! The members of an instance as RDS describes them, and what follows from them.

use aws_sdk_rds::{
    primitives::DateTime,
    types::{DbInstance as LiveInstance, Endpoint, PendingModifiedValues},
};
use serde_json::{Value, json};

use super::server::{DbServerOutput, is_broken, major};
use crate::{
    aws::rds::live_tags,
    engine::Condition,
    prices::{Item, Prices},
    steps::network::POSTGRES_PORT,
};

/// Whether a modification of the instance changes the member.
pub(super) fn is_modified(path: &str) -> bool {
    !path.starts_with("tags")
        && !matches!(path, "automaticallyAfterDays" | "dbInstanceStatus" | "formerParameterGroups")
}

/// Whether a change, or one to another version, is under way.
pub(super) fn is_changing(instance: &LiveInstance) -> bool {
    let pending = instance.pending_modified_values();
    let status = instance.db_instance_status().unwrap_or_default();
    (status != "available" && !is_broken(status))
        || pending.is_some_and(|pending| pending.engine_version().is_some())
}

/// Whether the instance has the parameter group.
pub(super) fn uses(instance: &LiveInstance, parameter_group: &str) -> bool {
    let mut groups = instance.db_parameter_groups().iter();
    groups.any(|group| group.db_parameter_group_name() == Some(parameter_group))
}

/// What others need of it.
pub(super) fn output(instance: &LiveInstance) -> DbServerOutput {
    let endpoint = instance.endpoint();
    let secret = instance.master_user_secret().and_then(|secret| secret.secret_arn());
    DbServerOutput {
        id: instance.db_instance_identifier().unwrap_or_default().to_owned(),
        arn: instance.db_instance_arn().unwrap_or_default().to_owned(),
        endpoint: endpoint.and_then(|e| e.address()).unwrap_or_default().to_owned(),
        port: endpoint.and_then(Endpoint::port).unwrap_or(POSTGRES_PORT),
        master_secret_arn: secret.unwrap_or_default().to_owned(),
        deletion_protection: instance.deletion_protection().unwrap_or_default(),
        created: instance.instance_create_time().map_or(0, DateTime::secs),
        storage_gib: storage_gib(instance).unwrap_or_default(),
        secret_changed: 0,
    }
}

fn storage_gib(instance: &LiveInstance) -> Option<i32> {
    let pending = instance.pending_modified_values();
    pending.and_then(PendingModifiedValues::allocated_storage).or(instance.allocated_storage())
}

/// Storage only grows (RDS user guide, "Increasing DB instance storage capacity"): what has grown beyond
/// the file, by itself or by somebody's hand, stays, and is what is paid for.
pub(super) fn wanted_storage(file: i32, live: Option<i32>) -> i32 {
    live.map_or(file, |live| live.max(file))
}

/// The members of desired as they are, or as they are about to be: a change under way is no
/// difference.
pub(super) fn properties(instance: &LiveInstance, rotation_days: Option<i64>) -> Value {
    let pending = instance.pending_modified_values();
    let version = pending.and_then(|p| p.engine_version()).or(instance.engine_version());
    let groups = instance.vpc_security_groups().iter();
    let mut groups: Vec<_> = groups.filter_map(|group| group.vpc_security_group_id()).collect();
    groups.sort_unstable();
    let parameters = instance.db_parameter_groups().first();
    json!({
        "engine": instance.engine(),
        "dbInstanceStatus": instance
            .db_instance_status()
            .filter(|status| is_broken(status))
            .unwrap_or("available"),
        "engineVersion": version.map(major),
        "dbName": instance.db_name(),
        "masterUsername": instance.master_username(),
        "manageMasterUserPassword": instance.master_user_secret().is_some(),
        "automaticallyAfterDays": rotation_days,
        "dbInstanceClass": pending.and_then(|p| p.db_instance_class()).or(instance.db_instance_class()),
        "allocatedStorage": storage_gib(instance),
        "storageType": pending.and_then(|p| p.storage_type()).or(instance.storage_type()),
        "storageEncrypted": instance.storage_encrypted(),
        "multiAZ": pending.and_then(PendingModifiedValues::multi_az).or(instance.multi_az()),
        "backupRetentionPeriod":
            pending.and_then(PendingModifiedValues::backup_retention_period).or(instance.backup_retention_period()),
        "deletionProtection": instance.deletion_protection(),
        "publiclyAccessible": instance.publicly_accessible(),
        "autoMinorVersionUpgrade": instance.auto_minor_version_upgrade(),
        "copyTagsToSnapshot": instance.copy_tags_to_snapshot(),
        "dbSubnetGroupName": instance.db_subnet_group().and_then(|g| g.db_subnet_group_name()),
        "dbParameterGroupName": parameters.and_then(|group| group.db_parameter_group_name()),
        "vpcSecurityGroupIds": groups,
        "tags": live_tags(instance.tag_list()),
    })
}

/// "Viewing DB instance status", RDS user guide. What serves while it is being changed or backed up
/// is usable. Only an instance that never came to be holds nothing and is made again; one that is
/// broken otherwise shows it as a member that differs.
pub(super) fn condition(instance: &LiveInstance) -> Condition {
    let status = instance.db_instance_status().unwrap_or_default();
    let never_was =
        instance.instance_create_time().is_none() && instance.latest_restorable_time().is_none();
    match status {
        "available" => Condition::Ready,
        "deleting" => Condition::Deleting(status.into()),
        "failed" if never_was => Condition::Failed(status.into()),
        status if is_broken(status) => Condition::Usable,
        "backing-up"
        | "modifying"
        | "storage-optimization"
        | "configuring-enhanced-monitoring"
        | "configuring-iam-database-auth"
        | "configuring-log-exports"
        | "resetting-master-credentials"
        | "converting-to-vpc"
        | "moving-to-vpc"
        | "storage-config-upgrade"
        | "maintenance" => Condition::Usable,
        _ => Condition::Pending(status.into()),
    }
}

/// Instance and storage, each again for a standby, and the secret that RDS keeps the master user's
/// password in.
pub(super) fn monthly_cost(prices: Prices, properties: &Value) -> Option<f64> {
    let instance = prices.monthly(Item::DbInstance(properties["dbInstanceClass"].as_str()?))?;
    let gib = prices.monthly(Item::DbStorage(properties["storageType"].as_str()?))?;
    let storage = properties["allocatedStorage"].as_f64()? * gib;
    let copies = if properties["multiAZ"] == true { 2.0 } else { 1.0 };
    let secrets = if properties["manageMasterUserPassword"] == true { 1.0 } else { 0.0 };
    Some(copies * (instance + storage) + secrets * prices.monthly(Item::Secret)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_under_way_is_no_difference() {
        let instance = LiveInstance::builder()
            .db_instance_class("db.t4g.micro")
            .engine_version("15.7")
            .pending_modified_values(
                PendingModifiedValues::builder().db_instance_class("db.t4g.small").build(),
            )
            .build();
        let properties = properties(&instance, None);
        assert_eq!(properties["dbInstanceClass"], "db.t4g.small");
        assert_eq!(properties["engineVersion"], "15");
    }

    #[test]
    fn storage_that_has_grown_is_no_difference() {
        assert_eq!(wanted_storage(20, None), 20);
        assert_eq!(wanted_storage(100, Some(50)), 100);
        let grown = LiveInstance::builder().allocated_storage(20).pending_modified_values(
            PendingModifiedValues::builder().allocated_storage(50).build(),
        );
        let grown = grown.build();
        let wanted = wanted_storage(20, Some(output(&grown).storage_gib));
        assert_eq!(properties(&grown, None)["allocatedStorage"], wanted);
        assert_eq!(wanted, 50);
    }

    #[test]
    fn a_database_that_backs_up_is_usable() {
        let of = |status| condition(&LiveInstance::builder().db_instance_status(status).build());
        assert_eq!(of("backing-up"), Condition::Usable);
        assert_eq!(of("creating"), Condition::Pending("creating".into()));
    }

    #[test]
    fn only_an_instance_that_never_was_is_made_again() {
        let failed = LiveInstance::builder().db_instance_status("failed");
        assert!(matches!(condition(&failed.clone().build()), Condition::Failed(_)));
        let lived = failed.instance_create_time(DateTime::from_secs(1)).build();
        assert_eq!(condition(&lived), Condition::Usable);
        assert_eq!(properties(&lived, None)["dbInstanceStatus"], "failed");
        let network = LiveInstance::builder().db_instance_status("incompatible-network").build();
        assert_eq!(condition(&network), Condition::Usable);
    }

    #[test]
    fn the_price_follows_class_zones_and_storage_before_and_after() {
        let cost = |class: &str, gib: i32, multi_az: bool| {
            let members = json!({
                "dbInstanceClass": class,
                "allocatedStorage": gib,
                "storageType": "gp3",
                "multiAZ": multi_az,
                "manageMasterUserPassword": true,
            });
            monthly_cost(Prices::of("us-east-1"), &members)
        };
        let is = |found: Option<f64>, wanted: f64| {
            assert!((found.unwrap() - wanted).abs() < 0.001, "{found:?} is not {wanted}");
        };
        is(cost("db.t4g.micro", 20, false), 0.016 * 730.0 + 20.0 * 0.115 + 0.4);
        is(cost("db.t4g.small", 20, false), 0.032 * 730.0 + 20.0 * 0.115 + 0.4);
        is(cost("db.m7g.large", 100, true), 2.0 * (0.168 * 730.0 + 100.0 * 0.115) + 0.4);
        assert_eq!(cost("db.x9z.large", 20, false), None, "unknown is not free");
    }

    #[test]
    fn what_a_live_instance_costs_is_read_from_its_own_members() {
        let live = LiveInstance::builder()
            .db_instance_class("db.t4g.micro")
            .allocated_storage(20)
            .storage_type("gp3")
            .multi_az(false)
            .build();
        let cost = monthly_cost(Prices::of("us-east-1"), &properties(&live, None));
        assert!((cost.unwrap() - (0.016 * 730.0 + 20.0 * 0.115)).abs() < 0.001);
    }
}
