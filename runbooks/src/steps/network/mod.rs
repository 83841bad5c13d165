//! Step 1: the VPC, its subnets and ways out, and who may talk to whom.

pub mod elastic_ip;
pub mod flow_log;
pub mod internet_gateway;
pub mod nat_gateway;
pub mod route_table;
pub mod security_group;
pub mod security_group_rules;
pub mod subnet;
pub mod vpc;
pub mod vpc_endpoint;

use ipnet::Ipv4Net;
use serde_json::json;

use self::{
    elastic_ip::ElasticIp,
    flow_log::FlowLog,
    internet_gateway::InternetGateway,
    nat_gateway::NatGateway,
    route_table::{RouteTable, WayOut},
    security_group::SecurityGroup,
    security_group_rules::{CLOUDFRONT, Peer, Rule, SecurityGroupRules},
    subnet::Subnet,
    vpc::Vpc,
    vpc_endpoint::{Reach, VpcEndpoint},
};
use super::{
    About, Stack,
    compute::role::{Role, trusts},
    observability::log_group::LogGroup,
};
use crate::{
    engine::{Graph, Handle, ResourceId},
    environment::{Nat, Network as Settings, Target},
};

/// Port of the API's container.
pub const API_PORT: i32 = 8080;
/// Port of `PostgreSQL`.
pub const POSTGRES_PORT: i32 = 5432;
/// Port of Redis.
pub const REDIS_PORT: i32 = 6379;
const HTTPS: i32 = 443;
const HTTP: i32 = 80;

/// What tasks without a way to the internet call; everything else stays out of reach for them.
const INTERFACE_ENDPOINTS: [&str; 6] =
    ["ecr.api", "ecr.dkr", "logs", "secretsmanager", "sqs", "xray"];

/// What other steps use of the network.
pub struct Network {
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// One public subnet in each zone.
    pub public_subnets: Vec<Handle<Subnet>>,
    /// One private subnet in each zone.
    pub private_subnets: Vec<Handle<Subnet>>,
    /// The internet gateway and the public subnets' route to it.
    pub internet: Vec<ResourceId>,
    /// The security groups.
    pub groups: Groups,
    /// Rules, routes and ways out without which a task can't start.
    pub ready: Vec<ResourceId>,
}

/// The security groups, by who is in them.
pub struct Groups {
    /// The load balancer.
    pub alb: Handle<SecurityGroup>,
    /// Tasks of the API, and the migration task.
    pub api: Handle<SecurityGroup>,
    /// Tasks of the voice worker.
    pub worker: Handle<SecurityGroup>,
    /// RDS Proxy.
    pub proxy: Handle<SecurityGroup>,
    /// The database.
    pub database: Handle<SecurityGroup>,
    /// Redis.
    pub cache: Handle<SecurityGroup>,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A VPC with a public and a private subnet in each zone, an internet gateway, NAT \
            gateways with their addresses, route tables, an endpoint for S3, a security group for \
            each kind of member, and flow logs.",
    why: "Tasks, database and cache stand in private subnets, which nobody outside can open a \
          connection to. Security groups name each other, so that who may talk to whom is told \
          once and by role.",
    order: "The VPC comes first, then subnets and internet gateway. A NAT gateway waits for its \
            address and for the internet gateway; private routes wait for it, and tasks for \
            those.",
    trouble: &[
        (
            "AddressLimitExceeded: an account has five Elastic IP addresses in a region by \
             default",
            "release one, set `network.nat = \"single\"`, or ask for a higher quota",
        ),
        (
            "VpcLimitExceeded: an account has five VPCs in a region by default",
            "delete one that nobody needs, or ask for a higher quota",
        ),
        ("too-few-zones", "set `network.zones` to fewer, or choose another region"),
        (
            "DependencyViolation on destroy: a network interface is still in a subnet or a \
             security group",
            "it goes by itself within minutes and bme waits for it; one that is not bme's has to \
             be deleted by hand",
        ),
    ],
};

