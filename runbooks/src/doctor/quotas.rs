//! Quotas of the account in the region, against what is used now and what the plan would create.
//!
//! Codes and names as Service Quotas lists them; each is the one of "Quotas" in the user guide of
//! its service. Quotas of services without a region (IAM, `CloudFront`, S3) are kept in us-east-1 and
//! lie far above what one environment makes.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{NatGatewayState, VpcEndpointType};
use aws_sdk_elasticache::types::CacheCluster;
use aws_sdk_elasticloadbalancingv2::types::LoadBalancerTypeEnum;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{Check, Patient, fargate};
use crate::{
    aws::ec2::live_tags,
    engine::{
        Error,
        plan::{Action, Plan},
    },
    environment::Tasks,
};

/// Quotas asked for at once; Service Quotas throttles early.
const ABREAST: usize = 4;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Thing {
    Vpcs,
    InternetGateways,
    NatGateways,
    ElasticIps,
    InterfaceEndpoints,
    LoadBalancers,
    DatabaseInstances,
    DatabaseProxies,
    CacheNodes,
    FargateVcpus,
}

struct Quota {
    thing: Thing,
    name: &'static str,
    title: &'static str,
    service: &'static str,
    code: &'static str,
}

const fn quota(
    thing: Thing,
    name: &'static str,
    title: &'static str,
    service: &'static str,
    code: &'static str,
) -> Quota {
    Quota { thing, name, title, service, code }
}

const QUOTAS: [Quota; 10] = [
    quota(Thing::Vpcs, "vpcs", "VPCs per Region", "vpc", "L-F678F1CE"),
    quota(
        Thing::InternetGateways,
        "internet-gateways",
        "Internet gateways per Region",
        "vpc",
        "L-A4707A72",
    ),
    quota(
        Thing::NatGateways,
        "nat-gateways",
        "NAT gateways per Availability Zone",
        "vpc",
        "L-FE5A380F",
    ),
    quota(Thing::ElasticIps, "elastic-ips", "EC2-VPC Elastic IPs", "ec2", "L-0263D0A3"),
    quota(
        Thing::InterfaceEndpoints,
        "interface-endpoints",
        "Interface VPC endpoints per VPC",
        "vpc",
        "L-29B6F2EB",
    ),
    quota(
        Thing::LoadBalancers,
        "load-balancers",
        "Application Load Balancers per Region",
        "elasticloadbalancing",
        "L-53DA6B97",
    ),
    quota(Thing::DatabaseInstances, "database-instances", "DB instances", "rds", "L-7B6409FD"),
    quota(Thing::DatabaseProxies, "database-proxies", "Proxies", "rds", "L-D94C7EA3"),
    quota(Thing::CacheNodes, "cache-nodes", "Nodes per Region", "elasticache", "L-DFE45DF3"),
    quota(
        Thing::FargateVcpus,
        "fargate-vcpus",
        "Fargate On-Demand vCPU resource count",
        "fargate",
        "L-3032A538",
    ),
];

/// What a quota has to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Need {
    /// Now, by everything in the account.
    used: f64,
    /// After the run.
    after: f64,
    /// At the most that the environment may grow to by itself.
    most: f64,
}

impl Need {
    /// Things that are counted and do not grow by themselves.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    fn counted(used: usize, created: usize) -> Self {
        let (used, after) = (used as f64, (used + created) as f64);
        Self { used, after, most: after }
    }
}

/// Every quota; `since` is when the plan's observation began, whose answers are used again.
pub(super) async fn checks(patient: &Patient<'_>, plan: &Plan, since: Instant) -> Vec<Check> {
    let asked = QUOTAS.iter().map(|quota| async move {
        let aws = &patient.aws;
        let answers = tokio::try_join!(
            patient.timings.repeat(|| aws.servicequotas.value(quota.service, quota.code)),
            need(patient, plan, quota.thing, since),
        );
        match answers {
            Ok((Some(value), need)) => judge(quota, &aws.region, value, &need),
            Ok((None, _)) => Check::warn(
                format!("quota/{}", quota.name),
                format!("not checked: AWS tells no value of {} ({})", quota.title, quota.code),
            ),
            Err(error) => Check::not_made(format!("quota/{}", quota.name), &error),
        }
    });
    stream::iter(asked).buffered(ABREAST).collect().await
}

