//! What only the emulator knows of a resource: its ARN where a request gives a name or the id of
//! something else, and the tags that `aws:ResourceTag` is about.
//!
//! Tags are looked up for the services whose statements in `bme policy` name them: ACM, Cognito, EC2,
//! RDS and Secrets Manager. For others a condition on them does not hold.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::Gateway;
use super::super::identify::Scope;
use super::members::{Members, elements, unescaped};
use super::resources::arn;

/// A resource that an action is asked for on.
pub(super) struct Resource {
    pub(super) arn: String,
    /// Its own tags.
    pub(super) tags: BTreeMap<String, String>,
}

/// The resources of a pattern that begins with `?`.
pub(super) async fn found(
    gateway: &Gateway,
    scope: &Scope,
    pattern: &str,
    members: &Members,
) -> Vec<Resource> {
    match pattern {
        "?secret" => match members.first("SecretId") {
            Some(id) => vec![secret(gateway, scope, id).await],
            None => Vec::new(),
        },
        "?proxy" => match members.first("DBProxyName") {
            Some(name) => vec![proxy(gateway, scope, name).await],
            None => Vec::new(),
        },
        "?association" => match members.first("AssociationId") {
            Some(id) => association(gateway, scope, id).await,
            None => Vec::new(),
        },
        "?roles" => match members.first("taskDefinition") {
            Some(name) => roles(gateway, scope, name).await,
            None => Vec::new(),
        },
        "?ec2" => {
            let mut resources = Vec::new();
            for id in members.all("ResourceId").collect::<Vec<_>>() {
                let arn = arn(format!("ec2:{}/{id}", kind(id)), scope);
                resources.push(with_tags(gateway, scope, arn).await);
            }
            resources
        }
        _ => Vec::new(),
    }
}

/// The resource with its own tags.
pub(super) async fn with_tags(gateway: &Gateway, scope: &Scope, arn: String) -> Resource {
    let tags = if arn.contains('*') { BTreeMap::new() } else { tags(gateway, scope, &arn).await };
    Resource { arn, tags }
}

async fn tags(gateway: &Gateway, scope: &Scope, arn: &str) -> BTreeMap<String, String> {
    let upstream = &gateway.upstream;
    match arn.split(':').nth(2).unwrap_or_default() {
        "ec2" => {
            let id = arn.rsplit('/').next().unwrap_or_default();
            let form = [
                ("Action", "DescribeTags"),
                ("Version", "2016-11-15"),
                ("Filter.1.Name", "resource-id"),
                ("Filter.1.Value.1", id),
            ];
            in_xml(&upstream.query(scope, "ec2", &form).await.text(), "key", "value")
        }
        "rds" => {
            let form = [
                ("Action", "ListTagsForResource"),
                ("Version", "2014-10-31"),
                ("ResourceName", arn),
            ];
            in_xml(&upstream.query(scope, "rds", &form).await.text(), "Key", "Value")
        }
        "cognito-idp" => {
            let target = "AWSCognitoIdentityProviderService.ListTagsForResource";
            let body = json!({ "ResourceArn": arn });
            in_json(&ask(gateway, scope, "cognito-idp", target, &body).await)
        }
        "acm" => {
            let target = "CertificateManager.ListTagsForCertificate";
            let body = json!({ "CertificateArn": arn });
            in_json(&ask(gateway, scope, "acm", target, &body).await)
        }
        _ => BTreeMap::new(),
    }
}

/// A secret by its name or ARN. One that is not there has an ARN without the characters that Secrets
/// Manager would end it with.
async fn secret(gateway: &Gateway, scope: &Scope, id: &str) -> Resource {
    let body = json!({ "SecretId": id });
    let target = "secretsmanager.DescribeSecret";
    let secret = ask(gateway, scope, "secretsmanager", target, &body).await;
    let named = || arn_of_secret(id, scope);
    Resource {
        arn: secret["ARN"].as_str().map_or_else(named, ToOwned::to_owned),
        tags: in_json(&secret),
    }
}

