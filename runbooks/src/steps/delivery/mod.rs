//! Step 10: who may deploy from GitHub, and the workflow that does.

pub mod oidc_provider;
pub mod policy;
pub mod workflow;

use oidc_provider::OidcProvider;
use serde_json::Value;
pub use workflow::workflows;

use super::{
    About, Stack,
    compute::{
        Platform,
        role::{Policy, Role},
    },
    database::master_user::MasterSecret,
    edge::{Edge, bucket_label},
};
use crate::engine::Graph;

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "The identity provider for GitHub and a role that workflows of one repository and ref \
            may take to deploy.",
    why: "GitHub deploys without a key that could be stolen: it shows who it is, and gets what a \
          deploy needs for an hour.",
    order: "The provider comes first, since the role trusts it.",
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
