//! A container of a task definition: what it should be, and how AWS's description of one is read.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{
    ContainerDefinition, HealthCheck, KeyValuePair, LogConfiguration, LogDriver, PortMapping,
    Secret, TransportProtocol,
};
use serde_json::{Value, json};

use crate::{
    engine::{Handle, Outputs, Resource, ResourceId},
    steps::observability::log_group::LogGroup,
};

/// One container.
pub struct Container {
    /// Its name within the task.
    pub name: &'static str,
    /// Its image, by digest where it is ours.
    pub image: String,
    /// Arguments to the image's entry point.
    pub command: Vec<String>,
    /// When it ends, the task ends.
    pub essential: bool,
    /// Environment variables.
    pub environment: BTreeMap<String, Setting>,
    /// Environment variables that ECS reads from Secrets Manager when the container starts; each a
    /// secret's ARN with a JSON key.
    pub secrets: BTreeMap<String, Setting>,
    /// The TCP port that it listens on.
    pub port: Option<i32>,
    /// A command inside the container that tells whether it is well.
    pub health_check: Option<&'static [&'static str]>,
    /// The user, and with it a root file system that can't be written to.
    pub user: Option<&'static str>,
    /// Where its output goes.
    pub log_group: Handle<LogGroup>,
    /// The region of the log group.
    pub region: String,
}

/// A value that is fixed or comes from another resource.
pub struct Setting {
    need: Option<ResourceId>,
    value: Box<dyn Fn(&Outputs) -> Value + Send + Sync>,
}

impl Setting {
    /// A value that is known.
    pub fn fixed(value: impl Into<String>) -> Self {
        let value = Value::String(value.into());
        Self { need: None, value: Box::new(move |_| value.clone()) }
    }

    /// A value that another resource puts out.
    pub fn of<R: Resource>(
        handle: &Handle<R>,
        member: impl Fn(&R::Output) -> String + Send + Sync + 'static,
    ) -> Self {
        let handle = handle.clone();
        Self {
            need: Some(handle.id()),
            value: Box::new(move |outputs| outputs.show(&handle, &member)),
        }
    }

    fn text(&self, outputs: &Outputs) -> String {
        let value = (self.value)(outputs);
        value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
    }
}

/// Seconds between SIGTERM and SIGKILL; the service finishes within 25.
const STOP_TIMEOUT: i32 = 30;

impl Container {
    /// The ids of what it reads.
    pub fn needs(&self) -> impl Iterator<Item = ResourceId> {
        let settings = self.environment.values().chain(self.secrets.values());
        settings.filter_map(|setting| setting.need.clone()).chain([self.log_group.id()])
    }

    /// The definition for ECS, with placeholders for what is not known yet.
    pub fn definition(&self, outputs: &Outputs) -> ContainerDefinition {
        let environment = self.environment.iter().map(|(name, value)| {
            KeyValuePair::builder().name(name).value(value.text(outputs)).build()
        });
        let secrets = self.secrets.iter().map(|(name, arn)| {
            let secret = Secret::builder().name(name).value_from(arn.text(outputs));
            secret.build().expect("a secret with name and origin is complete")
        });
        let ports = self.port.map(|port| {
            let mapping = PortMapping::builder().container_port(port).host_port(port);
            vec![mapping.protocol(TransportProtocol::Tcp).build()]
        });
        let group = outputs.show(&self.log_group, |group| group.name.clone());
        let logs = LogConfiguration::builder()
            .log_driver(LogDriver::Awslogs)
            .options("awslogs-group", group.as_str().unwrap_or_default())
            .options("awslogs-region", &self.region)
            .options("awslogs-stream-prefix", self.name)
            // A full buffer drops lines instead of stopping the service (4 MiB, some 20 000 lines).
            .options("mode", "non-blocking")
            .options("max-buffer-size", "4m")
            .build()
            .expect("a log configuration with a driver is complete");
        let health_check = self.health_check.map(|command| {
            HealthCheck::builder()
                .set_command(Some(command.iter().map(ToString::to_string).collect()))
                .interval(5)
                .timeout(3)
                .retries(3)
                .start_period(30)
                .build()
                .expect("a health check with a command is complete")
        });
        ContainerDefinition::builder()
            .name(self.name)
            .image(&self.image)
            .essential(self.essential)
            .set_command(Some(self.command.clone()))
            .set_environment(Some(environment.collect()))
            .set_secrets(Some(secrets.collect()))
            .set_port_mappings(ports)
            .set_health_check(health_check)
            .set_user(self.user.map(ToOwned::to_owned))
            .readonly_root_filesystem(self.user.is_some())
            .log_configuration(logs)
            .stop_timeout(STOP_TIMEOUT)
            .build()
    }
}

/// The members that we hold of containers, by the container's name, the same for what is wanted and
/// for what AWS describes. Variables and ports are sets to ECS, hence objects and sorted here.
pub fn members(containers: &[ContainerDefinition]) -> Value {
    containers.iter().map(|one| (one.name().unwrap_or_default().to_owned(), of(one))).collect()
}

fn of(container: &ContainerDefinition) -> Value {
    let environment: BTreeMap<_, _> =
        container.environment().iter().map(|pair| (pair.name(), pair.value())).map(named).collect();
    let secrets: BTreeMap<_, _> =
        container.secrets().iter().map(|secret| (secret.name(), secret.value_from())).collect();
    let mut ports: Vec<_> = container
        .port_mappings()
        .iter()
        .map(|port| {
            let protocol = port.protocol().map_or("tcp", TransportProtocol::as_str);
            format!("{}/{protocol}", port.container_port().unwrap_or_default())
        })
        .collect();
    ports.sort_unstable();
    let logs = container.log_configuration().map(|logs| {
        let options: BTreeMap<_, _> = logs.options().into_iter().flatten().collect();
        json!({"logDriver": logs.log_driver().as_str(), "options": options})
    });
    let health_check = container.health_check().map(|check| {
        json!({
            "command": check.command(),
            "interval": check.interval(),
            "timeout": check.timeout(),
            "retries": check.retries(),
            "startPeriod": check.start_period(),
        })
    });
    json!({
        "image": container.image(),
        "essential": container.essential(),
        "command": container.command(),
        "environment": environment,
        "secrets": secrets,
        "portMappings": ports,
        "healthCheck": health_check,
        "user": container.user(),
        "readonlyRootFilesystem": container.readonly_root_filesystem(),
        "logConfiguration": logs,
        "stopTimeout": container.stop_timeout(),
    })
}

fn named<'a>((name, value): (Option<&'a str>, Option<&'a str>)) -> (&'a str, &'a str) {
    (name.unwrap_or_default(), value.unwrap_or_default())
}
