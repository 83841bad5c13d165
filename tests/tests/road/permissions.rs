//! The operator's policy allows no more than a whole life of an environment needs. That it allows all
//! of it, the life itself shows: IAM is enforced.

use anyhow::{Result, ensure};
use bme_tests::{Project, named_actions};

/// What the policy allows although nothing on this road calls it.
const NOT_ON_THE_ROAD: [(&str, &[&str]); 10] = [
    ("nobody can be kept from it", &["sts:GetCallerIdentity"]),
    ("a push reads no layer here: none is there already", &["ecr:GetDownloadUrlForLayer"]),
    (
        "an older file may have had a domain: its certificates and records",
        &[
            "acm:DeleteCertificate",
            "acm:DescribeCertificate",
            "acm:ListTagsForCertificate",
            "route53:ChangeResourceRecordSets",
            "route53:ListHostedZones",
            "route53:ListResourceRecordSets",
        ],
    ),
    (
        "an older file may have had a pipeline: looked for once its role is there, and deleted",
        &[
            "codebuild:BatchGetProjects",
            "codebuild:DeleteProject",
            "codepipeline:DeletePipeline",
            "codepipeline:GetPipeline",
            "codepipeline:ListTagsForResource",
        ],
    ),
    (
        "`bme doctor`, which the road does not visit",
        &[
            "ec2:DescribeRegions",
            "ecs:ListClusters",
            "iam:GetRole",
            "iam:SimulatePrincipalPolicy",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
        ],
    ),
    (
        "mends drift: a tag, a rule, a setting that somebody has changed",
        &[
            "application-autoscaling:TagResource",
            "cloudwatch:TagResource",
            "ec2:ModifySubnetAttribute",
            "ecr:PutImageScanningConfiguration",
            "ecr:PutImageTagMutability",
            "iam:AddClientIDToOpenIDConnectProvider",
            "iam:DetachRolePolicy",
            "iam:UpdateAssumeRolePolicy",
            "s3:PutBucketTagging",
        ],
    ),
    (
        "the file changes: sizes, addresses, subnets, routes, rules",
        &[
            "cloudfront:UpdateFunction",
            "cloudfront:UpdateOriginAccessControl",
            "cloudfront:UpdateResponseHeadersPolicy",
            "cognito-idp:SetUserPoolMfaConfig",
            "cognito-idp:UpdateResourceServer",
            "cognito-idp:UpdateUserPool",
            "cognito-idp:UpdateUserPoolClient",
            "ec2:DeleteRoute",
            "ec2:ModifyVpcEndpoint",
            "ec2:ReplaceRoute",
            "ec2:ReplaceRouteTableAssociation",
            "ecs:UpdateClusterSettings",
            "elasticache:DecreaseReplicaCount",
            "elasticache:IncreaseReplicaCount",
            "elasticache:ModifyCacheSubnetGroup",
            "elasticache:ModifyReplicationGroup",
            "elasticloadbalancing:ModifyListener",
            "elasticloadbalancing:ModifyRule",
            "elasticloadbalancing:ModifyTargetGroup",
            "elasticloadbalancing:SetSecurityGroups",
            "elasticloadbalancing:SetSubnets",
            "rds:ModifyDBInstance",
            "rds:ModifyDBProxy",
            "rds:ModifyDBSubnetGroup",
            "secretsmanager:RotateSecret",
            "secretsmanager:UpdateSecret",
            "sns:Subscribe",
            "sns:Unsubscribe",
            "sqs:SetQueueAttributes",
            "wafv2:UpdateWebACL",
            "xray:UpdateGroup",
            "xray:UpdateSamplingRule",
        ],
    ),
    (
        "an earlier file asked for it: it is looked for, and deleted",
        &[
            "cognito-idp:DeleteIdentityProvider",
            "cognito-idp:DescribeIdentityProvider",
            "rds:DeleteDBCluster",
            "rds:DeleteDBClusterParameterGroup",
            "rds:DescribeDBClusterParameters",
            "rds:ModifyDBCluster",
        ],
    ),
    (
        "something failed: a task that hangs, its last words, a secret that waits to be deleted",
        &["ecs:StopTask", "logs:GetLogEvents", "secretsmanager:RestoreSecret"],
    ),
    (
        "the sandbox has no lists of prefixes, so no rule names one",
        &["ec2:DescribeManagedPrefixLists"],
    ),
];

/// Fails when the policy names an action that no call needed, without a reason.
pub(super) async fn are_exact(project: &Project) -> Result<()> {
    let asked = project.asked_actions().await?;
    let mut idle = named_actions(&project.printed_policy()?);
    idle.retain(|action| {
        !asked.contains(action)
            && !NOT_ON_THE_ROAD.iter().any(|(_, actions)| actions.contains(&action.as_str()))
    });
    ensure!(idle.is_empty(), "the operator's policy allows without need {idle:#?}");
    Ok(())
}