/// Adds the step.
pub fn add(graph: &mut Graph, stack: &Stack) -> Network {
    let settings = &stack.environment.network;
    let vpc = graph.add(Vpc {
        label: stack.label("network", "vpc", 255),
        aws: stack.aws.clone(),
        cidr: settings.cidr,
    });
    let public_subnets =
        add_subnets(graph, stack, &vpc, "public", |zone| public_cidr(settings, zone));
    let private_subnets =
        add_subnets(graph, stack, &vpc, "private", |zone| private_cidr(settings, zone));
    let internet_gateway = graph.add(InternetGateway {
        label: stack.label("network", "internet-gateway", 255),
        aws: stack.aws.clone(),
        vpc: vpc.clone(),
    });
    let public_table = graph.add(RouteTable {
        label: stack.label("network", "route-table-public", 255),
        aws: stack.aws.clone(),
        lag: stack.lag(),
        vpc: vpc.clone(),
        way_out: WayOut::InternetGateway(internet_gateway.clone()),
        subnets: public_subnets.clone(),
    });
    let private_tables = add_private_tables(
        graph,
        stack,
        &vpc,
        &internet_gateway,
        &public_subnets,
        &private_subnets,
    );
    let s3 = graph.add(VpcEndpoint {
        label: stack.label("network", "endpoint-s3", 255),
        aws: stack.aws.clone(),
        lag: stack.lag(),
        vpc: vpc.clone(),
        service: "s3",
        reach: Reach::Gateway(private_tables.clone()),
    });
    add_flow_log(graph, stack, &vpc);
    let groups = add_groups(graph, stack, &vpc);
    let mut ready = add_rules(graph, stack, &groups);
    ready.extend([public_table.id(), s3.id()]);
    ready.extend(private_tables.iter().map(Handle::id));
    if settings.nat == Nat::None || stack.every_way_out {
        ready.extend(add_interface_endpoints(graph, stack, &vpc, &private_subnets, &groups));
    }
    let internet = vec![internet_gateway.id(), public_table.id()];
    Network { vpc, public_subnets, private_subnets, internet, groups, ready }
}

/// The VPC's range in eight blocks: public subnets take the first ones, private ones the second half.
/// Of a /24 that leaves /27, the least that a load balancer accepts for its subnets.
fn block(settings: &Settings, number: usize) -> Option<Ipv4Net> {
    settings.cidr.subnets(settings.cidr.prefix_len() + 3).ok()?.nth(number)
}

fn public_cidr(settings: &Settings, zone: usize) -> Option<Ipv4Net> {
    match &settings.public_cidrs {
        Some(given) => given.get(zone).copied(),
        None => block(settings, zone),
    }
}

fn private_cidr(settings: &Settings, zone: usize) -> Option<Ipv4Net> {
    match &settings.private_cidrs {
        Some(given) => given.get(zone).copied(),
        None => block(settings, 4 + zone),
    }
}

fn add_subnets(
    graph: &mut Graph,
    stack: &Stack,
    vpc: &Handle<Vpc>,
    kind: &str,
    cidr: impl Fn(usize) -> Option<Ipv4Net>,
) -> Vec<Handle<Subnet>> {
    (0..usize::from(stack.environment.network.zones))
        .filter_map(|zone| Some((zone, cidr(zone)?)))
        .map(|(zone, cidr)| {
            graph.add(Subnet {
                label: stack.label("network", &format!("subnet-{kind}-{}", zone + 1), 255),
                aws: stack.aws.clone(),
                vpc: vpc.clone(),
                cidr,
                zone,
            })
        })
        .collect()
}

