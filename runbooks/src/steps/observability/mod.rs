//! Step 9: log groups, alarms, the dashboard, tracing, and the secret for Sentry.

pub mod alarm;
mod alarms;
pub mod dashboard;
pub mod error_rate;
pub mod log_group;
pub mod sampling_rule;
mod watched;
pub mod xray_group;

use dashboard::Dashboard;
use log_group::LogGroup;
use sampling_rule::SamplingRule;
use watched::{Chart, Watched};
use xray_group::XRayGroup;

use super::{
    About, Stack,
    cache::Cache,
    compute::{Platform, Services},
    database::{
        Database,
        secret::{FirstValue, Secret},
    },
    queue::Queue,
};
use crate::engine::{Graph, Handle};

/// The log groups of the containers.
pub struct Logs {
    /// Of the API.
    pub api: Handle<LogGroup>,
    /// Of the voice worker.
    pub worker: Handle<LogGroup>,
    /// Of migrations.
    pub migrate: Handle<LogGroup>,
}

/// What the containers read for this step.
pub struct Secrets {
    /// `{"dsn": …}`, empty until a person fills it in.
    pub sentry_dsn: Handle<Secret>,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "Log groups with a retention, alarms on errors, latency, CPU, memory, database and \
            cache, a dashboard, an X-Ray group with a sampling rule, and the secret for Sentry.",
    why: "Somebody is told before users tell them, and finds what happened in one place.",
    order: "Log groups and the secret are there before the first task. Alarms and dashboard wait \
            for what they watch.",
    trouble: &[
        ("alarms stay in INSUFFICIENT_DATA", "that is right until there is traffic"),
        (
            "no traces",
            "see `observability.collector` and `observability.trace_sampling`; without a way to \
             the internet there is no collector",
        ),
        ("errors are only in the log", "put a DSN into the secret of Sentry, then deploy"),
    ],
};

/// Adds the log groups, which are there before the first task.
pub fn add_log_groups(graph: &mut Graph, stack: &Stack) -> Logs {
    let mut group = |name: &str| {
        graph.add(LogGroup {
            // 512 is the limit of a log group's name (CloudWatch Logs API reference).
            label: stack.label("observability", &format!("{name}-log-group"), 512),
            aws: stack.aws.clone(),
            retention_days: stack.environment.observability.log_retention_days,
        })
    };
    Logs { api: group("api"), worker: group("worker"), migrate: group("migrate") }
}

/// Adds the secret that a person fills in.
pub fn add_secrets(graph: &mut Graph, stack: &Stack) -> Secrets {
    let sentry_dsn = graph.add(Secret {
        label: stack.label("observability", "sentry-dsn", 512),
        aws: stack.aws.clone(),
        description: "Where the service reports its errors: the DSN of a Sentry project",
        value: FirstValue::Empty { key: "dsn" },
    });
    Secrets { sentry_dsn }
}

/// Adds the rest of the step. The ECS services are watched by their names, which we choose: the
/// alarms are there before the first release is.
pub fn add(
    graph: &mut Graph,
    stack: &Stack,
    platform: &Platform,
    _: &Services,
    database: &Database,
    cache: &Cache,
    queue: &Queue,
) {
    let watched = Watched::new(stack, platform, database, cache, queue);
    alarms::add(graph, stack, &watched, &queue.alerts);
    graph.add(Dashboard {
        label: stack.label("observability", "dashboard", 255),
        aws: stack.aws.clone(),
        watched,
    });
    // 32 is the limit of both names (X-Ray API reference).
    let services = ["api", "worker"].map(|name| stack.label("compute", name, 255).name);
    graph.add(XRayGroup {
        label: stack.label("observability", "xray-group", 32),
        aws: stack.aws.clone(),
        filter_expression: services.map(|name| format!("service(\"{name}\")")).join(" OR "),
    });
    graph.add(SamplingRule {
        label: stack.label("observability", "sampling-rule", 32),
        aws: stack.aws.clone(),
        fixed_rate: stack.environment.observability.trace_sampling,
        service_name: format!("bme-{}-*", stack.environment.name),
    });
}
