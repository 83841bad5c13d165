//! What the deploy role is trusted by and what it may do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::oidc_provider::{self, AUDIENCE, ISSUER};
use crate::{aws::ecr::PUSH, steps::database::master_user::MasterSecret};

/// Workflows of `repository` that run for `git_ref` may assume the role, nobody else: both are in
/// the token's subject, so that a pull request or a branch can't deploy.
pub fn trust(account: &str, repository: &str, git_ref: &str) -> Value {
    let by_audience = (format!("{ISSUER}:aud"), AUDIENCE.to_owned());
    let by_subject = (format!("{ISSUER}:sub"), format!("repo:{repository}:ref:{git_ref}"));
    let condition = if git_ref.contains('*') {
        json!({
            "StringEquals": BTreeMap::from([by_audience]),
            "StringLike": BTreeMap::from([by_subject]),
        })
    } else {
        json!({ "StringEquals": BTreeMap::from([by_audience, by_subject]) })
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Federated": oidc_provider::arn(account) },
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": condition,
        }],
    })
}

/// What `bme deploy` and `bme rollback` call, on what carries this environment's names: they look at
/// everything, as a plan does, and change what a release changes. `master` is the kind of the secret of
/// the database's master user; `secrets` are the names of those that a person has made, which hold the
/// credentials of the identity providers.
pub fn deploy(
    account: &str,
    region: &str,
    environment: &str,
    bucket: &str,
    master: MasterSecret,
    secrets: &[&str],
) -> Value {
    let name = format!("bme-{environment}");
    let arn = |service: &str, rest: &str| format!("arn:aws:{service}:{region}:{account}:{rest}");
    let state = format!("arn:aws:s3:::bme-state-{account}-{region}");
    let web = format!("arn:aws:s3:::{bucket}");
    // Six characters that Secrets Manager chooses end an ARN.
    let given = secrets.iter().map(|name| arn("secretsmanager", &format!("secret:{name}-??????")));
    let secrets = std::iter::once(arn("secretsmanager", &format!("secret:{name}-*"))).chain(given);
    let scaling = "ecs.application-autoscaling.amazonaws.com";
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Observe",
                "Effect": "Allow",
                "Action": [
                    "acm:Describe*",
                    "acm:List*",
                    "application-autoscaling:Describe*",
                    "application-autoscaling:List*",
                    "cloudfront:Describe*",
                    "cloudfront:Get*",
                    "cloudfront:List*",
                    "cloudwatch:Describe*",
                    "cloudwatch:Get*",
                    "cloudwatch:List*",
                    "codebuild:BatchGetProjects",
                    // Not `Get*`: job details carry credentials for the artifacts.
                    "codepipeline:GetPipeline",
                    "codepipeline:ListTagsForResource",
                    "cognito-idp:Describe*",
                    "cognito-idp:Get*",
                    "cognito-idp:List*",
                    "ec2:Describe*",
                    "ecr:Describe*",
                    "ecr:GetAuthorizationToken",
                    "ecr:GetLifecyclePolicy",
                    "ecr:List*",
                    "ecs:Describe*",
                    "ecs:List*",
                    "elasticache:Describe*",
                    "elasticache:List*",
                    "elasticloadbalancing:Describe*",
                    "iam:Get*",
                    "iam:List*",
                    "logs:Describe*",
                    "logs:ListTagsForResource",
                    "rds:Describe*",
                    "rds:List*",
                    "route53:List*",
                    "s3:GetBucket*",
                    "s3:GetEncryptionConfiguration",
                    "s3:GetLifecycleConfiguration",
                    "s3:ListAllMyBuckets",
                    "secretsmanager:BatchGetSecretValue",
                    "secretsmanager:ListSecrets",
                    "sns:Get*",
                    "sns:List*",
                    "sqs:Get*",
                    "sqs:List*",
                    "wafv2:Get*",
                    "wafv2:List*",
                    "xray:Get*",
                    "xray:List*",
                ],
                "Resource": "*",
            },
            {
                "Sid": "PushTheImage",
                "Effect": "Allow",
                "Action": PUSH,
                "Resource": arn("ecr", &format!("repository/{name}-*")),
            },
            {
                "Sid": "RegisterTaskDefinitions",
                "Effect": "Allow",
                "Action": ["ecs:RegisterTaskDefinition"],
                // It takes no resource (Service Authorization Reference, Amazon ECS).
                "Resource": "*",
            },
            {
                "Sid": "RollOut",
                "Effect": "Allow",
                "Action": [
                    "ecs:CreateService",
                    "ecs:RunTask",
                    "ecs:StopTask",
                    "ecs:TagResource",
                    "ecs:UpdateService",
                ],
                "Resource": [
                    arn("ecs", &format!("service/{name}-*/{name}-*")),
                    arn("ecs", &format!("task-definition/{name}-*:*")),
                    arn("ecs", &format!("task/{name}-*/*")),
                ],
            },
            {
                "Sid": "ScaleTheServices",
                "Effect": "Allow",
                "Action": [
                    "application-autoscaling:PutScalingPolicy",
                    "application-autoscaling:RegisterScalableTarget",
                    "application-autoscaling:TagResource",
                ],
                "Resource": arn("application-autoscaling", "scalable-target/*"),
            },
            {
                // Target tracking makes its alarms with the caller's rights, and the first target of
                // an account the role that scales ("Identity-based policy examples for Application
                // Auto Scaling").
                "Sid": "AlarmsOfScaling",
                "Effect": "Allow",
                "Action": ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"],
                "Resource": arn("cloudwatch", &format!("alarm:TargetTracking-service/{name}-*")),
            },
            {
                "Sid": "RoleOfScaling",
                "Effect": "Allow",
                "Action": "iam:CreateServiceLinkedRole",
                "Resource": format!("arn:aws:iam::{account}:role/aws-service-role/{scaling}/*"),
                "Condition": { "StringEquals": { "iam:AWSServiceName": scaling } },
            },
            {
                "Sid": "HandRolesToTasks",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": format!("arn:aws:iam::{account}:role/{name}-*"),
                "Condition": { "StringEquals": { "iam:PassedToService": "ecs-tasks.amazonaws.com" } },
            },
            {
                "Sid": "ReadWhyATaskStopped",
                "Effect": "Allow",
                "Action": "logs:GetLogEvents",
                "Resource": arn("logs", &format!("log-group:{name}-*:*")),
            },
            {
                "Sid": "ReadVersionsOfSecrets",
                "Effect": "Allow",
                "Action": ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
                "Resource": secrets.collect::<Vec<_>>(),
            },
            {
                "Sid": "SeeThatTheMasterPasswordRotates",
                "Effect": "Allow",
                "Action": "secretsmanager:DescribeSecret",
                // RDS names the secret of a managed master password itself; it tags it with the server.
                "Resource": arn("secretsmanager", &format!("secret:{}*", master.name)),
                "Condition": {"StringLike": {
                    (master.condition_key()): arn("rds", &format!("{}:{name}-*", master.server)),
                }},
            },
            {
                "Sid": "ShipTheWebApplication",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject"],
                "Resource": format!("{web}/*"),
            },
            {
                "Sid": "LockAndRecords",
                "Effect": "Allow",
                "Action": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
                "Resource": format!("{state}/{environment}/*"),
            },
            {
                "Sid": "ListTheBuckets",
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
                "Resource": [web, state],
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::steps::database::parameter_group::Of;

    #[test]
    fn a_branch_is_trusted_exactly_and_tags_by_their_pattern() {
        let branch = trust("111122223333", "example/bme", "refs/heads/main");
        let condition = &branch["Statement"][0]["Condition"];
        assert_eq!(
            condition["StringEquals"][format!("{ISSUER}:sub")],
            "repo:example/bme:ref:refs/heads/main"
        );
        assert!(condition.get("StringLike").is_none());
        let tags = trust("111122223333", "example/bme", "refs/tags/v*");
        let condition = &tags["Statement"][0]["Condition"];
        assert_eq!(
            condition["StringLike"][format!("{ISSUER}:sub")],
            "repo:example/bme:ref:refs/tags/v*"
        );
        assert_eq!(condition["StringEquals"][format!("{ISSUER}:aud")], AUDIENCE);
    }

    fn staging_with(of: Of) -> Value {
        let (bucket, master) = ("bme-staging-web", MasterSecret::of(of));
        deploy("111122223333", "us-east-1", "staging", bucket, master, &["google-of-ours"])
    }

    fn staging() -> Value {
        staging_with(Of::Instance)
    }

    /// What a release changes besides what is in its own module.
    const RELEASED: [&str; 4] =
        ["task_definition.rs", "ecs_service.rs", "scalable_target.rs", "scaling_policy.rs"];

    /// The operations that a file of these sources calls, from their names in its errors, as IAM
    /// writes them.
    fn operations(source: &str) -> Vec<String> {
        let source = source.split("#[cfg(test)]").next().unwrap();
        let is_one = |text: &&str| {
            let (service, operation) = text.split_once(':').unwrap_or_default();
            let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            service.starts_with(|c: char| c.is_ascii_lowercase())
                && service.chars().all(lower)
                && operation.starts_with(|c: char| c.is_ascii_uppercase())
                && operation.chars().all(char::is_alphanumeric)
        };
        let named = source.split('"').filter(is_one).flat_map(|text| match text {
            "s3:ListObjectsV2" => vec!["s3:ListBucket"],
            "s3:CopyObject" => vec!["s3:GetObject", "s3:PutObject"],
            text => vec![text],
        });
        named.map(ToOwned::to_owned).collect()
    }

    fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.extend(sources(&path));
            } else {
                all.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
        all
    }

    #[test]
    fn a_deploy_may_do_what_it_calls() {
        let policy = staging();
        let statements = policy["Statement"].as_array().unwrap().iter();
        let actions: Vec<_> = statements
            .flat_map(|statement| match &statement["Action"] {
                Value::Array(actions) => actions.clone(),
                action => vec![action.clone()],
            })
            .map(|action| action.as_str().unwrap().to_owned())
            .collect();
        let allowed = |operation: &str| {
            actions.iter().any(|action| match action.strip_suffix('*') {
                Some(start) => operation.starts_with(start),
                None => action == operation,
            })
        };
        let reads = |operation: &str| {
            let verb = operation.split(':').nth(1).unwrap();
            ["Describe", "Get", "List", "BatchGet"].iter().any(|read| verb.starts_with(read))
        };
        // Of a creation, of emptying a bucket, of `bme doctor`, and what needs no permission.
        let not_of_a_deploy = [
            "kms:DescribeKey",
            "s3:ListBucketVersions",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
            "sts:GetCallerIdentity",
        ];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut checked = 0;
        for part in ["steps", "aws", "release"] {
            for (path, source) in sources(&root.join(part)) {
                if path.ends_with("policy.rs") || path.ends_with("roles.rs") {
                    continue;
                }
                let changes = part == "release" || RELEASED.iter().any(|file| path.ends_with(file));
                for operation in operations(&source) {
                    let deletes = operation.contains(":De") && !reads(&operation);
                    let called = reads(&operation) || (changes && !deletes);
                    if called && !not_of_a_deploy.contains(&operation.as_str()) {
                        assert!(allowed(&operation), "{operation} of {}", path.display());
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 80, "only {checked} operations were found");
    }

    #[test]
    fn secrets_are_those_of_the_environment() {
        let policy = staging();
        let statements = policy["Statement"].as_array().unwrap().iter();
        let secrets: Vec<_> = statements
            .filter(|statement| statement["Action"].to_string().contains("DescribeSecret"))
            .map(|statement| (&statement["Resource"], &statement["Condition"]))
            .collect();
        let arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:";
        let instances = json!({"StringLike": {
            "secretsmanager:ResourceTag/aws:rds:primaryDBInstanceArn":
                "arn:aws:rds:us-east-1:111122223333:db:bme-staging-*",
        }});
        assert_eq!(
            secrets,
            [
                (
                    &json!([format!("{arn}bme-staging-*"), format!("{arn}google-of-ours-??????")]),
                    &Value::Null
                ),
                (&json!(format!("{arn}rds!db-*")), &instances),
            ]
        );
    }

    #[test]
    fn the_master_password_of_a_cluster_is_told_by_its_cluster() {
        let policy = staging_with(Of::Cluster).to_string();
        for part in ["secret:rds!cluster-*", "primaryDBClusterArn", ":cluster:bme-staging-*"] {
            assert!(policy.contains(part), "{part}");
        }
    }

    #[test]
    fn what_changes_something_names_this_environment() {
        let policy = staging();
        for statement in policy["Statement"].as_array().unwrap() {
            let sid = statement["Sid"].as_str().unwrap();
            if matches!(
                sid,
                "Observe" | "ScaleTheServices" | "RoleOfScaling" | "RegisterTaskDefinitions"
            ) {
                continue;
            }
            assert!(statement.to_string().contains("staging"), "{statement}");
        }
    }

    #[test]
    fn the_policy_fits_into_a_role() {
        // 10240 characters without white space for all inline policies (IAM quotas).
        assert!(staging().to_string().len() <= 10_240);
    }
}
