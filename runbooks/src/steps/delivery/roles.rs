//! What the pipeline and its build may do.

use serde_json::json;

use super::deploy_policy;
use crate::{
    aws::Label,
    steps::{
        Stack,
        compute::role::{Role, trusts},
    },
};

/// What `CodePipeline` may do: read the repository by the connection, keep the source in its bucket,
/// have it built ("Manage the `CodePipeline` service role", `CodePipeline` user guide).
pub(super) fn pipeline(stack: &Stack, connection: &str, artifacts: &Label, build: &Label) -> Role {
    let bucket = format!("arn:aws:s3:::{}", artifacts.name);
    let project = stack.aws.arn("codebuild", &format!("project/{}", build.name));
    let statements = json!([
        {
            "Sid": "ReadTheRepository",
            "Effect": "Allow",
            // The service has two names; which one counts follows from the connection's age.
            "Action": ["codeconnections:UseConnection", "codestar-connections:UseConnection"],
            "Resource": connection,
        },
        {
            "Sid": "LookAtTheBucket",
            "Effect": "Allow",
            "Action": ["s3:GetBucketAcl", "s3:GetBucketLocation", "s3:GetBucketVersioning"],
            "Resource": bucket,
        },
        {
            "Sid": "KeepTheSource",
            "Effect": "Allow",
            "Action": [
                "s3:GetObject",
                "s3:GetObjectTagging",
                "s3:GetObjectVersion",
                "s3:GetObjectVersionTagging",
                "s3:PutObject",
                "s3:PutObjectAcl",
                "s3:PutObjectTagging",
            ],
            "Resource": format!("{bucket}/*"),
        },
        {
            "Sid": "Build",
            "Effect": "Allow",
            "Action": ["codebuild:BatchGetBuilds", "codebuild:StartBuild"],
            "Resource": project,
        },
    ]);
    Role {
        label: stack.label("delivery", "pipeline-role", 64),
        aws: stack.aws.clone(),
        trust: trusts("codepipeline.amazonaws.com", &stack.aws.account),
        managed_policies: Vec::new(),
        policy: json!({ "Version": "2012-10-17", "Statement": statements }).into(),
    }
}

/// What the build may do: what the deploy role may, besides read the source and write its log. It
/// can't provision: what a push to a branch does stays within a release.
pub(super) fn build(stack: &Stack, artifacts: &Label, logs: &Label) -> Role {
    let bucket = format!("arn:aws:s3:::{}", artifacts.name);
    let own = [
        json!({
            "Sid": "WriteTheLog",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": stack.aws.arn("logs", &format!("log-group:{}:*", logs.name)),
        }),
        json!({
            "Sid": "LookAtTheSource",
            "Effect": "Allow",
            "Action": ["s3:GetBucketAcl", "s3:GetBucketLocation"],
            "Resource": bucket,
        }),
        json!({
            "Sid": "ReadTheSource",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": format!("{bucket}/*"),
        }),
    ];
    let mut document = deploy_policy(stack);
    if let Some(statements) = document["Statement"].as_array_mut() {
        statements.extend(own);
    }
    Role {
        label: stack.label("delivery", "build-role", 64),
        aws: stack.aws.clone(),
        trust: trusts("codebuild.amazonaws.com", &stack.aws.account),
        managed_policies: Vec::new(),
        policy: document.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{environment::Environment, outline::on_paper, steps::compute::role::Policy};

    fn stack() -> Stack {
        let environment: Environment = serde_json::from_value(json!({
            "name": "staging",
            "aws": { "region": "eu-west-1", "accounts": ["123456789012"] },
        }))
        .unwrap();
        on_paper(&environment)
    }

    fn label(stack: &Stack, name: &str) -> Label {
        stack.label("delivery", name, 63)
    }

    #[test]
    fn the_build_deploys_and_its_policy_fits_into_a_role() {
        let stack = stack();
        let role = build(&stack, &label(&stack, "artifacts"), &label(&stack, "logs"));
        let Policy::Fixed(document) = role.policy else {
            panic!("the policy is known beforehand");
        };
        // 10240 characters without white space for all inline policies (IAM quotas).
        assert!(document.to_string().len() <= 10_240);
        let statements = document["Statement"].as_array().unwrap();
        let sids: BTreeSet<String> =
            statements.iter().map(|statement| statement["Sid"].to_string()).collect();
        assert_eq!(sids.len(), statements.len(), "{sids:?}");
        let deploys = deploy_policy(&stack);
        let deploys = deploys["Statement"].as_array().unwrap();
        assert!(deploys.iter().all(|statement| statements.contains(statement)));
    }

    #[test]
    fn the_pipeline_reaches_its_connection_its_bucket_and_its_build_only() {
        let stack = stack();
        let connection = "arn:aws:codeconnections:eu-west-1:123456789012:connection/x";
        let role =
            pipeline(&stack, connection, &label(&stack, "artifacts"), &label(&stack, "build"));
        let Policy::Fixed(document) = role.policy else {
            panic!("the policy is known beforehand");
        };
        for statement in document["Statement"].as_array().unwrap() {
            let resource = statement["Resource"].as_str().unwrap();
            let own = resource == connection || resource.contains("bme-staging-");
            assert!(own && !resource.starts_with('*'), "{statement}");
        }
    }
}
