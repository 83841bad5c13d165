//! A security group. Its rules are a resource of their own, so that groups can name each other.

use async_trait::async_trait;
use aws_sdk_ec2::types::ResourceType;
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

/// A security group.
pub struct SecurityGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// Who is in it.
    pub description: &'static str,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SecurityGroupOutput {
    /// `sg-…`.
    pub id: String,
}

#[async_trait]
impl Resource for SecurityGroup {
    type Output = SecurityGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.vpc.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<SecurityGroupOutput>>, Error> {
        let groups = self.aws.ec2.security_groups(since).await?;
        let found = groups.iter().find(|g| self.label.matches(&live_tags(g.tags())));
        Ok(found.map(|group| Live {
            properties: json!({
                "vpcId": group.vpc_id(),
                "groupName": group.group_name(),
                "description": group.description(),
                "tags": live_tags(group.tags()),
            }),
            condition: Condition::Ready,
            output: SecurityGroupOutput { id: group.group_id().unwrap_or_default().to_owned() },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "groupName": self.label.name,
            "description": self.description,
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("vpcId", "a security group stays in its VPC"),
            ("groupName", "the name of a security group is fixed at its creation"),
            ("description", "the description of a security group is fixed at its creation"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SecurityGroupOutput>, Error> {
        let created = self
            .aws
            .ec2
            .client
            .create_security_group()
            .group_name(&self.label.name)
            .description(self.description)
            .vpc_id(outputs.get(&self.vpc)?.id)
            .tag_specifications(tag_specification(&self.label, ResourceType::SecurityGroup))
            .send()
            .await
            .map_err(failed("ec2:CreateSecurityGroup"))?;
        let id = created.group_id().unwrap_or_default().to_owned();
        Ok(Some(SecurityGroupOutput { id }))
    }

    async fn update(
        &self,
        live: &Live<SecurityGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    /// Trap 7: while a network interface is still in it AWS answers `DependencyViolation`, which the
    /// engine repeats within a bound.
    async fn delete(&self, live: &Live<SecurityGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.ec2.client.delete_security_group().group_id(&live.output.id);
        delete.send().await.map_err(failed("ec2:DeleteSecurityGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let group = self.aws.arn("ec2", "security-group/*");
        let vpc = self.aws.arn("ec2", "vpc/*");
        let ours = self.label.resource_tagged();
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeSecurityGroups"]),
            Permission::on(["ec2:CreateSecurityGroup"], [group.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateSecurityGroup"], [vpc]).only_if(ours.clone()),
            Permission::on(["ec2:DeleteSecurityGroup"], [group]).only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "security-group"));
        permissions
    }
}
