//! An instance of the Aurora cluster: a server over the cluster's storage.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_rds::types::{DbInstance as LiveInstance, PendingModifiedValues};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cluster::{DbCluster, ENGINE},
    instance_members::condition,
    server::{broken, is_broken},
};
use crate::{
    aws::{
        Aws, Label, failed,
        rds::{live_tags, tags},
    },
    engine::{
        Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
    steps::network::subnet::Subnet,
};

/// One of the cluster's instances. Version, storage, backups and master user are the cluster's: an
/// instance neither asks for them nor leaves a snapshot, and holds nothing.
pub struct DbClusterInstance {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The cluster.
    pub cluster: Handle<DbCluster>,
    /// The subnet in whose zone it is made, one of its own for each instance.
    pub subnet: Handle<Subnet>,
    /// For instance `db.r7g.large`.
    pub instance_class: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbClusterInstanceOutput {
    /// Its identifier.
    id: String,
    /// ARN.
    arn: String,
}

#[async_trait]
impl Resource for DbClusterInstance {
    type Output = DbClusterInstanceOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.cluster.id(), self.subnet.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DbClusterInstanceOutput>>, Error> {
        let instances = self.aws.rds.instances(since).await?;
        let Some(instance) =
            instances.iter().find(|i| i.db_instance_identifier() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(instance.tag_list()))?;
        Ok(Some(Live {
            properties: properties(instance),
            condition: condition(instance),
            output: DbClusterInstanceOutput {
                id: self.label.name.clone(),
                arn: instance.db_instance_arn().unwrap_or_default().to_owned(),
            },
        }))
    }

    /// The zone is not compared: which instance writes changes by itself, and an instance that was
    /// made anew in another zone serves as well.
    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "dbClusterIdentifier": outputs.show(&self.cluster, |cluster| cluster.id.clone()),
            "engine": ENGINE,
            "dbInstanceStatus": "available",
            "dbInstanceClass": self.instance_class,
            "publiclyAccessible": false,
            "autoMinorVersionUpgrade": true,
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("dbClusterIdentifier", "an instance stays in its cluster"),
            ("engine", "an instance keeps its engine"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbClusterInstanceOutput>, Error> {
        self.aws
            .rds
            .client
            .create_db_instance()
            .db_instance_identifier(&self.label.name)
            .db_cluster_identifier(outputs.get(&self.cluster)?.id)
            .engine(ENGINE)
            .db_instance_class(&self.instance_class)
            .availability_zone(outputs.get(&self.subnet)?.zone)
            .publicly_accessible(false)
            .auto_minor_version_upgrade(true)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("rds:CreateDBInstance"))?;
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<DbClusterInstanceOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "dbInstanceStatus") {
            let status = &live.properties["dbInstanceStatus"];
            return Err(broken("rds:DescribeDBInstances", &self.label.name, status));
        }
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            self.modify(fields).await?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    /// The storage stays with the cluster, so there is nothing to take a snapshot of: a call that
    /// asked for one would be refused.
    async fn delete(&self, live: &Live<DbClusterInstanceOutput>) -> Result<(), Error> {
        let delete = self.aws.rds.client.delete_db_instance();
        let deleted = delete.db_instance_identifier(&live.output.id).send().await;
        deleted.map_err(failed("rds:DeleteDBInstance"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let rds = |rest: String| self.aws.arn("rds", &rest);
        let cluster = self.label.sibling(&self.cluster.id(), 63);
        // All of the cluster, as it deletes them too.
        let instances = rds(format!("db:{cluster}-instance-*"));
        let made_of = [
            instances.clone(),
            rds(format!("cluster:{cluster}")),
            // The default groups of its version.
            rds("og:default*".to_owned()),
            rds("pg:default*".to_owned()),
        ];
        vec![
            Permission::anywhere(["rds:DescribeDBInstances"]),
            Permission::on(["rds:CreateDBInstance"], made_of),
            Permission::on(
                ["rds:AddTagsToResource", "rds:DeleteDBInstance", "rds:ModifyDBInstance"],
                [instances],
            ),
        ]
    }

    /// Estimated, as there are few public logs: in two of Terraform's it is 381 and 400 s.
    fn typical(&self) -> Duration {
        Duration::from_secs(390)
    }

    fn interrupts(&self, path: &str) -> bool {
        path == "dbInstanceClass"
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        let class = properties["dbInstanceClass"].as_str()?;
        Prices::of(&self.aws.region).monthly(Item::AuroraInstance(class))
    }
}

impl DbClusterInstance {
    /// Applies at once what differs and nothing else.
    async fn modify(&self, fields: &[Field]) -> Result<(), Error> {
        let modify = self.aws.rds.client.modify_db_instance();
        let mut modify = modify.db_instance_identifier(&self.label.name).apply_immediately(true);
        if touches(fields, "dbInstanceClass") {
            modify = modify.db_instance_class(&self.instance_class);
        }
        if touches(fields, "publiclyAccessible") {
            modify = modify.publicly_accessible(false);
        }
        if touches(fields, "autoMinorVersionUpgrade") {
            modify = modify.auto_minor_version_upgrade(true);
        }
        modify.send().await.map_err(failed("rds:ModifyDBInstance"))?;
        Ok(())
    }
}

/// The members of desired as they are, or as they are about to be.
fn properties(instance: &LiveInstance) -> Value {
    let pending = instance.pending_modified_values();
    let class = pending.and_then(PendingModifiedValues::db_instance_class);
    let status = instance.db_instance_status().filter(|status| is_broken(status));
    json!({
        "dbClusterIdentifier": instance.db_cluster_identifier(),
        "engine": instance.engine(),
        "dbInstanceStatus": status.unwrap_or("available"),
        "dbInstanceClass": class.or(instance.db_instance_class()),
        "publiclyAccessible": instance.publicly_accessible(),
        "autoMinorVersionUpgrade": instance.auto_minor_version_upgrade(),
        "tags": live_tags(instance.tag_list()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_is_on_its_way_is_no_difference() {
        let pending = PendingModifiedValues::builder().db_instance_class("db.r7g.large").build();
        let instance = LiveInstance::builder()
            .db_instance_class("db.t4g.medium")
            .db_instance_status("modifying")
            .pending_modified_values(pending)
            .build();
        let properties = properties(&instance);
        assert_eq!(properties["dbInstanceClass"], "db.r7g.large");
        assert_eq!(properties["dbInstanceStatus"], "available");
    }

    #[test]
    fn what_belongs_to_the_cluster_is_no_member_of_an_instance() {
        let members = properties(&LiveInstance::builder().build());
        for of_the_cluster in ["allocatedStorage", "backupRetentionPeriod", "masterUsername"] {
            assert!(members.get(of_the_cluster).is_none(), "{of_the_cluster}");
        }
    }
}
