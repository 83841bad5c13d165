//! The cluster of Aurora `PostgreSQL`: its storage, its master user and its endpoints. Its instances
//! are resources of their own.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cluster_members::{condition, is_changing, is_modified, monthly_cost, output, properties},
    master_user::{self, MASTER_USERNAME, MasterSecret},
    parameter_group::{DbParameterGroup, Of},
    server::{DbServerOutput, broken, is_broken},
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

/// As RDS names it.
pub(super) const ENGINE: &str = "aurora-postgresql";

/// The live member with the identifiers of our instances in the cluster. It is not compared.
const MEMBERS: &str = "dbClusterMembers";

/// The database: encrypted, in private subnets, its master password managed by RDS.
pub struct DbCluster {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Care.
    pub settings: Settings,
    /// Where its instances may stand.
    pub subnet_group: Handle<DbSubnetGroup>,
    /// Its engine's settings.
    pub parameter_group: Handle<DbParameterGroup>,
    /// Who may connect.
    pub security_group: Handle<SecurityGroup>,
    /// Whether deleting it leaves a snapshot (trap 12): the storage is the cluster's, so this is too.
    pub final_snapshot: bool,
}

#[async_trait]
impl Resource for DbCluster {
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
        let clusters = self.aws.rds.clusters(since).await?;
        let Some(cluster) =
            clusters.iter().find(|c| c.db_cluster_identifier() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(cluster.tag_list()))?;
        let mut output = output(cluster);
        let rotation = master_user::rotation(&self.aws, &output.master_secret_arn).await?;
        output.secret_changed = rotation.changed;
        let mut properties = properties(cluster, rotation.days);
        let group = outputs.when_observed(&self.parameter_group).await;
        let mut former = group.map(|group| group.former).unwrap_or_default();
        former.retain(|name| cluster.db_cluster_parameter_group() != Some(name.as_str()));
        Of::Cluster.retain_existing(&self.aws, &mut former, since).await?;
        let condition = match condition(cluster) {
            // What is left over from before an upgrade goes when the upgrade is done.
            Condition::Ready | Condition::Usable if !former.is_empty() && is_changing(cluster) => {
                Condition::Pending(cluster.status().unwrap_or_default().to_owned())
            }
            condition => condition,
        };
        properties["formerParameterGroups"] = former.into();
        let members = cluster.db_cluster_members().iter();
        let members = members.filter_map(|member| member.db_instance_identifier());
        properties[MEMBERS] = members.filter(|member| self.is_ours(member)).collect();
        Ok(Some(Live { output, properties, condition }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let settings = &self.settings;
        json!({
            "engine": ENGINE,
            "status": "available",
            "engineVersion": settings.postgres_version,
            "databaseName": settings.name,
            "masterUsername": MASTER_USERNAME,
            "manageMasterUserPassword": true,
            "automaticallyAfterDays": settings.rotation_days,
            "storageEncrypted": true,
            "backupRetentionPeriod": settings.backup_retention_days,
            "deletionProtection": settings.deletion_protection,
            "copyTagsToSnapshot": true,
            "dbSubnetGroup": outputs.show(&self.subnet_group, |group| group.name.clone()),
            "dbClusterParameterGroup":
                outputs.show(&self.parameter_group, |group| group.name.clone()),
            "vpcSecurityGroupIds": [outputs.show(&self.security_group, |group| group.id.clone())],
            // Left over from before an upgrade, and free to go once the cluster uses the next one.
            "formerParameterGroups": [],
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("engine", "a cluster keeps its engine"),
            ("databaseName", "the name of the first database is fixed at the cluster's creation"),
            ("masterUsername", "the master user is fixed at the cluster's creation"),
            ("storageEncrypted", "storage can't be encrypted later, only restored encrypted"),
            ("dbSubnetGroup", "a cluster can't move within its VPC to another subnet group"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbServerOutput>, Error> {
        let settings = &self.settings;
        self.aws
            .rds
            .client
            .create_db_cluster()
            .db_cluster_identifier(&self.label.name)
            .engine(ENGINE)
            .engine_version(&settings.postgres_version)
            .database_name(&settings.name)
            .port(POSTGRES_PORT)
            .master_username(MASTER_USERNAME)
            .manage_master_user_password(true)
            .storage_encrypted(true)
            .backup_retention_period(settings.backup_retention_days)
            .deletion_protection(settings.deletion_protection)
            .copy_tags_to_snapshot(true)
            .db_subnet_group_name(outputs.get(&self.subnet_group)?.name)
            .db_cluster_parameter_group_name(outputs.get(&self.parameter_group)?.name)
            .vpc_security_group_ids(outputs.get(&self.security_group)?.id)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("rds:CreateDBCluster"))?;
        // As with an instance, the secret's rotation is set by the comparison that follows.
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<DbServerOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "status") {
            let status = &live.properties["status"];
            return Err(broken("rds:DescribeDBClusters", &self.label.name, status));
        }
        if fields.iter().any(|field| is_modified(&field.path)) {
            self.modify(fields, outputs).await?;
        } else if touches(fields, "formerParameterGroups") {
            let former = live.properties["formerParameterGroups"].as_array();
            for name in former.into_iter().flatten().filter_map(Value::as_str) {
                not_found_is_none(Of::Cluster.delete(&self.aws, name).await)?;
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

    /// A cluster goes after its instances only. A destroy has deleted them before; for a replacement
    /// they go here. Instances that somebody else has made in it are left alone, and then it stays.
    async fn delete(&self, live: &Live<DbServerOutput>) -> Result<(), Error> {
        let client = &self.aws.rds.client;
        let id = &live.output.id;
        if live.output.deletion_protection {
            let unprotect = client.modify_db_cluster().db_cluster_identifier(id);
            unprotect
                .deletion_protection(false)
                .apply_immediately(true)
                .send()
                .await
                .map_err(failed("rds:ModifyDBCluster"))?;
            return Ok(());
        }
        let members = live.properties[MEMBERS].as_array().into_iter().flatten();
        let members: Vec<&str> = members.filter_map(Value::as_str).collect();
        for member in &members {
            let delete = client.delete_db_instance().db_instance_identifier(*member);
            not_found_is_none(delete.send().await.map_err(failed("rds:DeleteDBInstance")))?;
        }
        if !members.is_empty() {
            return Ok(());
        }
        // What is broken can't be taken a snapshot of.
        let status = live.properties["status"].as_str().unwrap_or_default();
        let final_snapshot = self.final_snapshot && !is_broken(status);
        let mut delete = client.delete_db_cluster().db_cluster_identifier(id);
        delete = delete.skip_final_snapshot(!final_snapshot);
        if final_snapshot {
            delete = delete.final_db_snapshot_identifier(live.output.final_snapshot());
        }
        delete.send().await.map_err(failed("rds:DeleteDBCluster"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let rds = |rest: String| self.aws.arn("rds", &rest);
        let name = &self.label.name;
        let cluster = rds(format!("cluster:{name}"));
        let parameters =
            Of::Cluster.arns(&self.aws, &self.label.sibling(&self.parameter_group.id(), 63));
        let subnets = rds(format!("subgrp:{}", self.label.sibling(&self.subnet_group.id(), 63)));
        let made_of = [
            cluster.clone(),
            parameters.clone(),
            subnets,
            // A cluster without an option group of its own has the default one of its version.
            rds("og:default*".to_owned()),
        ];
        let mut permissions = vec![
            Permission::anywhere([
                "rds:DescribeDBClusterParameterGroups",
                "rds:DescribeDBClusters",
            ]),
            Permission::on(["rds:CreateDBCluster"], made_of),
            Permission::on(["rds:ModifyDBCluster"], [cluster.clone(), parameters.clone()]),
            Permission::on(["rds:AddTagsToResource"], [cluster.clone()]),
            Permission::on(["rds:DeleteDBInstance"], [rds(format!("db:{name}-instance-*"))]),
            Permission::on(["rds:DeleteDBClusterParameterGroup"], [parameters]),
            service_linked_role(&self.aws, "rds.amazonaws.com"),
        ];
        let secret = MasterSecret::of(Of::Cluster);
        permissions.extend(secret.permissions(&self.aws, &cluster));
        let snapshot = rds(format!("cluster-snapshot:{name}-final-*"));
        // It is asked for on both, with a snapshot or without ("Actions, resources, and condition keys for
        // Amazon RDS", Service Authorization Reference).
        let deleted = [cluster.clone(), snapshot.clone()];
        if self.final_snapshot {
            permissions.extend([
                Permission::on(["rds:CreateDBClusterSnapshot"], [cluster, snapshot.clone()]),
                Permission::on(["rds:AddTagsToResource"], [snapshot]),
            ]);
        }
        permissions.push(Permission::on(["rds:DeleteDBCluster"], deleted));
        permissions
    }

    /// Estimated, as there are few public logs: in one of Terraform's it is 43 s. It has no server yet.
    fn typical(&self) -> Duration {
        Duration::from_secs(45)
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn interrupts(&self, path: &str) -> bool {
        matches!(path, "engineVersion" | "dbClusterParameterGroup")
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        monthly_cost(Prices::of(&self.aws.region), properties)
    }
}

impl DbCluster {
    /// Whether it is one of our instances, which are called after the cluster.
    fn is_ours(&self, instance: &str) -> bool {
        let rest = instance.strip_prefix(&self.label.name);
        rest.is_some_and(|rest| rest.starts_with("-instance-"))
    }

    /// Applies at once what differs and nothing else. An upgrade brings the instances along.
    async fn modify(&self, fields: &[Field], outputs: &Outputs) -> Result<(), Error> {
        let settings = &self.settings;
        let modify = self.aws.rds.client.modify_db_cluster();
        let mut modify = modify.db_cluster_identifier(&self.label.name).apply_immediately(true);
        if touches(fields, "engineVersion") {
            modify = modify.engine_version(&settings.postgres_version);
            modify = modify.allow_major_version_upgrade(true);
        }
        if touches(fields, "manageMasterUserPassword") {
            modify = modify.manage_master_user_password(true);
        }
        if touches(fields, "backupRetentionPeriod") {
            modify = modify.backup_retention_period(settings.backup_retention_days);
        }
        if touches(fields, "deletionProtection") {
            modify = modify.deletion_protection(settings.deletion_protection);
        }
        if touches(fields, "copyTagsToSnapshot") {
            modify = modify.copy_tags_to_snapshot(true);
        }
        if touches(fields, "dbClusterParameterGroup") {
            let group = outputs.get(&self.parameter_group)?.name;
            modify = modify.db_cluster_parameter_group_name(group);
        }
        if touches(fields, "vpcSecurityGroupIds") {
            modify = modify.vpc_security_group_ids(outputs.get(&self.security_group)?.id);
        }
        modify.send().await.map_err(failed("rds:ModifyDBCluster"))?;
        Ok(())
    }
}
