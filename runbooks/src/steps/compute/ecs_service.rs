//! An ECS service on Fargate.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_applicationautoscaling::types::ScalableTarget;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, Deployment, DeploymentCircuitBreaker,
    DeploymentConfiguration, DesiredStatus, LaunchType, LoadBalancer, NetworkConfiguration,
    PropagateTags, Service,
};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};

use super::{
    cluster::Cluster,
    deployment::{
        FAILED_TASKS, Rollout, Stopped, deployment_configuration, hold, primary, primary_id,
        rollout, threshold,
    },
    target_group::TargetGroup,
    task_definition::{TaskDefinition, TaskDefinitionOutput},
};
use crate::{
    aws::{
        Aws, Label, built,
        ecs::{live_tags, tags},
        failed,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    environment::Tasks,
    prices::{Architecture, Item, Prices},
    steps::network::{security_group::SecurityGroup, subnet::Subnet},
};

/// A service. How many tasks it runs is auto scaling's business once it is made; here only that the
/// number lies within the bounds.
pub struct EcsService {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The cluster.
    pub cluster: Handle<Cluster>,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Names of all services of the environment, which are described in one call.
    pub siblings: Vec<String>,
    /// What it runs.
    pub task_definition: Handle<TaskDefinition>,
    /// Where its tasks run.
    pub subnets: Vec<Handle<Subnet>>,
    /// Whom its tasks reach and who reaches them.
    pub group: Handle<SecurityGroup>,
    /// The target group that its tasks register in.
    pub target: Option<Target>,
    /// Bounds, and the cost of a task.
    pub tasks: Tasks,
    /// What must be there before a task can run: routes, rules of the security groups, a listener.
    pub ready: Vec<ResourceId>,
    /// Why there is nothing to run yet.
    pub deferred: Option<String>,
    /// The deployment that this run has started.
    pub started: Mutex<Option<String>>,
}

/// A container that takes requests.
pub struct Target {
    /// The target group.
    pub group: Handle<TargetGroup>,
    /// Name of the container.
    pub container: &'static str,
    /// Its port.
    pub port: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct EcsServiceOutput {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
}

/// Seconds in which a new task may fail the load balancer's checks.
const HEALTH_CHECK_GRACE: i32 = 30;

/// The member of a live service that its price follows from. Other resources hold what it tells, and
/// it is not compared.
const ALWAYS_RUNS: &str = "alwaysRuns";

#[async_trait]
impl Resource for EcsService {
    type Output = EcsServiceOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = self.ready.clone();
        needs.extend([self.cluster.id(), self.task_definition.id(), self.group.id()]);
        needs.extend(self.subnets.iter().map(Handle::id));
        needs.extend(self.target.iter().map(|target| target.group.id()));
        needs
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<EcsServiceOutput>>, Error> {
        let services = self.aws.ecs.services(since, &self.cluster_name, &self.siblings).await?;
        let ours = |service: &&Service| {
            service.service_name() == Some(&self.label.name) && service.status() != Some("INACTIVE")
        };
        let Some(service) = services.iter().find(ours) else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(service.tags()))?;
        let rollout = self.rollout(service).await?;
        let condition = match (service.status(), &rollout) {
            (Some("DRAINING"), _) => Condition::Deleting("draining".into()),
            (_, Rollout::InProgress(state)) => Condition::Pending(state.clone()),
            (_, Rollout::Completed | Rollout::Failed(_)) => Condition::Ready,
        };
        let mut properties = self.members(service, &rollout);
        if condition == Condition::Ready {
            properties[ALWAYS_RUNS] = self.always_runs(service, outputs, since).await?;
        }
        Ok(Some(Live { properties, condition, output: self.output(service.service_arn()) }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let mut subnets: Vec<_> = self
            .subnets
            .iter()
            .map(|subnet| outputs.show(subnet, |subnet| subnet.id.clone()))
            .collect();
        subnets.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        let targets: Vec<_> = self
            .target
            .iter()
            .map(|target| {
                json!({
                    "targetGroupArn": outputs.show(&target.group, |group| group.arn.clone()),
                    "containerName": target.container,
                    "containerPort": target.port,
                })
            })
            .collect();
        json!({
            "taskDefinition": outputs.show(&self.task_definition, |definition| definition.arn.clone()),
            "launchType": "FARGATE",
            "desiredCount": self.bounds(),
            "networkConfiguration": {
                "subnets": subnets,
                "securityGroups": [outputs.show(&self.group, |group| group.id.clone())],
                "assignPublicIp": "DISABLED",
            },
            "loadBalancers": targets,
            "healthCheckGracePeriodSeconds": self.target.as_ref().map(|_| HEALTH_CHECK_GRACE),
            "deploymentConfiguration": {
                "minimumHealthyPercent": 100,
                "maximumPercent": 200,
                "circuitBreaker": format!("after COUNT {FAILED_TASKS}"),
                "rollback": false,
            },
            "enableExecuteCommand": false,
            "propagateTags": "SERVICE",
            "rollout": "COMPLETED",
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("launchType", "the launch type of a service is fixed at its creation")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<EcsServiceOutput>, Error> {
        let definition = outputs.get(&self.task_definition)?.arn;
        let token = self.label.token(&format!("{definition}{}", self.predecessor().await?));
        let created = self
            .aws
            .ecs
            .client
            .create_service()
            .cluster(outputs.get(&self.cluster)?.arn)
            .service_name(&self.label.name)
            .client_token(token)
            .task_definition(definition)
            .launch_type(LaunchType::Fargate)
            .desired_count(self.tasks.minimum)
            .network_configuration(self.network(outputs)?)
            .set_load_balancers(self.load_balancers(outputs)?)
            .set_health_check_grace_period_seconds(self.target.as_ref().map(|_| HEALTH_CHECK_GRACE))
            .deployment_configuration(deployment_configuration()?)
            .propagate_tags(PropagateTags::Service)
            .enable_execute_command(false)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("ecs:CreateService"))?;
        *self.started.lock().await = created.service().and_then(primary_id);
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<EcsServiceOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let outside = live.properties["desiredCount"].as_i64();
            let count = outside
                .and_then(|count| i32::try_from(count).ok())
                .map(|count| count.clamp(self.tasks.minimum, self.tasks.maximum));
            let updated = self
                .aws
                .ecs
                .client
                .update_service()
                .cluster(outputs.get(&self.cluster)?.arn)
                .service(&self.label.name)
                .task_definition(outputs.get(&self.task_definition)?.arn)
                .set_desired_count(count)
                .network_configuration(self.network(outputs)?)
                .set_load_balancers(self.load_balancers(outputs)?)
                .set_health_check_grace_period_seconds(
                    self.target.as_ref().map(|_| HEALTH_CHECK_GRACE),
                )
                .deployment_configuration(self.deployment_configuration().await?)
                .propagate_tags(PropagateTags::Service)
                .enable_execute_command(false)
                // The same task definition again, after a deployment that failed.
                .force_new_deployment(
                    touches(fields, "rollout") && !touches(fields, "taskDefinition"),
                )
                .send()
                .await
                .map_err(failed("ecs:UpdateService"))?;
            *self.started.lock().await = updated.service().and_then(primary_id);
        }
        if touches(fields, "tags") {
            self.aws.ecs.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<EcsServiceOutput>) -> Result<(), Error> {
        let delete = self.aws.ecs.client.delete_service().cluster(&self.cluster_name);
        let delete = delete.service(&live.output.arn).force(true);
        delete.send().await.map_err(failed("ecs:DeleteService"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let cluster = &self.cluster_name;
        let ecs = |rest: String| self.aws.arn("ecs", &rest);
        let actions = [
            "ecs:CreateService",
            "ecs:DeleteService",
            "ecs:DescribeServices",
            "ecs:TagResource",
            "ecs:UpdateService",
        ];
        let in_cluster =
            json!({ "ArnEquals": { "ecs:cluster": ecs(format!("cluster/{cluster}")) } });
        vec![
            Permission::on(actions, [ecs(format!("service/{cluster}/{}", self.label.name))]),
            Permission::on(["ecs:DescribeTasks"], [ecs(format!("task/{cluster}/*"))]),
            Permission::anywhere(["ecs:ListTasks"]).only_if(in_cluster),
        ]
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(75)
    }

    fn interrupts(&self, path: &str) -> bool {
        path.starts_with("networkConfiguration") || path.starts_with("loadBalancers")
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        monthly_cost(Prices::of(&self.aws.region), &self.tasks, &properties[ALWAYS_RUNS])
    }

    fn deferred(&self) -> Option<String> {
        self.deferred.clone()
    }
}

impl EcsService {
    fn output(&self, arn: Option<&str>) -> EcsServiceOutput {
        EcsServiceOutput { arn: arn.unwrap_or_default().to_owned(), name: self.label.name.clone() }
    }

    /// How many tasks auto scaling always lets run, and how large they are. Without auto scaling it is
    /// as many as are wanted now.
    async fn always_runs(
        &self,
        service: &Service,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Value, Error> {
        let targets = self.aws.applicationautoscaling.scalable_targets(since).await?;
        let id = format!("service/{}/{}", self.cluster_name, self.label.name);
        let target = targets.iter().find(|target| target.resource_id() == id);
        let definition = outputs.when_observed(&self.task_definition).await;
        let runs =
            |latest: &TaskDefinitionOutput| service.task_definition() == Some(latest.arn.as_str());
        let definition = definition.filter(runs);
        Ok(json!({
            "tasks": target.map_or(service.desired_count(), ScalableTarget::min_capacity),
            "cpu": definition.as_ref().and_then(|definition| definition.cpu),
            "memory": definition.as_ref().and_then(|definition| definition.memory),
            "architecture":
                definition.as_ref().and_then(|definition| definition.architecture.as_deref()),
        }))
    }

    /// The rollout, where a deployment that this run has started and that can't succeed any more is
    /// an error at once, with the words of the task that stopped (trap 9).
    async fn rollout(&self, service: &Service) -> Result<Rollout, Error> {
        let rollout = rollout(service);
        let Some(primary) = primary(service) else {
            return Ok(rollout);
        };
        let is_ours = self.started.lock().await.as_deref() == primary.id();
        if !is_ours || rollout == Rollout::Completed {
            return Ok(rollout);
        }
        let stopped = if primary.failed_tasks() > 0 || matches!(rollout, Rollout::Failed(_)) {
            self.stopped(primary).await?
        } else {
            None
        };
        let final_reason = stopped.as_ref().filter(|stopped| stopped.is_final);
        let why = match (&rollout, final_reason) {
            (_, Some(stopped)) => &stopped.reason,
            (Rollout::Failed(why), None) => stopped.as_ref().map_or(why, |stopped| &stopped.reason),
            _ => return Ok(rollout),
        };
        Err(Error::fatal(
            "ecs:UpdateService",
            "rollout-failed",
            format!("{}: {why}", self.label.name),
        )
        .with_hint("read what the task wrote, in its log group in CloudWatch"))
    }

    /// The last task of a deployment that stopped by itself.
    async fn stopped(&self, deployment: &Deployment) -> Result<Option<Stopped>, Error> {
        let list = self.aws.ecs.client.list_tasks().cluster(&self.cluster_name);
        let list = list.service_name(&self.label.name).desired_status(DesiredStatus::Stopped);
        let listed = list.send().await.map_err(failed("ecs:ListTasks"))?;
        let arns = listed.task_arns.unwrap_or_default();
        if arns.is_empty() {
            return Ok(None);
        }
        let describe = self.aws.ecs.client.describe_tasks().cluster(&self.cluster_name);
        let described = describe.set_tasks(Some(arns)).send().await;
        let described = described.map_err(failed("ecs:DescribeTasks"))?;
        Ok(described
            .tasks()
            .iter()
            .filter(|task| task.task_definition_arn() == deployment.task_definition())
            .filter(|task| task.created_at() >= deployment.created_at())
            .max_by_key(|task| task.stopped_at().map(aws_smithy_types::DateTime::secs))
            .and_then(Stopped::of))
    }

    /// What makes the token of a service that was deleted and is made again, with the same task
    /// definition, another one: when its predecessor was made. ECS goes on describing a deleted service
    /// as `INACTIVE`, also to a run that repeats the create of a killed one, until it has forgotten it.
    async fn predecessor(&self) -> Result<String, Error> {
        let services = self.aws.ecs.services(Instant::now(), &self.cluster_name, &self.siblings);
        let services = services.await?;
        let gone = services.iter().find(|service| {
            service.service_name() == Some(&self.label.name) && service.status() == Some("INACTIVE")
        });
        let made = gone.and_then(Service::created_at);
        Ok(made.map(|made| format!(" after {}", made.as_nanos())).unwrap_or_default())
    }

    /// Reads and changes: the update replaces the configuration (trap 5), and with it the alarms and
    /// hooks that a team has added.
    async fn deployment_configuration(&self) -> Result<DeploymentConfiguration, Error> {
        let wanted = deployment_configuration()?;
        let services = self.aws.ecs.services(Instant::now(), &self.cluster_name, &self.siblings);
        let services = services.await?;
        let named = |service: &&Service| service.service_name() == Some(&self.label.name);
        let now = services.iter().find(named).and_then(Service::deployment_configuration);
        Ok(match now {
            Some(now) => hold(now.clone(), wanted),
            None => wanted,
        })
    }

    fn bounds(&self) -> String {
        format!("{} to {}", self.tasks.minimum, self.tasks.maximum)
    }

    fn members(&self, service: &Service, rollout: &Rollout) -> Value {
        let count = service.desired_count();
        let within = (self.tasks.minimum..=self.tasks.maximum).contains(&count);
        let network = service.network_configuration();
        let network = network.and_then(NetworkConfiguration::awsvpc_configuration);
        let targets: Vec<_> = service
            .load_balancers()
            .iter()
            .map(|target| {
                json!({
                    "targetGroupArn": target.target_group_arn(),
                    "containerName": target.container_name(),
                    "containerPort": target.container_port(),
                })
            })
            .collect();
        let configuration = service.deployment_configuration();
        let breaker = configuration.and_then(DeploymentConfiguration::deployment_circuit_breaker);
        json!({
            "taskDefinition": service.task_definition(),
            "launchType": service.launch_type().map(LaunchType::as_str),
            "desiredCount": if within { self.bounds().into() } else { Value::from(count) },
            "networkConfiguration": {
                "subnets": sorted(network.map(AwsVpcConfiguration::subnets)),
                "securityGroups": sorted(network.map(AwsVpcConfiguration::security_groups)),
                "assignPublicIp":
                    network.and_then(|network| network.assign_public_ip()).map(AssignPublicIp::as_str),
            },
            "loadBalancers": targets,
            // Zero is how "none" comes back.
            "healthCheckGracePeriodSeconds":
                service.health_check_grace_period_seconds().filter(|seconds| *seconds != 0),
            "deploymentConfiguration": {
                "minimumHealthyPercent":
                    configuration.and_then(DeploymentConfiguration::minimum_healthy_percent),
                "maximumPercent": configuration.and_then(DeploymentConfiguration::maximum_percent),
                "circuitBreaker": breaker.map_or("off".into(), threshold),
                "rollback": breaker.is_some_and(DeploymentCircuitBreaker::rollback),
            },
            "enableExecuteCommand": service.enable_execute_command(),
            "propagateTags": service.propagate_tags().map(PropagateTags::as_str),
            "rollout": match rollout {
                Rollout::Completed | Rollout::InProgress(_) => "COMPLETED".to_owned(),
                Rollout::Failed(why) => format!("FAILED: {why}"),
            },
            "tags": live_tags(service.tags()),
        })
    }

    fn network(&self, outputs: &Outputs) -> Result<NetworkConfiguration, Error> {
        let subnets = self.subnets.iter().map(|subnet| Ok(outputs.get(subnet)?.id));
        let vpc = AwsVpcConfiguration::builder()
            .set_subnets(Some(subnets.collect::<Result<_, Error>>()?))
            .security_groups(outputs.get(&self.group)?.id)
            .assign_public_ip(AssignPublicIp::Disabled)
            .build()
            .map_err(built("ecs:CreateService"))?;
        Ok(NetworkConfiguration::builder().awsvpc_configuration(vpc).build())
    }

    fn load_balancers(&self, outputs: &Outputs) -> Result<Option<Vec<LoadBalancer>>, Error> {
        let Some(target) = &self.target else {
            return Ok(None);
        };
        let balancer = LoadBalancer::builder()
            .target_group_arn(outputs.get(&target.group)?.arn)
            .container_name(target.container)
            .container_port(target.port)
            .build();
        Ok(Some(vec![balancer]))
    }
}

/// Of the tasks that always run: of the wanted ones, where `live` does not say otherwise.
fn monthly_cost(prices: Prices, wanted: &Tasks, live: &Value) -> Option<f64> {
    let number = |name: &str, wanted: i32| live[name].as_f64().unwrap_or(f64::from(wanted));
    let architecture = match live["architecture"].as_str() {
        Some("ARM64") => Architecture::Arm,
        _ => Architecture::X86,
    };
    let vcpus = number("cpu", wanted.cpu) / 1024.0;
    let gb = number("memory", wanted.memory) / 1024.0;
    let task = vcpus * prices.monthly(Item::FargateVcpu(architecture))?
        + gb * prices.monthly(Item::FargateGb(architecture))?;
    Some(number("tasks", wanted.minimum) * task)
}

fn sorted(ids: Option<&[String]>) -> Vec<String> {
    let mut ids = ids.unwrap_or_default().to_vec();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_follows_number_and_size_of_the_tasks_that_always_run() {
        let wanted = Tasks { cpu: 512, memory: 1024, minimum: 2, maximum: 4 };
        let prices = Prices::of("us-east-1");
        let is = |live: Value, wanted_dollars: f64| {
            let found = monthly_cost(prices, &wanted, &live).unwrap();
            assert!((found - wanted_dollars).abs() < 0.001, "{found} is not {wanted_dollars}");
        };
        let task = (0.5 * 0.040_48 + 0.004_445) * 730.0;
        is(Value::Null, 2.0 * task);
        is(json!({"tasks": 3, "cpu": 512, "memory": 1024}), 3.0 * task);
        is(json!({"tasks": 2, "cpu": 256, "memory": 512}), task);
        let arm = (0.5 * 0.032_38 + 0.003_56) * 730.0;
        is(json!({"tasks": 1, "architecture": "ARM64"}), arm);
    }
}
