//! The `CodeBuild` project that builds the source and deploys it.

use async_trait::async_trait;
use aws_sdk_codebuild::types::{
    ArtifactsType, CloudWatchLogsConfig, ComputeType, EnvironmentType, LogsConfig,
    LogsConfigStatusType, Project, ProjectArtifacts, ProjectEnvironment, ProjectSource, SourceType,
    Tag,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label, built,
        codebuild::{live_tags, tags},
        failed,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::{compute::role::Role, observability::log_group::LogGroup},
};

/// Ubuntu 22.04 with a C compiler ("Docker images provided by `CodeBuild`", `CodeBuild` user guide).
const IMAGE: &str = "aws/codebuild/standard:7.0";

/// 8 vCPUs and 16 GiB ("Build environment compute modes and types"): one of the SDK's crates alone
/// takes 7 GiB to compile. Two cents a minute in us-east-1 (<https://aws.amazon.com/codebuild/pricing/>).
const COMPUTE: ComputeType = ComputeType::BuildGeneral1Large;

/// Like the GitHub workflow's.
const TIMEOUT_MINUTES: i32 = 60;

/// The project. It is made for `CodePipeline`, which gives it the source.
pub struct BuildProject {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What it may do.
    pub role: Handle<Role>,
    /// Where it says what it does.
    pub log_group: Handle<LogGroup>,
    /// The name of that group.
    pub log_group_name: String,
}

#[async_trait]
impl Resource for BuildProject {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.role.id(), self.log_group.id()]
    }

    /// Where nothing is that it needs, it is not either: an environment without a pipeline makes no call of
    /// a service that its region may lack. One part alone that somebody has deleted hides nothing.
    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        let role = outputs.when_observed(&self.role).await;
        if role.is_none() && outputs.when_observed(&self.log_group).await.is_none() {
            return Ok(None);
        }
        let Some(project) = self.aws.codebuild.project(&self.label.name).await? else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(project.tags()))?;
        Ok(Some(Live { properties: properties(&project), condition: Condition::Ready, output: () }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "source": { "type": SourceType::Codepipeline.as_str(), "buildspec": self.buildspec() },
            "artifacts": ArtifactsType::Codepipeline.as_str(),
            "environment": {
                "type": EnvironmentType::LinuxContainer.as_str(),
                "image": IMAGE,
                "computeType": COMPUTE.as_str(),
            },
            "serviceRole": outputs.show(&self.role, |role| role.arn.clone()),
            "timeoutInMinutes": TIMEOUT_MINUTES,
            "logGroup": self.log_group_name,
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<()>, Error> {
        self.aws
            .codebuild
            .client
            .create_project()
            .name(&self.label.name)
            .source(self.source()?)
            .artifacts(artifacts()?)
            .environment(environment()?)
            .service_role(outputs.get(&self.role)?.arn)
            .timeout_in_minutes(TIMEOUT_MINUTES)
            .logs_config(self.logs()?)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("codebuild:CreateProject"))?;
        Ok(Some(()))
    }

    async fn update(&self, live: &Live<()>, _: &[Field], outputs: &Outputs) -> Result<(), Error> {
        self.aws
            .codebuild
            .client
            .update_project()
            .name(&self.label.name)
            .source(self.source()?)
            .artifacts(artifacts()?)
            .environment(environment()?)
            .service_role(outputs.get(&self.role)?.arn)
            .timeout_in_minutes(TIMEOUT_MINUTES)
            .logs_config(self.logs()?)
            .set_tags(Some(self.tags_beside(&live.properties["tags"])))
            .send()
            .await
            .map_err(failed("codebuild:UpdateProject"))?;
        Ok(())
    }

    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        let delete = self.aws.codebuild.client.delete_project().name(&self.label.name);
        delete.send().await.map_err(failed("codebuild:DeleteProject"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "codebuild:BatchGetProjects",
            "codebuild:CreateProject",
            "codebuild:DeleteProject",
            "codebuild:UpdateProject",
        ];
        let project = self.aws.arn("codebuild", &format!("project/{}", self.label.name));
        vec![Permission::on(actions, [project])]
    }
}

