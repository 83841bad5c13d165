//! The replication group: Redis or Valkey.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_elasticache::types::{
    AutomaticFailoverStatus, CacheCluster, Endpoint, MultiAzStatus, ReplicationGroup as LiveGroup,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    parameter_group::{self, CacheParameterGroup},
    subnet_group::CacheSubnetGroup,
};
use crate::{
    aws::{
        Aws, Label, elasticache::tags, failed, not_found_is_none, permissions::service_linked_role,
    },
    engine::{
        Class, Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    environment::{Cache as Settings, CacheEngine},
    prices::{Item, Prices},
    steps::{
        database::secret::Secret,
        network::{REDIS_PORT, security_group::SecurityGroup},
    },
};

/// What only the description of a node tells.
const OF_NODES: [&str; 4] =
    ["engineVersion", "cacheSubnetGroupName", "cacheParameterGroupName", "securityGroupIds"];

/// Member of the AUTH secret that holds the token.
pub const AUTH_TOKEN: &str = "authToken";

/// One shard, with TLS in transit, encryption at rest and AUTH; two nodes or more fail over between
/// zones.
pub struct ReplicationGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Engine and size.
    pub settings: Settings,
    /// Where nodes may stand.
    pub subnet_group: Handle<CacheSubnetGroup>,
    /// Its engine's settings.
    pub parameter_group: Handle<CacheParameterGroup>,
    /// Who may connect.
    pub security_group: Handle<SecurityGroup>,
    /// The AUTH token.
    pub auth_token: Handle<Secret>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ReplicationGroupOutput {
    /// Its id, which is its name.
    pub id: String,
    /// Host name of the primary; empty until it is known.
    pub endpoint: String,
    /// Port.
    pub port: i32,
    arn: String,
}

#[async_trait]
impl Resource for ReplicationGroup {
    type Output = ReplicationGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![
            self.subnet_group.id(),
            self.parameter_group.id(),
            self.security_group.id(),
            self.auth_token.id(),
        ]
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<ReplicationGroupOutput>>, Error> {
        let service = &self.aws.elasticache;
        let groups = service.replication_groups(since).await?;
        let Some(group) =
            groups.iter().find(|g| g.replication_group_id() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let clusters = service.clusters(since).await?;
        let output = output(group);
        let tags = match service.tags(&output.arn).await {
            Ok(tags) => tags,
            // Tags are told only of a group that is available; until then its name must do.
            Err(error) if matches!(error.class, Class::InUse | Class::NotFound) => {
                self.label.tags.clone()
            }
            Err(error) => return Err(error),
        };
        self.label.adopt(&tags)?;
        let node = clusters.iter().find(|c| c.replication_group_id() == Some(&self.label.name));
        let described = node.is_some();
        let mut properties = properties(group, node);
        properties["tags"] = json!(tags);
        let parameters = outputs.when_observed(&self.parameter_group).await;
        if !described {
            // What is not told must not look like a difference: another subnet group means that the
            // group is replaced, with its data.
            outputs.when_observed(&self.subnet_group).await;
            outputs.when_observed(&self.security_group).await;
            let desired = self.desired(outputs);
            for member in OF_NODES {
                properties[member] = desired[member].clone();
            }
        }
        let mut former = parameters.map(|group| group.former).unwrap_or_default();
        former.retain(|name| properties["cacheParameterGroupName"] != name.as_str());
        parameter_group::retain_existing(&self.aws, &mut former, since).await?;
        let condition = match condition(group.status().unwrap_or_default()) {
            // A change that takes its time is not asked for again, which would be refused, and what
            // it leaves over goes when it is done.
            Condition::Usable if !former.is_empty() || !self.has_its_engine(&properties) => {
                Condition::Pending(group.status().unwrap_or_default().to_owned())
            }
            Condition::Ready | Condition::Usable if !described => {
                Condition::Pending("without a node that is described".to_owned())
            }
            condition => condition,
        };
        properties["formerParameterGroups"] = former.into();
        Ok(Some(Live { output, properties, condition }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let failover = if self.fails_over() { "enabled" } else { "disabled" };
        json!({
            "engine": self.engine(),
            "engineVersion": major(self.engine_version()),
            "cacheNodeType": self.settings.node_type,
            "numCacheClusters": self.settings.nodes,
            "automaticFailover": failover,
            "multiAZ": failover,
            "transitEncryptionEnabled": true,
            "atRestEncryptionEnabled": true,
            "authTokenEnabled": true,
            "snapshotRetentionLimit": self.settings.snapshot_retention_days,
            "autoMinorVersionUpgrade": true,
            "cacheSubnetGroupName": outputs.show(&self.subnet_group, |group| group.name.clone()),
            "cacheParameterGroupName": outputs.show(&self.parameter_group, |group| group.name.clone()),
            "securityGroupIds": [outputs.show(&self.security_group, |group| group.id.clone())],
            // Left over from before an upgrade, and free to go once the group uses the next one.
            "formerParameterGroups": [],
            "tags": self.label.tags(),
        })
    }

    /// Redis becomes Valkey in place, with its data; there is no way back (`ElastiCache` user guide,
    /// "Upgrading engine versions including cross engine upgrades").
    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        static FIXED: [(&str, &str); 4] = [
            ("transitEncryptionEnabled", "TLS is decided at the creation of a replication group"),
            (
                "atRestEncryptionEnabled",
                "encryption is decided at the creation of a replication group",
            ),
            ("cacheSubnetGroupName", "a replication group stays in its subnets"),
            ("engine", "Valkey does not become Redis again"),
        ];
        match self.settings.engine {
            CacheEngine::Redis => &FIXED,
            CacheEngine::Valkey => &FIXED[..3],
        }
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<ReplicationGroupOutput>, Error> {
        let created = self
            .aws
            .elasticache
            .client
            .create_replication_group()
            .replication_group_id(&self.label.name)
            .replication_group_description("Cache, queue and idempotency keys")
            .engine(self.engine())
            .engine_version(self.engine_version())
            .cache_node_type(&self.settings.node_type)
            .num_cache_clusters(self.settings.nodes)
            .automatic_failover_enabled(self.fails_over())
            .multi_az_enabled(self.fails_over())
            .port(REDIS_PORT)
            .transit_encryption_enabled(true)
            .at_rest_encryption_enabled(true)
            .auth_token(self.token(outputs).await?)
            .snapshot_retention_limit(self.settings.snapshot_retention_days)
            .auto_minor_version_upgrade(true)
            .cache_subnet_group_name(outputs.get(&self.subnet_group)?.name)
            .cache_parameter_group_name(outputs.get(&self.parameter_group)?.name)
            .security_group_ids(outputs.get(&self.security_group)?.id)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticache:CreateReplicationGroup"))?;
        let group = created.replication_group();
        Ok(group.filter(|group| group.status() == Some("available")).map(output))
    }

    async fn update(
        &self,
        live: &Live<ReplicationGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let nodes = fields.iter().find(|field| field.path == "numCacheClusters");
        let grows = nodes.is_some_and(|nodes| nodes.before.as_i64() < nodes.after.as_i64());
        // Fail-over needs two nodes: they come before it is turned on and go after it is off. The
        // second of two changes is refused while the first runs, and the engine repeats it.
        if grows {
            return self.set_nodes(true).await;
        }
        if fields.iter().any(|field| is_modified(&field.path)) {
            self.modify(fields, outputs).await?;
        } else if nodes.is_some() {
            self.set_nodes(false).await?;
        } else if touches(fields, "formerParameterGroups") {
            let former = live.properties["formerParameterGroups"].as_array();
            for name in former.into_iter().flatten().filter_map(Value::as_str) {
                not_found_is_none(parameter_group::delete(&self.aws, name).await)?;
            }
        }
        if touches(fields, "tags") {
            self.aws.elasticache.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<ReplicationGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticache.client.delete_replication_group();
        let deleted = delete.replication_group_id(&live.output.id).send().await;
        deleted.map_err(failed("elasticache:DeleteReplicationGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let cache = |rest: String| self.aws.arn("elasticache", &rest);
        let sibling = |id: ResourceId| self.label.sibling(&id, 63);
        let name = &self.label.name;
        let group = cache(format!("replicationgroup:{name}"));
        let nodes = cache(format!("cluster:{name}-*"));
        let parameters = cache(format!("parametergroup:{}-*", sibling(self.parameter_group.id())));
        let subnets = cache(format!("subnetgroup:{}", sibling(self.subnet_group.id())));
        let changes = [
            "elasticache:DecreaseReplicaCount",
            "elasticache:DeleteReplicationGroup",
            "elasticache:IncreaseReplicaCount",
            "elasticache:ListTagsForResource",
        ];
        vec![
            Permission::anywhere([
                "elasticache:DescribeCacheClusters",
                "elasticache:DescribeCacheParameterGroups",
                "elasticache:DescribeReplicationGroups",
            ]),
            Permission::on(
                ["elasticache:CreateReplicationGroup"],
                [group.clone(), nodes.clone(), parameters.clone(), subnets],
            ),
            Permission::on(
                ["elasticache:ModifyReplicationGroup"],
                [group.clone(), parameters.clone()],
            ),
            Permission::on(["elasticache:AddTagsToResource"], [group.clone(), nodes]),
            Permission::on(changes, [group]),
            Permission::on(["elasticache:DeleteCacheParameterGroup"], [parameters]),
            Permission::on(
                ["secretsmanager:GetSecretValue"],
                [self.aws.secret_arn(&self.label.sibling(&self.auth_token.id(), 512))],
            ),
            service_linked_role(&self.aws, "elasticache.amazonaws.com"),
        ]
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(483)
    }

    fn interrupts(&self, path: &str) -> bool {
        matches!(path, "cacheNodeType" | "engine" | "engineVersion")
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        monthly_cost(Prices::of(&self.aws.region), properties)
    }
}

impl ReplicationGroup {
    fn fails_over(&self) -> bool {
        self.settings.nodes >= 2
    }

    fn engine(&self) -> &'static str {
        match self.settings.engine {
            CacheEngine::Redis => "redis",
            CacheEngine::Valkey => "valkey",
        }
    }

    fn engine_version(&self) -> &'static str {
        match self.settings.engine {
            CacheEngine::Redis => "7.1",
            CacheEngine::Valkey => "8.0",
        }
    }

    fn has_its_engine(&self, live: &Value) -> bool {
        live["engine"] == self.engine()
            && live["engineVersion"] == major(self.engine_version())
            && live["cacheNodeType"] == self.settings.node_type.as_str()
    }

    async fn token(&self, outputs: &Outputs) -> Result<String, Error> {
        let secret = outputs.get(&self.auth_token)?;
        self.aws.secretsmanager.value(&secret.arn, AUTH_TOKEN).await
    }

    async fn set_nodes(&self, more: bool) -> Result<(), Error> {
        let client = &self.aws.elasticache.client;
        let replicas = self.settings.nodes - 1;
        if more {
            let increase = client.increase_replica_count().replication_group_id(&self.label.name);
            let increase = increase.new_replica_count(replicas).apply_immediately(true);
            increase.send().await.map_err(failed("elasticache:IncreaseReplicaCount"))?;
        } else {
            let decrease = client.decrease_replica_count().replication_group_id(&self.label.name);
            let decrease = decrease.new_replica_count(replicas).apply_immediately(true);
            decrease.send().await.map_err(failed("elasticache:DecreaseReplicaCount"))?;
        }
        Ok(())
    }

    async fn modify(&self, fields: &[Field], outputs: &Outputs) -> Result<(), Error> {
        let modify = self.aws.elasticache.client.modify_replication_group();
        let mut modify = modify.replication_group_id(&self.label.name).apply_immediately(true);
        if touches(fields, "engine") {
            modify = modify.engine(self.engine());
        }
        if touches(fields, "engine") || touches(fields, "engineVersion") {
            modify = modify.engine_version(self.engine_version());
        }
        if touches(fields, "cacheNodeType") {
            modify = modify.cache_node_type(&self.settings.node_type);
        }
        if touches(fields, "automaticFailover") || touches(fields, "multiAZ") {
            modify = modify.automatic_failover_enabled(self.fails_over());
            modify = modify.multi_az_enabled(self.fails_over());
        }
        if touches(fields, "authTokenEnabled") {
            modify = modify.auth_token(self.token(outputs).await?);
            modify = modify.auth_token_update_strategy(
                aws_sdk_elasticache::types::AuthTokenUpdateStrategyType::Set,
            );
        }
        if touches(fields, "snapshotRetentionLimit") {
            modify = modify.snapshot_retention_limit(self.settings.snapshot_retention_days);
        }
        if touches(fields, "autoMinorVersionUpgrade") {
            modify = modify.auto_minor_version_upgrade(true);
        }
        if touches(fields, "cacheParameterGroupName") {
            modify = modify.cache_parameter_group_name(outputs.get(&self.parameter_group)?.name);
        }
        if touches(fields, "securityGroupIds") {
            modify = modify.security_group_ids(outputs.get(&self.security_group)?.id);
        }
        modify.send().await.map_err(failed("elasticache:ModifyReplicationGroup"))?;
        Ok(())
    }
}

fn is_modified(path: &str) -> bool {
    !path.starts_with("tags") && !matches!(path, "numCacheClusters" | "formerParameterGroups")
}

fn output(group: &LiveGroup) -> ReplicationGroupOutput {
    let endpoint = group.node_groups().first().and_then(|node| node.primary_endpoint());
    ReplicationGroupOutput {
        id: group.replication_group_id().unwrap_or_default().to_owned(),
        endpoint: endpoint.and_then(|e| e.address()).unwrap_or_default().to_owned(),
        port: endpoint.and_then(Endpoint::port).unwrap_or(REDIS_PORT),
        arn: group.arn().unwrap_or_default().to_owned(),
    }
}

/// A group tells less of itself than any of its nodes.
fn properties(group: &LiveGroup, node: Option<&CacheCluster>) -> Value {
    let groups = node.map(CacheCluster::security_groups).unwrap_or_default();
    let mut groups: Vec<_> = groups.iter().filter_map(|group| group.security_group_id()).collect();
    groups.sort_unstable();
    let failover = match group.automatic_failover() {
        Some(AutomaticFailoverStatus::Enabled | AutomaticFailoverStatus::Enabling) => "enabled",
        _ => "disabled",
    };
    let parameters = node.and_then(CacheCluster::cache_parameter_group);
    let nodes = group.node_groups().first().map(|shard| shard.node_group_members().len());
    json!({
        "engine": group.engine().or(node.and_then(CacheCluster::engine)),
        "engineVersion": node.and_then(CacheCluster::engine_version).map(major),
        "cacheNodeType": group.cache_node_type(),
        "numCacheClusters": nodes.unwrap_or(group.member_clusters().len()),
        "automaticFailover": failover,
        "multiAZ": group.multi_az().map(MultiAzStatus::as_str),
        "transitEncryptionEnabled": group.transit_encryption_enabled(),
        "atRestEncryptionEnabled": group.at_rest_encryption_enabled(),
        "authTokenEnabled": group.auth_token_enabled(),
        "snapshotRetentionLimit": group.snapshot_retention_limit(),
        "autoMinorVersionUpgrade": group.auto_minor_version_upgrade(),
        "cacheSubnetGroupName": node.and_then(CacheCluster::cache_subnet_group_name),
        "cacheParameterGroupName": parameters.and_then(|group| group.cache_parameter_group_name()),
        "securityGroupIds": groups,
    })
}

/// Minor versions move by themselves.
fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

fn condition(status: &str) -> Condition {
    match status {
        "available" => Condition::Ready,
        "modifying" | "snapshotting" => Condition::Usable,
        "deleting" => Condition::Deleting(status.into()),
        "create-failed" => Condition::Failed(status.into()),
        status => Condition::Pending(status.to_owned()),
    }
}

fn monthly_cost(prices: Prices, properties: &Value) -> Option<f64> {
    let node = Item::CacheNode {
        engine: properties["engine"].as_str()?,
        node_type: properties["cacheNodeType"].as_str()?,
    };
    Some(properties["numCacheClusters"].as_f64()? * prices.monthly(node)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_takes_a_snapshot_is_usable() {
        assert_eq!(condition("snapshotting"), Condition::Usable);
        assert_eq!(condition("create-failed"), Condition::Failed("create-failed".into()));
    }

    #[test]
    fn fail_over_that_is_being_enabled_is_no_difference() {
        let group = LiveGroup::builder()
            .automatic_failover(AutomaticFailoverStatus::Enabling)
            .member_clusters("a")
            .member_clusters("b")
            .build();
        let properties = properties(&group, None);
        assert_eq!(properties["automaticFailover"], "enabled");
        assert_eq!(properties["numCacheClusters"], 2);
    }

    #[test]
    fn the_price_follows_engine_nodes_and_their_type() {
        let cost = |engine: &str, node_type: &str, nodes: i32| {
            let members = json!({
                "engine": engine,
                "cacheNodeType": node_type,
                "numCacheClusters": nodes,
            });
            monthly_cost(Prices::of("us-east-1"), &members)
        };
        let is = |found: Option<f64>, wanted: f64| {
            assert!((found.unwrap() - wanted).abs() < 0.001, "{found:?} is not {wanted}");
        };
        is(cost("redis", "cache.t4g.micro", 1), 0.016 * 730.0);
        is(cost("redis", "cache.t4g.micro", 2), 2.0 * 0.016 * 730.0);
        is(cost("valkey", "cache.t4g.micro", 1), 0.0128 * 730.0);
        assert_eq!(cost("redis", "cache.x9z.large", 1), None, "unknown is not free");
    }
}
