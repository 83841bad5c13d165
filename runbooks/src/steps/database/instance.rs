//! The `PostgreSQL` instance.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_rds::{
    primitives::DateTime,
    types::{DbInstance as LiveInstance, Endpoint, PendingModifiedValues},
};
use aws_sdk_secretsmanager::types::RotationRulesType;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    parameter_group::{self, DbParameterGroup},
    subnet_group::DbSubnetGroup,
};
use crate::{
    aws::{
        Aws, Label, failed, not_found_is_none,
        permissions::service_linked_role,
        rds::{live_tags, tags},
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    environment::Database as Settings,
    prices::{Item, Prices},
    steps::network::{POSTGRES_PORT, security_group::SecurityGroup},
};

/// Name of the master user; its password is made, kept and rotated by RDS and never seen here.
const MASTER_USERNAME: &str = "bme";

/// The database: encrypted, in private subnets, its master password managed by RDS.
pub struct DbInstance {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Size and care.
    pub settings: Settings,
    /// Where it may stand.
    pub subnet_group: Handle<DbSubnetGroup>,
    /// Its engine's settings.
    pub parameter_group: Handle<DbParameterGroup>,
    /// Who may connect.
    pub security_group: Handle<SecurityGroup>,
    /// Whether deleting it leaves a snapshot (trap 12).
    pub final_snapshot: bool,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbInstanceOutput {
    /// The instance identifier.
    pub id: String,
    /// ARN.
    pub arn: String,
    /// Host name; empty until it is known.
    pub endpoint: String,
    /// Port.
    pub port: i32,
    /// ARN of the secret `{"username", "password"}` of the master user; empty until it is known.
    pub master_secret_arn: String,
    deletion_protection: bool,
    created: i64,
    /// What it has, or is about to have.
    storage_gib: i32,
    /// When the secret was changed last, its rotation included.
    secret_changed: i64,
}

/// What the master user's secret says of its rotation; nothing while there is no secret.
#[derive(Default)]
struct Rotation {
    days: Option<i64>,
    changed: i64,
}

#[async_trait]
impl Resource for DbInstance {
    type Output = DbInstanceOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.subnet_group.id(), self.parameter_group.id(), self.security_group.id()]
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DbInstanceOutput>>, Error> {
        let instances = self.aws.rds.instances(since).await?;
        let Some(instance) =
            instances.iter().find(|i| i.db_instance_identifier() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(instance.tag_list()))?;
        let mut output = output(instance);
        let rotation = self.rotation(&output.master_secret_arn).await?;
        output.secret_changed = rotation.changed;
        let mut properties = properties(instance, rotation.days);
        let group = outputs.when_observed(&self.parameter_group).await;
        let mut former = group.map(|group| group.former).unwrap_or_default();
        former.retain(|name| !uses(instance, name));
        parameter_group::retain_existing(&self.aws, &mut former, since).await?;
        let condition = match condition(instance) {
            // What is left over from before an upgrade goes when the upgrade is done.
            Condition::Ready | Condition::Usable if !former.is_empty() && is_changing(instance) => {
                Condition::Pending(instance.db_instance_status().unwrap_or_default().to_owned())
            }
            condition => condition,
        };
        properties["formerParameterGroups"] = former.into();
        Ok(Some(Live { output, properties, condition }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let settings = &self.settings;
        json!({
            "engine": "postgres",
            "dbInstanceStatus": "available",
            "engineVersion": settings.postgres_version,
            "dbName": settings.name,
            "masterUsername": MASTER_USERNAME,
            "manageMasterUserPassword": true,
            "automaticallyAfterDays": settings.rotation_days,
            "dbInstanceClass": settings.instance_class,
            "allocatedStorage": wanted_storage(
                settings.storage_gib,
                outputs.own(self).map(|live| live.storage_gib),
            ),
            "storageType": "gp3",
            "storageEncrypted": true,
            "multiAZ": settings.multi_az,
            "backupRetentionPeriod": settings.backup_retention_days,
            "deletionProtection": settings.deletion_protection,
            "publiclyAccessible": false,
            "autoMinorVersionUpgrade": true,
            "copyTagsToSnapshot": true,
            "dbSubnetGroupName": outputs.show(&self.subnet_group, |group| group.name.clone()),
            "dbParameterGroupName": outputs.show(&self.parameter_group, |group| group.name.clone()),
            "vpcSecurityGroupIds": [outputs.show(&self.security_group, |group| group.id.clone())],
            // Left over from before an upgrade, and free to go once the instance uses the next one.
            "formerParameterGroups": [],
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("engine", "an instance keeps its engine"),
            ("dbName", "the name of the first database is fixed at the instance's creation"),
            ("masterUsername", "the master user is fixed at the instance's creation"),
            ("storageEncrypted", "storage can't be encrypted later, only restored encrypted"),
            ("dbSubnetGroupName", "an instance can't move within its VPC to another subnet group"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbInstanceOutput>, Error> {
        let settings = &self.settings;
        self.aws
            .rds
            .client
            .create_db_instance()
            .db_instance_identifier(&self.label.name)
            .engine("postgres")
            .engine_version(&settings.postgres_version)
            .db_name(&settings.name)
            .port(POSTGRES_PORT)
            .master_username(MASTER_USERNAME)
            .manage_master_user_password(true)
            .db_instance_class(&settings.instance_class)
            .allocated_storage(settings.storage_gib)
            .storage_type("gp3")
            .storage_encrypted(true)
            .multi_az(settings.multi_az)
            .backup_retention_period(settings.backup_retention_days)
            .deletion_protection(settings.deletion_protection)
            .publicly_accessible(false)
            .auto_minor_version_upgrade(true)
            .copy_tags_to_snapshot(true)
            .db_subnet_group_name(outputs.get(&self.subnet_group)?.name)
            .db_parameter_group_name(outputs.get(&self.parameter_group)?.name)
            .vpc_security_group_ids(outputs.get(&self.security_group)?.id)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("rds:CreateDBInstance"))?;
        // Never ready at once: the endpoint and the master user's secret come later, and the secret's
        // rotation is then set by the comparison that follows.
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<DbInstanceOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "dbInstanceStatus") {
            return Err(self.broken(&live.properties));
        }
        if fields.iter().any(|field| is_modified(&field.path)) {
            self.modify(fields, outputs).await?;
        } else if touches(fields, "formerParameterGroups") {
            let former = live.properties["formerParameterGroups"].as_array();
            for name in former.into_iter().flatten().filter_map(Value::as_str) {
                not_found_is_none(parameter_group::delete(&self.aws, name).await)?;
            }
        }
        // A secret that this very change brings about is there in the next round.
        if touches(fields, "automaticallyAfterDays") && !live.output.master_secret_arn.is_empty() {
            self.rotate(&live.output).await?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbInstanceOutput>) -> Result<(), Error> {
        let client = &self.aws.rds.client;
        let id = &live.output.id;
        if live.output.deletion_protection {
            let unprotect = client.modify_db_instance().db_instance_identifier(id);
            unprotect
                .deletion_protection(false)
                .apply_immediately(true)
                .send()
                .await
                .map_err(failed("rds:ModifyDBInstance"))?;
            // The change takes effect later, and until then a deletion is refused: called again, the
            // deletion follows.
            return Ok(());
        }
        // In these states no snapshot can be taken (RDS API reference, DeleteDBInstance).
        let final_snapshot = self.final_snapshot
            && !matches!(
                live.properties["dbInstanceStatus"].as_str(),
                Some("failed" | "incompatible-restore" | "incompatible-network")
            );
        let mut delete = client.delete_db_instance().db_instance_identifier(id);
        delete = delete.skip_final_snapshot(!final_snapshot);
        if final_snapshot {
            // The same name however often this is called, another one for the next instance.
            let snapshot = format!("{id}-final-{}", live.output.created);
            delete = delete.final_db_snapshot_identifier(snapshot);
        } else {
            delete = delete.delete_automated_backups(true);
        }
        delete.send().await.map_err(failed("rds:DeleteDBInstance"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let rds = |rest: String| self.aws.arn("rds", &rest);
        let name = &self.label.name;
        let database = rds(format!("db:{name}"));
        let parameters =
            rds(format!("pg:{}-*", self.label.sibling(&self.parameter_group.id(), 63)));
        let subnets = rds(format!("subgrp:{}", self.label.sibling(&self.subnet_group.id(), 63)));
        // Named by RDS; it says in a tag whose master password it holds.
        let secret = self.aws.arn("secretsmanager", "secret:rds!db-*");
        let of_ours = json!({ "StringEquals": {
            "secretsmanager:ResourceTag/aws:rds:primaryDBInstanceArn": database,
        }});
        let made_of = [
            database.clone(),
            parameters.clone(),
            subnets,
            // An instance without an option group of its own has the default one of its version.
            rds("og:default*".to_owned()),
        ];
        let mut permissions = vec![
            Permission::anywhere(["rds:DescribeDBInstances", "rds:DescribeDBParameterGroups"]),
            Permission::on(["rds:CreateDBInstance", "rds:ModifyDBInstance"], made_of),
            Permission::on(["rds:AddTagsToResource", "rds:DeleteDBInstance"], [database.clone()]),
            Permission::on(["rds:DeleteDBParameterGroup"], [parameters]),
            // RDS makes the secret in the caller's name ("Permissions required for Secrets Manager
            // integration", RDS user guide); the id of Secrets Manager's own key is not known.
            Permission::on(
                ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
                [secret.clone()],
            ),
            Permission::on(["kms:DescribeKey"], [self.aws.arn("kms", "key/*")]),
            Permission::on(
                ["secretsmanager:DescribeSecret", "secretsmanager:RotateSecret"],
                [secret],
            )
            .only_if(of_ours),
            service_linked_role(&self.aws, "rds.amazonaws.com"),
        ];
        if self.final_snapshot {
            let snapshot = rds(format!("snapshot:{name}-final-*"));
            permissions.extend([
                Permission::on(["rds:CreateDBSnapshot"], [database, snapshot.clone()]),
                Permission::on(["rds:AddTagsToResource"], [snapshot]),
            ]);
        }
        permissions
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(if self.settings.multi_az { 612 } else { 245 })
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn interrupts(&self, path: &str) -> bool {
        matches!(path, "dbInstanceClass" | "engineVersion" | "dbParameterGroupName")
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        monthly_cost(Prices::of(&self.aws.region), properties)
    }
}

impl DbInstance {
    /// Nothing of ours can mend it, and what it holds must not be lost by trying.
    fn broken(&self, live: &Value) -> Error {
        let status = live["dbInstanceStatus"].as_str().unwrap_or_default();
        let what = format!("`{}` is {status}", self.label.name);
        Error::fatal("rds:DescribeDBInstances", "database-broken", what).with_hint(
            "it is left alone, since it may hold data: its events in the RDS console say why; mend \
             that or restore a snapshot, then run the command again",
        )
    }

    /// The rotation of the master password, from the secret's own description.
    async fn rotation(&self, secret: &str) -> Result<Rotation, Error> {
        if secret.is_empty() {
            return Ok(Rotation::default());
        }
        let describe = self.aws.secretsmanager.client.describe_secret().secret_id(secret);
        let described = describe.send().await.map_err(failed("secretsmanager:DescribeSecret"));
        let Some(secret) = not_found_is_none(described)? else { return Ok(Rotation::default()) };
        Ok(Rotation {
            days: secret.rotation_rules().and_then(RotationRulesType::automatically_after_days),
            changed: secret.last_changed_date().map_or(0, DateTime::secs),
        })
    }

    /// Sets the schedule; RDS does the rotating itself, without a function of ours (RDS user guide,
    /// "Password management with Secrets Manager").
    async fn rotate(&self, live: &DbInstanceOutput) -> Result<(), Error> {
        let days = self.settings.rotation_days;
        let rules = RotationRulesType::builder().automatically_after_days(days).build();
        self.aws
            .secretsmanager
            .client
            .rotate_secret()
            .secret_id(&live.master_secret_arn)
            .client_request_token(rotation_token(&self.label, live, days))
            .rotation_rules(rules)
            .rotate_immediately(false)
            .send()
            .await
            .map_err(failed("secretsmanager:RotateSecret"))?;
        Ok(())
    }

    /// Applies at once what differs and nothing else: a modification that names a value again can
    /// restart the instance.
    async fn modify(&self, fields: &[Field], outputs: &Outputs) -> Result<(), Error> {
        let settings = &self.settings;
        let modify = self.aws.rds.client.modify_db_instance();
        let mut modify = modify.db_instance_identifier(&self.label.name).apply_immediately(true);
        if touches(fields, "engineVersion") {
            modify = modify.engine_version(&settings.postgres_version);
            modify = modify.allow_major_version_upgrade(true);
        }
        if touches(fields, "manageMasterUserPassword") {
            modify = modify.manage_master_user_password(true);
        }
        if touches(fields, "dbInstanceClass") {
            modify = modify.db_instance_class(&settings.instance_class);
        }
        // Only ever more than it has, see `wanted_storage`.
        if touches(fields, "allocatedStorage") {
            modify = modify.allocated_storage(settings.storage_gib);
        }
        if touches(fields, "storageType") {
            modify = modify.storage_type("gp3");
        }
        if touches(fields, "multiAZ") {
            modify = modify.multi_az(settings.multi_az);
        }
        if touches(fields, "backupRetentionPeriod") {
            modify = modify.backup_retention_period(settings.backup_retention_days);
        }
        if touches(fields, "deletionProtection") {
            modify = modify.deletion_protection(settings.deletion_protection);
        }
        if touches(fields, "publiclyAccessible") {
            modify = modify.publicly_accessible(false);
        }
        if touches(fields, "autoMinorVersionUpgrade") {
            modify = modify.auto_minor_version_upgrade(true);
        }
        if touches(fields, "copyTagsToSnapshot") {
            modify = modify.copy_tags_to_snapshot(true);
        }
        if touches(fields, "dbParameterGroupName") {
            modify = modify.db_parameter_group_name(outputs.get(&self.parameter_group)?.name);
        }
        if touches(fields, "vpcSecurityGroupIds") {
            modify = modify.vpc_security_group_ids(outputs.get(&self.security_group)?.id);
        }
        modify.send().await.map_err(failed("rds:ModifyDBInstance"))?;
        Ok(())
    }
}

/// The same when the call is repeated, another one for another schedule, and for one that comes back:
/// with a token that it has seen, Secrets Manager takes a call for one that it has carried out.
fn rotation_token(label: &Label, live: &DbInstanceOutput, days: i64) -> String {
    label.token(&format!("{} {} {days}", live.master_secret_arn, live.secret_changed))
}

fn is_modified(path: &str) -> bool {
    !path.starts_with("tags")
        && !matches!(path, "automaticallyAfterDays" | "dbInstanceStatus" | "formerParameterGroups")
}

fn is_changing(instance: &LiveInstance) -> bool {
    let pending = instance.pending_modified_values();
    let status = instance.db_instance_status().unwrap_or_default();
    (status != "available" && !is_broken(status))
        || pending.is_some_and(|pending| pending.engine_version().is_some())
}

fn uses(instance: &LiveInstance, parameter_group: &str) -> bool {
    let mut groups = instance.db_parameter_groups().iter();
    groups.any(|group| group.db_parameter_group_name() == Some(parameter_group))
}

fn output(instance: &LiveInstance) -> DbInstanceOutput {
    let endpoint = instance.endpoint();
    let secret = instance.master_user_secret().and_then(|secret| secret.secret_arn());
    DbInstanceOutput {
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
fn wanted_storage(file: i32, live: Option<i32>) -> i32 {
    live.map_or(file, |live| live.max(file))
}

/// The members of desired as they are, or as they are about to be: a change under way is no
/// difference.
fn properties(instance: &LiveInstance, rotation_days: Option<i64>) -> Value {
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
        "engineVersion": version.and_then(|version| version.split('.').next()),
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
fn condition(instance: &LiveInstance) -> Condition {
    let status = instance.db_instance_status().unwrap_or_default();
    let never_was =
        instance.instance_create_time().is_none() && instance.latest_restorable_time().is_none();
    match status {
        "available" => Condition::Ready,
        "deleting" => Condition::Deleting(status.into()),
        "failed" if never_was => Condition::Failed(status.into()),
        broken if is_broken(broken) => Condition::Usable,
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

/// A state that no waiting ends ("Viewing DB instance status", RDS user guide).
fn is_broken(status: &str) -> bool {
    matches!(status, "failed" | "restore-error" | "insufficient-capacity")
        || status.starts_with("incompatible-")
        || status.starts_with("inaccessible-encryption-credentials")
}

/// Instance and storage, each again for a standby, and the secret that RDS keeps the master user's
/// password in.
fn monthly_cost(prices: Prices, properties: &Value) -> Option<f64> {
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
    fn another_schedule_has_another_token_and_the_same_call_the_same() {
        let id = ResourceId::new("database", "instance");
        let label = Label::new("demo", &std::collections::BTreeMap::new(), id, "instance", 63);
        let mut live = output(&LiveInstance::builder().build());
        live.master_secret_arn = "arn:aws:secretsmanager:eu-west-1:1:secret:rds!db-x".into();
        live.secret_changed = 1;
        let first = rotation_token(&label, &live, 30);
        assert_eq!(rotation_token(&label, &live, 30), first);
        assert_ne!(rotation_token(&label, &live, 7), first);
        // Set to 7 in between.
        live.secret_changed = 2;
        assert_ne!(rotation_token(&label, &live, 30), first);
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
