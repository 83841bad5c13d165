//! What the emulator has, asked of each service by its own Describe, not through `bme`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Project;

/// Where an emulator is that was not asked for another region.
const REGION: &str = "us-east-1";

/// Kinds that have no name of ours, hence could be there twice, by the element that each has once.
const UNNAMED: [(&str, &str); 9] = [
    ("DescribeVpcs", "vpcId"),
    ("DescribeSubnets", "subnetId"),
    ("DescribeInternetGateways", "internetGatewayId"),
    ("DescribeAddresses", "allocationId"),
    ("DescribeNatGateways", "natGatewayId"),
    ("DescribeRouteTables", "routeTableId"),
    ("DescribeSecurityGroups", "groupName"),
    ("DescribeVpcEndpoints", "vpcEndpointId"),
    ("DescribeFlowLogs", "flowLogId"),
];

/// Operations of services that speak the query protocol, with its version.
const QUERY: [(&str, &str, &str); 16] = [
    ("rds", "2014-10-31", "DescribeDBInstances"),
    ("rds", "2014-10-31", "DescribeDBClusters"),
    ("rds", "2014-10-31", "DescribeDBProxies"),
    ("rds", "2014-10-31", "DescribeDBSubnetGroups"),
    ("rds", "2014-10-31", "DescribeDBParameterGroups"),
    ("rds", "2014-10-31", "DescribeDBClusterParameterGroups"),
    ("elasticache", "2015-02-02", "DescribeReplicationGroups"),
    ("elasticache", "2015-02-02", "DescribeCacheSubnetGroups"),
    ("elasticache", "2015-02-02", "DescribeCacheParameterGroups"),
    ("elasticloadbalancing", "2015-12-01", "DescribeLoadBalancers"),
    ("elasticloadbalancing", "2015-12-01", "DescribeTargetGroups"),
    ("iam", "2010-05-08", "ListRoles"),
    ("iam", "2010-05-08", "ListOpenIDConnectProviders"),
    ("sns", "2010-03-31", "ListTopics"),
    ("monitoring", "2010-08-01", "DescribeAlarms"),
    ("monitoring", "2010-08-01", "ListDashboards"),
];

