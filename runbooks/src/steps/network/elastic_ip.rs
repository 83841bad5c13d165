//! An Elastic IP address.

use async_trait::async_trait;
use aws_sdk_ec2::types::{DomainType, ResourceType};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label,
        ec2::{live_tags, tag_specification},
        failed,
        permissions::tagging,
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
};

/// An address for a NAT gateway.
pub struct ElasticIp {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ElasticIpOutput {
    /// `eipalloc-…`.
    pub id: String,
}

#[async_trait]
impl Resource for ElasticIp {
    type Output = ElasticIpOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<ElasticIpOutput>>, Error> {
        let addresses = self.aws.ec2.addresses(since).await?;
        let found = addresses.iter().find(|a| self.label.matches(&live_tags(a.tags())));
        Ok(found.map(|address| Live {
            properties: json!({
                "domain": address.domain().map(DomainType::as_str),
                "tags": live_tags(address.tags()),
            }),
            condition: Condition::Ready,
            output: ElasticIpOutput { id: address.allocation_id().unwrap_or_default().to_owned() },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({ "domain": "vpc", "tags": self.label.tags() })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("domain", "an address belongs to VPCs or not from its allocation on")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<ElasticIpOutput>, Error> {
        self.aws
            .ec2
            .client
            .allocate_address()
            .domain(DomainType::Vpc)
            .tag_specifications(tag_specification(&self.label, ResourceType::ElasticIp))
            .send()
            .await
            .map_err(failed("ec2:AllocateAddress"))?;
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<ElasticIpOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<ElasticIpOutput>) -> Result<(), Error> {
        let release = self.aws.ec2.client.release_address().allocation_id(&live.output.id);
        release.send().await.map_err(failed("ec2:ReleaseAddress"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let address = self.aws.arn("ec2", "elastic-ip/*");
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeAddresses"]),
            Permission::on(["ec2:AllocateAddress"], [address.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:ReleaseAddress"], [address]).only_if(self.label.resource_tagged()),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "elastic-ip"));
        permissions
    }

    fn monthly_cost(&self, _: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).monthly(Item::PublicIpv4)
    }
}
