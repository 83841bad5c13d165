//! What a release runs: the API, the voice worker and the migration, and the scaling of the first
//! two.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use super::{
    PORT, Platform, STEP,
    container::{Container, Setting},
    ecs_service::{EcsService, Target},
    role::Role,
    scalable_target::ScalableTarget,
    scaling_policy::{Follows, ScalingPolicy},
    secrets::TaskSecrets,
    task_definition::TaskDefinition,
    variables::{self, Keys},
};
use crate::{
    aws::Label,
    engine::{Graph, Handle, ResourceId},
    environment::{Nat, Tasks},
    steps::{
        Stack,
        cache::Cache,
        database::Database,
        edge::Edge,
        identity::Identity,
        network::{Network, security_group::SecurityGroup},
        observability::{Logs, Secrets, log_group::LogGroup},
        queue::Queue,
    },
};

/// What the services read of other steps.
pub struct Wiring<'a> {
    /// Step 1.
    pub network: &'a Network,
    /// Step 2.
    pub database: &'a Database,
    /// Step 3.
    pub cache: &'a Cache,
    /// Step 5.
    pub queue: &'a Queue,
    /// The platform of this step.
    pub platform: &'a Platform,
    /// Step 6.
    pub identity: &'a Identity,
    /// Step 7.
    pub edge: &'a Edge,
    /// Log groups of step 9.
    pub logs: &'a Logs,
    /// Secrets of step 9.
    pub observability: &'a Secrets,
}

/// What a release runs.
pub struct Services {
    /// The API.
    pub api: Handle<EcsService>,
    /// The voice worker.
    pub worker: Handle<EcsService>,
    /// The one-off task that migrates the database.
    pub migrate: Handle<TaskDefinition>,
    /// What the API's tasks are made of.
    pub api_definition: Handle<TaskDefinition>,
    /// What the worker's tasks are made of.
    pub worker_definition: Handle<TaskDefinition>,
    /// Secrets that only they read.
    pub keys: Keys,
    /// All secrets of ours that they read.
    pub secrets: TaskSecrets,
}

/// Size of the migration's task: it waits for the database most of its time.
const MIGRATE: (i32, i32) = (256, 512);

/// Average CPU use that is kept, percent: a task that fails leaves room on the others.
const CPU: f64 = 60.0;

/// Requests per task and minute that are kept; some 17 a second.
const REQUESTS: f64 = 1000.0;

/// Voice jobs that may wait per task: at some seconds each, a job starts within half a minute.
const BACKLOG: f64 = 5.0;

/// The user of the image, without a name and without rights.
const USER: &str = "65532";

/// The command that asks the service in its own container whether it is well.
const HEALTH_CHECK: &[&str] = &["CMD", "/bme-service", "healthcheck"];

/// AWS's distribution of the OpenTelemetry collector, by tag: its digest differs by mirror.
const COLLECTOR: &str = "public.ecr.aws/aws-observability/aws-otel-collector:v0.41.1";

/// Whether a collector runs beside each service. Not in a sandbox, and not without a way out to the
/// internet: its image is in a public registry, which neither can reach.
pub(super) fn runs_collector(stack: &Stack) -> bool {
    let environment = &stack.environment;
    environment.observability.collector
        && environment.sandbox.is_none()
        && environment.network.nat != Nat::None
}

/// Adds what a release runs. Before the first release everything is deferred.
pub fn add_services(graph: &mut Graph, stack: &Stack, wiring: &Wiring<'_>) -> Services {
    let (platform, logs) = (wiring.platform, wiring.logs);
    let settings = &stack.environment.compute;
    let keys = variables::add_keys(graph, stack);
    let read = TaskSecrets::of(stack, wiring, &keys);
    let (environment, secrets) = variables::api(stack, wiring, &read);
    let api_definition = graph.add(definition(
        stack,
        platform,
        ("api", Some(&platform.api_role)),
        (settings.api.cpu, settings.api.memory),
        service(stack, "api", environment, secrets, &logs.api),
    ));
    let (environment, secrets) = variables::worker(stack, wiring, &read);
    let worker_definition = graph.add(definition(
        stack,
        platform,
        ("worker", Some(&platform.worker_role)),
        (settings.worker.cpu, settings.worker.memory),
        service(stack, "worker", environment, secrets, &logs.worker),
    ));
    let (environment, secrets) = variables::migration(stack, wiring, &read);
    let migrate = graph.add(definition(
        stack,
        platform,
        ("migrate", None),
        MIGRATE,
        vec![container(stack, "migrate", environment, secrets, &logs.migrate)],
    ));

    let groups = &wiring.network.groups;
    let target = Target { group: platform.target_group.clone(), container: "api", port: PORT };
    let routed = Some(platform.routed.clone());
    let api = ("api", &settings.api, &api_definition, &groups.api);
    let api = graph.add(ecs_service(stack, wiring, api, Some(target), routed));
    let worker = ("worker", &settings.worker, &worker_definition, &groups.worker);
    let worker = graph.add(ecs_service(stack, wiring, worker, None, None));
    scale(graph, stack, wiring, &api, &worker);
    Services { api, worker, migrate, api_definition, worker_definition, keys, secrets: read }
}

