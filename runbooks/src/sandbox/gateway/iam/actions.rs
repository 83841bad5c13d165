//! What operations need: actions, and what they are asked for on (Service Authorization Reference,
//! "Actions, resources, and condition keys for" each service). Only what `bme` calls is here: the
//! action of any other operation has its name and is asked for on `*`, which only a statement about
//! everything allows.
//!
//! How a resource is written:
//!
//! | pattern | is |
//! |---|---|
//! | `ec2:vpc/{VpcId}` | an ARN of the region and account, one for each value of the request's member `VpcId`; none without it |
//! | `iam::role/{RoleName}` | an ARN of the account without a region |
//! | `s3:::{Bucket}` | an ARN of neither |
//! | `{QueueUrl/}` | the last word of a path |
//! | `{ListenerArn>/app/}` | what follows `/app/` |
//! | `+ec2:vpc/*` | what the call makes: it has the request's tags and none of its own |
//! | `?secret` | what the emulator has to be asked for, see [`super::existing`] |
//!
//! A value that is an ARN already is the resource. What AWS has yet to generate is a `*`.

/// Operations whose action has their name, with the resources that it is asked for on.
pub(super) const SAME_NAME: &[(&[&str], &[&str])] = &[
    (
        &[
            "acm:DeleteCertificate",
            "acm:DescribeCertificate",
            "acm:ListTagsForCertificate",
            "acm:AddTagsToCertificate",
        ],
        &["{CertificateArn}"],
    ),
    (&["acm:RequestCertificate"], &["+acm:certificate/*"]),
    (
        &[
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
        ],
        &["+application-autoscaling:scalable-target/*"],
    ),
    (
        &[
            "application-autoscaling:ListTagsForResource",
            "application-autoscaling:TagResource",
            "xray:ListTagsForResource",
            "xray:TagResource",
            "wafv2:ListTagsForResource",
            "wafv2:TagResource",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:TagResource",
        ],
        &["{ResourceARN}"],
    ),
    (
        &[
            "cloudfront:CreateDistribution",
            "cloudfront:CreateOriginAccessControl",
            "cloudfront:CreateResponseHeadersPolicy",
            "cognito-idp:CreateUserPool",
            "rds:CreateDBProxy",
        ],
        &["+*"],
    ),
    (&["cloudfront:CreateFunction"], &["+cloudfront::function/{Name}"]),
    (
        &[
            "cloudfront:DeleteDistribution",
            "cloudfront:GetDistribution",
            "cloudfront:GetDistributionConfig",
            "cloudfront:UpdateDistribution",
        ],
        &["cloudfront::distribution/{Id}"],
    ),
    (
        &[
            "cloudfront:DeleteFunction",
            "cloudfront:DescribeFunction",
            "cloudfront:GetFunction",
            "cloudfront:PublishFunction",
            "cloudfront:UpdateFunction",
        ],
        &["cloudfront::function/{Id}"],
    ),
    (
        &[
            "cloudfront:DeleteOriginAccessControl",
            "cloudfront:GetOriginAccessControl",
            "cloudfront:UpdateOriginAccessControl",
        ],
        &["cloudfront::origin-access-control/{Id}"],
    ),
    (
        &[
            "cloudfront:DeleteResponseHeadersPolicy",
            "cloudfront:GetResponseHeadersPolicy",
            "cloudfront:UpdateResponseHeadersPolicy",
        ],
        &["cloudfront::response-headers-policy/{Id}"],
    ),
    (&["cloudfront:ListTagsForResource", "cloudfront:TagResource"], &["{Resource}"]),
    (&["cloudwatch:PutMetricAlarm"], &["cloudwatch:alarm:{AlarmName}"]),
    (&["cloudwatch:DeleteAlarms"], &["cloudwatch:alarm:{AlarmNames}"]),
    (
        &["cloudwatch:GetDashboard", "cloudwatch:PutDashboard"],
        &["cloudwatch::dashboard/{DashboardName}"],
    ),
    (&["cloudwatch:DeleteDashboards"], &["cloudwatch::dashboard/{DashboardNames}"]),
    (
        &[
            "cognito-idp:CreateIdentityProvider",
            "cognito-idp:CreateResourceServer",
            "cognito-idp:CreateUserPoolClient",
            "cognito-idp:CreateUserPoolDomain",
            "cognito-idp:DeleteIdentityProvider",
            "cognito-idp:DeleteResourceServer",
            "cognito-idp:DeleteUserPool",
            "cognito-idp:DeleteUserPoolClient",
            "cognito-idp:DeleteUserPoolDomain",
            "cognito-idp:DescribeIdentityProvider",
            "cognito-idp:DescribeResourceServer",
            "cognito-idp:DescribeUserPool",
            "cognito-idp:DescribeUserPoolClient",
            "cognito-idp:GetUserPoolMfaConfig",
            "cognito-idp:ListUserPoolClients",
            "cognito-idp:SetUserPoolMfaConfig",
            "cognito-idp:UpdateIdentityProvider",
            "cognito-idp:UpdateResourceServer",
            "cognito-idp:UpdateUserPool",
            "cognito-idp:UpdateUserPoolClient",
        ],
        &["cognito-idp:userpool/{UserPoolId}"],
    ),
    (
        &[
            "cognito-idp:TagResource",
            "sns:ListTagsForResource",
            "sns:TagResource",
            "wafv2:DeleteLoggingConfiguration",
            "wafv2:DisassociateWebACL",
            "wafv2:GetLoggingConfiguration",
        ],
        &["{ResourceArn}"],
    ),
    (&["ec2:CreateTags"], &["?ec2"]),
    (&["ec2:CreateVpc"], &["+ec2:vpc/*"]),
    (
        &["ec2:DeleteVpc", "ec2:DescribeVpcAttribute", "ec2:ModifyVpcAttribute"],
        &["ec2:vpc/{VpcId}"],
    ),
    (&["ec2:CreateSubnet"], &["+ec2:subnet/*", "ec2:vpc/{VpcId}"]),
    (&["ec2:DeleteSubnet", "ec2:ModifySubnetAttribute"], &["ec2:subnet/{SubnetId}"]),
    (&["ec2:CreateInternetGateway"], &["+ec2:internet-gateway/*"]),
    (&["ec2:DeleteInternetGateway"], &["ec2:internet-gateway/{InternetGatewayId}"]),
    (
        &["ec2:AttachInternetGateway", "ec2:DetachInternetGateway"],
        &["ec2:internet-gateway/{InternetGatewayId}", "ec2:vpc/{VpcId}"],
    ),
    (&["ec2:AllocateAddress"], &["+ec2:elastic-ip/*"]),
    (&["ec2:ReleaseAddress"], &["ec2:elastic-ip/{AllocationId}"]),
    (
        &["ec2:CreateNatGateway"],
        &["+ec2:natgateway/*", "ec2:elastic-ip/{AllocationId}", "ec2:subnet/{SubnetId}"],
    ),
    (&["ec2:DeleteNatGateway"], &["ec2:natgateway/{NatGatewayId}"]),
    (&["ec2:CreateRouteTable"], &["+ec2:route-table/*", "ec2:vpc/{VpcId}"]),
    (
        &["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:DeleteRouteTable", "ec2:ReplaceRoute"],
        &["ec2:route-table/{RouteTableId}"],
    ),
    (&["ec2:AssociateRouteTable"], &["ec2:route-table/{RouteTableId}", "ec2:subnet/{SubnetId}"]),
    (&["ec2:DisassociateRouteTable"], &["?association"]),
    (&["ec2:ReplaceRouteTableAssociation"], &["?association", "ec2:route-table/{RouteTableId}"]),
    (&["ec2:CreateSecurityGroup"], &["+ec2:security-group/*", "ec2:vpc/{VpcId}"]),
    (
        &[
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:DeleteSecurityGroup",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
        ],
        &["ec2:security-group/{GroupId}"],
    ),
    (
        &["ec2:CreateVpcEndpoint"],
        &[
            "+ec2:vpc-endpoint/*",
            "ec2:route-table/{RouteTableId}",
            "ec2:security-group/{SecurityGroupId}",
            "ec2:subnet/{SubnetId}",
            "ec2:vpc/{VpcId}",
        ],
    ),
    (
        &["ec2:ModifyVpcEndpoint"],
        &[
            "ec2:route-table/{AddRouteTableId}",
            "ec2:route-table/{RemoveRouteTableId}",
            "ec2:security-group/{AddSecurityGroupId}",
            "ec2:security-group/{RemoveSecurityGroupId}",
            "ec2:subnet/{AddSubnetId}",
            "ec2:subnet/{RemoveSubnetId}",
            "ec2:vpc-endpoint/{VpcEndpointId}",
        ],
    ),
    (&["ec2:DeleteVpcEndpoints"], &["ec2:vpc-endpoint/{VpcEndpointId}"]),
    (&["ec2:CreateFlowLogs"], &["+ec2:vpc-flow-log/*", "ec2:vpc/{ResourceId}"]),
    (&["ec2:DeleteFlowLogs"], &["ec2:vpc-flow-log/{FlowLogId}"]),
    (
        &[
            "ecr:DeleteRepository",
            "ecr:GetLifecyclePolicy",
            "ecr:PutImageScanningConfiguration",
            "ecr:PutImageTagMutability",
            "ecr:PutLifecyclePolicy",
            "ecr:BatchGetImage",
        ],
        &["ecr:repository/{repositoryName}"],
    ),
    (&["ecr:CreateRepository"], &["+ecr:repository/{repositoryName}"]),
    (&["ecr:DescribeRepositories"], &["ecr:repository/{repositoryNames}"]),
    (
        &["ecr:ListTagsForResource", "ecr:TagResource", "ecs:TagResource", "logs:TagResource"],
        &["{resourceArn}"],
    ),
    (&["ecs:CreateCluster"], &["+ecs:cluster/{clusterName}"]),
    (&["ecs:DeleteCluster", "ecs:UpdateClusterSettings"], &["ecs:cluster/{cluster}"]),
    (&["ecs:DescribeClusters"], &["ecs:cluster/{clusters}"]),
    (&["ecs:CreateService"], &["+ecs:service/{cluster}/{serviceName}"]),
    (&["ecs:DeleteService", "ecs:UpdateService"], &["ecs:service/{cluster}/{service}"]),
    (&["ecs:DescribeServices"], &["ecs:service/{cluster}/{services}"]),
    (&["ecs:RegisterTaskDefinition"], &["+ecs:task-definition/{family}:*"]),
    (&["ecs:DeleteTaskDefinitions"], &["ecs:task-definition/{taskDefinitions}"]),
    (&["ecs:RunTask"], &["ecs:task-definition/{taskDefinition}"]),
    (&["ecs:StopTask"], &["ecs:task/{cluster}/{task}"]),
    (&["ecs:DescribeTasks"], &["ecs:task/{cluster}/{tasks}"]),
    (
        &[
            "elasticache:DeleteCacheParameterGroup",
            "elasticache:DescribeCacheParameters",
            "elasticache:ModifyCacheParameterGroup",
        ],
        &["elasticache:parametergroup:{CacheParameterGroupName}"],
    ),
    (
        &["elasticache:CreateCacheParameterGroup"],
        &["+elasticache:parametergroup:{CacheParameterGroupName}"],
    ),
    (&["elasticache:CreateCacheSubnetGroup"], &["+elasticache:subnetgroup:{CacheSubnetGroupName}"]),
    (
        &["elasticache:DeleteCacheSubnetGroup", "elasticache:ModifyCacheSubnetGroup"],
        &["elasticache:subnetgroup:{CacheSubnetGroupName}"],
    ),
    (
        &["elasticache:CreateReplicationGroup"],
        &[
            "+elasticache:replicationgroup:{ReplicationGroupId}",
            "+elasticache:cluster:{ReplicationGroupId}-001",
            "elasticache:parametergroup:{CacheParameterGroupName}",
            "elasticache:subnetgroup:{CacheSubnetGroupName}",
        ],
    ),
    (
        &[
            "elasticache:DecreaseReplicaCount",
            "elasticache:DeleteReplicationGroup",
            "elasticache:IncreaseReplicaCount",
        ],
        &["elasticache:replicationgroup:{ReplicationGroupId}"],
    ),
    (
        &["elasticache:ModifyReplicationGroup"],
        &[
            "elasticache:parametergroup:{CacheParameterGroupName}",
            "elasticache:replicationgroup:{ReplicationGroupId}",
        ],
    ),
    (
        &[
            "elasticache:AddTagsToResource",
            "elasticache:ListTagsForResource",
            "rds:AddTagsToResource",
            "rds:ListTagsForResource",
        ],
        &["{ResourceName}"],
    ),
    (&["elasticloadbalancing:AddTags"], &["{ResourceArns}"]),
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        &["+elasticloadbalancing:loadbalancer/app/{Name}/*"],
    ),
    (&["elasticloadbalancing:CreateTargetGroup"], &["+elasticloadbalancing:targetgroup/{Name}/*"]),
    (
        &[
            "elasticloadbalancing:CreateListener",
            "elasticloadbalancing:DeleteLoadBalancer",
            "elasticloadbalancing:ModifyLoadBalancerAttributes",
            "elasticloadbalancing:SetSecurityGroups",
            "elasticloadbalancing:SetSubnets",
        ],
        &["{LoadBalancerArn}"],
    ),
    (
        &[
            "elasticloadbalancing:CreateRule",
            "elasticloadbalancing:DeleteListener",
            "elasticloadbalancing:ModifyListener",
        ],
        &["{ListenerArn}"],
    ),
    (&["elasticloadbalancing:DeleteRule", "elasticloadbalancing:ModifyRule"], &["{RuleArn}"]),
    (
        &[
            "elasticloadbalancing:DeleteTargetGroup",
            "elasticloadbalancing:ModifyTargetGroup",
            "elasticloadbalancing:ModifyTargetGroupAttributes",
        ],
        &["{TargetGroupArn}"],
    ),
    (
        &[
            "iam:AttachRolePolicy",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:DetachRolePolicy",
            "iam:GetRole",
            "iam:PutRolePolicy",
            "iam:TagRole",
            "iam:UpdateAssumeRolePolicy",
        ],
        &["iam::role/{RoleName}"],
    ),
    (&["iam:CreateRole"], &["+iam::role/{RoleName}"]),
    (&["iam:CreateOpenIDConnectProvider"], &["+iam::oidc-provider/{Url}"]),
    (
        &[
            "iam:AddClientIDToOpenIDConnectProvider",
            "iam:DeleteOpenIDConnectProvider",
            "iam:GetOpenIDConnectProvider",
            "iam:TagOpenIDConnectProvider",
        ],
        &["{OpenIDConnectProviderArn}"],
    ),
    (&["iam:SimulatePrincipalPolicy"], &["{PolicySourceArn}"]),
    // The service names a group with all that is in it when it refuses.
    (
        &["logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:PutRetentionPolicy"],
        &["logs:log-group:{logGroupName}:log-stream:"],
    ),
    (&["logs:GetLogEvents"], &["logs:log-group:{logGroupName}:log-stream:{logStreamName}"]),
    (&["logs:ListTagsForResource"], &["{resourceArn}"]),
    (
        &["rds:CreateDBInstance"],
        &[
            "+rds:db:{DBInstanceIdentifier}",
            // The default one of the version, when the request names none.
            "rds:og:default:*",
            "rds:pg:{DBParameterGroupName}",
            "rds:subgrp:{DBSubnetGroupName}",
        ],
    ),
    (
        &["rds:ModifyDBInstance"],
        &[
            "rds:db:{DBInstanceIdentifier}",
            "rds:pg:{DBParameterGroupName}",
            "rds:subgrp:{DBSubnetGroupName}",
        ],
    ),
    (&["rds:DeleteDBInstance"], &["rds:db:{DBInstanceIdentifier}"]),
    (&["rds:CreateDBParameterGroup"], &["+rds:pg:{DBParameterGroupName}"]),
    (
        &["rds:DeleteDBParameterGroup", "rds:DescribeDBParameters", "rds:ModifyDBParameterGroup"],
        &["rds:pg:{DBParameterGroupName}"],
    ),
    (&["rds:CreateDBSubnetGroup"], &["+rds:subgrp:{DBSubnetGroupName}"]),
    (&["rds:DeleteDBSubnetGroup", "rds:ModifyDBSubnetGroup"], &["rds:subgrp:{DBSubnetGroupName}"]),
    (&["rds:DeleteDBProxy", "rds:ModifyDBProxy"], &["?proxy"]),
    (
        &["rds:DeregisterDBProxyTargets", "rds:RegisterDBProxyTargets"],
        &["?proxy", "rds:db:{DBInstanceIdentifiers}", "rds:target-group:*"],
    ),
    (
        &[
            "rds:DescribeDBProxyTargetGroups",
            "rds:DescribeDBProxyTargets",
            "rds:ModifyDBProxyTargetGroup",
        ],
        &["?proxy", "rds:target-group:*"],
    ),
    (
        &["route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets"],
        &["route53:::hostedzone/{Id}"],
    ),
    (
        &[
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:DeleteBucketPolicy",
            "s3:GetBucketPolicy",
            "s3:GetBucketTagging",
            "s3:GetBucketVersioning",
            "s3:PutBucketPolicy",
            "s3:PutBucketTagging",
            "s3:PutBucketVersioning",
        ],
        &["s3:::{Bucket}"],
    ),
    (&["s3:DeleteObject", "s3:GetObject", "s3:PutObject"], &["s3:::{Bucket}/{Key}"]),
    (&["secretsmanager:CreateSecret"], &["+secretsmanager:secret:{Name}-??????"]),
    (
        &[
            "secretsmanager:DeleteSecret",
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:RestoreSecret",
            "secretsmanager:RotateSecret",
            "secretsmanager:TagResource",
            "secretsmanager:UpdateSecret",
        ],
        &["?secret"],
    ),
    (&["sns:CreateTopic"], &["+sns:{Name}"]),
    (&["sns:DeleteTopic", "sns:ListSubscriptionsByTopic", "sns:Subscribe"], &["{TopicArn}"]),
    (&["sqs:CreateQueue"], &["+sqs:{QueueName}"]),
    (&["sqs:GetQueueUrl"], &["sqs:{QueueName}"]),
    (
        &[
            "sqs:DeleteQueue",
            "sqs:GetQueueAttributes",
            "sqs:ListQueueTags",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
        ],
        &["sqs:{QueueUrl/}"],
    ),
    (&["wafv2:AssociateWebACL"], &["{WebACLArn}", "{ResourceArn}"]),
    // What the rules refer to is asked for too: AWS's own groups.
    (
        &["wafv2:CreateWebACL"],
        &["+wafv2:regional/webacl/{Name}/*", "wafv2:regional/managedruleset/*/*"],
    ),
    (
        &["wafv2:UpdateWebACL"],
        &["wafv2:regional/webacl/{Name}/{Id}", "wafv2:regional/managedruleset/*/*"],
    ),
    (&["wafv2:DeleteWebACL", "wafv2:GetWebACL"], &["wafv2:regional/webacl/{Name}/{Id}"]),
    (&["wafv2:ListResourcesForWebACL"], &["{WebACLArn}"]),
    (&["wafv2:PutLoggingConfiguration"], &["{LoggingConfiguration.ResourceArn}"]),
    (&["xray:CreateGroup"], &["+xray:group/{GroupName}/*"]),
    (&["xray:DeleteGroup", "xray:UpdateGroup"], &["{GroupARN}"]),
    (&["xray:CreateSamplingRule"], &["+xray:sampling-rule/{SamplingRule.RuleName}"]),
    (&["xray:DeleteSamplingRule"], &["{RuleARN}"]),
    (&["xray:UpdateSamplingRule"], &["{SamplingRuleUpdate.RuleARN}"]),
];
