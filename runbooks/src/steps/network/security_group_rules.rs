//! All rules of one security group.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    IpPermission, IpRange, Ipv6Range, PrefixListId, SecurityGroup as LiveGroup, UserIdGroupPair,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::security_group::SecurityGroup;
use crate::{
    aws::{Aws, Label, failed},
    engine::{
        Class, Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// Prefix list of the addresses from which `CloudFront` calls origins (Amazon `CloudFront` developer
/// guide, "Locations and IP address ranges of `CloudFront` edge servers").
pub const CLOUDFRONT: &str = "com.amazonaws.global.cloudfront.origin-facing";

/// Every IPv4 address.
const ANYWHERE: &str = "0.0.0.0/0";

/// Who is at the other end of a rule.
pub enum Peer {
    /// Whoever is in that group.
    Group(Handle<SecurityGroup>),
    /// The addresses in a list that AWS manages, by its name.
    PrefixList(&'static str),
    /// Every IPv4 address.
    Anywhere,
}

/// One TCP port that is open to or from a peer.
pub struct Rule {
    /// TCP port.
    pub port: i32,
    /// The other end.
    pub peer: Peer,
}

/// The rules of a group, both ways, and nothing besides them: also the rule "everything may leave",
/// with which AWS starts a group, goes.
pub struct SecurityGroupRules {
    /// Id. Rules are recognised by what they say; name and tags are not used.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Whose rules.
    pub group: Handle<SecurityGroup>,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SecurityGroupRulesOutput {
    /// `sg-…`.
    group_id: String,
}

/// Rules by what they say, each as a permission of a single peer.
type Said = BTreeMap<String, IpPermission>;

#[async_trait]
impl Resource for SecurityGroupRules {
    type Output = SecurityGroupRulesOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let peers = self.ingress.iter().chain(&self.egress).filter_map(|rule| match &rule.peer {
            Peer::Group(group) => Some(group.id()),
            Peer::PrefixList(_) | Peer::Anywhere => None,
        });
        std::iter::once(self.group.id()).chain(peers).collect()
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<SecurityGroupRulesOutput>>, Error> {
        let Some(group) = outputs.when_observed(&self.group).await else { return Ok(None) };
        let groups = self.aws.ec2.security_groups(since).await?;
        let Some(live) = groups.iter().find(|g| g.group_id() == Some(&group.id)) else {
            return Ok(None);
        };
        let lists = self.prefix_lists(live, since).await?;
        let (ingress, egress) = said(live, &lists);
        if ingress.is_empty() && egress.is_empty() {
            return Ok(None);
        }
        Ok(Some(Live {
            properties: json!({ "ingress": shown(ingress.keys()), "egress": shown(egress.keys()) }),
            condition: Condition::Ready,
            output: SecurityGroupRulesOutput { group_id: group.id },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let keys = |rules: &[Rule], way| {
            let keys: Vec<_> = rules
                .iter()
                .map(|rule| {
                    let peer = match &rule.peer {
                        Peer::Group(group) => outputs.show(group, |group| group.id.clone()),
                        Peer::PrefixList(name) => (*name).into(),
                        Peer::Anywhere => ANYWHERE.into(),
                    };
                    key(
                        "tcp",
                        Some(rule.port),
                        Some(rule.port),
                        way,
                        peer.as_str().unwrap_or_default(),
                    )
                })
                .collect();
            shown(keys.iter())
        };
        json!({ "ingress": keys(&self.ingress, "from"), "egress": keys(&self.egress, "to") })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SecurityGroupRulesOutput>, Error> {
        let group_id = outputs.get(&self.group)?.id;
        // No rule was seen: the group is new and as AWS makes it, or has none at all. Neither has to be
        // looked at again, since what is taken away counts as gone when it is not there.
        let live = (Said::new(), Said::from([everything()]));
        self.change(&group_id, live, (true, true), outputs).await?;
        Ok(Some(SecurityGroupRulesOutput { group_id }))
    }

    async fn update(
        &self,
        live: &Live<SecurityGroupRulesOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let id = &live.output.group_id;
        let since = Instant::now();
        let groups = self.aws.ec2.security_groups(since).await?;
        let rules = match groups.iter().find(|g| g.group_id() == Some(id)) {
            Some(group) => said(group, &self.prefix_lists(group, since).await?),
            // Made so shortly ago that it is not visible yet: as AWS makes it.
            None => (Said::new(), Said::from([everything()])),
        };
        let touched = (touches(fields, "ingress"), touches(fields, "egress"));
        self.change(id, rules, touched, outputs).await
    }

    /// Takes all rules away, so that groups that name each other can be deleted one by one.
    async fn delete(&self, live: &Live<SecurityGroupRulesOutput>) -> Result<(), Error> {
        let since = Instant::now();
        let groups = self.aws.ec2.security_groups(since).await?;
        let id = &live.output.group_id;
        let Some(group) = groups.iter().find(|g| g.group_id() == Some(id)) else { return Ok(()) };
        let (ingress, egress) = said(group, &self.prefix_lists(group, since).await?);
        self.revoke_ingress(id, ingress.into_values().collect()).await?;
        self.revoke_egress(id, egress.into_values().collect()).await
    }

    fn permissions(&self) -> Vec<Permission> {
        let changes = [
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
        ];
        vec![
            Permission::anywhere(["ec2:DescribeManagedPrefixLists", "ec2:DescribeSecurityGroups"]),
            Permission::on(changes, [self.aws.arn("ec2", "security-group/*")])
                .only_if(self.label.resource_tagged()),
        ]
    }
}

impl SecurityGroupRules {
    /// Adds what is missing first and then takes away what is too much, so that nothing that should
    /// pass is ever shut out.
    async fn change(
        &self,
        id: &str,
        (live_ingress, live_egress): (Said, Said),
        (ingress, egress): (bool, bool),
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if ingress {
            let wanted = self.wanted(&self.ingress, "from", outputs).await?;
            self.authorize_ingress(id, without(&wanted, &live_ingress)).await?;
            self.revoke_ingress(id, without(&live_ingress, &wanted)).await?;
        }
        if egress {
            let wanted = self.wanted(&self.egress, "to", outputs).await?;
            self.authorize_egress(id, without(&wanted, &live_egress)).await?;
            self.revoke_egress(id, without(&live_egress, &wanted)).await?;
        }
        Ok(())
    }

    async fn wanted(&self, rules: &[Rule], way: &str, outputs: &Outputs) -> Result<Said, Error> {
        let mut said = Said::new();
        for rule in rules {
            let permission =
                IpPermission::builder().ip_protocol("tcp").from_port(rule.port).to_port(rule.port);
            let (peer, permission) = match &rule.peer {
                Peer::Group(group) => {
                    let id = outputs.get(group)?.id;
                    let pair = UserIdGroupPair::builder().group_id(&id).build();
                    (id, permission.user_id_group_pairs(pair))
                }
                Peer::PrefixList(name) => {
                    let id = self.prefix_list(name).await?;
                    let list = PrefixListId::builder().prefix_list_id(id).build();
                    ((*name).to_owned(), permission.prefix_list_ids(list))
                }
                Peer::Anywhere => {
                    let range = IpRange::builder().cidr_ip(ANYWHERE).build();
                    (ANYWHERE.to_owned(), permission.ip_ranges(range))
                }
            };
            said.insert(
                key("tcp", Some(rule.port), Some(rule.port), way, &peer),
                permission.build(),
            );
        }
        Ok(said)
    }

    async fn prefix_list(&self, name: &str) -> Result<String, Error> {
        let lists = self.aws.ec2.prefix_lists(Instant::now()).await?;
        lists.get(name).cloned().ok_or_else(|| {
            Error::fatal(
                "ec2:DescribeManagedPrefixLists",
                "no-prefix-list",
                format!("{} has no prefix list `{name}`", self.aws.region),
            )
            .with_hint("give `compute.certificate_arn`, with which the load balancer needs none")
        })
    }

    /// Names of prefix lists by their ids; asked for only when a rule on either side has one.
    async fn prefix_lists(
        &self,
        live: &LiveGroup,
        since: Instant,
    ) -> Result<BTreeMap<String, String>, Error> {
        let permissions = live.ip_permissions().iter().chain(live.ip_permissions_egress());
        if permissions.flat_map(IpPermission::prefix_list_ids).next().is_none() {
            return Ok(BTreeMap::new());
        }
        let lists = self.aws.ec2.prefix_lists(since).await?;
        Ok(lists.iter().map(|(name, id)| (id.clone(), name.clone())).collect())
    }

    async fn authorize_ingress(&self, id: &str, rules: Vec<IpPermission>) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        let call = self.aws.ec2.client.authorize_security_group_ingress().group_id(id);
        let done = call.set_ip_permissions(Some(rules)).send().await;
        duplicate_is_success(done.map_err(failed("ec2:AuthorizeSecurityGroupIngress")))
    }

    async fn authorize_egress(&self, id: &str, rules: Vec<IpPermission>) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        let call = self.aws.ec2.client.authorize_security_group_egress().group_id(id);
        let done = call.set_ip_permissions(Some(rules)).send().await;
        duplicate_is_success(done.map_err(failed("ec2:AuthorizeSecurityGroupEgress")))
    }

    async fn revoke_ingress(&self, id: &str, rules: Vec<IpPermission>) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        let call = self.aws.ec2.client.revoke_security_group_ingress().group_id(id);
        let done = call.set_ip_permissions(Some(rules)).send().await;
        gone_is_success(done.map_err(failed("ec2:RevokeSecurityGroupIngress")))
    }

    async fn revoke_egress(&self, id: &str, rules: Vec<IpPermission>) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        let call = self.aws.ec2.client.revoke_security_group_egress().group_id(id);
        let done = call.set_ip_permissions(Some(rules)).send().await;
        gone_is_success(done.map_err(failed("ec2:RevokeSecurityGroupEgress")))
    }
}

/// "Duplicate" is success: the engine looks again after a lost answer, and what one rule of several
/// still lacks then shows as a difference.
fn duplicate_is_success<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.class != Class::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn gone_is_success<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.class != Class::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `tcp 5432 from sg-1`, `all to 0.0.0.0/0`.
fn key(protocol: &str, from: Option<i32>, to: Option<i32>, way: &str, peer: &str) -> String {
    match (protocol, from, to) {
        ("-1", ..) => format!("all {way} {peer}"),
        (_, Some(from), Some(to)) if from == to => format!("{protocol} {from} {way} {peer}"),
        (_, Some(from), Some(to)) => format!("{protocol} {from}-{to} {way} {peer}"),
        _ => format!("{protocol} {way} {peer}"),
    }
}

fn everything() -> (String, IpPermission) {
    let range = IpRange::builder().cidr_ip(ANYWHERE).build();
    let permission = IpPermission::builder().ip_protocol("-1").ip_ranges(range).build();
    (key("-1", None, None, "to", ANYWHERE), permission)
}

/// The rules in and out, one for each peer of each permission.
fn said(group: &LiveGroup, lists: &BTreeMap<String, String>) -> (Said, Said) {
    let read = |permissions: &[IpPermission], way| {
        permissions.iter().flat_map(|permission| apart(permission, way, lists)).collect()
    };
    (read(group.ip_permissions(), "from"), read(group.ip_permissions_egress(), "to"))
}

fn apart(
    permission: &IpPermission,
    way: &str,
    lists: &BTreeMap<String, String>,
) -> Vec<(String, IpPermission)> {
    let protocol = permission.ip_protocol().unwrap_or("-1");
    let (from, to) = (permission.from_port(), permission.to_port());
    let alone =
        || IpPermission::builder().ip_protocol(protocol).set_from_port(from).set_to_port(to);
    let key = |peer: &str| key(protocol, from, to, way, peer);
    let mut rules = Vec::new();
    for pair in permission.user_id_group_pairs() {
        let id = pair.group_id().unwrap_or_default();
        let pair = UserIdGroupPair::builder().group_id(id).build();
        rules.push((key(id), alone().user_id_group_pairs(pair).build()));
    }
    for range in permission.ip_ranges() {
        let cidr = range.cidr_ip().unwrap_or_default();
        let range = IpRange::builder().cidr_ip(cidr).build();
        rules.push((key(cidr), alone().ip_ranges(range).build()));
    }
    for range in permission.ipv6_ranges() {
        let cidr = range.cidr_ipv6().unwrap_or_default();
        let range = Ipv6Range::builder().cidr_ipv6(cidr).build();
        rules.push((key(cidr), alone().ipv6_ranges(range).build()));
    }
    for list in permission.prefix_list_ids() {
        let id = list.prefix_list_id().unwrap_or_default();
        let name = lists.get(id).map_or(id, String::as_str);
        let list = PrefixListId::builder().prefix_list_id(id).build();
        rules.push((key(name), alone().prefix_list_ids(list).build()));
    }
    rules
}

fn without(rules: &Said, others: &Said) -> Vec<IpPermission> {
    let rules = rules.iter().filter(|(key, _)| !others.contains_key(*key));
    rules.map(|(_, permission)| permission.clone()).collect()
}

fn shown<'a>(keys: impl Iterator<Item = &'a String>) -> Value {
    Value::Object(keys.map(|key| (key.clone(), true.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_of_several_peers_is_several_rules() {
        let permission = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(5432)
            .to_port(5432)
            .user_id_group_pairs(UserIdGroupPair::builder().group_id("sg-1").build())
            .user_id_group_pairs(UserIdGroupPair::builder().group_id("sg-2").user_id("1").build())
            .prefix_list_ids(PrefixListId::builder().prefix_list_id("pl-1").build())
            .build();
        let lists = BTreeMap::from([("pl-1".to_owned(), CLOUDFRONT.to_owned())]);
        let rules: Said = apart(&permission, "from", &lists).into_iter().collect();
        let keys: Vec<_> = rules.keys().map(String::as_str).collect();
        let cloudfront = format!("tcp 5432 from {CLOUDFRONT}");
        assert_eq!(keys, [cloudfront.as_str(), "tcp 5432 from sg-1", "tcp 5432 from sg-2"]);
        assert!(
            rules.values().all(|rule| {
                rule.user_id_group_pairs().len() + rule.prefix_list_ids().len() == 1
            })
        );
    }

    #[test]
    fn the_rule_that_aws_starts_with_reads_like_ours() {
        let (key, permission) = everything();
        assert_eq!(apart(&permission, "to", &BTreeMap::new())[0].0, key);
    }
}
