//! Actions that AWS asks for besides the operation's own (Service Authorization Reference, column
//! "Dependent actions"; where that is silent, the guide that the row names).

/// When an action is needed that does not have the operation's name.
#[derive(Clone, Copy)]
pub(super) enum When {
    Always,
    /// The request gives tags.
    Tagged,
    /// The request has this member, and it is not `false`.
    Has(&'static str),
}

/// Operations, the action that they need as well, the resources that it is asked for on, and when.
pub(super) const BESIDES: &[(&[&str], &str, &[&str], When)] = &[
    (
        &["acm:RequestCertificate"],
        "acm:AddTagsToCertificate",
        &["+acm:certificate/*"],
        When::Tagged,
    ),
    (
        &["application-autoscaling:RegisterScalableTarget"],
        "application-autoscaling:TagResource",
        &["+application-autoscaling:scalable-target/*"],
        When::Tagged,
    ),
    // Target tracking makes its alarms in the caller's name ("Identity-based policy examples for
    // Application Auto Scaling").
    (
        &["application-autoscaling:PutScalingPolicy"],
        "cloudwatch:PutMetricAlarm",
        &["cloudwatch:alarm:TargetTracking-{ResourceId}-*"],
        When::Always,
    ),
    (
        &["application-autoscaling:DeleteScalingPolicy"],
        "cloudwatch:DeleteAlarms",
        &["cloudwatch:alarm:TargetTracking-{ResourceId}-*"],
        When::Always,
    ),
    (
        &["application-autoscaling:PutScalingPolicy"],
        "cloudwatch:DescribeAlarms",
        &["*"],
        When::Always,
    ),
    (
        &["cloudfront:CreateDistributionWithTags"],
        "cloudfront:TagResource",
        &["+cloudfront::distribution/*"],
        When::Always,
    ),
    (
        &["cloudfront:CreateFunction"],
        "cloudfront:TagResource",
        &["+cloudfront::function/{Name}"],
        When::Tagged,
    ),
    // "PutMetricAlarm", Amazon CloudWatch API reference.
    (
        &["cloudwatch:PutMetricAlarm"],
        "cloudwatch:TagResource",
        &["+cloudwatch:alarm:{AlarmName}"],
        When::Tagged,
    ),
    (
        &["cloudwatch:PutDashboard"],
        "cloudwatch:TagResource",
        &["+cloudwatch::dashboard/{DashboardName}"],
        When::Tagged,
    ),
    (
        &["cognito-idp:CreateUserPool"],
        "cognito-idp:TagResource",
        &["+cognito-idp:userpool/*"],
        When::Tagged,
    ),
    // "Grant permission to tag Amazon EC2 resources during creation", Amazon EC2 user guide.
    (
        &[
            "ec2:AllocateAddress",
            "ec2:CreateFlowLogs",
            "ec2:CreateInternetGateway",
            "ec2:CreateNatGateway",
            "ec2:CreateRouteTable",
            "ec2:CreateSecurityGroup",
            "ec2:CreateSubnet",
            "ec2:CreateVpc",
            "ec2:CreateVpcEndpoint",
        ],
        "ec2:CreateTags",
        &["+ec2:{TagSpecification.ResourceType}/*"],
        When::Tagged,
    ),
    // The private hosted zone of the endpoint's name, in the caller's name.
    (
        &["ec2:CreateVpcEndpoint"],
        "route53:AssociateVPCWithHostedZone",
        &["route53:::hostedzone/*"],
        When::Has("PrivateDnsEnabled"),
    ),
    (
        &["ecr:CreateRepository"],
        "ecr:TagResource",
        &["+ecr:repository/{repositoryName}"],
        When::Tagged,
    ),
    // "Grant permission to tag resources on creation", Amazon ECS developer guide.
    (&["ecs:CreateCluster"], "ecs:TagResource", &["+ecs:cluster/{clusterName}"], When::Tagged),
    (
        &["ecs:CreateService"],
        "ecs:TagResource",
        &["+ecs:service/{cluster}/{serviceName}"],
        When::Tagged,
    ),
    (
        &["ecs:RegisterTaskDefinition"],
        "ecs:TagResource",
        &["+ecs:task-definition/{family}:*"],
        When::Tagged,
    ),
    (
        &["elasticache:CreateCacheParameterGroup"],
        "elasticache:AddTagsToResource",
        &["+elasticache:parametergroup:{CacheParameterGroupName}"],
        When::Tagged,
    ),
    (
        &["elasticache:CreateCacheSubnetGroup"],
        "elasticache:AddTagsToResource",
        &["+elasticache:subnetgroup:{CacheSubnetGroupName}"],
        When::Tagged,
    ),
    (
        &["elasticache:CreateReplicationGroup"],
        "elasticache:AddTagsToResource",
        &[
            "+elasticache:replicationgroup:{ReplicationGroupId}",
            "+elasticache:cluster:{ReplicationGroupId}-001",
        ],
        When::Tagged,
    ),
    // It looks in the caller's name at what it is made of.
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        "ec2:DescribeAccountAttributes",
        &["*"],
        When::Always,
    ),
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        "ec2:DescribeInternetGateways",
        &["*"],
        When::Always,
    ),
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        "ec2:DescribeSecurityGroups",
        &["*"],
        When::Always,
    ),
    (&["elasticloadbalancing:CreateLoadBalancer"], "ec2:DescribeSubnets", &["*"], When::Always),
    (&["elasticloadbalancing:CreateLoadBalancer"], "ec2:DescribeVpcs", &["*"], When::Always),
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        "elasticloadbalancing:AddTags",
        &["+elasticloadbalancing:loadbalancer/app/{Name}/*"],
        When::Tagged,
    ),
    (
        &["elasticloadbalancing:CreateTargetGroup"],
        "elasticloadbalancing:AddTags",
        &["+elasticloadbalancing:targetgroup/{Name}/*"],
        When::Tagged,
    ),
    (
        &["elasticloadbalancing:CreateListener"],
        "elasticloadbalancing:AddTags",
        &["+elasticloadbalancing:listener/app/{LoadBalancerArn>/app/}/*"],
        When::Tagged,
    ),
    (
        &["elasticloadbalancing:CreateRule"],
        "elasticloadbalancing:AddTags",
        &["+elasticloadbalancing:listener-rule/app/{ListenerArn>/app/}/*"],
        When::Tagged,
    ),
    // The first resource of a service in an account makes the role that the service works with, in
    // the caller's name ("Create a service-linked role", IAM user guide). Every account here is new.
    (
        &["application-autoscaling:RegisterScalableTarget"],
        "iam:CreateServiceLinkedRole",
        &[
            "iam::role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService",
        ],
        When::Always,
    ),
    (
        &["ecs:CreateCluster"],
        "iam:CreateServiceLinkedRole",
        &["iam::role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"],
        When::Always,
    ),
    (
        &["elasticache:CreateReplicationGroup"],
        "iam:CreateServiceLinkedRole",
        &["iam::role/aws-service-role/elasticache.amazonaws.com/AWSServiceRoleForElastiCache"],
        When::Always,
    ),
    (
        &["elasticloadbalancing:CreateLoadBalancer"],
        "iam:CreateServiceLinkedRole",
        &[
            "iam::role/aws-service-role/elasticloadbalancing.amazonaws.com/AWSServiceRoleForElasticLoadBalancing",
        ],
        When::Always,
    ),
    (
        &["rds:CreateDBInstance"],
        "iam:CreateServiceLinkedRole",
        &["iam::role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS"],
        When::Always,
    ),
    (&["iam:CreateRole"], "iam:TagRole", &["+iam::role/{RoleName}"], When::Tagged),
    (
        &["iam:CreateOpenIDConnectProvider"],
        "iam:TagOpenIDConnectProvider",
        &["+iam::oidc-provider/{Url}"],
        When::Tagged,
    ),
    (
        &["logs:CreateLogGroup"],
        "logs:TagResource",
        &["+logs:log-group:{logGroupName}"],
        When::Tagged,
    ),
    (
        &["rds:CreateDBInstance"],
        "rds:AddTagsToResource",
        &["+rds:db:{DBInstanceIdentifier}"],
        When::Tagged,
    ),
    (
        &["rds:CreateDBParameterGroup"],
        "rds:AddTagsToResource",
        &["+rds:pg:{DBParameterGroupName}"],
        When::Tagged,
    ),
    (
        &["rds:CreateDBSubnetGroup"],
        "rds:AddTagsToResource",
        &["+rds:subgrp:{DBSubnetGroupName}"],
        When::Tagged,
    ),
    (&["rds:CreateDBProxy"], "rds:AddTagsToResource", &["+rds:db-proxy:*"], When::Tagged),
    // "Permissions required for Secrets Manager integration", Amazon RDS user guide.
    (
        &["rds:CreateDBInstance", "rds:ModifyDBInstance"],
        "kms:DescribeKey",
        &["kms:key/*"],
        When::Has("ManageMasterUserPassword"),
    ),
    (
        &["rds:CreateDBInstance", "rds:ModifyDBInstance"],
        "secretsmanager:CreateSecret",
        &["secretsmanager:secret:rds!db-*"],
        When::Has("ManageMasterUserPassword"),
    ),
    (
        &["rds:CreateDBInstance", "rds:ModifyDBInstance"],
        "secretsmanager:TagResource",
        &["secretsmanager:secret:rds!db-*"],
        When::Has("ManageMasterUserPassword"),
    ),
    (
        &["rds:DeleteDBInstance"],
        "rds:CreateDBSnapshot",
        &["rds:db:{DBInstanceIdentifier}", "rds:snapshot:{FinalDBSnapshotIdentifier}"],
        When::Has("FinalDBSnapshotIdentifier"),
    ),
    (
        &["rds:DeleteDBInstance"],
        "rds:AddTagsToResource",
        &["rds:snapshot:{FinalDBSnapshotIdentifier}"],
        When::Has("FinalDBSnapshotIdentifier"),
    ),
    (&["s3:CreateBucket"], "s3:TagResource", &["+s3:::{Bucket}"], When::Tagged),
    // "BatchGetSecretValue", AWS Secrets Manager API reference. A secret that the caller may not get is
    // an error inside the answer there, and no refusal; here it is in the answer.
    (
        &["secretsmanager:BatchGetSecretValue"],
        "secretsmanager:ListSecrets",
        &["*"],
        When::Has("Filters.Key"),
    ),
    (
        &["secretsmanager:CreateSecret"],
        "secretsmanager:TagResource",
        &["+secretsmanager:secret:{Name}-??????"],
        When::Tagged,
    ),
    (&["sns:CreateTopic"], "sns:TagResource", &["+sns:{Name}"], When::Tagged),
    (&["sqs:CreateQueue"], "sqs:TagQueue", &["+sqs:{QueueName}"], When::Tagged),
    // WAF tells the load balancer in the caller's name.
    (
        &["wafv2:AssociateWebACL", "wafv2:DisassociateWebACL"],
        "elasticloadbalancing:SetWebACL",
        &["{ResourceArn}"],
        When::Always,
    ),
    // "Logging to CloudWatch Logs", AWS WAF developer guide.
    (&["wafv2:PutLoggingConfiguration"], "logs:CreateLogDelivery", &["*"], When::Always),
    (&["wafv2:PutLoggingConfiguration"], "logs:DescribeLogGroups", &["*"], When::Always),
    (&["wafv2:PutLoggingConfiguration"], "logs:DescribeResourcePolicies", &["*"], When::Always),
    (&["wafv2:PutLoggingConfiguration"], "logs:PutResourcePolicy", &["*"], When::Always),
    (&["wafv2:DeleteLoggingConfiguration"], "logs:DeleteLogDelivery", &["*"], When::Always),
    (
        &["wafv2:CreateWebACL"],
        "wafv2:TagResource",
        &["+wafv2:regional/webacl/{Name}/*"],
        When::Tagged,
    ),
    (&["xray:CreateGroup"], "xray:TagResource", &["+xray:group/{GroupName}/*"], When::Tagged),
    (
        &["xray:CreateSamplingRule"],
        "xray:TagResource",
        &["+xray:sampling-rule/{SamplingRule.RuleName}"],
        When::Tagged,
    ),
];

/// Operations that are handed a role, the members that name it, and the service that takes it ("Grant
/// a user permissions to pass a role to an AWS service", IAM user guide).
pub(super) const PASSED: &[(&str, &[&str], &str)] = &[
    ("ec2:CreateFlowLogs", &["{DeliverLogsPermissionArn}"], "vpc-flow-logs.amazonaws.com"),
    (
        "ecs:RegisterTaskDefinition",
        &["{executionRoleArn}", "{taskRoleArn}"],
        "ecs-tasks.amazonaws.com",
    ),
    // Those that its task definition names.
    ("ecs:RunTask", &["?roles"], "ecs-tasks.amazonaws.com"),
    ("rds:CreateDBProxy", &["{RoleArn}"], "rds.amazonaws.com"),
    ("rds:ModifyDBProxy", &["{RoleArn}"], "rds.amazonaws.com"),
];
