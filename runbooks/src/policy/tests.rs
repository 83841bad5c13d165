use std::path::Path;

use super::*;
use crate::{
    environment::{DatabaseEngine, Target, parse},
    steps::STEPS,
};

/// Actions whose statements name no resource, with the reason.
const EVERYWHERE: [(&str, &[&str]); 5] = [
    (
        "asked for everything there is, which no pattern of names matches",
        &[
            "acm:ListCertificates",
            "application-autoscaling:DescribeScalableTargets",
            "application-autoscaling:DescribeScalingPolicies",
            "cloudfront:ListDistributions",
            "cloudfront:ListOriginAccessControls",
            "cloudfront:ListResponseHeadersPolicies",
            "cloudwatch:DescribeAlarms",
            "cognito-idp:ListUserPools",
            "ec2:DescribeAddresses",
            "ec2:DescribeRegions",
            "ec2:DescribeAvailabilityZones",
            "ec2:DescribeFlowLogs",
            "ec2:DescribeInternetGateways",
            "ec2:DescribeManagedPrefixLists",
            "ec2:DescribeNatGateways",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcEndpoints",
            "ec2:DescribeVpcs",
            "ecs:ListClusters",
            "ecs:ListTaskDefinitions",
            "elasticache:DescribeCacheClusters",
            "elasticache:DescribeCacheParameterGroups",
            "elasticache:DescribeCacheSubnetGroups",
            "elasticache:DescribeReplicationGroups",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeLoadBalancerAttributes",
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeRules",
            "elasticloadbalancing:DescribeTags",
            "elasticloadbalancing:DescribeTargetGroupAttributes",
            "elasticloadbalancing:DescribeTargetGroups",
            "elasticloadbalancing:DescribeTargetHealth",
            "iam:GetAccountAuthorizationDetails",
            "logs:DescribeLogGroups",
            "rds:DescribeDBClusterParameterGroups",
            "rds:DescribeDBClusters",
            "rds:DescribeDBInstances",
            "rds:DescribeDBParameterGroups",
            "rds:DescribeDBProxies",
            "rds:DescribeDBSubnetGroups",
            "route53:ListHostedZones",
            "s3:ListAllMyBuckets",
            "secretsmanager:BatchGetSecretValue",
            "secretsmanager:ListSecrets",
            "wafv2:ListWebACLs",
            "xray:GetGroups",
            "xray:GetSamplingRules",
        ],
    ),
    (
        "takes no resource (Service Authorization Reference)",
        &[
            "cognito-idp:DescribeUserPoolDomain",
            "ec2:DescribeAccountAttributes",
            "ecr:GetAuthorizationToken",
            "ecs:DeregisterTaskDefinition",
            "ecs:DescribeTaskDefinition",
            "elasticloadbalancing:SetWebACL",
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeResourcePolicies",
            "logs:PutResourcePolicy",
            "servicequotas:GetAWSDefaultServiceQuota",
            "sns:Unsubscribe",
            "sts:GetCallerIdentity",
        ],
    ),
    (
        "makes what has no ARN yet, or is tied to its cluster by a condition",
        &[
            "cloudfront:CreateDistribution",
            "cloudfront:CreateFunction",
            "cloudfront:CreateOriginAccessControl",
            "cloudfront:CreateResponseHeadersPolicy",
            "cognito-idp:CreateUserPool",
            "ecs:ListTasks",
            "rds:CreateDBProxy",
        ],
    ),
    (
        "counts what is used by all, for the quotas",
        &["ecs:DescribeTasks", "servicequotas:GetServiceQuota"],
    ),
    ("a secret that is not there yet is no ARN", &["secretsmanager:DescribeSecret"]),
];

fn environments() -> Vec<Environment> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
    let load = |name: &str| {
        let file = directory.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        parse(&file, &text, Target::Emulator).unwrap()
    };
    let mut environments = Vec::from(["local", "staging", "production"].map(load));
    // Of Aurora there is more to allow.
    let mut aurora = environments[2].clone();
    aurora.database.engine = DatabaseEngine::AuroraPostgresql;
    environments.push(aurora);
    environments
}

