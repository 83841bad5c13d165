//! The internet gateway, attached to the VPC.

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
        Class, Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The internet gateway; its attachment is one of its members.
pub struct InternetGateway {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The VPC that it is attached to.
    pub vpc: Handle<Vpc>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct InternetGatewayOutput {
    /// `igw-…`.
    pub id: String,
    /// The VPC that it is attached to.
    attached: Option<String>,
}

#[async_trait]
impl Resource for InternetGateway {
    type Output = InternetGatewayOutput;

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
    ) -> Result<Option<Live<InternetGatewayOutput>>, Error> {
        let gateways = self.aws.ec2.internet_gateways(since).await?;
        let Some(gateway) = gateways.iter().find(|g| self.label.matches(&live_tags(g.tags())))
        else {
            return Ok(None);
        };
        let attached = gateway.attachments().iter().find_map(|a| a.vpc_id()).map(ToOwned::to_owned);
        Ok(Some(Live {
            properties: json!({ "vpcId": attached, "tags": live_tags(gateway.tags()) }),
            condition: Condition::Ready,
            output: InternetGatewayOutput {
                id: gateway.internet_gateway_id().unwrap_or_default().to_owned(),
                attached,
            },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<InternetGatewayOutput>, Error> {
        self.aws
            .ec2
            .client
            .create_internet_gateway()
            .tag_specifications(tag_specification(&self.label, ResourceType::InternetGateway))
            .send()
            .await
            .map_err(failed("ec2:CreateInternetGateway"))?;
        // It is attached by the comparison that follows.
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<InternetGatewayOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "vpcId") {
            self.detach(live).await?;
            self.attach(&live.output.id, &outputs.get(&self.vpc)?.id).await?;
        }
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<InternetGatewayOutput>) -> Result<(), Error> {
        self.detach(live).await?;
        let delete =
            self.aws.ec2.client.delete_internet_gateway().internet_gateway_id(&live.output.id);
        delete.send().await.map_err(failed("ec2:DeleteInternetGateway"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let gateway = self.aws.arn("ec2", "internet-gateway/*");
        let vpc = self.aws.arn("ec2", "vpc/*");
        let ours = self.label.resource_tagged();
        let attachment = ["ec2:AttachInternetGateway", "ec2:DetachInternetGateway"];
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeInternetGateways"]),
            Permission::on(["ec2:CreateInternetGateway"], [gateway.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:DeleteInternetGateway"], [gateway.clone()]).only_if(ours.clone()),
            Permission::on(attachment, [gateway, vpc]).only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "internet-gateway"));
        permissions
    }
}

impl InternetGateway {
    async fn attach(&self, id: &str, vpc: &str) -> Result<(), Error> {
        let attach = self.aws.ec2.client.attach_internet_gateway();
        let attached = attach.internet_gateway_id(id).vpc_id(vpc).send().await;
        match attached.map_err(failed("ec2:AttachInternetGateway")) {
            // A repeated call whose first answer was lost.
            Err(error) if error.class == Class::AlreadyExists => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn detach(&self, live: &Live<InternetGatewayOutput>) -> Result<(), Error> {
        let Some(vpc) = &live.output.attached else { return Ok(()) };
        let detach = self.aws.ec2.client.detach_internet_gateway();
        let detached = detach.internet_gateway_id(&live.output.id).vpc_id(vpc).send().await;
        match detached.map_err(failed("ec2:DetachInternetGateway")) {
            // Gateway.NotAttached: a repeated call whose first answer was lost.
            Err(error) if error.code == "Gateway.NotAttached" => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