async fn need(
    patient: &Patient<'_>,
    plan: &Plan,
    thing: Thing,
    since: Instant,
) -> Result<Need, Error> {
    let aws = &patient.aws;
    let created = |id: &str| created(plan, |found| found == id);
    Ok(match thing {
        Thing::Vpcs => Need::counted(aws.ec2.vpcs(since).await?.len(), created("network/vpc")),
        Thing::InternetGateways => Need::counted(
            aws.ec2.internet_gateways(since).await?.len(),
            created("network/internet-gateway"),
        ),
        Thing::NatGateways => nat_gateways(patient, plan, since).await?,
        Thing::ElasticIps => Need::counted(
            aws.ec2.addresses(since).await?.len(),
            self::created(plan, |id| id.starts_with("network/elastic-ip-")),
        ),
        Thing::InterfaceEndpoints => interface_endpoints(patient, plan, since).await?,
        Thing::LoadBalancers => {
            let all = aws.elasticloadbalancingv2.load_balancers(since).await?;
            let application = Some(&LoadBalancerTypeEnum::Application);
            Need::counted(
                all.iter().filter(|one| one.r#type() == application).count(),
                created("compute/load-balancer"),
            )
        }
        Thing::DatabaseInstances => Need::counted(
            aws.rds.instances(since).await?.len(),
            self::created(plan, |id| {
                id == "database/instance" || id.starts_with("database/cluster-instance-")
            }),
        ),
        Thing::DatabaseProxies => {
            Need::counted(aws.rds.proxies(since).await?.len(), created("database/proxy"))
        }
        Thing::CacheNodes => {
            let clusters = aws.elasticache.clusters(since).await?;
            let used: i32 = clusters.iter().filter_map(CacheCluster::num_cache_nodes).sum();
            let nodes = patient.environment.cache.nodes;
            let created = if created("cache/replication-group") > 0 { nodes } else { 0 };
            let count = |number: i32| usize::try_from(number).unwrap_or_default();
            Need::counted(count(used), count(created))
        }
        Thing::FargateVcpus => {
            let cluster = format!("bme-{}-cluster", patient.environment.name);
            let running = fargate::running(aws, &cluster).await?;
            let compute = &patient.environment.compute;
            vcpus(running, [&compute.api, &compute.worker])
        }
    })
}

/// Resources that the plan makes and whose id is one of these.
fn created(plan: &Plan, is: impl Fn(&str) -> bool) -> usize {
    let made = plan.changes.iter().filter(|change| change.action == Action::Create);
    made.filter(|change| is(change.id.as_str())).count()
}

/// The quota is one of each zone: what counts is the zone that has the most in the end. Those that
/// are pending, available or being deleted count.
async fn nat_gateways(patient: &Patient<'_>, plan: &Plan, since: Instant) -> Result<Need, Error> {
    let ec2 = &patient.aws.ec2;
    let (gateways, subnets, zones) =
        tokio::try_join!(ec2.nat_gateways(since), ec2.subnets(since), ec2.zones())?;
    let zone = |id: Option<&str>| {
        subnets.iter().find(|subnet| subnet.subnet_id() == id)?.availability_zone()
    };
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for gateway in gateways.iter().filter(|gateway| {
        !matches!(gateway.state(), Some(NatGatewayState::Deleted | NatGatewayState::Failed))
    }) {
        if let Some(zone) = zone(gateway.subnet_id()) {
            *used.entry(zone).or_default() += 1;
        }
    }
    // Subnet and gateway number n lie in the region's n-th zone.
    let new =
        |number: usize| created(plan, |id| id == format!("network/nat-gateway-{}", number + 1));
    let busiest = zones
        .iter()
        .enumerate()
        .map(|(number, zone)| (used.get(zone.as_str()).copied().unwrap_or_default(), new(number)))
        .max_by_key(|(used, new)| used + new);
    let (used, new) = busiest.unwrap_or_default();
    Ok(Need::counted(used, new))
}

/// The quota is one of each VPC: ours, which has none before it is made.
async fn interface_endpoints(
    patient: &Patient<'_>,
    plan: &Plan,
    since: Instant,
) -> Result<Need, Error> {
    let ec2 = &patient.aws.ec2;
    let (vpcs, endpoints) = tokio::try_join!(ec2.vpcs(since), ec2.vpc_endpoints(since))?;
    let ours = vpcs
        .iter()
        .find(|vpc| live_tags(vpc.tags()).get("bme:env") == Some(&patient.environment.name));
    let in_ours = endpoints.iter().filter(|endpoint| {
        ours.is_some_and(|vpc| vpc.vpc_id() == endpoint.vpc_id())
            && endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Interface)
    });
    let new =
        created(plan, |id| id.starts_with("network/endpoint-") && id != "network/endpoint-s3");
    Ok(Need::counted(in_ours.count(), new))
}

