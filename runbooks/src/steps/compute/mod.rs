//! Step 4: the image repository, the load balancer, the cluster and its roles, and what runs there.
//!
//! The platform is there before the first release; the services and their task definitions belong
//! to releases.

pub mod cluster;
pub mod container;
mod deployment;
pub mod ecs_service;
pub mod listener;
pub mod load_balancer;
pub mod repository;
pub mod role;
mod roles;
pub mod rule;
pub mod scalable_target;
pub mod scaling_policy;
mod secrets;
mod services;
pub mod target_group;
pub mod task_definition;
mod variables;

use cluster::Cluster;
use listener::Listener;
use load_balancer::LoadBalancer;
use repository::Repository;
use role::Role;
use rule::Rule;
use target_group::TargetGroup;

pub use secrets::{TaskSecret, TaskSecrets, Version};
pub use services::{Services, Wiring, add_services};
pub use variables::Keys;

use super::{
    About, Stack,
    database::secret::{FirstValue, Secret},
    domain,
    edge::OriginSecret,
    network::Network,
};
use crate::engine::{Graph, Handle, ResourceId};

const STEP: &str = "compute";

/// The port that the service listens on in its container.
const PORT: i32 = 8080;

/// What is there before the first release.
pub struct Platform {
    /// Where images are pushed to.
    pub repository: Handle<Repository>,
    /// Where tasks run.
    pub cluster: Handle<Cluster>,
    /// The load balancer.
    pub load_balancer: Handle<LoadBalancer>,
    /// The API's tasks.
    pub target_group: Handle<TargetGroup>,
    /// The load balancer's listener.
    pub listener: Handle<Listener>,
    /// What ECS may do to start a task.
    pub execution_role: Handle<Role>,
    /// What the API may do.
    pub api_role: Handle<Role>,
    /// What the worker may do.
    pub worker_role: Handle<Role>,
    /// `{"jwtSecret"}`.
    pub service_secret: Handle<Secret>,
    /// What joins the target group to the load balancer; ECS refuses a target group without one.
    pub routed: ResourceId,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "An ECR repository, an ECS cluster, roles, a load balancer with target group and \
            listener, with `edge.hosted_zone_id` its certificate and record, task definitions, the \
            API and the worker service, and auto scaling for both.",
    why: "The service runs here, as tasks on Fargate without a machine to look after. Each \
          service has a role of its own that may do only what it does.",
    order: "Repository, cluster, roles and load balancer are there before the first release. Task \
            definitions, services and auto scaling wait for the first deploy, since before it \
            there is no image to run.",
    trouble: &[
        (
            "rollout-failed: tasks stop as soon as they start",
            "read the last lines in the log group of the service; the release before runs again",
        ),
        (
            "CannotPullContainerError",
            "see that private subnets have a way to the repository, then deploy again",
        ),
        (
            "a role is not usable yet (\"cannot be assumed\")",
            "bme calls again for a minute; after that run the command again",
        ),
        (
            "tasks are unhealthy: `/health` does not answer within its limit",
            "look at CPU and memory on the dashboard, and raise `compute.api`",
        ),
    ],
};

/// Adds the platform.
pub fn add(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    origin_secret: &OriginSecret,
) -> Platform {
    let settings = &stack.environment.compute;
    let repository = graph.add(Repository {
        label: stack.label(STEP, "repository", 256),
        aws: stack.aws.clone(),
        images_kept: settings.images_kept,
    });
    let cluster = graph.add(Cluster {
        label: stack.label(STEP, "cluster", 255),
        aws: stack.aws.clone(),
        container_insights: settings.container_insights,
    });
    let load_balancer = graph.add(LoadBalancer {
        label: stack.label(STEP, "load-balancer", 32),
        aws: stack.aws.clone(),
        subnets: network.public_subnets.clone(),
        group: network.groups.alb.clone(),
        internet: network.internet.clone(),
        deletion_protection: settings.deletion_protection,
    });
    let target_group = graph.add(TargetGroup {
        label: stack.label(STEP, "target-group", 32),
        aws: stack.aws.clone(),
        vpc: network.vpc.clone(),
        port: PORT,
    });
    domain::add_load_balancer_record(graph, stack, &load_balancer);
    let certificate = domain::add_load_balancer_certificate(graph, stack);
    let listener = graph.add(Listener {
        label: stack.label(STEP, "listener", 255),
        aws: stack.aws.clone(),
        load_balancer: load_balancer.clone(),
        certificate,
    });
    let rule = graph.add(Rule {
        label: stack.label(STEP, "listener-rule", 255),
        aws: stack.aws.clone(),
        listener: listener.clone(),
        target_group: target_group.clone(),
        secret: origin_secret.clone(),
    });
    let service_secret = graph.add(Secret {
        label: stack.label(STEP, "service-secret", 255),
        aws: stack.aws.clone(),
        description: "Signs the access tokens of the service",
        value: FirstValue::Generated { key: "jwtSecret", with: Vec::new() },
    });
    Platform {
        execution_role: graph.add(roles::execution(stack)),
        api_role: graph.add(roles::api(stack)),
        worker_role: graph.add(roles::worker(stack)),
        repository,
        cluster,
        load_balancer,
        target_group,
        listener,
        service_secret,
        routed: rule.id(),
    }
}
