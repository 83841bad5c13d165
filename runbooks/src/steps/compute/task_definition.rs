//! A task definition of ECS: a family whose revisions never change.

use async_trait::async_trait;
use aws_sdk_ecs::types::{
    Compatibility, ContainerDefinition, CpuArchitecture, NetworkMode, OsFamily, RuntimePlatform,
    TaskDefinition as LiveTaskDefinition, TaskDefinitionStatus,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    container::{Container, members},
    role::Role,
};
use crate::{
    aws::{
        Aws, Label,
        ecs::{live_tags, tags},
        failed,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
};

/// The family named by the label. Each registration makes a revision, so the latest active one is
/// compared first, and an update registers the next.
pub struct TaskDefinition {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The containers; the first is the service itself.
    pub containers: Vec<Container>,
    /// CPU units of the task.
    pub cpu: i32,
    /// Memory of the task, MiB.
    pub memory: i32,
    /// What ECS may do to start the task.
    pub execution_role: Handle<Role>,
    /// What the containers may do; nothing at AWS without one.
    pub task_role: Option<Handle<Role>>,
    /// Why there is nothing to run yet.
    pub deferred: Option<String>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct TaskDefinitionOutput {
    /// `arn:aws:ecs:…:task-definition/family:revision`.
    pub arn: String,
    /// Its family.
    pub family: String,
    /// Its revision.
    pub revision: i32,
    /// CPU units of a task.
    pub cpu: Option<i32>,
    /// Memory of a task, MiB.
    pub memory: Option<i32>,
    /// `X86_64` or `ARM64`; ECS takes the former when nothing is said.
    pub architecture: Option<String>,
}

#[async_trait]
impl Resource for TaskDefinition {
    type Output = TaskDefinitionOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let containers = self.containers.iter().flat_map(Container::needs);
        let roles = self.task_role.iter().chain([&self.execution_role]).map(Handle::id);
        containers.chain(roles).collect()
    }

    async fn find(
        &self,
        _: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<TaskDefinitionOutput>>, Error> {
        let Some((found, tags)) = self.aws.ecs.task_definition(&self.label.name).await? else {
            return Ok(None);
        };
        let tags = live_tags(&tags);
        self.label.adopt(&tags)?;
        let platform = found.runtime_platform();
        let architecture = platform.and_then(RuntimePlatform::cpu_architecture);
        Ok(Some(Live {
            properties: json!({
                "containers": members(found.container_definitions()),
                "cpu": found.cpu(),
                "memory": found.memory(),
                "networkMode": found.network_mode().map(NetworkMode::as_str),
                "requiresCompatibilities":
                    found.requires_compatibilities().iter().map(Compatibility::as_str).collect::<Vec<_>>(),
                "cpuArchitecture": architecture.map(CpuArchitecture::as_str),
                "executionRoleArn": found.execution_role_arn(),
                "taskRoleArn": found.task_role_arn().filter(|arn| !arn.is_empty()),
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: output(&found),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "containers": members(&self.definitions(outputs)),
            "cpu": self.cpu.to_string(),
            "memory": self.memory.to_string(),
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpuArchitecture": "X86_64",
            "executionRoleArn": outputs.show(&self.execution_role, |role| role.arn.clone()),
            "taskRoleArn":
                self.task_role.as_ref().map(|role| outputs.show(role, |role| role.arn.clone())),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<TaskDefinitionOutput>, Error> {
        let platform = RuntimePlatform::builder()
            .cpu_architecture(CpuArchitecture::X8664)
            .operating_system_family(OsFamily::Linux)
            .build();
        let task_role = self.task_role.as_ref().map(|role| outputs.get(role)).transpose()?;
        let registered = self
            .aws
            .ecs
            .client
            .register_task_definition()
            .family(&self.label.name)
            .set_container_definitions(Some(self.definitions(outputs)))
            .cpu(self.cpu.to_string())
            .memory(self.memory.to_string())
            .network_mode(NetworkMode::Awsvpc)
            .requires_compatibilities(Compatibility::Fargate)
            .runtime_platform(platform)
            .execution_role_arn(outputs.get(&self.execution_role)?.arn)
            .set_task_role_arn(task_role.map(|role| role.arn))
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("ecs:RegisterTaskDefinition"))?;
        Ok(registered.task_definition().map(output))
    }

    async fn update(
        &self,
        live: &Live<TaskDefinitionOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().all(|field| field.path.starts_with("tags")) {
            return self.aws.ecs.tag(&live.output.arn, &self.label).await;
        }
        // The former revisions stay: running tasks and releases name them.
        self.create(outputs).await?;
        Ok(())
    }

    async fn delete(&self, _: &Live<TaskDefinitionOutput>) -> Result<(), Error> {
        let family = &self.label.name;
        let client = &self.aws.ecs.client;
        for revision in self.aws.ecs.revisions(family, TaskDefinitionStatus::Active).await? {
            let deregister = client.deregister_task_definition().task_definition(revision);
            deregister.send().await.map_err(failed("ecs:DeregisterTaskDefinition"))?;
        }
        // Deregistered revisions would be listed for ever; ten go in one call.
        let inactive = self.aws.ecs.revisions(family, TaskDefinitionStatus::Inactive).await?;
        for revisions in inactive.chunks(10) {
            let delete = client.delete_task_definitions();
            let delete = delete.set_task_definitions(Some(revisions.to_vec())).send().await;
            delete.map_err(failed("ecs:DeleteTaskDefinitions"))?;
        }
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions =
            ["ecs:DeleteTaskDefinitions", "ecs:RegisterTaskDefinition", "ecs:TagResource"];
        let revisions = self.aws.arn("ecs", &format!("task-definition/{}:*", self.label.name));
        vec![
            Permission::anywhere([
                "ecs:DeregisterTaskDefinition",
                "ecs:DescribeTaskDefinition",
                "ecs:ListTaskDefinitions",
            ]),
            Permission::on(actions, [revisions]),
        ]
    }

    fn deferred(&self) -> Option<String> {
        self.deferred.clone()
    }
}

impl TaskDefinition {
    fn definitions(&self, outputs: &Outputs) -> Vec<ContainerDefinition> {
        self.containers.iter().map(|container| container.definition(outputs)).collect()
    }
}

fn output(found: &LiveTaskDefinition) -> TaskDefinitionOutput {
    TaskDefinitionOutput {
        arn: found.task_definition_arn().unwrap_or_default().to_owned(),
        family: found.family().unwrap_or_default().to_owned(),
        revision: found.revision(),
        cpu: found.cpu().and_then(|units| units.parse().ok()),
        memory: found.memory().and_then(|mib| mib.parse().ok()),
        architecture: found
            .runtime_platform()
            .and_then(RuntimePlatform::cpu_architecture)
            .map(|architecture| architecture.as_str().to_owned()),
    }
}