/// One table for all private subnets, or one for each when every zone has its own NAT gateway.
fn add_private_tables(
    graph: &mut Graph,
    stack: &Stack,
    vpc: &Handle<Vpc>,
    internet_gateway: &Handle<InternetGateway>,
    public_subnets: &[Handle<Subnet>],
    private_subnets: &[Handle<Subnet>],
) -> Vec<Handle<RouteTable>> {
    let gateways = match stack.environment.network.nat {
        Nat::None => 0,
        Nat::Single => 1,
        Nat::PerZone => public_subnets.len(),
    };
    let gateways: Vec<_> = public_subnets
        .iter()
        .take(gateways)
        .enumerate()
        .map(|(zone, subnet)| {
            let address = graph.add(ElasticIp {
                label: stack.label("network", &format!("elastic-ip-{}", zone + 1), 255),
                aws: stack.aws.clone(),
            });
            graph.add(NatGateway {
                label: stack.label("network", &format!("nat-gateway-{}", zone + 1), 255),
                aws: stack.aws.clone(),
                lag: stack.lag(),
                subnet: subnet.clone(),
                address,
                internet_gateway: internet_gateway.clone(),
            })
        })
        .collect();
    let per_table = if gateways.len() > 1 { 1 } else { private_subnets.len().max(1) };
    private_subnets
        .chunks(per_table)
        .enumerate()
        .map(|(number, subnets)| {
            graph.add(RouteTable {
                label: stack.label("network", &format!("route-table-private-{}", number + 1), 255),
                aws: stack.aws.clone(),
                lag: stack.lag(),
                vpc: vpc.clone(),
                way_out: gateways.get(number).cloned().map_or(WayOut::None, WayOut::NatGateway),
                subnets: subnets.to_vec(),
            })
        })
        .collect()
}

fn add_flow_log(graph: &mut Graph, stack: &Stack, vpc: &Handle<Vpc>) {
    let log_group = stack.label("network", "flow-log-group", 512);
    let (region, account) = (&stack.aws.region, &stack.aws.account);
    let arn = format!("arn:aws:logs:{region}:{account}:log-group:{}", log_group.name);
    let log_group = graph.add(LogGroup {
        label: log_group,
        aws: stack.aws.clone(),
        retention_days: stack.environment.network.flow_log_retention_days,
    });
    let role = graph.add(Role {
        label: stack.label("network", "flow-log-role", 64),
        aws: stack.aws.clone(),
        trust: trusts("vpc-flow-logs.amazonaws.com", account),
        managed_policies: Vec::new(),
        policy: json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Resource": [arn, format!("{arn}:*")],
                },
                // As in "IAM role for publishing flow logs to CloudWatch Logs", VPC user guide.
                {
                    "Effect": "Allow",
                    "Action": ["logs:DescribeLogGroups", "logs:DescribeLogStreams"],
                    "Resource": "*",
                },
            ],
        })
        .into(),
    });
    graph.add(FlowLog {
        label: stack.label("network", "flow-log", 255),
        aws: stack.aws.clone(),
        lag: stack.lag(),
        vpc: vpc.clone(),
        log_group,
        role,
    });
}

fn add_groups(graph: &mut Graph, stack: &Stack, vpc: &Handle<Vpc>) -> Groups {
    Groups {
        alb: add_group(graph, stack, vpc, "alb", "Load balancer"),
        api: add_group(graph, stack, vpc, "api", "API tasks"),
        worker: add_group(graph, stack, vpc, "worker", "Voice worker tasks"),
        proxy: add_group(graph, stack, vpc, "proxy", "RDS Proxy"),
        database: add_group(graph, stack, vpc, "database", "Database"),
        cache: add_group(graph, stack, vpc, "cache", "Redis"),
    }
}

fn add_group(
    graph: &mut Graph,
    stack: &Stack,
    vpc: &Handle<Vpc>,
    who: &str,
    description: &'static str,
) -> Handle<SecurityGroup> {
    graph.add(SecurityGroup {
        label: stack.label("network", &format!("security-group-{who}"), 255),
        aws: stack.aws.clone(),
        vpc: vpc.clone(),
        description,
    })
}

