//! The VPC.

use async_trait::async_trait;
use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, VpcAttributeName};
use ipnet::Ipv4Net;
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
};

/// The VPC with DNS support and host names, which interface endpoints and RDS need.
pub struct Vpc {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its range.
    pub cidr: Ipv4Net,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct VpcOutput {
    /// `vpc-…`.
    pub id: String,
}

#[async_trait]
impl Resource for Vpc {
    type Output = VpcOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<VpcOutput>>, Error> {
        let vpcs = self.aws.ec2.vpcs(since).await?;
        let Some(vpc) = vpcs.iter().find(|vpc| self.label.matches(&live_tags(vpc.tags()))) else {
            return Ok(None);
        };
        let id = vpc.vpc_id().unwrap_or_default().to_owned();
        Ok(Some(Live {
            properties: json!({
                "cidrBlock": vpc.cidr_block(),
                "enableDnsHostnames": self.attribute(&id, VpcAttributeName::EnableDnsHostnames).await?,
                "tags": live_tags(vpc.tags()),
            }),
            condition: Condition::Ready,
            output: VpcOutput { id },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "cidrBlock": self.cidr.to_string(),
            "enableDnsHostnames": true,
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("cidrBlock", "the primary range of a VPC is fixed at its creation")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<VpcOutput>, Error> {
        self.aws
            .ec2
            .client
            .create_vpc()
            .cidr_block(self.cidr.to_string())
            .tag_specifications(tag_specification(&self.label, ResourceType::Vpc))
            .send()
            .await
            .map_err(failed("ec2:CreateVpc"))?;
        // Its host names are switched on by the comparison that follows.
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<VpcOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "enableDnsHostnames") {
            self.enable_dns_hostnames(&live.output.id).await?;
        }
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<VpcOutput>) -> Result<(), Error> {
        let delete = self.aws.ec2.client.delete_vpc().vpc_id(&live.output.id);
        delete.send().await.map_err(failed("ec2:DeleteVpc"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let vpc = self.aws.arn("ec2", "vpc/*");
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeVpcs"]),
            Permission::on(["ec2:DescribeVpcAttribute"], [vpc.clone()]),
            Permission::on(["ec2:CreateVpc"], [vpc.clone()]).only_if(self.label.request_tagged()),
            Permission::on(["ec2:DeleteVpc", "ec2:ModifyVpcAttribute"], [vpc])
                .only_if(self.label.resource_tagged()),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "vpc"));
        permissions
    }
}

impl Vpc {
    async fn attribute(&self, id: &str, name: VpcAttributeName) -> Result<bool, Error> {
        let answer = self
            .aws
            .ec2
            .client
            .describe_vpc_attribute()
            .vpc_id(id)
            .attribute(name)
            .send()
            .await
            .map_err(failed("ec2:DescribeVpcAttribute"))?;
        Ok(answer.enable_dns_hostnames().and_then(AttributeBooleanValue::value).unwrap_or_default())
    }

    async fn enable_dns_hostnames(&self, id: &str) -> Result<(), Error> {
        self.aws
            .ec2
            .client
            .modify_vpc_attribute()
            .vpc_id(id)
            .enable_dns_hostnames(AttributeBooleanValue::builder().value(true).build())
            .send()
            .await
            .map_err(failed("ec2:ModifyVpcAttribute"))?;
        Ok(())
    }
}