fn only(step: &str) -> Selection {
    Selection { steps: vec![step.to_owned()], ..Selection::default() }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn statements(document: &Value) -> &Vec<Value> {
    document["Statement"].as_array().unwrap()
}

fn actions(document: &Value) -> BTreeSet<&str> {
    statements(document).iter().flat_map(|statement| texts(&statement["Action"])).collect()
}

#[test]
fn the_same_file_gives_the_same_document() {
    for environment in environments() {
        let all = Selection::default();
        let document = operator(&environment, &all);
        assert_eq!(document.to_string(), operator(&environment, &all).to_string());
        assert!(statements(&document).len() > 50, "{document:#}");
        assert!(document.to_string().contains(&format!("bme-{}-", environment.name)));
    }
}

#[test]
fn every_statement_says_what_it_allows() {
    for environment in environments() {
        let document = operator(&environment, &Selection::default());
        let mut sids = BTreeSet::new();
        for statement in statements(&document) {
            let sid = statement["Sid"].as_str().unwrap();
            assert!(sids.insert(sid), "{sid} is there twice");
            assert!(sid.chars().all(|one| one.is_ascii_alphanumeric()), "{sid}");
            for action in texts(&statement["Action"]) {
                assert!(!action.contains('*'), "{statement:#}");
                let everywhere = texts(&statement["Resource"]) == ["*"];
                let may_be = EVERYWHERE.iter().any(|(_, actions)| actions.contains(&action));
                assert_eq!(everywhere, may_be, "{action} in {statement:#}");
            }
        }
    }
}

#[test]
fn the_parts_of_all_steps_are_the_whole_and_fit_into_policies() {
    for environment in environments() {
        let whole = operator(&environment, &Selection::default());
        let mut parts = BTreeSet::new();
        for (_, step, _) in STEPS {
            let part = operator(&environment, &only(step));
            // Releases and the platform that they run on are one step.
            let limit = if step == "compute" { INLINE_POLICIES } else { MANAGED_POLICY };
            let length = characters(&part);
            assert!(length <= limit, "{step} of {} takes {length}", environment.name);
            parts.extend(actions(&part).into_iter().map(ToOwned::to_owned));
        }
        let whole: BTreeSet<String> = actions(&whole).into_iter().map(ToOwned::to_owned).collect();
        assert_eq!(parts, whole);
    }
}

#[test]
fn what_only_an_older_file_asked_for_is_not_made() {
    let mut environment = environments().swap_remove(1);
    environment.network.nat = crate::environment::Nat::None;
    let document = operator(&environment, &only("network"));
    let allowed = actions(&document);
    assert!(allowed.contains("ec2:DeleteNatGateway") && allowed.contains("ec2:ReleaseAddress"));
    assert!(!allowed.contains("ec2:CreateNatGateway") && !allowed.contains("ec2:AllocateAddress"));

    let document = operator(&environment, &only("delivery"));
    let allowed = actions(&document);
    for (service, read, what) in
        [("codebuild", "BatchGetProjects", "Project"), ("codepipeline", "GetPipeline", "Pipeline")]
    {
        let may = |operation: &str| allowed.contains(format!("{service}:{operation}").as_str());
        assert!(may(read) && may(&format!("Delete{what}")), "{what} is found and deleted");
        assert!(!may(&format!("Create{what}")), "{what} is made");
    }
}

#[test]
fn a_database_of_another_engine_is_unprotected_and_leaves_its_snapshot() {
    let environments = environments();
    for (environment, goes, stays) in [
        (&environments[2], ["DBCluster", "DBClusterSnapshot"], "rds:CreateDBCluster"),
        (&environments[3], ["DBInstance", "DBSnapshot"], "rds:CreateDBParameterGroup"),
    ] {
        let document = operator(environment, &only("database"));
        let allowed = actions(&document);
        let [server, snapshot] = goes;
        for action in [
            format!("rds:Modify{server}"),
            format!("rds:Delete{server}"),
            format!("rds:Create{snapshot}"),
        ] {
            assert!(allowed.contains(action.as_str()), "{action}");
        }
        assert!(!allowed.contains(stays), "{stays}");
    }
}

#[test]
fn what_has_a_name_of_ours_in_rds_is_one_statement() {
    let on = |action: &'static str, resource: &str| Permission::on([action], [resource.to_owned()]);
    let document = document(&[
        on("rds:One", "arn:aws:rds:r:a:db:bme-x"),
        on("rds:Two", "arn:aws:rds:r:a:pg:bme-y"),
        on("rds:Two", "arn:aws:rds:r:a:pg:default*"),
        on("rds:Three", "arn:aws:rds:r:a:pg:bme-z"),
    ]);
    let (x, z) = ("arn:aws:rds:r:a:db:bme-x", "arn:aws:rds:r:a:pg:bme-z");
    let (y, all) = ("arn:aws:rds:r:a:pg:bme-y", "arn:aws:rds:r:a:pg:default*");
    let expected = json!([
        {
            "Sid": "Rds1", "Effect": "Allow",
            "Action": ["rds:One", "rds:Three"], "Resource": [x, z],
        },
        {"Sid": "Rds2", "Effect": "Allow", "Action": "rds:Two", "Resource": [y, all]},
    ]);
    assert_eq!(document["Statement"], expected);
}

#[test]
fn the_pipeline_has_the_policy_of_the_deploy_role() {
    for environment in environments() {
        let document = ci(&environment);
        assert!(characters(&document) <= INLINE_POLICIES);
        assert!(actions(&document).contains("ecs:RunTask"), "{document:#}");
    }
}

#[test]
fn what_is_asked_twice_is_said_once() {
    let on = |action: &'static str, resource: &str| Permission::on([action], [resource.to_owned()]);
    let ours = json!({ "StringEquals": { "aws:ResourceTag/bme:env": "test" } });
    let document = document(&[
        on("a:One", "x"),
        on("a:Two", "y"),
        on("a:Two", "x"),
        on("a:One", "y"),
        on("b-c:All", "*"),
        on("b-c:All", "x"),
        on("b-c:All", "y").only_if(ours.clone()),
        on("a:Three", "y").only_if(ours.clone()),
        on("a:Four", "x").only_if(ours.clone()),
    ]);
    let expected = json!([
        {"Sid": "A1", "Effect": "Allow", "Action": ["a:One", "a:Two"], "Resource": ["x", "y"]},
        {
            "Sid": "A2", "Effect": "Allow", "Action": ["a:Four", "a:Three"],
            "Resource": ["x", "y"], "Condition": ours,
        },
        {"Sid": "BC1", "Effect": "Allow", "Action": "b-c:All", "Resource": "*"},
    ]);
    assert_eq!(document["Statement"], expected);
}