/// A deploy starts the new tasks beside the old ones; auto scaling may go up to the maximum.
fn vcpus(running: fargate::Running, services: [&Tasks; 2]) -> Need {
    let sum = |tasks: fn(&Tasks) -> i32| -> f64 {
        services.iter().map(|service| f64::from(service.cpu * tasks(service)) / 1024.0).sum()
    };
    let others = running.all - running.ours;
    let after = others + 2.0 * sum(|tasks| tasks.minimum);
    let most = others + sum(|tasks| tasks.maximum);
    Need { used: running.all, after, most: most.max(after) }
}

fn judge(quota: &Quota, region: &str, value: f64, need: &Need) -> Check {
    let Need { used, after, most } = *need;
    let name = format!("quota/{}", quota.name);
    let title = quota.title;
    let more = |wanted: f64| {
        format!(
            "free some, or ask for more: `aws service-quotas request-service-quota-increase --region {region} --service-code {} --quota-code {} --desired-value {}`",
            quota.service,
            quota.code,
            wanted.ceil()
        )
    };
    // What is not made cannot fail, however full it is.
    if after > value && after > used {
        Check::fail(name, format!("{title}: {after} of {value} would be used, {used} are now"))
            .with_hint(more(after))
    } else if most > value && most > used {
        Check::warn(
            name,
            format!("{title}: auto scaling may go up to {most}, the quota is {value}"),
        )
        .with_hint(more(most))
    } else {
        Check::ok(name, format!("{title}: {used} of {value} used, {after} after a run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn judged(value: f64, need: Need) -> Check {
        judge(&QUOTAS[0], "eu-west-1", value, &need)
    }

    #[test]
    fn a_quota_holds_what_is_there_and_what_comes() {
        assert_eq!(judged(5.0, Need::counted(4, 1)).state, State::Ok);
        let full = judged(5.0, Need::counted(5, 1));
        assert_eq!(full.state, State::Fail);
        assert_eq!(full.message, "VPCs per Region: 6 of 5 would be used, 5 are now");
        let hint = full.hint.unwrap();
        assert!(hint.contains("--quota-code L-F678F1CE --desired-value 6"), "{hint}");
    }

    #[test]
    fn a_full_quota_is_no_obstacle_to_what_is_there() {
        assert_eq!(judged(5.0, Need::counted(5, 0)).state, State::Ok);
        assert_eq!(judged(0.0, Need::counted(1, 0)).state, State::Ok);
    }

    #[test]
    fn a_deploy_has_to_fit_and_scaling_should() {
        let api = Tasks { cpu: 512, minimum: 2, maximum: 20, ..Tasks::default() };
        let worker = Tasks { cpu: 256, minimum: 1, maximum: 4, ..Tasks::default() };
        let running = fargate::Running { all: 3.25, ours: 1.25 };
        let need = vcpus(running, [&api, &worker]);
        assert_eq!(need, Need { used: 3.25, after: 4.5, most: 13.0 });
        assert_eq!(judged(16.0, need).state, State::Ok);
        assert_eq!(judged(6.0, need).state, State::Warn);
        assert_eq!(judged(4.0, need).state, State::Fail);
    }
}
