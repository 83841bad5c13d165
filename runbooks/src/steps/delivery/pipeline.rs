//! The pipeline: each push to a branch is built and deployed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_codepipeline::types::{
    ActionCategory, ActionDeclaration, ActionOwner, ActionTypeId, ArtifactStore, ArtifactStoreType,
    ExecutionMode, InputArtifact, OutputArtifact, PipelineDeclaration, PipelineType,
    StageDeclaration,
};
use aws_smithy_types::error::operation::BuildError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{build_project::BuildProject, tls_only::TlsOnly};
use crate::{
    aws::{Aws, Label, built, codepipeline::tags, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::{compute::role::Role, edge::bucket::Bucket},
};

/// What the first stage hands to the second.
const SOURCE: &str = "source";

/// The pipeline. Making it starts it: the build then waits for the run that has made it.
///
/// It is of type V2, which costs nothing while it rests and $0.002 for each minute of an action after
/// the first 100 of a month; V1 costs a dollar a month
/// (<https://aws.amazon.com/codepipeline/pricing/>).
pub struct Pipeline {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What it may do.
    pub role: Handle<Role>,
    /// What it has built.
    pub project: Handle<BuildProject>,
    /// The name of that project.
    pub project_name: String,
    /// Where it keeps the source.
    pub artifacts: Handle<Bucket>,
    /// The name of that bucket.
    pub artifacts_name: String,
    /// What keeps that bucket to TLS.
    pub artifacts_policy: Handle<TlsOnly>,
    /// ARN of the connection to the repository's host.
    pub connection_arn: String,
    /// `owner/name` of the repository.
    pub repository: String,
    /// The branch.
    pub branch: String,
}

#[async_trait]
impl Resource for Pipeline {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.role.id(), self.project.id(), self.artifacts.id(), self.artifacts_policy.id()]
    }

    /// Where nothing is that it needs, it is not either: an environment without a pipeline makes no call of
    /// a service that its region may lack. One part alone that somebody has deleted hides nothing.
    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        let role = outputs.when_observed(&self.role).await;
        let project = outputs.when_observed(&self.project).await;
        let artifacts = outputs.when_observed(&self.artifacts).await;
        if role.is_none() && project.is_none() && artifacts.is_none() {
            return Ok(None);
        }
        let found = self.aws.codepipeline.pipeline(&self.label.name).await;
        let Some(pipeline) = not_found_is_none(found)?.flatten() else { return Ok(None) };
        let tags = self.aws.codepipeline.tags_of(&self.arn()).await?;
        self.label.adopt(&tags)?;
        let mut properties = described(&pipeline);
        properties["tags"] = json!(tags);
        Ok(Some(Live { properties, condition: Condition::Ready, output: () }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let role = outputs.show(&self.role, |role| role.arn.clone());
        // What can't be built is a mistake of ours, which the call that makes it tells.
        let declared = self.declaration(role.as_str().unwrap_or_default());
        let mut desired = declared.as_ref().map_or_else(|_| json!({}), described);
        desired["tags"] = self.label.tags();
        desired
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<()>, Error> {
        let operation = "codepipeline:CreatePipeline";
        let role = outputs.get(&self.role)?.arn;
        self.aws
            .codepipeline
            .client
            .create_pipeline()
            .pipeline(self.declaration(&role).map_err(built(operation))?)
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(Some(()))
    }

    async fn update(&self, _: &Live<()>, fields: &[Field], outputs: &Outputs) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let operation = "codepipeline:UpdatePipeline";
            let role = outputs.get(&self.role)?.arn;
            let mut pipeline = self.declaration(&role).map_err(built(operation))?;
            // Without a word on them a team's own would go (trap 5).
            if let Some(now) = self.aws.codepipeline.pipeline(&self.label.name).await? {
                pipeline.variables = now.variables;
                pipeline.triggers = now.triggers;
            }
            let update = self.aws.codepipeline.client.update_pipeline().pipeline(pipeline);
            update.send().await.map_err(failed(operation))?;
        }
        if touches(fields, "tags") {
            let tag = self.aws.codepipeline.client.tag_resource().resource_arn(self.arn());
            let tag = tag.set_tags(Some(tags(&self.label)?));
            tag.send().await.map_err(failed("codepipeline:TagResource"))?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        let delete = self.aws.codepipeline.client.delete_pipeline().name(&self.label.name);
        delete.send().await.map_err(failed("codepipeline:DeletePipeline"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "codepipeline:CreatePipeline",
            "codepipeline:DeletePipeline",
            "codepipeline:GetPipeline",
            "codepipeline:ListTagsForResource",
            "codepipeline:TagResource",
            "codepipeline:UpdatePipeline",
        ];
        // Whoever makes the pipeline hands the connection over. The service has two names.
        let pass = ["codeconnections:PassConnection", "codestar-connections:PassConnection"];
        vec![
            Permission::on(actions, [self.arn()]),
            Permission::on(pass, [self.connection_arn.clone()]),
        ]
    }
}

impl Pipeline {
    fn arn(&self) -> String {
        self.aws.arn("codepipeline", &self.label.name)
    }

    fn declaration(&self, role_arn: &str) -> Result<PipelineDeclaration, BuildError> {
        let store = ArtifactStore::builder()
            .r#type(ArtifactStoreType::S3)
            .location(&self.artifacts_name)
            .build()?;
        PipelineDeclaration::builder()
            .name(&self.label.name)
            .role_arn(role_arn)
            .artifact_store(store)
            .stages(self.source()?)
            .stages(self.deploy()?)
            .pipeline_type(PipelineType::V2)
            // What is under way is never cut off, of what waits the newest goes on.
            .execution_mode(ExecutionMode::Superseded)
            .build()
    }

    /// "`CodeStarSourceConnection` for Bitbucket Cloud, GitHub, …", `CodePipeline` user guide.
    fn source(&self) -> Result<StageDeclaration, BuildError> {
        let action = ActionDeclaration::builder()
            .name("Source")
            .action_type_id(of_aws(ActionCategory::Source, "CodeStarSourceConnection")?)
            .configuration("ConnectionArn", &self.connection_arn)
            .configuration("FullRepositoryId", &self.repository)
            .configuration("BranchName", &self.branch)
            .configuration("OutputArtifactFormat", "CODE_ZIP")
            .configuration("DetectChanges", "true")
            .output_artifacts(OutputArtifact::builder().name(SOURCE).build()?)
            .run_order(1);
        StageDeclaration::builder().name("Source").actions(action.build()?).build()
    }

    /// "`CodeBuild` build and test action reference", `CodePipeline` user guide.
    fn deploy(&self) -> Result<StageDeclaration, BuildError> {
        let action = ActionDeclaration::builder()
            .name("Deploy")
            .action_type_id(of_aws(ActionCategory::Build, "CodeBuild")?)
            .configuration("ProjectName", &self.project_name)
            .input_artifacts(InputArtifact::builder().name(SOURCE).build()?)
            .run_order(1);
        StageDeclaration::builder().name("Deploy").actions(action.build()?).build()
    }
}

fn of_aws(category: ActionCategory, provider: &str) -> Result<ActionTypeId, BuildError> {
    ActionTypeId::builder()
        .category(category)
        .owner(ActionOwner::Aws)
        .provider(provider)
        .version("1")
        .build()
}

/// The members that are ours; the stages as a whole, since one more would work with these rights.
fn described(pipeline: &PipelineDeclaration) -> Value {
    json!({
        "roleArn": pipeline.role_arn(),
        "artifactStore": pipeline.artifact_store().map(ArtifactStore::location),
        "stages": pipeline.stages().iter().map(stage).collect::<Vec<_>>(),
        "pipelineType": pipeline.pipeline_type().map(PipelineType::as_str),
        "executionMode": pipeline.execution_mode().map(ExecutionMode::as_str),
    })
}

fn stage(stage: &StageDeclaration) -> Value {
    json!({
        "name": stage.name(),
        "actions": stage.actions().iter().map(action).collect::<Vec<_>>(),
    })
}

fn action(action: &ActionDeclaration) -> Value {
    // In the order of their names, since the SDK has them in none.
    let configuration: BTreeMap<_, _> = action.configuration().into_iter().flatten().collect();
    json!({
        "name": action.name(),
        "provider": action.action_type_id().map(ActionTypeId::provider),
        "configuration": configuration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment::Environment, outline};

    fn environment() -> Environment {
        serde_json::from_value(json!({
            "name": "staging",
            "aws": { "region": "eu-west-1", "accounts": ["123456789012"] },
            "delivery": {
                "repository": "example/bme",
                "pipeline": { "connection_arn": "arn:connection" },
            },
        }))
        .unwrap()
    }

    #[test]
    fn it_leads_from_the_branch_to_the_build() {
        let graph = outline::graph(&environment());
        let desired = graph.desired(&ResourceId::new("delivery", "pipeline"));
        let expected = json!([
            {
                "name": "Source",
                "actions": [{
                    "name": "Source",
                    "provider": "CodeStarSourceConnection",
                    "configuration": {
                        "BranchName": "main",
                        "ConnectionArn": "arn:connection",
                        "DetectChanges": "true",
                        "FullRepositoryId": "example/bme",
                        "OutputArtifactFormat": "CODE_ZIP",
                    },
                }],
            },
            {
                "name": "Deploy",
                "actions": [{
                    "name": "Deploy",
                    "provider": "CodeBuild",
                    "configuration": { "ProjectName": "bme-staging-build" },
                }],
            },
        ]);
        assert_eq!(desired["stages"], expected);
        assert_eq!(
            (&desired["pipelineType"], &desired["executionMode"]),
            (&json!("V2"), &json!("SUPERSEDED"))
        );
    }

    #[test]
    fn an_environment_that_asks_for_none_has_no_part_of_it() {
        let parts = |environment: &Environment| {
            let planned = outline::outline(environment).into_iter();
            planned.filter(|planned| planned.id.step() == "delivery").count()
        };
        let with = environment();
        let mut without = environment();
        without.delivery.pipeline = None;
        assert_eq!((parts(&without), parts(&with)), (2, 9));
    }
}
