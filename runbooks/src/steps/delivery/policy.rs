//! What the deploy role is trusted by and what it may do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::oidc_provider::{self, AUDIENCE, ISSUER};

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

/// What `bme deploy` and `bme rollback` call, on what carries this environment's names.
pub fn deploy(account: &str, region: &str, environment: &str, bucket: &str) -> Value {
    let name = format!("bme-{environment}");
    let arn = |service: &str, rest: &str| format!("arn:aws:{service}:{region}:{account}:{rest}");
    let state = format!("arn:aws:s3:::bme-state-{account}-{region}");
    let web = format!("arn:aws:s3:::{bucket}");
    let ours = json!({ "StringEquals": { "aws:ResourceTag/bme:env": environment } });
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Observe",
                "Effect": "Allow",
                "Action": [
                    "application-autoscaling:Describe*",
                    "cloudfront:Describe*",
                    "cloudfront:Get*",
                    "cloudfront:List*",
                    "cloudwatch:Describe*",
                    "cloudwatch:Get*",
                    "cloudwatch:List*",
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
                "Action": [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:CompleteLayerUpload",
                    "ecr:DescribeImages",
                    "ecr:GetDownloadUrlForLayer",
                    "ecr:InitiateLayerUpload",
                    "ecr:PutImage",
                    "ecr:UploadLayerPart",
                ],
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
                "Sid": "HandRolesToTasks",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": format!("arn:aws:iam::{account}:role/{name}-*"),
                "Condition": { "StringEquals": { "iam:PassedToService": "ecs-tasks.amazonaws.com" } },
            },
            {
                "Sid": "ReadWhyATaskStopped",
                "Effect": "Allow",
                "Action": ["logs:FilterLogEvents", "logs:GetLogEvents"],
                "Resource": arn("logs", &format!("log-group:{name}-*:*")),
            },
            {
                "Sid": "ReadVersionsOfSecrets",
                "Effect": "Allow",
                "Action": ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
                "Resource": arn("secretsmanager", &format!("secret:{name}-*")),
            },
            {
                "Sid": "ShipTheWebApplication",
                "Effect": "Allow",
                "Action": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
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
            {
                "Sid": "RefreshTheEdge",
                "Effect": "Allow",
                "Action": ["cloudfront:CreateInvalidation", "cloudfront:GetInvalidation"],
                "Resource": format!("arn:aws:cloudfront::{account}:distribution/*"),
                "Condition": ours,
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_changes_something_names_this_environment() {
        let policy = deploy("111122223333", "us-east-1", "staging", "bme-staging-web");
        for statement in policy["Statement"].as_array().unwrap() {
            let sid = statement["Sid"].as_str().unwrap();
            if matches!(sid, "Observe" | "ScaleTheServices" | "RegisterTaskDefinitions") {
                continue;
            }
            assert!(statement.to_string().contains("staging"), "{statement}");
        }
    }

    #[test]
    fn the_policy_fits_into_a_role() {
        // 10240 characters without white space for all inline policies (IAM quotas).
        assert!(
            deploy("111122223333", "us-east-1", "staging", "bme-staging-web").to_string().len()
                <= 10_240
        );
    }
}
