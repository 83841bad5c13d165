//! What RDS Proxy leads to, and how its pool behaves.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_rds::types::{
    ConnectionPoolConfiguration, DbProxyTarget as LiveTarget, TargetHealthReason, TargetState,
    TargetType,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    proxy::DbProxy,
    server::{CLUSTER, DbServer, INSTANCE},
};
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{
        Class, Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The one target group that a proxy has.
const TARGET_GROUP: &str = "default";
/// Share of the database's connections that the pool may take, percent: the migration task and
/// people come past the proxy.
const MAX_CONNECTIONS_PERCENT: i32 = 90;
/// Share that it keeps open while idle, percent.
const MAX_IDLE_CONNECTIONS_PERCENT: i32 = 50;
/// Seconds that a client waits for a connection out of the pool.
const CONNECTION_BORROW_TIMEOUT: i32 = 10;

/// The database as the proxy's target, with the settings of the target group.
pub struct DbProxyTarget {
    /// Id. A target is recognised by its proxy; it has neither name nor tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The proxy.
    pub proxy: Handle<DbProxy>,
    /// The database.
    pub server: DbServer,
    /// What else serves before it is there and goes after it: the instances.
    pub behind: Vec<ResourceId>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbProxyTargetOutput {
    /// Name of the proxy.
    proxy: String,
    /// What it leads to.
    registered: Registered,
}

/// What is registered, by its identifier.
#[derive(Debug, Clone, PartialEq)]
enum Registered {
    /// An instance.
    Instance(String),
    /// A cluster: RDS follows its writer, and has a target of its own for each of its instances.
    Cluster(String),
}

#[async_trait]
impl Resource for DbProxyTarget {
    type Output = DbProxyTargetOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.proxy.id(), self.server.id()];
        needs.extend(self.behind.iter().cloned());
        needs
    }

    /// Targets and target groups can only be described one proxy at a time.
    async fn find(
        &self,
        outputs: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<DbProxyTargetOutput>>, Error> {
        let Some(proxy) = outputs.when_observed(&self.proxy).await else { return Ok(None) };
        let (targets, pool) =
            futures::try_join!(self.targets(&proxy.name), self.pool(&proxy.name))?;
        let Some(registered) = registered(&targets) else { return Ok(None) };
        Ok(Some(Live {
            properties: json!({ "rdsResourceId": registered.id(), "connectionPoolConfig": pool }),
            condition: condition(&targets),
            output: DbProxyTargetOutput { proxy: proxy.name, registered },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            // A name of our choice: that the server is another one is known before it is there.
            "rdsResourceId": self.label.sibling(&self.server.id(), 63),
            "connectionPoolConfig": {
                "maxConnectionsPercent": MAX_CONNECTIONS_PERCENT,
                "maxIdleConnectionsPercent": MAX_IDLE_CONNECTIONS_PERCENT,
                "connectionBorrowTimeout": CONNECTION_BORROW_TIMEOUT,
            },
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("rdsResourceId", "a proxy has one target, which has to go before another one comes")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbProxyTargetOutput>, Error> {
        let proxy = outputs.get(&self.proxy)?.name;
        let server = self.server.get(outputs)?.id;
        self.set_pool(&proxy).await?;
        let register = self.aws.rds.client.register_db_proxy_targets().db_proxy_name(&proxy);
        let register = register.target_group_name(TARGET_GROUP);
        let register = match &self.server {
            DbServer::Instance(_) => register.db_instance_identifiers(&server),
            DbServer::Cluster(_) => register.db_cluster_identifiers(&server),
        };
        let registered = register.send().await.map_err(failed("rds:RegisterDBProxyTargets"));
        let ready = match registered {
            Ok(answer) => condition(answer.db_proxy_targets()) == Condition::Ready,
            // DBProxyTargetAlreadyRegisteredFault: a repeated call whose first answer was lost.
            Err(error) if error.class == Class::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        let registered = match &self.server {
            DbServer::Instance(_) => Registered::Instance(server),
            DbServer::Cluster(_) => Registered::Cluster(server),
        };
        Ok(ready.then_some(DbProxyTargetOutput { proxy, registered }))
    }

    async fn update(
        &self,
        live: &Live<DbProxyTargetOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "connectionPoolConfig") {
            self.set_pool(&live.output.proxy).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbProxyTargetOutput>) -> Result<(), Error> {
        let DbProxyTargetOutput { proxy, registered } = &live.output;
        let deregister = self.aws.rds.client.deregister_db_proxy_targets().db_proxy_name(proxy);
        let deregister = deregister.target_group_name(TARGET_GROUP);
        let deregister = match registered {
            Registered::Instance(id) => deregister.db_instance_identifiers(id),
            Registered::Cluster(id) => deregister.db_cluster_identifiers(id),
        };
        deregister.send().await.map_err(failed("rds:DeregisterDBProxyTargets"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "rds:DeregisterDBProxyTargets",
            "rds:DescribeDBProxyTargetGroups",
            "rds:DescribeDBProxyTargets",
            "rds:ModifyDBProxyTargetGroup",
            "rds:RegisterDBProxyTargets",
        ];
        let named = |kind: &str, name| {
            let id = ResourceId::new("database", name);
            self.aws.arn("rds", &format!("{kind}:{}", self.label.sibling(&id, 63)))
        };
        let resources = [
            // Of either kind, since what an older file had registered is deregistered.
            named("db", INSTANCE),
            named("cluster", CLUSTER),
            // The ids of proxies and of their target groups are generated.
            self.aws.arn("rds", "db-proxy:*"),
            self.aws.arn("rds", "target-group:*"),
        ];
        vec![Permission::on(actions, resources)]
    }

    fn typical(&self) -> Duration {
        Duration::from_mins(1)
    }
}

impl DbProxyTarget {
    async fn targets(&self, proxy: &str) -> Result<Vec<LiveTarget>, Error> {
        let targets = self.aws.rds.client.describe_db_proxy_targets().db_proxy_name(proxy);
        let pages = targets.target_group_name(TARGET_GROUP).into_paginator().items().send();
        let targets = pages.collect::<Result<Vec<_>, _>>().await;
        let targets = not_found_is_none(targets.map_err(failed("rds:DescribeDBProxyTargets")))?;
        Ok(targets.unwrap_or_default())
    }

    async fn pool(&self, proxy: &str) -> Result<Value, Error> {
        let groups = self.aws.rds.client.describe_db_proxy_target_groups().db_proxy_name(proxy);
        let groups = groups.target_group_name(TARGET_GROUP).send().await;
        let groups = not_found_is_none(groups.map_err(failed("rds:DescribeDBProxyTargetGroups")))?;
        let pool = groups.and_then(|groups| {
            groups.target_groups.unwrap_or_default().into_iter().next()?.connection_pool_config
        });
        Ok(pool.map_or(Value::Null, |pool| {
            json!({
                "maxConnectionsPercent": pool.max_connections_percent(),
                "maxIdleConnectionsPercent": pool.max_idle_connections_percent(),
                "connectionBorrowTimeout": pool.connection_borrow_timeout(),
            })
        }))
    }

    async fn set_pool(&self, proxy: &str) -> Result<(), Error> {
        let pool = ConnectionPoolConfiguration::builder()
            .max_connections_percent(MAX_CONNECTIONS_PERCENT)
            .max_idle_connections_percent(MAX_IDLE_CONNECTIONS_PERCENT)
            .connection_borrow_timeout(CONNECTION_BORROW_TIMEOUT)
            .build();
        let modify = self.aws.rds.client.modify_db_proxy_target_group().db_proxy_name(proxy);
        let modify = modify.target_group_name(TARGET_GROUP).connection_pool_config(pool);
        modify.send().await.map_err(failed("rds:ModifyDBProxyTargetGroup"))?;
        Ok(())
    }
}

impl Registered {
    fn id(&self) -> &str {
        match self {
            Self::Instance(id) | Self::Cluster(id) => id,
        }
    }
}

/// What was registered: a cluster, if any target is one or of one, or the instance.
fn registered(targets: &[LiveTarget]) -> Option<Registered> {
    let cluster = targets.iter().find_map(|target| match target.r#type() {
        Some(TargetType::TrackedCluster) => target.rds_resource_id(),
        _ => target.tracked_cluster_id(),
    });
    if let Some(cluster) = cluster.filter(|id| !id.is_empty()) {
        return Some(Registered::Cluster(cluster.to_owned()));
    }
    let instance = targets.first()?.rds_resource_id().unwrap_or_default();
    Some(Registered::Instance(instance.to_owned()))
}

/// A target that still registers is usable: connections wait for it. One that can't log in is as
/// ready as it gets before the first deployment, whose migration makes the application's user. Of a
/// cluster one instance is enough.
fn condition(targets: &[LiveTarget]) -> Condition {
    let ready = targets.iter().filter_map(LiveTarget::target_health).any(|health| {
        health.reason() == Some(&TargetHealthReason::AuthFailure)
            || health.state() == Some(&TargetState::Available)
    });
    if ready { Condition::Ready } else { Condition::Usable }
}

#[cfg(test)]
mod tests {
    use aws_sdk_rds::types::TargetHealth;

    use super::*;

    fn target(kind: TargetType, id: &str, state: TargetState) -> LiveTarget {
        let health = TargetHealth::builder().state(state).build();
        LiveTarget::builder().r#type(kind).rds_resource_id(id).target_health(health).build()
    }

    #[test]
    fn a_cluster_is_told_by_itself_or_by_its_instances() {
        assert_eq!(registered(&[]), None);
        let alone = target(TargetType::RdsInstance, "a", TargetState::Available);
        assert_eq!(
            registered(std::slice::from_ref(&alone)),
            Some(Registered::Instance("a".into()))
        );
        let cluster = target(TargetType::TrackedCluster, "c", TargetState::Available);
        assert_eq!(registered(&[alone, cluster]), Some(Registered::Cluster("c".into())));
        let tracked = LiveTarget::builder().r#type(TargetType::RdsInstance).rds_resource_id("i");
        let tracked = tracked.tracked_cluster_id("c").build();
        assert_eq!(registered(&[tracked]), Some(Registered::Cluster("c".into())));
    }

    #[test]
    fn one_instance_that_answers_is_enough() {
        let of = |state| target(TargetType::RdsInstance, "a", state);
        assert_eq!(condition(&[of(TargetState::Registering)]), Condition::Usable);
        let two = [of(TargetState::Unavailable), of(TargetState::Available)];
        assert_eq!(condition(&two), Condition::Ready);
        // RDS tells no health of the cluster itself.
        let cluster = LiveTarget::builder().r#type(TargetType::TrackedCluster).build();
        assert_eq!(condition(&[cluster]), Condition::Usable);
    }
}