fn scale(
    graph: &mut Graph,
    stack: &Stack,
    wiring: &Wiring<'_>,
    api: &Handle<EcsService>,
    worker: &Handle<EcsService>,
) {
    let settings = &stack.environment.compute;
    let cluster = stack.label(STEP, "cluster", 255).name;
    let mut bound = |service: &Handle<EcsService>, name: &str, tasks: &Tasks| {
        graph.add(ScalableTarget {
            label: stack.label(STEP, &format!("{name}-scaling"), 255),
            aws: stack.aws.clone(),
            service: service.clone(),
            resource_id: format!("service/{cluster}/{}", release_label(stack, name, name).name),
            minimum: tasks.minimum,
            maximum: tasks.maximum,
        })
    };
    let api_target = bound(api, "api", &settings.api);
    let worker_target = bound(worker, "worker", &settings.worker);
    let mut follow =
        |target: &Handle<ScalableTarget>, service: &str, name: &str, follows, target_value| {
            let label = stack.label(STEP, &format!("{service}-scaling-{name}"), 255);
            graph.add(ScalingPolicy {
                id: label.id,
                name: label.name,
                aws: stack.aws.clone(),
                target: target.clone(),
                resource_id: format!(
                    "service/{cluster}/{}",
                    release_label(stack, service, service).name
                ),
                follows,
                target_value,
            });
        };
    follow(&api_target, "api", "cpu", Follows::Cpu, CPU);
    let requests = Follows::Requests {
        load_balancer: wiring.platform.load_balancer.clone(),
        target_group: wiring.platform.target_group.clone(),
    };
    follow(&api_target, "api", "requests", requests, REQUESTS);
    let backlog = Follows::Backlog {
        queue: wiring.queue.voice.clone(),
        cluster: cluster.clone(),
        service: release_label(stack, "worker", "worker").name,
    };
    follow(&worker_target, "worker", "backlog", backlog, BACKLOG);
}

fn ecs_service(
    stack: &Stack,
    wiring: &Wiring<'_>,
    (name, tasks, definition, group): (
        &str,
        &Tasks,
        &Handle<TaskDefinition>,
        &Handle<SecurityGroup>,
    ),
    target: Option<Target>,
    routed: Option<ResourceId>,
) -> EcsService {
    EcsService {
        label: release_label(stack, name, name),
        aws: stack.aws.clone(),
        cluster: wiring.platform.cluster.clone(),
        cluster_name: stack.label(STEP, "cluster", 255).name,
        siblings: ["api", "worker"].map(|name| release_label(stack, name, name).name).to_vec(),
        task_definition: definition.clone(),
        subnets: wiring.network.private_subnets.clone(),
        group: group.clone(),
        target,
        tasks: tasks.clone(),
        // The proxy answers only once the database is behind it.
        ready: wiring
            .network
            .ready
            .iter()
            .cloned()
            .chain([wiring.database.proxy_target.id()])
            .chain(routed)
            .collect(),
        deferred: deferred(stack),
        started: Mutex::default(),
    }
}

fn definition(
    stack: &Stack,
    platform: &Platform,
    (name, task_role): (&str, Option<&Handle<Role>>),
    (cpu, memory): (i32, i32),
    containers: Vec<Container>,
) -> TaskDefinition {
    TaskDefinition {
        label: release_label(stack, &format!("{name}-task-definition"), name),
        aws: stack.aws.clone(),
        containers,
        cpu,
        memory,
        execution_role: platform.execution_role.clone(),
        task_role: task_role.cloned(),
        deferred: deferred(stack),
    }
}

/// The container of a service, and the collector beside it.
fn service(
    stack: &Stack,
    name: &'static str,
    mut environment: BTreeMap<String, Setting>,
    secrets: BTreeMap<String, Setting>,
    log_group: &Handle<LogGroup>,
) -> Vec<Container> {
    let collector = runs_collector(stack).then(|| Container {
        name: "collector",
        image: COLLECTOR.into(),
        command: vec!["--config=/etc/ecs/ecs-xray.yaml".into()],
        // Without traces the service still serves.
        essential: false,
        environment: BTreeMap::new(),
        secrets: BTreeMap::new(),
        port: None,
        health_check: None,
        user: None,
        log_group: log_group.clone(),
        region: stack.aws.region.clone(),
    });
    if collector.is_some() {
        let share = stack.environment.observability.trace_sampling.to_string();
        environment.extend(variables::fixed([
            // OTLP over HTTP, as the service speaks it.
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318".into()),
            // The name that the sampling rule and the group of step 9 look for.
            ("OTEL_SERVICE_NAME", format!("bme-{}-{name}", stack.environment.name)),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".into()),
            ("OTEL_TRACES_SAMPLER_ARG", share),
        ]));
    }
    let service = Container {
        port: (name == "api").then_some(PORT),
        health_check: Some(HEALTH_CHECK),
        ..container(stack, name, environment, secrets, log_group)
    };
    [service].into_iter().chain(collector).collect()
}

fn container(
    stack: &Stack,
    name: &'static str,
    environment: BTreeMap<String, Setting>,
    secrets: BTreeMap<String, Setting>,
    log_group: &Handle<LogGroup>,
) -> Container {
    Container {
        name,
        // By digest: what was tested is what runs, and a tag can't be moved under it.
        image: stack.release.as_ref().map(|release| release.image.clone()).unwrap_or_default(),
        command: vec![name.into()],
        essential: true,
        environment,
        secrets,
        port: None,
        health_check: None,
        user: Some(USER),
        log_group: log_group.clone(),
        region: stack.aws.region.clone(),
    }
}

/// A label whose tags name the release besides.
fn release_label(stack: &Stack, id: &str, name: &str) -> Label {
    let environment = &stack.environment;
    let id = ResourceId::new(STEP, id);
    let mut label = Label::new(&environment.name, &environment.tags, id, name, 255);
    if let Some(release) = &stack.release {
        label.tags.insert("bme:release".into(), release.tag.clone());
    }
    label
}

fn deferred(stack: &Stack) -> Option<String> {
    stack.release.is_none().then(|| "waits for the first deploy".to_owned())
}
