//! A VPC endpoint: a way to one AWS service that does not leave AWS's network.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{ResourceType, VpcEndpoint as LiveEndpoint, VpcEndpointType};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{route_table::RouteTable, security_group::SecurityGroup, subnet::Subnet, vpc::Vpc};
use crate::{
    aws::{
        Aws, Label, Seen,
        ec2::{live_tags, refused, tag_specification},
        failed, once,
        permissions::tagging,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
};

/// How an endpoint is reached.
pub enum Reach {
    /// By routes in these tables; free.
    Gateway(Vec<Handle<RouteTable>>),
    /// By an address in each of these subnets, which the service's usual name resolves to.
    Interface {
        /// One in each zone.
        subnets: Vec<Handle<Subnet>>,
        /// Who may reach it.
        group: Handle<SecurityGroup>,
    },
}

/// An endpoint for one service.
pub struct VpcEndpoint {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// The service, without `com.amazonaws.{region}.`.
    pub service: &'static str,
    /// How it is reached.
    pub reach: Reach,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct VpcEndpointOutput {
    /// `vpce-…`.
    pub id: String,
}

#[async_trait]
impl Resource for VpcEndpoint {
    type Output = VpcEndpointOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.vpc.id()];
        match &self.reach {
            Reach::Gateway(tables) => needs.extend(tables.iter().map(Handle::id)),
            Reach::Interface { subnets, group } => {
                needs.extend(subnets.iter().map(Handle::id));
                needs.push(group.id());
            }
        }
        needs
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<VpcEndpointOutput>>, Error> {
        let endpoints = self.aws.ec2.vpc_endpoints(since).await?;
        let Some(endpoint) = endpoints
            .iter()
            .filter(|endpoint| state(endpoint) != "deleted")
            .find(|endpoint| self.label.matches(&live_tags(endpoint.tags())))
        else {
            return Ok(None);
        };
        let condition = match state(endpoint).as_str() {
            "available" => Condition::Ready,
            "deleting" => Condition::Deleting("deleting".into()),
            state @ ("failed" | "rejected" | "expired") => {
                let reason = endpoint.last_error().and_then(|error| error.message());
                Condition::Failed(reason.unwrap_or(state).to_owned())
            }
            state => Condition::Pending(state.to_owned()),
        };
        let mut properties = json!({
            "vpcId": endpoint.vpc_id(),
            "serviceName": endpoint.service_name(),
            "vpcEndpointType": endpoint.vpc_endpoint_type().map(VpcEndpointType::as_str),
            "tags": live_tags(endpoint.tags()),
        });
        match self.reach {
            Reach::Gateway(_) => {
                properties["routeTableIds"] = sorted(endpoint.route_table_ids().to_vec());
            }
            Reach::Interface { .. } => {
                let groups = endpoint.groups().iter().filter_map(|group| group.group_id());
                properties["subnetIds"] = sorted(endpoint.subnet_ids().to_vec());
                properties["securityGroupIds"] = sorted(groups.map(ToOwned::to_owned).collect());
                properties["privateDnsEnabled"] = endpoint.private_dns_enabled().into();
            }
        }
        Ok(Some(Live {
            properties,
            condition,
            output: VpcEndpointOutput {
                id: endpoint.vpc_endpoint_id().unwrap_or_default().to_owned(),
            },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let mut desired = json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "serviceName": self.service_name(),
            "vpcEndpointType": match self.reach {
                Reach::Gateway(_) => "Gateway",
                Reach::Interface { .. } => "Interface",
            },
            "tags": self.label.tags(),
        });
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        match &self.reach {
            Reach::Gateway(tables) => {
                let tables = tables.iter().map(|t| text(outputs.show(t, |t| t.id.clone())));
                desired["routeTableIds"] = sorted(tables.collect());
            }
            Reach::Interface { subnets, group } => {
                let subnets = subnets.iter().map(|s| text(outputs.show(s, |s| s.id.clone())));
                desired["subnetIds"] = sorted(subnets.collect());
                desired["securityGroupIds"] = json!([outputs.show(group, |g| g.id.clone())]);
                desired["privateDnsEnabled"] = true.into();
            }
        }
        desired
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("vpcId", "an endpoint stays in its VPC"),
            ("serviceName", "an endpoint leads to one service"),
            ("vpcEndpointType", "an endpoint keeps its type"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<VpcEndpointOutput>, Error> {
        let vpc = outputs.get(&self.vpc)?.id;
        let mut create = self
            .aws
            .ec2
            .client
            .create_vpc_endpoint()
            .vpc_id(&vpc)
            .service_name(self.service_name())
            .tag_specifications(tag_specification(&self.label, ResourceType::VpcEndpoint));
        let mut reached = Vec::new();
        match &self.reach {
            Reach::Gateway(tables) => {
                create = create.vpc_endpoint_type(VpcEndpointType::Gateway);
                for table in tables {
                    let id = outputs.get(table)?.id;
                    reached.push(id.clone());
                    create = create.route_table_ids(id);
                }
            }
            Reach::Interface { subnets, group } => {
                create = create.vpc_endpoint_type(VpcEndpointType::Interface);
                create = create.private_dns_enabled(true);
                let group = outputs.get(group)?.id;
                reached.push(group.clone());
                create = create.security_group_ids(group);
                for subnet in subnets {
                    let id = outputs.get(subnet)?.id;
                    reached.push(id.clone());
                    create = create.subnet_ids(id);
                }
            }
        }
        let create = async |token: String| {
            let created = create.clone().client_token(token).send().await;
            let created = created.map_err(failed("ec2:CreateVpcEndpoint"))?;
            let endpoint = created.vpc_endpoint();
            Ok(endpoint.and_then(|e| e.vpc_endpoint_id()).unwrap_or_default().to_owned())
        };
        let look = async |id: String| {
            let endpoints = self.aws.ec2.vpc_endpoints(Instant::now()).await?;
            let found = endpoints.iter().find(|e| e.vpc_endpoint_id() == Some(&id));
            Ok(match found.map(state).as_deref() {
                Some("deleted" | "deleting") => Seen::Gone,
                Some(_) => Seen::Living,
                None => Seen::Nothing,
            })
        };
        let request = json!([vpc, self.service_name(), reached, self.label.tags]);
        let id = once(&self.label, &request, self.lag, create, look).await?;
        // A gateway endpoint is two routes and there at once.
        let ready = matches!(self.reach, Reach::Gateway(_));
        Ok(ready.then_some(VpcEndpointOutput { id }))
    }

    async fn update(
        &self,
        live: &Live<VpcEndpointOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let mut modify = self.aws.ec2.client.modify_vpc_endpoint().vpc_endpoint_id(&live.output.id);
        let mut modified = false;
        for field in fields.iter().filter(|field| !field.path.starts_with("tags")) {
            modified = true;
            let (add, remove) =
                (missing(&field.after, &field.before), missing(&field.before, &field.after));
            modify = match field.path.as_str() {
                "routeTableIds" => {
                    modify.set_add_route_table_ids(add).set_remove_route_table_ids(remove)
                }
                "subnetIds" => modify.set_add_subnet_ids(add).set_remove_subnet_ids(remove),
                "securityGroupIds" => {
                    modify.set_add_security_group_ids(add).set_remove_security_group_ids(remove)
                }
                _ => modify.private_dns_enabled(true),
            };
        }
        if modified {
            modify.send().await.map_err(failed("ec2:ModifyVpcEndpoint"))?;
        }
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<VpcEndpointOutput>) -> Result<(), Error> {
        const OPERATION: &str = "ec2:DeleteVpcEndpoints";
        let delete = self.aws.ec2.client.delete_vpc_endpoints();
        let deleted = delete.vpc_endpoint_ids(&live.output.id).send().await;
        // The call succeeds and carries its refusals inside.
        match deleted.map_err(failed(OPERATION))?.unsuccessful().first().and_then(|u| u.error()) {
            Some(error) => Err(refused(
                OPERATION,
                error.code().unwrap_or_default(),
                error.message().unwrap_or_default(),
            )),
            None => Ok(()),
        }
    }

    fn permissions(&self) -> Vec<Permission> {
        let ec2 = |kind: &str| self.aws.arn("ec2", kind);
        let endpoint = ec2("vpc-endpoint/*");
        let reached = match self.reach {
            Reach::Gateway(_) => vec![ec2("route-table/*")],
            Reach::Interface { .. } => vec![ec2("security-group/*"), ec2("subnet/*")],
        };
        let ours = self.label.resource_tagged();
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeVpcEndpoints"]),
            Permission::on(["ec2:CreateVpcEndpoint"], [endpoint.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateVpcEndpoint"], [ec2("vpc/*")]).only_if(ours.clone()),
            Permission::on(["ec2:CreateVpcEndpoint", "ec2:ModifyVpcEndpoint"], reached)
                .only_if(ours.clone()),
            Permission::on(["ec2:DeleteVpcEndpoints", "ec2:ModifyVpcEndpoint"], [endpoint])
                .only_if(ours),
        ];
        if let Reach::Interface { .. } = self.reach {
            // EC2 makes the private hosted zone of its name in the caller's name.
            let zones = "arn:aws:route53:::hostedzone/*".to_owned();
            permissions.push(Permission::on(["route53:AssociateVPCWithHostedZone"], [zones]));
        }
        permissions.extend(tagging(&self.aws, &self.label, "vpc-endpoint"));
        permissions
    }

    fn typical(&self) -> Duration {
        match self.reach {
            Reach::Gateway(_) => Duration::from_secs(1),
            Reach::Interface { .. } => Duration::from_secs(90),
        }
    }

    /// It is paid by zone; a gateway is free.
    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        match self.reach {
            Reach::Gateway(_) => Some(0.0),
            Reach::Interface { .. } => Prices::of(&self.aws.region)
                .of_each(Item::InterfaceEndpoint, &properties["subnetIds"]),
        }
    }
}

impl VpcEndpoint {
    fn service_name(&self) -> String {
        format!("com.amazonaws.{}.{}", self.aws.region, self.service)
    }
}

/// EC2 writes the states now in lower case, now with a capital.
fn state(endpoint: &LiveEndpoint) -> String {
    endpoint.state().map(|state| state.as_str().to_lowercase()).unwrap_or_default()
}

fn sorted(mut ids: Vec<String>) -> Value {
    ids.sort_unstable();
    ids.into()
}

/// The texts of the array `all` that are not in the array `others`.
fn missing(all: &Value, others: &Value) -> Option<Vec<String>> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
    };
    let others = texts(others);
    let missing: Vec<_> = texts(all).into_iter().filter(|text| !others.contains(text)).collect();
    (!missing.is_empty()).then_some(missing)
}
