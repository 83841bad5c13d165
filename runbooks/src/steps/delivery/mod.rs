//! Step 10: who may deploy from GitHub, the workflow that does, and the pipeline of AWS that may do it
//! in its place.

pub mod build_project;
pub mod oidc_provider;
pub mod pipeline;
pub mod policy;
mod roles;
pub mod tls_only;
pub mod workflow;

use build_project::BuildProject;
use oidc_provider::OidcProvider;
use pipeline::Pipeline;
use serde_json::Value;
use tls_only::TlsOnly;
pub use workflow::workflows;

use super::{
    About, Stack,
    compute::{
        Platform,
        role::{Policy, Role},
    },
    database::master_user::MasterSecret,
    edge::{
        Edge,
        bucket::{self, Bucket},
        bucket_label,
    },
    observability::log_group::LogGroup,
};
use crate::{
    engine::{Graph, ResourceId},
    environment,
};

/// Days after which the source of a run is deleted: time to run it once more.
const ARTIFACT_DAYS: i32 = 30;

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "The identity provider for GitHub and a role that workflows of one repository and ref \
            may take to deploy; with `[delivery.pipeline]` a CodePipeline that does it instead: its \
            build, its bucket, its log group and the roles of both.",
    why: "GitHub deploys without a key that could be stolen: it shows who it is, and gets what a \
          deploy needs for an hour.",
    order: "The provider comes first, since the role trusts it; the pipeline last, since it starts \
            when it is made.",
    trouble: &[
        (
            "\"Not authorized to perform sts:AssumeRoleWithWebIdentity\" in the workflow",
            "`delivery.repository` and `delivery.git_ref` have to be exactly those of the \
             workflow's run",
        ),
        (
            "the account has an identity provider for GitHub already: it has one for all",
            "it is gone on with when its tags are this environment's; otherwise hand it over by its tags, as the error says",
        ),
        (
            "the pipeline's source fails with \"connection is not available\"",
            "whoever owns the repository has to confirm the connection in the console: Developer \
             Tools, Settings, Connections",
        ),
        (
            "what the pipeline costs",
            "nothing while it rests: $0.002 for each minute of an action after the first 100 of a \
             month, and $0.02 for each minute of the build in us-east-1",
        ),
    ],
};

/// Adds the step's resources.
pub fn add(graph: &mut Graph, stack: &Stack, _: &Platform, _: &Edge) {
    let environment = &stack.environment;
    let account = &stack.aws.account;
    let settings = &environment.delivery;
    let provider = graph
        .add(OidcProvider::new(stack.label("delivery", "oidc-provider", 255), stack.aws.clone()));
    let document = deploy_policy(stack);
    graph.add(Role {
        // 64 is the limit of a role's name (IAM quotas); the workflow names it the same way.
        label: stack.label("delivery", "deploy", 64),
        aws: stack.aws.clone(),
        trust: policy::trust(account, &settings.repository, &settings.git_ref),
        managed_policies: Vec::new(),
        // Made after the provider that it trusts.
        policy: Policy::From {
            needs: vec![provider.id()],
            document: Box::new(move |_| document.clone()),
        },
    });
    if let Some(pipeline) = &settings.pipeline {
        let repository = pipeline.repository.as_ref().unwrap_or(&settings.repository);
        add_pipeline(graph, stack, pipeline, repository);
    }
}

fn add_pipeline(
    graph: &mut Graph,
    stack: &Stack,
    settings: &environment::Pipeline,
    repository: &str,
) {
    let environment = &stack.environment;
    let artifacts_label =
        bucket::label(stack, ResourceId::new("delivery", "artifacts"), "artifacts");
    let artifacts = graph.add(Bucket {
        label: artifacts_label.clone(),
        aws: stack.aws.clone(),
        expire_after_days: Some(ARTIFACT_DAYS),
    });
    let artifacts_policy = graph.add(TlsOnly {
        label: stack.label("delivery", "artifacts-policy", 255),
        aws: stack.aws.clone(),
        bucket: artifacts.clone(),
        bucket_name: artifacts_label.name.clone(),
    });
    let log_group_label = stack.label("delivery", "build-log-group", 512);
    let log_group = graph.add(LogGroup {
        label: log_group_label.clone(),
        aws: stack.aws.clone(),
        retention_days: environment.observability.log_retention_days,
    });
    // 255 is the limit of a project's name (CodeBuild API reference), 100 that of a pipeline's
    // (CodePipeline API reference).
    let build_label = stack.label("delivery", "build", 255);
    let build_role = graph.add(roles::build(stack, &artifacts_label, &log_group_label));
    let pipeline_role =
        graph.add(roles::pipeline(stack, &settings.connection_arn, &artifacts_label, &build_label));
    let project = graph.add(BuildProject {
        label: build_label.clone(),
        aws: stack.aws.clone(),
        role: build_role,
        log_group,
        log_group_name: log_group_label.name,
    });
    graph.add(Pipeline {
        label: stack.label("delivery", "pipeline", 100),
        aws: stack.aws.clone(),
        role: pipeline_role,
        project,
        project_name: build_label.name,
        artifacts,
        artifacts_name: artifacts_label.name,
        artifacts_policy,
        connection_arn: settings.connection_arn.clone(),
        repository: repository.to_owned(),
        branch: settings.branch.clone(),
    });
}

/// What the deploy role may do.
pub(crate) fn deploy_policy(stack: &Stack) -> Value {
    let environment = &stack.environment;
    let identity = &environment.identity;
    let providers = [&identity.google_secret, &identity.facebook_secret];
    policy::deploy(
        &stack.aws.account,
        &stack.aws.region,
        &environment.name,
        &bucket_label(stack).name,
        MasterSecret::of(environment.database.engine.into()),
        &providers.into_iter().flatten().map(String::as_str).collect::<Vec<_>>(),
    )
}
