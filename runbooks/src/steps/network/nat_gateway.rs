//! A NAT gateway.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{ConnectivityType, NatGatewayState, ResourceType};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{elastic_ip::ElasticIp, internet_gateway::InternetGateway, subnet::Subnet};
use crate::{
    aws::{
        Aws, Label, Seen,
        ec2::{live_tags, tag_specification},
        failed, once,
        permissions::tagging,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
};

/// A public NAT gateway in a public subnet.
pub struct NatGateway {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// The public subnet that it stands in.
    pub subnet: Handle<Subnet>,
    /// Its address.
    pub address: Handle<ElasticIp>,
    /// Without an attached internet gateway its creation fails.
    pub internet_gateway: Handle<InternetGateway>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct NatGatewayOutput {
    /// `nat-…`.
    pub id: String,
}

#[async_trait]
impl Resource for NatGateway {
    type Output = NatGatewayOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.subnet.id(), self.address.id(), self.internet_gateway.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<NatGatewayOutput>>, Error> {
        let gateways = self.aws.ec2.nat_gateways(since).await?;
        // A deleted gateway is still described for an hour; the living one counts.
        let Some(gateway) = gateways
            .iter()
            .filter(|gateway| gateway.state() != Some(&NatGatewayState::Deleted))
            .find(|gateway| self.label.matches(&live_tags(gateway.tags())))
        else {
            return Ok(None);
        };
        let condition = match gateway.state() {
            Some(NatGatewayState::Available) => Condition::Ready,
            Some(NatGatewayState::Failed) => {
                Condition::Failed(gateway.failure_message().unwrap_or("no reason given").to_owned())
            }
            Some(NatGatewayState::Deleting) => Condition::Deleting("deleting".into()),
            state => {
                Condition::Pending(state.map_or("pending", NatGatewayState::as_str).to_owned())
            }
        };
        Ok(Some(Live {
            properties: json!({
                "subnetId": gateway.subnet_id(),
                "connectivityType": gateway.connectivity_type().map(ConnectivityType::as_str),
                "tags": live_tags(gateway.tags()),
            }),
            condition,
            output: NatGatewayOutput {
                id: gateway.nat_gateway_id().unwrap_or_default().to_owned(),
            },
        }))
    }

    /// The address is not compared: it can't be swapped under a gateway, and a gateway replaced
    /// because its address lost its tags would be an outage for nothing.
    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "subnetId": outputs.show(&self.subnet, |subnet| subnet.id.clone()),
            "connectivityType": "public",
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("subnetId", "a NAT gateway stays in its subnet"),
            ("connectivityType", "a NAT gateway is public or private from its creation on"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<NatGatewayOutput>, Error> {
        let since = Instant::now();
        let (address, subnet) = (outputs.get(&self.address)?.id, outputs.get(&self.subnet)?.id);
        let create = async |token: String| {
            let created = self
                .aws
                .ec2
                .client
                .create_nat_gateway()
                .client_token(token)
                .subnet_id(&subnet)
                .connectivity_type(ConnectivityType::Public)
                .allocation_id(&address)
                .tag_specifications(tag_specification(&self.label, ResourceType::Natgateway))
                .send()
                .await
                .map_err(failed("ec2:CreateNatGateway"))?;
            let gateway = created.nat_gateway();
            Ok(gateway.and_then(|g| g.nat_gateway_id()).unwrap_or_default().to_owned())
        };
        let look = async |id: String| {
            let gateways = self.aws.ec2.nat_gateways(Instant::now()).await?;
            let gateway = gateways.iter().find(|gateway| gateway.nat_gateway_id() == Some(&id));
            Ok(match gateway.map(|gateway| gateway.state()) {
                Some(Some(NatGatewayState::Deleted | NatGatewayState::Deleting)) => Seen::Gone,
                Some(_) => Seen::Living,
                None => Seen::Nothing,
            })
        };
        let request = json!([subnet, address, self.label.tags]);
        once(&self.label, &request, self.lag, create, look).await?;
        // In the answer that has it.
        let live = self.find(outputs, since).await?;
        Ok(live.filter(|live| live.condition == Condition::Ready).map(|live| live.output))
    }

    async fn update(
        &self,
        live: &Live<NatGatewayOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<NatGatewayOutput>) -> Result<(), Error> {
        let delete = self.aws.ec2.client.delete_nat_gateway().nat_gateway_id(&live.output.id);
        delete.send().await.map_err(failed("ec2:DeleteNatGateway"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let gateway = self.aws.arn("ec2", "natgateway/*");
        let around = ["elastic-ip/*", "subnet/*"].map(|kind| self.aws.arn("ec2", kind));
        let ours = self.label.resource_tagged();
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeNatGateways"]),
            Permission::on(["ec2:CreateNatGateway"], [gateway.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateNatGateway"], around).only_if(ours.clone()),
            Permission::on(["ec2:DeleteNatGateway"], [gateway]).only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "natgateway"));
        permissions
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(110)
    }

    fn monthly_cost(&self, _: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).monthly(Item::NatGateway)
    }
}
