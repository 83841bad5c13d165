//! What alarms and the dashboard look at.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{alarm::Dimensions, error_rate::ErrorRate};
use crate::{
    engine::{Handle, Outputs, ResourceId},
    steps::{
        Stack,
        cache::{Cache, replication_group::ReplicationGroup},
        compute::{Platform, load_balancer::LoadBalancer, target_group::TargetGroup},
        database::{Database, Serving},
        queue::{Queue, sqs_queue::SqsQueue},
    },
};

/// One chart of the dashboard.
pub(super) struct Chart {
    /// Above it; unique.
    pub(super) title: &'static str,
    /// How each metric is condensed.
    pub(super) statistic: &'static str,
    /// The metrics, as a dashboard names them: namespace, name, dimensions.
    pub(super) metrics: Vec<Value>,
}

/// The resources whose metrics matter.
#[derive(Clone)]
pub struct Watched {
    pub(super) load_balancer: Handle<LoadBalancer>,
    pub(super) target_group: Handle<TargetGroup>,
    /// The instances of the database.
    pub(super) instances: Vec<Serving>,
    pub(super) cache: Handle<ReplicationGroup>,
    pub(super) voice: Handle<SqsQueue>,
    pub(super) dead_letter: Handle<SqsQueue>,
    /// Name of the ECS cluster.
    cluster: String,
    /// Names of the ECS services.
    services: [String; 2],
    /// Nodes of the cache.
    nodes: i32,
}

impl Watched {
    pub(super) fn new(
        stack: &Stack,
        platform: &Platform,
        database: &Database,
        cache: &Cache,
        queue: &Queue,
    ) -> Self {
        let named = |name: &str| stack.label("compute", name, 255).name;
        Self {
            load_balancer: platform.load_balancer.clone(),
            target_group: platform.target_group.clone(),
            instances: database.instances.clone(),
            cache: cache.group.clone(),
            voice: queue.voice.clone(),
            dead_letter: queue.dead_letter.clone(),
            cluster: named("cluster"),
            services: [named("api"), named("worker")],
            nodes: stack.environment.cache.nodes,
        }
    }

    pub(super) fn ids(&self) -> Vec<ResourceId> {
        let mut ids = vec![
            self.load_balancer.id(),
            self.target_group.id(),
            self.cache.id(),
            self.voice.id(),
            self.dead_letter.id(),
        ];
        ids.extend(self.instances.iter().map(|instance| instance.id.clone()));
        ids
    }

    /// Dimensions of the load balancer's metrics for the API.
    pub(super) fn of_api(&self) -> Dimensions {
        let (balancer, group) = (self.load_balancer.clone(), self.target_group.clone());
        Box::new(move |outputs| {
            BTreeMap::from([
                ("LoadBalancer".into(), outputs.show(&balancer, |it| it.full_name.clone())),
                ("TargetGroup".into(), outputs.show(&group, |it| it.full_name.clone())),
            ])
        })
    }

    /// The API's share of errors.
    pub(super) fn error_rate(&self) -> ErrorRate {
        ErrorRate {
            load_balancer: self.load_balancer.clone(),
            target_group: self.target_group.clone(),
        }
    }

    /// Dimensions of one ECS service's metrics, by its name in the runbook and in AWS.
    pub(super) fn of_services(&self) -> impl Iterator<Item = (&'static str, Dimensions)> {
        ["api", "worker"].into_iter().zip(&self.services).map(|(name, service)| {
            let dimensions = BTreeMap::from([
                ("ClusterName".to_owned(), Value::from(self.cluster.clone())),
                ("ServiceName".to_owned(), Value::from(service.clone())),
            ]);
            let dimensions: Dimensions = Box::new(move |_| dimensions.clone());
            (name, dimensions)
        })
    }

    /// Dimensions of the metrics of each node of the cache: they have none for the whole group. The
    /// nodes of a group are called `{group}-001` and so on.
    pub(super) fn of_cache(&self) -> impl Iterator<Item = (i32, Dimensions)> {
        (1..=self.nodes).map(|node| {
            let cache = self.cache.clone();
            let dimensions: Dimensions = Box::new(move |outputs| {
                let id = outputs.show(&cache, |cache| format!("{}-{node:03}", cache.id));
                BTreeMap::from([("CacheClusterId".into(), id)])
            });
            (node, dimensions)
        })
    }

    pub(super) fn charts(&self, outputs: &Outputs) -> Vec<Chart> {
        let api = self.of_api()(outputs);
        let database: Vec<_> = self
            .instances
            .iter()
            .map(|instance| (instance.free_storage(), of_instance(instance)(outputs)))
            .collect();
        let services: Vec<_> =
            self.of_services().map(|(_, dimensions)| dimensions(outputs)).collect();
        let nodes: Vec<_> = self.of_cache().map(|(_, dimensions)| dimensions(outputs)).collect();
        let queues = [&self.voice, &self.dead_letter].map(|queue| {
            BTreeMap::from([(
                "QueueName".to_owned(),
                outputs.show(queue, |queue| queue.name.clone()),
            )])
        });
        let alb = "AWS/ApplicationELB";
        vec![
            chart(
                "Requests a minute",
                "Sum",
                [
                    metric(alb, "RequestCount", &api),
                    metric(alb, "HTTPCode_Target_5XX_Count", &api),
                    metric(alb, "HTTPCode_Target_4XX_Count", &api),
                ],
            ),
            chart("p99 latency, seconds", "p99", [metric(alb, "TargetResponseTime", &api)]),
            chart("Healthy tasks of the API", "Minimum", [metric(alb, "HealthyHostCount", &api)]),
            chart(
                "CPU and memory of the services, percent",
                "Average",
                services.iter().flat_map(|of| {
                    [
                        metric("AWS/ECS", "CPUUtilization", of),
                        metric("AWS/ECS", "MemoryUtilization", of),
                    ]
                }),
            ),
            chart(
                "Database: CPU percent and connections",
                "Average",
                database.iter().flat_map(|(_, of)| {
                    [
                        metric("AWS/RDS", "CPUUtilization", of),
                        metric("AWS/RDS", "DatabaseConnections", of),
                    ]
                }),
            ),
            chart(
                "Database: free storage, bytes",
                "Minimum",
                database.iter().map(|(free, of)| metric("AWS/RDS", free, of)),
            ),
            chart(
                "Cache: memory percent and evictions",
                "Maximum",
                nodes.iter().flat_map(|of| {
                    [
                        metric("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", of),
                        metric("AWS/ElastiCache", "Evictions", of),
                    ]
                }),
            ),
            chart(
                "Messages that wait: voice jobs and dead letters",
                "Maximum",
                queues.iter().map(|of| metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", of)),
            ),
        ]
    }
}

/// Dimensions of the metrics of one instance of the database. Its name is of our choice.
pub(super) fn of_instance(instance: &Serving) -> Dimensions {
    let name = Value::from(instance.name.clone());
    let dimensions = BTreeMap::from([("DBInstanceIdentifier".to_owned(), name)]);
    Box::new(move |_| dimensions.clone())
}

fn chart(
    title: &'static str,
    statistic: &'static str,
    metrics: impl IntoIterator<Item = Value>,
) -> Chart {
    Chart { title, statistic, metrics: metrics.into_iter().collect() }
}

/// `[namespace, name, dimension, value, …]`.
fn metric(namespace: &str, name: &str, dimensions: &BTreeMap<String, Value>) -> Value {
    let mut metric = vec![json!(namespace), json!(name)];
    for (dimension, value) in dimensions {
        metric.extend([json!(dimension), value.clone()]);
    }
    Value::Array(metric)
}
