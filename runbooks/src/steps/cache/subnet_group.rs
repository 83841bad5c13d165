//! The subnet group of the cache.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, elasticache::tags, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::network::subnet::Subnet,
};

/// The private subnets in which nodes may stand.
pub struct CacheSubnetGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// One in each zone.
    pub subnets: Vec<Handle<Subnet>>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct CacheSubnetGroupOutput {
    /// Name.
    pub name: String,
    /// ARN.
    arn: String,
}

#[async_trait]
impl Resource for CacheSubnetGroup {
    type Output = CacheSubnetGroupOutput;

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
    ) -> Result<Option<Live<CacheSubnetGroupOutput>>, Error> {
        let groups = self.aws.elasticache.subnet_groups(since).await?;
        let Some(group) =
            groups.iter().find(|g| g.cache_subnet_group_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let arn = group.arn().unwrap_or_default().to_owned();
        let tags = self.aws.elasticache.tags(&arn).await?;
        self.label.adopt(&tags)?;
        let mut subnets: Vec<_> =
            group.subnets().iter().filter_map(|subnet| subnet.subnet_identifier()).collect();
        subnets.sort_unstable();
        Ok(Some(Live {
            properties: json!({ "subnetIds": subnets, "tags": tags }),
            condition: Condition::Ready,
            output: CacheSubnetGroupOutput { name: self.label.name.clone(), arn },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let subnets = self.subnets.iter().map(|s| outputs.show(s, |s| s.id.clone()));
        let mut subnets: Vec<_> =
            subnets.map(|id| id.as_str().unwrap_or_default().to_owned()).collect();
        subnets.sort_unstable();
        json!({ "subnetIds": subnets, "tags": self.label.tags() })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<CacheSubnetGroupOutput>, Error> {
        let created = self
            .aws
            .elasticache
            .client
            .create_cache_subnet_group()
            .cache_subnet_group_name(&self.label.name)
            .cache_subnet_group_description("Private subnets of the cache")
            .set_subnet_ids(Some(self.subnet_ids(outputs)?))
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticache:CreateCacheSubnetGroup"))?;
        let arn = created.cache_subnet_group().and_then(|group| group.arn());
        Ok(Some(CacheSubnetGroupOutput {
            name: self.label.name.clone(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<CacheSubnetGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "subnetIds") {
            let modify = self.aws.elasticache.client.modify_cache_subnet_group();
            modify
                .cache_subnet_group_name(&self.label.name)
                .set_subnet_ids(Some(self.subnet_ids(outputs)?))
                .send()
                .await
                .map_err(failed("elasticache:ModifyCacheSubnetGroup"))?;
        }
        if touches(fields, "tags") {
            self.aws.elasticache.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<CacheSubnetGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticache.client.delete_cache_subnet_group();
        let deleted = delete.cache_subnet_group_name(&live.output.name).send().await;
        deleted.map_err(failed("elasticache:DeleteCacheSubnetGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticache:AddTagsToResource",
            "elasticache:CreateCacheSubnetGroup",
            "elasticache:DeleteCacheSubnetGroup",
            "elasticache:ListTagsForResource",
            "elasticache:ModifyCacheSubnetGroup",
        ];
        let group = self.aws.arn("elasticache", &format!("subnetgroup:{}", self.label.name));
        vec![
            Permission::anywhere(["elasticache:DescribeCacheSubnetGroups"]),
            Permission::on(actions, [group]),
        ]
    }
}

impl CacheSubnetGroup {
    fn subnet_ids(&self, outputs: &Outputs) -> Result<Vec<String>, Error> {
        self.subnets.iter().map(|subnet| Ok(outputs.get(subnet)?.id)).collect()
    }
}
