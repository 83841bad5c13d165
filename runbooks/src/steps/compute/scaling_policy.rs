//! A target-tracking policy: what the number of tasks follows.

use async_trait::async_trait;
use aws_sdk_applicationautoscaling::types::{
    CustomizedMetricSpecification, MetricType, PolicyType, PredefinedMetricSpecification,
    ScalableDimension, ScalingPolicy as LivePolicy, ServiceNamespace, TargetTrackingMetric,
    TargetTrackingMetricDataQuery, TargetTrackingMetricDimension, TargetTrackingMetricStat,
    TargetTrackingScalingPolicyConfiguration,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    load_balancer::LoadBalancer, scalable_target::ScalableTarget, target_group::TargetGroup,
};
use crate::{
    aws::{Aws, applicationautoscaling::of_ecs, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    prices::Prices,
    steps::queue::sqs_queue::SqsQueue,
};

/// A policy of one service. It takes no tags; it lives and dies with its scalable target.
pub struct ScalingPolicy {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// The clients.
    pub aws: Aws,
    /// The bounds.
    pub target: Handle<ScalableTarget>,
    /// `service/CLUSTER/SERVICE`.
    pub resource_id: String,
    /// What it follows.
    pub follows: Follows,
    /// The value that is kept.
    pub target_value: f64,
}

/// What a policy follows.
pub enum Follows {
    /// Average CPU use of the tasks, percent.
    Cpu,
    /// Requests per target and minute.
    Requests {
        /// The load balancer.
        load_balancer: Handle<LoadBalancer>,
        /// Its target group.
        target_group: Handle<TargetGroup>,
    },
    /// Messages that wait, per running task.
    Backlog {
        /// The queue.
        queue: Handle<SqsQueue>,
        /// Name of the cluster.
        cluster: String,
        /// Name of the service.
        service: String,
    },
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ScalingPolicyOutput {
    /// Its ARN.
    pub arn: String,
}

/// Up fast, since people wait; seconds between two steps.
const SCALE_OUT_COOLDOWN: i32 = 60;

/// Down slowly, since the next peak may come; seconds between two steps.
const SCALE_IN_COOLDOWN: i32 = 300;

#[async_trait]
impl Resource for ScalingPolicy {
    type Output = ScalingPolicyOutput;

    fn id(&self) -> ResourceId {
        self.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.target.id()];
        match &self.follows {
            Follows::Cpu => {}
            Follows::Requests { load_balancer, target_group } => {
                needs.extend([load_balancer.id(), target_group.id()]);
            }
            Follows::Backlog { queue, .. } => needs.push(queue.id()),
        }
        needs
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<ScalingPolicyOutput>>, Error> {
        let all = self.aws.applicationautoscaling.scaling_policies(since).await?;
        let ours = |policy: &&LivePolicy| {
            policy.policy_name() == self.name && policy.resource_id() == self.resource_id
        };
        let Some(policy) = all.iter().find(ours) else {
            return Ok(None);
        };
        let tracking = policy.target_tracking_scaling_policy_configuration();
        Ok(Some(Live {
            properties: tracking.map_or(Value::Null, members),
            condition: Condition::Ready,
            output: ScalingPolicyOutput { arn: policy.policy_arn().to_owned() },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        members(&self.configuration(outputs))
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<ScalingPolicyOutput>, Error> {
        let put = self
            .aws
            .applicationautoscaling
            .client
            .put_scaling_policy()
            .policy_name(&self.name)
            .policy_type(PolicyType::TargetTrackingScaling)
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&self.resource_id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .target_tracking_scaling_policy_configuration(self.configuration(outputs))
            .send()
            .await
            .map_err(failed("application-autoscaling:PutScalingPolicy"))?;
        Ok(Some(ScalingPolicyOutput { arn: put.policy_arn }))
    }

    async fn update(
        &self,
        _: &Live<ScalingPolicyOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        // A put replaces the whole policy.
        self.create(outputs).await?;
        Ok(())
    }

    async fn delete(&self, _: &Live<ScalingPolicyOutput>) -> Result<(), Error> {
        self.aws
            .applicationautoscaling
            .client
            .delete_scaling_policy()
            .policy_name(&self.name)
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&self.resource_id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .send()
            .await
            .map_err(failed("application-autoscaling:DeleteScalingPolicy"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let targets = self.aws.arn("application-autoscaling", "scalable-target/*");
        let alarms = format!("alarm:TargetTracking-{}-*", self.resource_id);
        vec![
            Permission::anywhere(["application-autoscaling:DescribeScalingPolicies"]),
            Permission::on(
                [
                    "application-autoscaling:DeleteScalingPolicy",
                    "application-autoscaling:PutScalingPolicy",
                ],
                [targets],
            )
            .only_if(of_ecs()),
            // Target tracking makes its alarms in the caller's name ("Identity-based policy examples
            // for Application Auto Scaling").
            Permission::on(
                [
                    "cloudwatch:DeleteAlarms",
                    "cloudwatch:DescribeAlarms",
                    "cloudwatch:PutMetricAlarm",
                ],
                [self.aws.arn("cloudwatch", &alarms)],
            ),
        ]
    }

    /// Target tracking keeps two alarms, one for each direction (Application Auto Scaling user guide,
    /// "How target tracking scaling for Application Auto Scaling works").
    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        Some(2.0 * Prices::of(&self.aws.region).of_alarm(&properties["metrics"])?)
    }
}

impl ScalingPolicy {
    fn configuration(&self, outputs: &Outputs) -> TargetTrackingScalingPolicyConfiguration {
        let tracking = TargetTrackingScalingPolicyConfiguration::builder()
            .target_value(self.target_value)
            .scale_out_cooldown(SCALE_OUT_COOLDOWN)
            .scale_in_cooldown(SCALE_IN_COOLDOWN)
            .disable_scale_in(false);
        let tracking = match &self.follows {
            Follows::Cpu => tracking.predefined_metric_specification(predefined(
                MetricType::EcsServiceAverageCpuUtilization,
                None,
            )),
            Follows::Requests { load_balancer, target_group } => {
                let balancer = outputs.show(load_balancer, |balancer| balancer.full_name.clone());
                let group = outputs.show(target_group, |group| group.full_name.clone());
                // AWS's resource label: app/NAME/ID/targetgroup/NAME/ID.
                let label = format!("{}/{}", text(&balancer), text(&group));
                tracking.predefined_metric_specification(predefined(
                    MetricType::AlbRequestCountPerTarget,
                    Some(label),
                ))
            }
            Follows::Backlog { queue, cluster, service } => {
                let queue = outputs.show(queue, |queue| queue.name.clone());
                tracking.customized_metric_specification(backlog(text(&queue), cluster, service))
            }
        };
        tracking.build().expect("a configuration with a target value is complete")
    }
}

fn predefined(metric: MetricType, label: Option<String>) -> PredefinedMetricSpecification {
    PredefinedMetricSpecification::builder()
        .predefined_metric_type(metric)
        .set_resource_label(label)
        .build()
        .expect("a specification with a metric is complete")
}

/// Waiting messages over running tasks. Every task reports its CPU use once a minute, so the number
/// of samples is the number of tasks ("Service RUNNING task count" in the ECS developer guide); it
/// needs no Container Insights. `FILL` keeps a service without tasks from dividing by nothing.
fn backlog(queue: &str, cluster: &str, service: &str) -> CustomizedMetricSpecification {
    let dimension = |name: &str, value: &str| {
        let dimension = TargetTrackingMetricDimension::builder().name(name).value(value);
        dimension.build().expect("a dimension with name and value is complete")
    };
    let visible = TargetTrackingMetric::builder()
        .namespace("AWS/SQS")
        .metric_name("ApproximateNumberOfMessagesVisible")
        .dimensions(dimension("QueueName", queue))
        .build();
    let tasks = TargetTrackingMetric::builder()
        .namespace("AWS/ECS")
        .metric_name("CPUUtilization")
        .dimensions(dimension("ClusterName", cluster))
        .dimensions(dimension("ServiceName", service))
        .build();
    let measured = |id: &str, metric, stat: &str| {
        let stat = TargetTrackingMetricStat::builder().metric(metric).stat(stat).build();
        TargetTrackingMetricDataQuery::builder()
            .id(id)
            .metric_stat(stat.expect("a statistic with its name is complete"))
            .return_data(false)
            .build()
            .expect("a query with an id is complete")
    };
    let ratio = TargetTrackingMetricDataQuery::builder()
        .id("backlog")
        .expression("messages / FILL(tasks, 1)")
        .label("messages waiting per task")
        .return_data(true)
        .build()
        .expect("a query with an id is complete");
    CustomizedMetricSpecification::builder()
        .metrics(measured("messages", visible, "Sum"))
        .metrics(measured("tasks", tasks, "SampleCount"))
        .metrics(ratio)
        .build()
}

fn members(tracking: &TargetTrackingScalingPolicyConfiguration) -> Value {
    let predefined = tracking.predefined_metric_specification();
    let queries = tracking.customized_metric_specification().map(|custom| {
        custom
            .metrics()
            .iter()
            .map(|query| (query.id().to_owned(), self::query(query)))
            .collect::<Value>()
    });
    json!({
        "targetValue": tracking.target_value(),
        "scaleOutCooldown": tracking.scale_out_cooldown(),
        "scaleInCooldown": tracking.scale_in_cooldown(),
        "disableScaleIn": tracking.disable_scale_in().unwrap_or_default(),
        "predefinedMetricType": predefined.map(|metric| metric.predefined_metric_type().as_str()),
        "resourceLabel": predefined.and_then(PredefinedMetricSpecification::resource_label),
        "metrics": queries,
    })
}

fn query(query: &TargetTrackingMetricDataQuery) -> Value {
    let stat = query.metric_stat();
    let metric = stat.and_then(TargetTrackingMetricStat::metric);
    let dimensions = metric.map(|metric| {
        let pairs = metric.dimensions().iter();
        pairs.map(|of| (of.name().to_owned(), Value::from(of.value()))).collect::<Value>()
    });
    json!({
        "expression": query.expression(),
        "returnData": query.return_data(),
        "namespace": metric.and_then(TargetTrackingMetric::namespace),
        "metricName": metric.and_then(TargetTrackingMetric::metric_name),
        "dimensions": dimensions,
        "stat": stat.map(TargetTrackingMetricStat::stat),
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