impl BuildProject {
    /// What the build runs. It is kept here and not in the repository, so that a push can't change
    /// it. The compiler is that of `rust-toolchain.toml`, which rustup installs; rustup itself is
    /// pinned by its hash, since a file at an address can change. The commit that `CodePipeline`
    /// hands over names the release ("Environment variables in build environments", `CodeBuild` user
    /// guide), and another run is waited for.
    fn buildspec(&self) -> String {
        let environment = self.label.environment();
        format!(
            "\
version: 0.2
env:
  shell: bash
phases:
  install:
    commands:
      - curl --fail --silent --show-error --output /tmp/rustup-init https://static.rust-lang.org/rustup/archive/1.28.2/x86_64-unknown-linux-gnu/rustup-init
      - echo '20a06e644b0d9bd2fbdbfd52d42540bdde820ea7df86e92e533c073da0cdd43c  /tmp/rustup-init' | sha256sum --check
      - chmod +x /tmp/rustup-init
      - /tmp/rustup-init -y --profile minimal --default-toolchain none
  build:
    commands:
      - export PATH=\"$HOME/.cargo/bin:$PATH\"
      - cargo build --locked --release -p bme
      - ./target/release/bme --env {environment} --yes deploy --lock-wait 30m --tag \"sha-${{CODEBUILD_RESOLVED_SOURCE_VERSION::12}}\"
"
        )
    }

    fn source(&self) -> Result<ProjectSource, Error> {
        ProjectSource::builder()
            .r#type(SourceType::Codepipeline)
            .buildspec(self.buildspec())
            .build()
            .map_err(built("codebuild:CreateProject"))
    }

    fn logs(&self) -> Result<LogsConfig, Error> {
        let group = CloudWatchLogsConfig::builder()
            .status(LogsConfigStatusType::Enabled)
            .group_name(&self.log_group_name)
            .build()
            .map_err(built("codebuild:CreateProject"))?;
        Ok(LogsConfig::builder().cloud_watch_logs(group).build())
    }

    /// An update replaces all tags, hence takes along those that are not ours (trap 5).
    fn tags_beside(&self, live: &Value) -> Vec<Tag> {
        let mut label = self.label.clone();
        for (key, value) in live.as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            label.tags.entry(key.clone()).or_insert_with(|| value.to_owned());
        }
        tags(&label)
    }
}

fn artifacts() -> Result<ProjectArtifacts, Error> {
    ProjectArtifacts::builder()
        .r#type(ArtifactsType::Codepipeline)
        .build()
        .map_err(built("codebuild:CreateProject"))
}

fn environment() -> Result<ProjectEnvironment, Error> {
    ProjectEnvironment::builder()
        .r#type(EnvironmentType::LinuxContainer)
        .image(IMAGE)
        .compute_type(COMPUTE)
        .build()
        .map_err(built("codebuild:CreateProject"))
}

/// The members that are ours, as `CodeBuild` has them.
fn properties(project: &Project) -> Value {
    let logs = project.logs_config().and_then(LogsConfig::cloud_watch_logs);
    json!({
        "source": project.source().map(|source| json!({
            "type": source.r#type().as_str(),
            "buildspec": source.buildspec(),
        })),
        "artifacts": project.artifacts().map(|artifacts| artifacts.r#type().as_str()),
        "environment": project.environment().map(|environment| json!({
            "type": environment.r#type().as_str(),
            "image": environment.image(),
            "computeType": environment.compute_type().as_str(),
        })),
        "serviceRole": project.service_role(),
        "timeoutInMinutes": project.timeout_in_minutes(),
        "logGroup": logs.and_then(CloudWatchLogsConfig::group_name),
        "tags": live_tags(project.tags()),
    })
}
