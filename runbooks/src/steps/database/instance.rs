//! The `PostgreSQL` instance.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    instance_members::{
        condition, is_changing, is_modified, monthly_cost, output, properties, uses, wanted_storage,
    },
    master_user::{self, MASTER_USERNAME, MasterSecret},
    parameter_group::{DbParameterGroup, Of},
    server::{DbServerOutput, broken},
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
    prices::Prices,
    steps::network::{POSTGRES_PORT, security_group::SecurityGroup},
};

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

#[async_trait]
impl Resource for DbInstance {
    type Output = DbServerOutput;

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
    ) -> Result<Option<Live<DbServerOutput>>, Error> {
        let instances = self.aws.rds.instances(since).await?;
        let Some(instance) =
            instances.iter().find(|i| i.db_instance_identifier() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(instance.tag_list()))?;
        let mut output = output(instance);
        let rotation = master_user::rotation(&self.aws, &output.master_secret_arn).await?;
        output.secret_changed = rotation.changed;
        let mut properties = properties(instance, rotation.days);
        let group = outputs.when_observed(&self.parameter_group).await;
        let mut former = group.map(|group| group.former).unwrap_or_default();
        former.retain(|name| !uses(instance, name));
        Of::Instance.retain_existing(&self.aws, &mut former, since).await?;
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

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbServerOutput>, Error> {
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
        live: &Live<DbServerOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "dbInstanceStatus") {
            let status = &live.properties["dbInstanceStatus"];
            return Err(broken("rds:DescribeDBInstances", &self.label.name, status));
        }
        if fields.iter().any(|field| is_modified(&field.path)) {
            self.modify(fields, outputs).await?;
        } else if touches(fields, "formerParameterGroups") {
            let former = live.properties["formerParameterGroups"].as_array();
            for name in former.into_iter().flatten().filter_map(Value::as_str) {
                not_found_is_none(Of::Instance.delete(&self.aws, name).await)?;
            }
        }
        // A secret that this very change brings about is there in the next round.
        if touches(fields, "automaticallyAfterDays") && !live.output.master_secret_arn.is_empty() {
            let days = self.settings.rotation_days;
            master_user::rotate(&self.aws, &self.label, &live.output, days).await?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbServerOutput>) -> Result<(), Error> {
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
            delete = delete.final_db_snapshot_identifier(live.output.final_snapshot());
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
            Of::Instance.arns(&self.aws, &self.label.sibling(&self.parameter_group.id(), 63));
        let subnets = rds(format!("subgrp:{}", self.label.sibling(&self.subnet_group.id(), 63)));
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
            Permission::on(
                ["rds:AddTagsToResource", "rds:DeleteDBInstance", "rds:ModifyDBInstance"],
                [database.clone()],
            ),
            Permission::on(["rds:DeleteDBParameterGroup"], [parameters]),
            service_linked_role(&self.aws, "rds.amazonaws.com"),
        ];
        let secret = MasterSecret::of(Of::Instance);
        permissions.extend(secret.permissions(&self.aws, &database));
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
