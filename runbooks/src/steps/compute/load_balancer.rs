//! The application load balancer.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::types::{
    LoadBalancer as LiveLoadBalancer, LoadBalancerAttribute, LoadBalancerSchemeEnum,
    LoadBalancerStateEnum, LoadBalancerTypeEnum,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, elasticloadbalancingv2::tags, failed, permissions::service_linked_role},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
    steps::network::{security_group::SecurityGroup, subnet::Subnet},
};

/// An internet-facing load balancer in the public subnets.
pub struct LoadBalancer {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Where it stands.
    pub subnets: Vec<Handle<Subnet>>,
    /// Who reaches it.
    pub group: Handle<SecurityGroup>,
    /// The way to the internet: without an internet gateway that is attached an internet-facing load
    /// balancer is refused, and its addresses keep the gateway from being detached.
    pub internet: Vec<ResourceId>,
    /// Refuse deletion until this is off.
    pub deletion_protection: bool,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct LoadBalancerOutput {
    /// Its ARN.
    pub arn: String,
    /// Its host name.
    pub dns_name: String,
    /// The hosted zone of its host name, for alias records.
    pub zone_id: String,
    /// `app/name/id`, the dimension `LoadBalancer` of its metrics.
    pub full_name: String,
}

#[async_trait]
impl Resource for LoadBalancer {
    type Output = LoadBalancerOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let subnets = self.subnets.iter().map(Handle::id);
        subnets.chain([self.group.id()]).chain(self.internet.iter().cloned()).collect()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<LoadBalancerOutput>>, Error> {
        let elb = &self.aws.elasticloadbalancingv2;
        let all = elb.load_balancers(since).await?;
        let named =
            |found: &&LiveLoadBalancer| found.load_balancer_name() == Some(&self.label.name);
        let Some(found) = all.iter().find(named) else {
            return Ok(None);
        };
        let arn = found.load_balancer_arn().unwrap_or_default().to_owned();
        let arns = [arn.clone()];
        let (mut tags, attributes) =
            futures::try_join!(elb.live_tags(&arns), self.live_attributes(&arn))?;
        let tags = tags.remove(&arn).unwrap_or_default();
        self.label.adopt(&tags)?;
        let zones = found.availability_zones().iter();
        let mut subnets: Vec<_> = zones.filter_map(|zone| zone.subnet_id()).collect();
        subnets.sort_unstable();
        let mut groups = found.security_groups().to_vec();
        groups.sort_unstable();
        let code = found.state().and_then(|state| state.code());
        let state = || code.map_or("unknown", LoadBalancerStateEnum::as_str).to_owned();
        let why = found.state().and_then(|state| state.reason()).unwrap_or("no reason given");
        Ok(Some(Live {
            properties: json!({
                "scheme": found.scheme().map(LoadBalancerSchemeEnum::as_str),
                "subnets": subnets,
                "securityGroups": groups,
                "attributes": attributes,
                "tags": tags,
            }),
            condition: match code {
                Some(LoadBalancerStateEnum::Active | LoadBalancerStateEnum::ActiveImpaired) => {
                    Condition::Ready
                }
                Some(LoadBalancerStateEnum::Failed) => Condition::Failed(why.to_owned()),
                _ => Condition::Pending(state()),
            },
            output: output(found),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "scheme": "internet-facing",
            "subnets": self.shown_subnets(outputs),
            "securityGroups": [outputs.show(&self.group, |group| group.id.clone())],
            "attributes": self.attributes(),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("scheme", "the scheme of a load balancer is fixed at its creation")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<LoadBalancerOutput>, Error> {
        let created = self
            .aws
            .elasticloadbalancingv2
            .client
            .create_load_balancer()
            .name(&self.label.name)
            .r#type(LoadBalancerTypeEnum::Application)
            .scheme(LoadBalancerSchemeEnum::InternetFacing)
            .set_subnets(Some(self.subnet_ids(outputs)?))
            .security_groups(outputs.get(&self.group)?.id)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:CreateLoadBalancer"))?;
        let made = created.load_balancers().first();
        let arn = made.and_then(LiveLoadBalancer::load_balancer_arn);
        // Killed before this, the next run's comparison finds the attributes.
        self.set_attributes(arn.unwrap_or_default()).await?;
        let is_active = |made: &&LiveLoadBalancer| {
            let code = made.state().and_then(|state| state.code());
            code == Some(&LoadBalancerStateEnum::Active)
        };
        Ok(made.filter(is_active).map(output))
    }

    async fn update(
        &self,
        live: &Live<LoadBalancerOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let client = &self.aws.elasticloadbalancingv2.client;
        let arn = &live.output.arn;
        if touches(fields, "subnets") {
            let set = client.set_subnets().load_balancer_arn(arn);
            let set = set.set_subnets(Some(self.subnet_ids(outputs)?));
            set.send().await.map_err(failed("elasticloadbalancing:SetSubnets"))?;
        }
        if touches(fields, "securityGroups") {
            let set = client.set_security_groups().load_balancer_arn(arn);
            let set = set.security_groups(outputs.get(&self.group)?.id);
            set.send().await.map_err(failed("elasticloadbalancing:SetSecurityGroups"))?;
        }
        if touches(fields, "attributes") {
            self.set_attributes(arn).await?;
        }
        if touches(fields, "tags") {
            self.aws.elasticloadbalancingv2.tag(arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<LoadBalancerOutput>) -> Result<(), Error> {
        let client = &self.aws.elasticloadbalancingv2.client;
        let arn = &live.output.arn;
        if live.properties["attributes"][PROTECTION] == "true" {
            let off = LoadBalancerAttribute::builder().key(PROTECTION).value("false").build();
            let modify = client.modify_load_balancer_attributes().load_balancer_arn(arn);
            let modify = modify.attributes(off).send().await;
            modify.map_err(failed("elasticloadbalancing:ModifyLoadBalancerAttributes"))?;
        }
        // Its network interfaces outlive this for minutes and keep security group and subnets: the
        // engine repeats those deletions (trap 7).
        let delete = client.delete_load_balancer().load_balancer_arn(arn);
        delete.send().await.map_err(failed("elasticloadbalancing:DeleteLoadBalancer"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticloadbalancing:AddTags",
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:DeleteLoadBalancer",
            "elasticloadbalancing:ModifyLoadBalancerAttributes",
            "elasticloadbalancing:SetSecurityGroups",
            "elasticloadbalancing:SetSubnets",
        ];
        let name = &self.label.name;
        let balancer = self.aws.arn("elasticloadbalancing", &format!("loadbalancer/app/{name}/*"));
        vec![
            Permission::anywhere([
                "elasticloadbalancing:DescribeLoadBalancerAttributes",
                "elasticloadbalancing:DescribeLoadBalancers",
                "elasticloadbalancing:DescribeTags",
            ]),
            Permission::on(actions, [balancer]),
            // Elastic Load Balancing looks at what it is made of in the caller's name.
            Permission::anywhere([
                "ec2:DescribeAccountAttributes",
                "ec2:DescribeInternetGateways",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ]),
            service_linked_role(&self.aws, "elasticloadbalancing.amazonaws.com"),
        ]
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(150)
    }

    fn interrupts(&self, path: &str) -> bool {
        path.starts_with("subnets")
    }

    /// Without capacity units, but with the public address that it has in each zone.
    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        let prices = Prices::of(&self.aws.region);
        let addresses = prices.of_each(Item::PublicIpv4, &properties["subnets"])?;
        Some(prices.monthly(Item::LoadBalancer)? + addresses)
    }
}

const PROTECTION: &str = "deletion_protection.enabled";

impl LoadBalancer {
    fn attributes(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (PROTECTION, self.deletion_protection.to_string()),
            ("idle_timeout.timeout_seconds", "60".into()),
            // A header that no RFC allows is how requests are smuggled.
            ("routing.http.drop_invalid_header_fields.enabled", "true".into()),
        ])
    }

    async fn live_attributes(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let describe = self.aws.elasticloadbalancingv2.client.describe_load_balancer_attributes();
        let answer = describe.load_balancer_arn(arn).send().await;
        let answer =
            answer.map_err(failed("elasticloadbalancing:DescribeLoadBalancerAttributes"))?;
        let ours = self.attributes();
        Ok(answer
            .attributes()
            .iter()
            .filter(|attribute| attribute.key().is_some_and(|key| ours.contains_key(key)))
            .filter_map(|attribute| Some((attribute.key()?.into(), attribute.value()?.into())))
            .collect())
    }

    async fn set_attributes(&self, arn: &str) -> Result<(), Error> {
        let attributes = self
            .attributes()
            .into_iter()
            .map(|(key, value)| LoadBalancerAttribute::builder().key(key).value(value).build())
            .collect();
        self.aws
            .elasticloadbalancingv2
            .client
            .modify_load_balancer_attributes()
            .load_balancer_arn(arn)
            .set_attributes(Some(attributes))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:ModifyLoadBalancerAttributes"))?;
        Ok(())
    }

    fn subnet_ids(&self, outputs: &Outputs) -> Result<Vec<String>, Error> {
        self.subnets.iter().map(|subnet| Ok(outputs.get(subnet)?.id)).collect()
    }

    fn shown_subnets(&self, outputs: &Outputs) -> Value {
        let mut ids: Vec<_> = self
            .subnets
            .iter()
            .map(|subnet| outputs.show(subnet, |subnet| subnet.id.clone()))
            .collect();
        ids.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        ids.into()
    }
}

fn output(found: &LiveLoadBalancer) -> LoadBalancerOutput {
    let arn = found.load_balancer_arn().unwrap_or_default().to_owned();
    LoadBalancerOutput {
        dns_name: found.dns_name().unwrap_or_default().to_owned(),
        zone_id: found.canonical_hosted_zone_id().unwrap_or_default().to_owned(),
        full_name: arn.split_once("loadbalancer/").map_or("", |(_, name)| name).to_owned(),
        arn,
    }
}