/// Operations of services that speak JSON, with the prefix of their target.
const JSON: [(&str, &str, &str, &str); 9] = [
    ("logs", "Logs_20140328", "DescribeLogGroups", "{}"),
    ("ecs", "AmazonEC2ContainerServiceV20141113", "ListClusters", "{}"),
    ("ecs", "AmazonEC2ContainerServiceV20141113", "ListTaskDefinitions", r#"{"status":"ACTIVE"}"#),
    ("ecr", "AmazonEC2ContainerRegistry_V20150921", "DescribeRepositories", "{}"),
    ("secretsmanager", "secretsmanager", "ListSecrets", r#"{"MaxResults":100}"#),
    ("sqs", "AmazonSQS", "ListQueues", r#"{"MaxResults":1000}"#),
    ("cognito-idp", "AWSCognitoIdentityProviderService", "ListUserPools", r#"{"MaxResults":60}"#),
    ("wafv2", "AWSWAF_20190729", "ListWebACLs", r#"{"Scope":"REGIONAL"}"#),
    (
        "application-autoscaling",
        "AnyScaleFrontendService",
        "DescribeScalableTargets",
        r#"{"ServiceNamespace":"ecs"}"#,
    ),
];

/// The same, of services that only the second emulator has.
const OF_THE_SECOND: [(&str, &str, &str, &str); 2] = [
    ("codebuild", "CodeBuild_20161006", "ListProjects", "{}"),
    ("codepipeline", "CodePipeline_20150709", "ListPipelines", "{}"),
];

/// Operations of services that speak REST, by method and path.
const REST: [(&str, &str, &str); 7] = [
    ("s3", "GET", "/"),
    ("cloudfront", "GET", "/2020-05-31/distribution"),
    ("cloudfront", "GET", "/2020-05-31/origin-access-control"),
    ("cloudfront", "GET", "/2020-05-31/response-headers-policy?Type=custom"),
    ("cloudfront", "GET", "/2020-05-31/function"),
    ("xray", "POST", "/Groups"),
    ("xray", "POST", "/GetSamplingRules"),
];

/// By operation: how many things there are of kinds without a name, whoever made them, and how often
/// the environment's name is in the answers about all others. Two environments in the same state have
/// the same inventory; one without any has that of an empty account.
pub async fn inventory(project: &Project) -> Result<BTreeMap<String, usize>> {
    Account::of(project).inventory().await
}

/// [`inventory`] of the second emulator, which is at this address, with what the first one lacks.
pub async fn inventory_at(endpoint: &str) -> Result<BTreeMap<String, usize>> {
    let account = Account::at(endpoint, REGION);
    let mut counts = account.inventory().await?;
    account.listed(&OF_THE_SECOND, &mut counts).await?;
    Ok(counts)
}

/// The answer of an operation of a service that speaks JSON; `target` is its `X-Amz-Target`.
pub async fn ask(project: &Project, service: &str, target: &str, body: &Value) -> Result<Value> {
    let account = Account::of(project);
    let text = account.json(service, target, body.to_string()).await?;
    Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
}

/// The answer, XML, of an operation of a service that speaks the query protocol; `parameters` begin
/// with the operation's name: `CreateUser&UserName=anna`.
pub async fn query(
    endpoint: &str,
    service: &str,
    version: &str,
    parameters: &str,
) -> Result<String> {
    Account::at(endpoint, REGION).query(service, version, parameters).await
}

/// The answer, XML, of an operation of a service that speaks REST: what is posted to a path, or got.
pub async fn rest(
    project: &Project,
    service: &str,
    path: &str,
    body: Option<String>,
) -> Result<String> {
    let account = Account::of(project);
    let url = format!("{}{path}", account.endpoint);
    let request = match body {
        Some(xml) => account.client.post(url).header("content-type", "text/xml").body(xml),
        None => account.client.get(url),
    };
    account.send(service, path, request).await
}

/// The text of the first element of that name in an answer.
pub fn element<'a>(xml: &'a str, name: &str) -> Result<&'a str> {
    let start = format!("<{name}>");
    let (_, rest) = xml.split_once(&start).with_context(|| format!("no {name} in {xml}"))?;
    Ok(rest.split('<').next().unwrap_or_default())
}

/// What differs between two inventories.
pub fn difference(
    before: &BTreeMap<String, usize>,
    after: &BTreeMap<String, usize>,
) -> Vec<String> {
    before
        .iter()
        .filter(|(operation, count)| after.get(*operation) != Some(count))
        .map(|(operation, count)| format!("{operation}: {count} became {:?}", after.get(operation)))
        .collect()
}

/// How often our names are in an answer; the OIDC provider and the state bucket have others.
fn ours(text: &str) -> usize {
    ["bme-local", "bme-state-", "token.actions.githubusercontent.com"]
        .iter()
        .map(|name| text.matches(name).count())
        .sum()
}

struct Account {
    client: reqwest::Client,
    endpoint: String,
    region: String,
}

impl Account {
    fn of(project: &Project) -> Self {
        Self::at(&project.endpoint, &project.region)
    }

    fn at(endpoint: &str, region: &str) -> Self {
        let client = reqwest::Client::new();
        Self { client, endpoint: endpoint.to_owned(), region: region.to_owned() }
    }

    async fn inventory(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for (operation, element) in UNNAMED {
            let text = self.query("ec2", "2016-11-15", operation).await?;
            let alive = text.matches(&format!("<{element}>")).count();
            let dead = text.matches("<state>deleted</state>").count();
            counts.insert(format!("ec2:{operation}"), alive.saturating_sub(dead));
        }
        for (service, version, operation) in QUERY {
            let text = self.query(service, version, operation).await?;
            counts.insert(format!("{service}:{operation}"), ours(&text));
        }
        self.listed(&JSON, &mut counts).await?;
        for (service, method, path) in REST {
            let text = self.rest(service, method, path).await?;
            counts.insert(format!("{service}:{method} {path}"), ours(&text));
        }
        Ok(counts)
    }

    /// Counts what operations of services that speak JSON list.
    async fn listed(
        &self,
        operations: &[(&str, &str, &str, &str)],
        counts: &mut BTreeMap<String, usize>,
    ) -> Result<()> {
        for (service, prefix, operation, body) in operations {
            let target = format!("{prefix}.{operation}");
            let text = self.json(service, &target, (*body).to_owned()).await?;
            counts.insert(format!("{service}:{operation}"), ours(&text));
        }
        Ok(())
    }

    async fn query(&self, service: &str, version: &str, operation: &str) -> Result<String> {
        let request = self
            .client
            .post(&self.endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("Action={operation}&Version={version}"));
        self.send(service, operation, request).await
    }

    async fn json(&self, service: &str, target: &str, body: String) -> Result<String> {
        // SQS is the one among them with the older version.
        let version = if service == "sqs" { "1.0" } else { "1.1" };
        let request = self
            .client
            .post(&self.endpoint)
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", target)
            .body(body);
        self.send(service, target, request).await
    }

    async fn rest(&self, service: &str, method: &str, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.endpoint);
        let request = match method {
            "POST" => self.client.post(url).header("content-type", "application/json").body("{}"),
            _ => self.client.get(url),
        };
        self.send(service, path, request).await
    }

    async fn send(
        &self,
        service: &str,
        operation: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<String> {
        // What the emulator reads account, region and service from; it checks no signature.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=000000000000/20261123/{}/{service}/aws4_request, SignedHeaders=host, Signature=0",
            self.region
        );
        let answer = request.header("authorization", authorization).send().await?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("{service} {operation}"))?;
        ensure!(status.is_success(), "{service} {operation}: {status}: {text}");
        Ok(text)
    }
}
