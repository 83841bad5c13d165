//! EC2: its client and its batched answers. Everything of the account's region is described and
//! matched here by tags: a server-side filter on one of our tags would hide a resource that lost it.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_ec2 as sdk;
use sdk::types::{
    Address, AvailabilityZoneState, Filter, FlowLog, InternetGateway, NatGateway, ResourceType,
    RouteTable, SecurityGroup, Subnet, Tag, TagSpecification, Vpc, VpcEndpoint,
};
use tokio::time::Instant;

pub use super::error::refused;
use super::{Batch, Calls, Label, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct Ec2 {
    /// The SDK's client.
    pub client: sdk::Client,
    vpcs: Batch<Vec<Vpc>>,
    subnets: Batch<Vec<Subnet>>,
    internet_gateways: Batch<Vec<InternetGateway>>,
    addresses: Batch<Vec<Address>>,
    nat_gateways: Batch<Vec<NatGateway>>,
    route_tables: Batch<Vec<RouteTable>>,
    vpc_endpoints: Batch<Vec<VpcEndpoint>>,
    security_groups: Batch<Vec<SecurityGroup>>,
    flow_logs: Batch<Vec<FlowLog>>,
    prefix_lists: Batch<BTreeMap<String, String>>,
    zones: Batch<Vec<String>>,
    /// When this was made.
    start: Instant,
}

/// A batched, paginated Describe of everything of one type in the region.
macro_rules! described {
    ($(#[$doc:meta])* $name:ident: $type:ty = $call:ident, $operation:literal) => {
        $(#[$doc])*
        pub async fn $name(&self, since: Instant) -> Result<Arc<Vec<$type>>, Error> {
            self.$name
                .get(since, async {
                    let pages = self.client.$call().into_paginator().items().send();
                    pages.collect::<Result<Vec<_>, _>>().await.map_err(failed($operation))
                })
                .await
        }
    };
}

impl Ec2 {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            vpcs: Batch::default(),
            subnets: Batch::default(),
            internet_gateways: Batch::default(),
            addresses: Batch::default(),
            nat_gateways: Batch::default(),
            route_tables: Batch::default(),
            vpc_endpoints: Batch::default(),
            security_groups: Batch::default(),
            flow_logs: Batch::default(),
            prefix_lists: Batch::default(),
            zones: Batch::default(),
            start: Instant::now(),
        }
    }

    described!(
        /// All VPCs.
        vpcs: Vpc = describe_vpcs, "ec2:DescribeVpcs"
    );
    described!(
        /// All subnets.
        subnets: Subnet = describe_subnets, "ec2:DescribeSubnets"
    );
    described!(
        /// All internet gateways.
        internet_gateways: InternetGateway = describe_internet_gateways, "ec2:DescribeInternetGateways"
    );
    described!(
        /// All NAT gateways, with those deleted in the last hour.
        nat_gateways: NatGateway = describe_nat_gateways, "ec2:DescribeNatGateways"
    );
    described!(
        /// All route tables.
        route_tables: RouteTable = describe_route_tables, "ec2:DescribeRouteTables"
    );
    described!(
        /// All VPC endpoints.
        vpc_endpoints: VpcEndpoint = describe_vpc_endpoints, "ec2:DescribeVpcEndpoints"
    );
    described!(
        /// All security groups with their rules.
        security_groups: SecurityGroup = describe_security_groups, "ec2:DescribeSecurityGroups"
    );
    described!(
        /// All flow logs.
        flow_logs: FlowLog = describe_flow_logs, "ec2:DescribeFlowLogs"
    );

    /// All Elastic IP addresses; the operation has no pages.
    pub async fn addresses(&self, since: Instant) -> Result<Arc<Vec<Address>>, Error> {
        self.addresses
            .get(since, async {
                let answer = self.client.describe_addresses().send().await;
                Ok(answer.map_err(failed("ec2:DescribeAddresses"))?.addresses.unwrap_or_default())
            })
            .await
    }

    /// Ids of the prefix lists that AWS manages, by their names.
    pub async fn prefix_lists(
        &self,
        since: Instant,
    ) -> Result<Arc<BTreeMap<String, String>>, Error> {
        self.prefix_lists
            .get(since, async {
                let lists = self.client.describe_managed_prefix_lists();
                let lists = lists.filters(Filter::builder().name("owner-id").values("AWS").build());
                let pages = lists.into_paginator().items().send();
                let lists = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("ec2:DescribeManagedPrefixLists"))?;
                Ok(lists
                    .into_iter()
                    .filter_map(|list| Some((list.prefix_list_name?, list.prefix_list_id?)))
                    .collect())
            })
            .await
    }

    /// Names of the region's usable availability zones, in order; local and wavelength zones, which
    /// an account has to opt in to, are not among them. Asked for once: no run lasts until there is a
    /// new one.
    pub async fn zones(&self) -> Result<Arc<Vec<String>>, Error> {
        self.zones
            .get(self.start, async {
                let answer = self.client.describe_availability_zones().send().await;
                let zones = answer.map_err(failed("ec2:DescribeAvailabilityZones"))?;
                let mut names: Vec<_> = zones
                    .availability_zones()
                    .iter()
                    .filter(|zone| zone.state() == Some(&AvailabilityZoneState::Available))
                    .filter(|zone| zone.zone_type().is_none_or(|t| t == "availability-zone"))
                    .filter_map(|zone| zone.zone_name().map(ToOwned::to_owned))
                    .collect();
                names.sort();
                Ok(names)
            })
            .await
    }

    /// Writes the label's tags on an existing resource.
    pub async fn tag(&self, id: &str, label: &Label) -> Result<(), Error> {
        self.client
            .create_tags()
            .resources(id)
            .set_tags(Some(tags(label)))
            .send()
            .await
            .map_err(failed("ec2:CreateTags"))?;
        Ok(())
    }
}

/// The label's tags for a create call.
pub fn tag_specification(label: &Label, resource: ResourceType) -> TagSpecification {
    TagSpecification::builder().resource_type(resource).set_tags(Some(tags(label))).build()
}

/// The tags that EC2 answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
