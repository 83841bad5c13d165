//! A route table with its route out and the subnets that use it.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{ResourceType, RouteOrigin, RouteTable as LiveTable};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{internet_gateway::InternetGateway, nat_gateway::NatGateway, subnet::Subnet, vpc::Vpc};
use crate::{
    aws::{
        Aws, Label, Seen,
        ec2::{live_tags, tag_specification},
        failed, not_found_is_none, once,
        permissions::tagging,
    },
    engine::{
        Class, Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// Everything beyond the VPC.
const ANYWHERE: &str = "0.0.0.0/0";

/// Where a route table sends what leaves the VPC.
pub enum WayOut {
    /// To the internet gateway: its subnets are public.
    InternetGateway(Handle<InternetGateway>),
    /// To a NAT gateway.
    NatGateway(Handle<NatGateway>),
    /// Nowhere.
    None,
}

/// A route table.
pub struct RouteTable {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// Its default route.
    pub way_out: WayOut,
    /// The subnets that use it.
    pub subnets: Vec<Handle<Subnet>>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct RouteTableOutput {
    /// `rtb-…`.
    pub id: String,
}

#[async_trait]
impl Resource for RouteTable {
    type Output = RouteTableOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.vpc.id()];
        needs.extend(self.subnets.iter().map(Handle::id));
        match &self.way_out {
            WayOut::InternetGateway(gateway) => needs.push(gateway.id()),
            WayOut::NatGateway(gateway) => needs.push(gateway.id()),
            WayOut::None => {}
        }
        needs
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<RouteTableOutput>>, Error> {
        let tables = self.aws.ec2.route_tables(since).await?;
        let Some(table) = tables.iter().find(|t| self.label.matches(&live_tags(t.tags()))) else {
            return Ok(None);
        };
        Ok(Some(Live {
            properties: json!({
                "vpcId": table.vpc_id(),
                "defaultRoute": default_route(table),
                "subnetIds": Value::Object(
                    associations(table).map(|(subnet, _)| (subnet.to_owned(), true.into())).collect(),
                ),
                "tags": live_tags(table.tags()),
            }),
            condition: Condition::Ready,
            output: RouteTableOutput { id: table.route_table_id().unwrap_or_default().to_owned() },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let subnets = self.subnets.iter().map(|subnet| {
            let id = outputs.show(subnet, |subnet| subnet.id.clone());
            (id.as_str().unwrap_or_default().to_owned(), true.into())
        });
        json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "defaultRoute": match &self.way_out {
                WayOut::InternetGateway(gateway) => outputs.show(gateway, |g| g.id.clone()),
                WayOut::NatGateway(gateway) => outputs.show(gateway, |g| g.id.clone()),
                WayOut::None => Value::Null,
            },
            "subnetIds": Value::Object(subnets.collect()),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("vpcId", "a route table stays in its VPC")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<RouteTableOutput>, Error> {
        let vpc = outputs.get(&self.vpc)?.id;
        let create = async |token: String| {
            let created = self
                .aws
                .ec2
                .client
                .create_route_table()
                .client_token(token)
                .vpc_id(&vpc)
                .tag_specifications(tag_specification(&self.label, ResourceType::RouteTable))
                .send()
                .await
                .map_err(failed("ec2:CreateRouteTable"))?;
            let table = created.route_table();
            Ok(table.and_then(LiveTable::route_table_id).unwrap_or_default().to_owned())
        };
        let look = async |id: String| {
            let tables = self.aws.ec2.route_tables(Instant::now()).await?;
            let there = tables.iter().any(|table| table.route_table_id() == Some(&id));
            Ok(if there { Seen::Living } else { Seen::Nothing })
        };
        let request = json!([vpc, self.label.tags]);
        let since = Instant::now();
        let id = once(&self.label, &request, self.lag, create, look).await?;
        // Killed between these, the next run's comparison finds the route or a subnet missing.
        self.set_default_route(&id, None, outputs).await?;
        self.associate(&id, &[], outputs, since).await?;
        Ok(Some(RouteTableOutput { id }))
    }

    async fn update(
        &self,
        live: &Live<RouteTableOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let id = &live.output.id;
        let since = Instant::now();
        let tables = self.aws.ec2.route_tables(since).await?;
        let table = tables.iter().find(|table| table.route_table_id() == Some(id));
        if touches(fields, "defaultRoute") {
            self.set_default_route(id, table.and_then(default_route), outputs).await?;
        }
        if touches(fields, "subnetIds") {
            let associated: Vec<_> = table.into_iter().flat_map(associations).collect();
            self.associate(id, &associated, outputs, since).await?;
        }
        if touches(fields, "tags") {
            self.aws.ec2.tag(id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<RouteTableOutput>) -> Result<(), Error> {
        let id = &live.output.id;
        let tables = self.aws.ec2.route_tables(Instant::now()).await?;
        if let Some(table) = tables.iter().find(|table| table.route_table_id() == Some(id)) {
            for (_, association) in associations(table) {
                self.disassociate(association).await?;
            }
        }
        let delete = self.aws.ec2.client.delete_route_table().route_table_id(id);
        delete.send().await.map_err(failed("ec2:DeleteRouteTable"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let (table, subnet) =
            (self.aws.arn("ec2", "route-table/*"), self.aws.arn("ec2", "subnet/*"));
        let vpc = self.aws.arn("ec2", "vpc/*");
        let ours = self.label.resource_tagged();
        let routes =
            ["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:DeleteRouteTable", "ec2:ReplaceRoute"];
        let associations = [
            "ec2:AssociateRouteTable",
            "ec2:DisassociateRouteTable",
            "ec2:ReplaceRouteTableAssociation",
        ];
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeRouteTables"]),
            Permission::on(["ec2:CreateRouteTable"], [table.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateRouteTable"], [vpc]).only_if(ours.clone()),
            Permission::on(routes, [table.clone()]).only_if(ours.clone()),
            Permission::on(associations, [table, subnet]).only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "route-table"));
        permissions
    }

    /// The packets of running tasks take the new way.
    fn interrupts(&self, path: &str) -> bool {
        path == "defaultRoute"
    }
}

impl RouteTable {
    async fn set_default_route(
        &self,
        id: &str,
        live: Option<&str>,
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let client = &self.aws.ec2.client;
        let (internet, nat) = match &self.way_out {
            WayOut::InternetGateway(gateway) => (Some(outputs.get(gateway)?.id), None),
            WayOut::NatGateway(gateway) => (None, Some(outputs.get(gateway)?.id)),
            WayOut::None => {
                let delete = client.delete_route().route_table_id(id);
                let deleted = delete.destination_cidr_block(ANYWHERE).send().await;
                if live.is_some() {
                    not_found_is_none(deleted.map_err(failed("ec2:DeleteRoute")))?;
                }
                return Ok(());
            }
        };
        if live.is_some() {
            let replace = client.replace_route().route_table_id(id);
            let replace = replace.destination_cidr_block(ANYWHERE);
            let replace = replace.set_gateway_id(internet).set_nat_gateway_id(nat);
            replace.send().await.map_err(failed("ec2:ReplaceRoute"))?;
            return Ok(());
        }
        let create = client.create_route().route_table_id(id).destination_cidr_block(ANYWHERE);
        let create = create.set_gateway_id(internet).set_nat_gateway_id(nat);
        match create.send().await.map_err(failed("ec2:CreateRoute")) {
            // A repeated call whose first answer was lost; the next comparison sees its target.
            Err(error) if error.class == Class::AlreadyExists => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Associates the wanted subnets that are not among `live` and lets go of the others; which tables
    /// have them now was looked at after `since`.
    async fn associate(
        &self,
        id: &str,
        live: &[(&str, &str)],
        outputs: &Outputs,
        since: Instant,
    ) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for subnet in &self.subnets {
            wanted.push(outputs.get(subnet)?.id);
        }
        for (subnet, association) in live {
            if !wanted.iter().any(|wanted| wanted == subnet) {
                self.disassociate(association).await?;
            }
        }
        for subnet in wanted.iter().filter(|id| !live.iter().any(|(live, _)| live == id)) {
            self.adopt_subnet(id, subnet, since).await?;
        }
        Ok(())
    }

    /// Takes a subnet over from the table that it uses now, in one step, so that it is never without
    /// a way out. That table may let go of it first; then it is free to be associated.
    async fn adopt_subnet(&self, id: &str, subnet: &str, since: Instant) -> Result<(), Error> {
        let client = &self.aws.ec2.client;
        let tables = self.aws.ec2.route_tables(since).await?;
        let association = tables.iter().flat_map(associations).find(|(other, _)| *other == subnet);
        if let Some((_, association)) = association {
            let replace = client.replace_route_table_association().association_id(association);
            let replaced = replace.route_table_id(id).send().await;
            let replaced = replaced.map_err(failed("ec2:ReplaceRouteTableAssociation"));
            if not_found_is_none(replaced)?.is_some() {
                return Ok(());
            }
        }
        let associate = client.associate_route_table().route_table_id(id).subnet_id(subnet);
        associate.send().await.map_err(failed("ec2:AssociateRouteTable"))?;
        Ok(())
    }

    async fn disassociate(&self, association: &str) -> Result<(), Error> {
        let disassociate = self.aws.ec2.client.disassociate_route_table();
        let gone = disassociate.association_id(association).send().await;
        not_found_is_none(gone.map_err(failed("ec2:DisassociateRouteTable")))?;
        Ok(())
    }
}

/// Target of the route to everywhere; a route whose target is gone ("blackhole") still has its id.
fn default_route(table: &LiveTable) -> Option<&str> {
    table
        .routes()
        .iter()
        .filter(|route| route.origin() != Some(&RouteOrigin::CreateRouteTable))
        .find(|route| route.destination_cidr_block() == Some(ANYWHERE))
        .and_then(|route| route.gateway_id().or(route.nat_gateway_id()))
}

/// Subnet and association id of each explicit association.
fn associations(table: &LiveTable) -> impl Iterator<Item = (&str, &str)> {
    table.associations().iter().filter_map(|association| {
        Some((association.subnet_id()?, association.route_table_association_id()?))
    })
}
