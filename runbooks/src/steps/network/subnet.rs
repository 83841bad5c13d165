//! A subnet.

use async_trait::async_trait;
use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::vpc::Vpc;
use crate::{
    aws::{
        Aws, Label,
        ec2::{live_tags, tag_specification},
        failed,
        permissions::tagging,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// A subnet in the region's zone number `zone`. Public or private is decided by its route table
/// alone: nothing in it gets a public address by itself, not even in a public one, where only the
/// load balancer and NAT gateways live, which bring their own.
pub struct Subnet {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Which of the region's zones, from 0.
    pub zone: usize,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SubnetOutput {
    /// `subnet-…`.
    pub id: String,
    /// Name of its zone.
    pub zone: String,
}

#[async_trait]
impl Resource for Subnet {
    type Output = SubnetOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.vpc.id()]
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<SubnetOutput>>, Error> {
        let subnets = self.aws.ec2.subnets(since).await?;
        let Some(subnet) = subnets.iter().find(|s| self.label.matches(&live_tags(s.tags()))) else {
            return Ok(None);
        };
        Ok(Some(Live {
            properties: json!({
                "vpcId": subnet.vpc_id(),
                "cidrBlock": subnet.cidr_block(),
                "mapPublicIpOnLaunch": subnet.map_public_ip_on_launch(),
                "tags": live_tags(subnet.tags()),
            }),
            condition: Condition::Ready,
            output: SubnetOutput {
                id: subnet.subnet_id().unwrap_or_default().to_owned(),
                zone: subnet.availability_zone().unwrap_or_default().to_owned(),
            },
        }))
    }

    /// The zone is not compared: it can't change, and a zone that AWS adds to the region would move
    /// every number and replace subnets for nothing.
    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "cidrBlock": self.cidr.to_string(),
            "mapPublicIpOnLaunch": false,
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("vpcId", "a subnet stays in its VPC"),
            ("cidrBlock", "the range of a subnet is fixed at its creation"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SubnetOutput>, Error> {
        const OPERATION: &str = "ec2:CreateSubnet";
        let zones = self.aws.ec2.zones().await?;
        let zone = zones.get(self.zone).ok_or_else(|| {
            Error::fatal(
                OPERATION,
                "too-few-zones",
                format!("{} has {} zones, not {}", self.aws.region, zones.len(), self.zone + 1),
            )
            .with_hint("set `network.zones` to fewer, or choose another region")
        })?;
        self.aws
            .ec2
            .client
            .create_subnet()
            .vpc_id(outputs.get(&self.vpc)?.id)
            .cidr_block(self.cidr.to_string())
            .availability_zone(zone)
            .tag_specifications(tag_specification(&self.label, ResourceType::Subnet))
            .send()
            .await
            .map_err(failed(OPERATION))?;
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<SubnetOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "mapPublicIpOnLaunch") {
            self.aws
                .ec2
                .client
                .modify_subnet_attribute()
                .subnet_id(&live.output.id)
                .map_public_ip_on_launch(AttributeBooleanValue::builder().value(false).build())
                .send()
                .await
                .map_err(failed("ec2:ModifySubnetAttribute"))?;
        }
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<SubnetOutput>) -> Result<(), Error> {
        let delete = self.aws.ec2.client.delete_subnet().subnet_id(&live.output.id);
        delete.send().await.map_err(failed("ec2:DeleteSubnet"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let (subnet, vpc) = (self.aws.arn("ec2", "subnet/*"), self.aws.arn("ec2", "vpc/*"));
        let ours = self.label.resource_tagged();
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeAvailabilityZones", "ec2:DescribeSubnets"]),
            Permission::on(["ec2:CreateSubnet"], [subnet.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateSubnet"], [vpc]).only_if(ours.clone()),
            Permission::on(["ec2:DeleteSubnet", "ec2:ModifySubnetAttribute"], [subnet])
                .only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "subnet"));
        permissions
    }
}