fn arn_of_secret(id: &str, scope: &Scope) -> String {
    if id.starts_with("arn:") {
        return id.to_owned();
    }
    arn(format!("secretsmanager:secret:{id}"), scope)
}

async fn proxy(gateway: &Gateway, scope: &Scope, name: &str) -> Resource {
    let form = [("Action", "DescribeDBProxies"), ("Version", "2014-10-31"), ("DBProxyName", name)];
    let answer = gateway.upstream.query(scope, "rds", &form).await;
    match elements(&answer.text(), "DBProxyArn").first() {
        Some(arn) => with_tags(gateway, scope, (*arn).to_owned()).await,
        None => Resource { arn: arn("rds:db-proxy:*".into(), scope), tags: BTreeMap::new() },
    }
}

/// The roles that a task definition names; one that it lacks is empty text to the emulator.
async fn roles(gateway: &Gateway, scope: &Scope, definition: &str) -> Vec<Resource> {
    let target = "AmazonEC2ContainerServiceV20141113.DescribeTaskDefinition";
    let body = json!({ "taskDefinition": definition });
    let answer = ask(gateway, scope, "ecs", target, &body).await;
    let roles = ["executionRoleArn", "taskRoleArn"];
    let arns = roles.iter().filter_map(|name| answer["taskDefinition"][*name].as_str());
    let named = arns.filter(|arn| !arn.is_empty());
    named.map(|arn| Resource { arn: arn.to_owned(), tags: BTreeMap::new() }).collect()
}

/// The route table and the subnet of an association.
async fn association(gateway: &Gateway, scope: &Scope, id: &str) -> Vec<Resource> {
    let form = [
        ("Action", "DescribeRouteTables"),
        ("Version", "2016-11-15"),
        ("Filter.1.Name", "association.route-table-association-id"),
        ("Filter.1.Value.1", id),
    ];
    let text = gateway.upstream.query(scope, "ec2", &form).await.text().into_owned();
    let table = elements(&text, "routeTableId").first().map(|table| format!("route-table/{table}"));
    // The table has other associations too.
    let ours = elements(&text, "item").into_iter().find(|item| {
        item.contains(id) && item.contains("<subnetId>") && item.contains("<routeTableId>")
    });
    let subnet = ours.and_then(|item| elements(item, "subnetId").first().copied());
    let mut resources = Vec::new();
    for rest in table.into_iter().chain(subnet.map(|subnet| format!("subnet/{subnet}"))) {
        resources.push(with_tags(gateway, scope, arn(format!("ec2:{rest}"), scope)).await);
    }
    resources
}

async fn ask(gateway: &Gateway, scope: &Scope, service: &str, target: &str, body: &Value) -> Value {
    let answer = gateway.upstream.json(scope, service, target, body).await;
    if !answer.is_success() {
        return Value::Null;
    }
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// The tags of an answer, as a list or as a map.
fn in_json(answer: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match &answer["Tags"] {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        Value::Array(list) => {
            list.iter().map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn in_xml(text: &str, key: &str, value: &str) -> BTreeMap<String, String> {
    let keys = elements(text, key).into_iter().map(unescaped);
    keys.zip(elements(text, value).into_iter().map(unescaped)).collect()
}

/// The kind of an EC2 resource, as its ARN writes it, by the start of its id.
fn kind(id: &str) -> &'static str {
    const KINDS: [(&str, &str); 9] = [
        ("eipalloc-", "elastic-ip"),
        ("fl-", "vpc-flow-log"),
        ("igw-", "internet-gateway"),
        ("nat-", "natgateway"),
        ("rtb-", "route-table"),
        ("sg-", "security-group"),
        ("subnet-", "subnet"),
        ("vpc-", "vpc"),
        ("vpce-", "vpc-endpoint"),
    ];
    KINDS.iter().find(|(start, _)| id.starts_with(start)).map_or("*", |(_, kind)| kind)
}
