//! What RDS Proxy leads to, and how its pool behaves.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_rds::types::{
    ConnectionPoolConfiguration, DbProxyTarget as LiveTarget, TargetHealthReason, TargetState,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{instance::DbInstance, proxy::DbProxy};
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
    pub instance: Handle<DbInstance>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbProxyTargetOutput {
    /// Name of the proxy.
    proxy: String,
    /// Identifier of the instance.
    instance: String,
}

#[async_trait]
impl Resource for DbProxyTarget {
    type Output = DbProxyTargetOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.proxy.id(), self.instance.id()]
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
        let Some(target) = targets.first() else { return Ok(None) };
        let instance = target.rds_resource_id().unwrap_or_default().to_owned();
        Ok(Some(Live {
            properties: json!({ "rdsResourceId": instance, "connectionPoolConfig": pool }),
            condition: condition(target),
            output: DbProxyTargetOutput { proxy: proxy.name, instance },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "rdsResourceId": outputs.show(&self.instance, |instance| instance.id.clone()),
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
        let instance = outputs.get(&self.instance)?.id;
        self.set_pool(&proxy).await?;
        let register = self.aws.rds.client.register_db_proxy_targets().db_proxy_name(&proxy);
        let register = register.target_group_name(TARGET_GROUP).db_instance_identifiers(&instance);
        let registered = register.send().await.map_err(failed("rds:RegisterDBProxyTargets"));
        let ready = match registered {
            Ok(answer) => answer
                .db_proxy_targets()
                .first()
                .is_some_and(|target| condition(target) == Condition::Ready),
            // DBProxyTargetAlreadyRegisteredFault: a repeated call whose first answer was lost.
            Err(error) if error.class == Class::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        Ok(ready.then_some(DbProxyTargetOutput { proxy, instance }))
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
        self.aws
            .rds
            .client
            .deregister_db_proxy_targets()
            .db_proxy_name(&live.output.proxy)
            .target_group_name(TARGET_GROUP)
            .db_instance_identifiers(&live.output.instance)
            .send()
            .await
            .map_err(failed("rds:DeregisterDBProxyTargets"))?;
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
        let instance = self.label.sibling(&self.instance.id(), 63);
        let resources = [
            self.aws.arn("rds", &format!("db:{instance}")),
            // The ids of proxies and of their target groups are generated.
            self.aws.arn("rds", "db-proxy:*"),
            self.aws.arn("rds", "target-group:*"),
        ];
        vec![
            Permission::on(actions, resources),
            Permission::on(["rds:DeregisterDBProxyTargets"], [self.aws.arn("rds", "cluster:*")]),
        ]
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

/// A target that still registers is usable: connections wait for it. One that can't log in is as
/// ready as it gets before the first deployment, whose migration makes the application's user.
fn condition(target: &LiveTarget) -> Condition {
    let health = target.target_health();
    let state = health.and_then(|health| health.state());
    match health.and_then(|health| health.reason()) {
        Some(TargetHealthReason::AuthFailure) => Condition::Ready,
        _ if state == Some(&TargetState::Available) => Condition::Ready,
        _ => Condition::Usable,
    }
}
