//! The subnet group of the database.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, rds::tags},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::network::subnet::Subnet,
};

/// The private subnets in which the database may stand.
pub struct DbSubnetGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// One in each zone.
    pub subnets: Vec<Handle<Subnet>>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbSubnetGroupOutput {
    /// Name.
    pub name: String,
    /// ARN.
    arn: String,
}

#[async_trait]
impl Resource for DbSubnetGroup {
    type Output = DbSubnetGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        self.subnets.iter().map(Handle::id).collect()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DbSubnetGroupOutput>>, Error> {
        let groups = self.aws.rds.subnet_groups(since).await?;
        let Some(group) =
            groups.iter().find(|g| g.db_subnet_group_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let arn = group.db_subnet_group_arn().unwrap_or_default().to_owned();
        let tags = self.aws.rds.tags(&arn).await?;
        self.label.adopt(&tags)?;
        let mut subnets: Vec<_> =
            group.subnets().iter().filter_map(|subnet| subnet.subnet_identifier()).collect();
        subnets.sort_unstable();
        Ok(Some(Live {
            properties: json!({ "subnetIds": subnets, "tags": tags }),
            condition: Condition::Ready,
            output: DbSubnetGroupOutput { name: self.label.name.clone(), arn },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let subnets = self.subnets.iter().map(|s| outputs.show(s, |s| s.id.clone()));
        let mut subnets: Vec<_> =
            subnets.map(|id| id.as_str().unwrap_or_default().to_owned()).collect();
        subnets.sort_unstable();
        json!({ "subnetIds": subnets, "tags": self.label.tags() })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbSubnetGroupOutput>, Error> {
        let created = self
            .aws
            .rds
            .client
            .create_db_subnet_group()
            .db_subnet_group_name(&self.label.name)
            .db_subnet_group_description("Private subnets of the database")
            .set_subnet_ids(Some(self.subnet_ids(outputs)?))
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("rds:CreateDBSubnetGroup"))?;
        let arn = created.db_subnet_group().and_then(|group| group.db_subnet_group_arn());
        Ok(Some(DbSubnetGroupOutput {
            name: self.label.name.clone(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<DbSubnetGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "subnetIds") {
            let modify = self.aws.rds.client.modify_db_subnet_group();
            modify
                .db_subnet_group_name(&self.label.name)
                .set_subnet_ids(Some(self.subnet_ids(outputs)?))
                .send()
                .await
                .map_err(failed("rds:ModifyDBSubnetGroup"))?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbSubnetGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.rds.client.delete_db_subnet_group();
        let deleted = delete.db_subnet_group_name(&live.output.name).send().await;
        deleted.map_err(failed("rds:DeleteDBSubnetGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "rds:AddTagsToResource",
            "rds:CreateDBSubnetGroup",
            "rds:DeleteDBSubnetGroup",
            "rds:ListTagsForResource",
            "rds:ModifyDBSubnetGroup",
        ];
        vec![
            Permission::anywhere(["rds:DescribeDBSubnetGroups"]),
            Permission::on(actions, [self.aws.arn("rds", &format!("subgrp:{}", self.label.name))]),
        ]
    }
}

impl DbSubnetGroup {
    fn subnet_ids(&self, outputs: &Outputs) -> Result<Vec<String>, Error> {
        self.subnets.iter().map(|subnet| Ok(outputs.get(subnet)?.id)).collect()
    }
}