/// By group, never by range. Two exceptions: who may call the load balancer, and the tasks' way to
/// AWS's own services and the identity provider, whose addresses are in no group.
fn add_rules(graph: &mut Graph, stack: &Stack, groups: &Groups) -> Vec<ResourceId> {
    let Groups { alb, api, worker, proxy, database, cache } = groups;
    let to = |port, group: &Handle<SecurityGroup>| Rule { port, peer: Peer::Group(group.clone()) };
    let anywhere = |port| Rule { port, peer: Peer::Anywhere };
    let rules = [
        ("alb", alb, vec![visitors(stack)], vec![to(API_PORT, api)]),
        (
            "api",
            api,
            vec![to(API_PORT, alb)],
            vec![
                to(POSTGRES_PORT, proxy),
                // The migration task runs in this group, as the master user, past the proxy.
                to(POSTGRES_PORT, database),
                to(REDIS_PORT, cache),
                anywhere(HTTPS),
            ],
        ),
        (
            "worker",
            worker,
            vec![],
            vec![to(POSTGRES_PORT, proxy), to(REDIS_PORT, cache), anywhere(HTTPS)],
        ),
        (
            "proxy",
            proxy,
            vec![to(POSTGRES_PORT, api), to(POSTGRES_PORT, worker)],
            vec![to(POSTGRES_PORT, database)],
        ),
        ("database", database, vec![to(POSTGRES_PORT, proxy), to(POSTGRES_PORT, api)], vec![]),
        ("cache", cache, vec![to(REDIS_PORT, api), to(REDIS_PORT, worker)], vec![]),
    ];
    rules
        .into_iter()
        .map(|(who, group, ingress, egress)| {
            let rules = SecurityGroupRules {
                label: stack.label("network", &format!("security-group-rules-{who}"), 255),
                aws: stack.aws.clone(),
                group: group.clone(),
                ingress,
                egress,
            };
            graph.add(rules).id()
        })
        .collect()
}

/// Who may call the load balancer: only `CloudFront`, by HTTPS when there is a certificate. A direct
/// caller could write any viewer's address into the header that the firewall counts by. An emulator drops prefix lists from rules without a word, which would leave a rule
/// for nobody; its load balancer is reached by way of this machine only.
fn visitors(stack: &Stack) -> Rule {
    let emulated = stack.environment.sandbox.is_some()
        || stack.environment.aws.endpoint_url.is_some()
        || Target::from_variables() == Target::Emulator;
    let peer = if emulated { Peer::Anywhere } else { Peer::PrefixList(CLOUDFRONT) };
    let port = if stack.environment.load_balancer_tls() { HTTPS } else { HTTP };
    Rule { port, peer }
}

fn add_interface_endpoints(
    graph: &mut Graph,
    stack: &Stack,
    vpc: &Handle<Vpc>,
    subnets: &[Handle<Subnet>],
    groups: &Groups,
) -> Vec<ResourceId> {
    let group = add_group(graph, stack, vpc, "endpoints", "VPC endpoints");
    let from =
        |group: &Handle<SecurityGroup>| Rule { port: HTTPS, peer: Peer::Group(group.clone()) };
    let rules = graph.add(SecurityGroupRules {
        label: stack.label("network", "security-group-rules-endpoints", 255),
        aws: stack.aws.clone(),
        group: group.clone(),
        ingress: vec![from(&groups.api), from(&groups.worker)],
        egress: vec![],
    });
    let mut ready = vec![rules.id()];
    for service in INTERFACE_ENDPOINTS {
        let endpoint = graph.add(VpcEndpoint {
            label: stack.label("network", &format!("endpoint-{}", service.replace('.', "-")), 255),
            aws: stack.aws.clone(),
            lag: stack.lag(),
            vpc: vpc.clone(),
            service,
            reach: Reach::Interface { subnets: subnets.to_vec(), group: group.clone() },
        });
        ready.push(endpoint.id());
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_of_the_smallest_and_largest_range_do_not_overlap_and_fit_a_load_balancer() {
        for cidr in ["10.20.0.0/16", "10.20.0.0/24"] {
            let settings =
                Settings { cidr: cidr.parse().unwrap(), zones: 3, ..Settings::default() };
            let mut all = Vec::new();
            for zone in 0..3 {
                all.push(public_cidr(&settings, zone).unwrap());
                all.push(private_cidr(&settings, zone).unwrap());
            }
            for (number, one) in all.iter().enumerate() {
                assert!(one.prefix_len() <= 27 && settings.cidr.contains(one), "{one}");
                assert!(all.iter().skip(number + 1).all(|other| !one.contains(other)), "{one}");
            }
        }
    }
}
