//! The condition keys of a request (Service Authorization Reference, "Condition keys for" each
//! service; "AWS global condition context keys", IAM user guide): those that the statements of
//! `bme policy` name. `aws:RequestedRegion` and what is about the caller, the evaluator knows.

use std::collections::BTreeMap;

use super::super::identify::Call;
use super::Need;
use super::existing::Resource;
use super::members::Members;
use super::resources::arn;

/// Keys with their values.
pub(super) type Context = BTreeMap<String, Values>;

/// What a key has in a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Values {
    One(String),
    Many(Vec<String>),
}

/// The keys for one action on one resource; `made` is a resource that the call makes.
pub(super) fn of(
    call: &Call,
    need: &Need,
    resource: &Resource,
    made: bool,
    members: &Members,
) -> Context {
    let mut context = Context::new();
    let mut one = |key: String, value: &str| {
        context.insert(key, Values::One(value.to_owned()));
    };
    let service = need.action.split(':').next().unwrap_or_default();
    for (key, value) in &resource.tags {
        one(format!("aws:ResourceTag/{key}"), value);
        // Most services have keys of their own for the same.
        one(format!("{service}:ResourceTag/{key}"), value);
    }
    let tags = made || is_tagging(&need.action);
    for (key, value) in members.tags.iter().filter(|_| tags) {
        one(format!("aws:RequestTag/{key}"), value);
    }
    if need.action == "ec2:CreateTags" && call.operation != "CreateTags" {
        one("ec2:CreateAction".into(), &call.operation);
    }
    if let Some(service) = need.passed_to {
        one("iam:PassedToService".into(), service);
    }
    match service {
        "application-autoscaling" => {
            if let Some(namespace) = members.first("ServiceNamespace") {
                one("application-autoscaling:service-namespace".into(), namespace);
            }
        }
        "ecs" => {
            if let Some(cluster) = members.first("cluster") {
                let name = cluster.rsplit('/').next().unwrap_or(cluster);
                let cluster = arn(format!("ecs:cluster/{name}"), &call.scope);
                one("ecs:cluster".into(), &cluster);
            }
        }
        "iam" => {
            if let Some(policy) = members.first("PolicyArn") {
                one("iam:PolicyARN".into(), policy);
            }
        }
        _ => {}
    }
    let mut many = |key: &str, values: Vec<String>| {
        if !values.is_empty() {
            context.insert(key.to_owned(), Values::Many(values));
        }
    };
    if tags {
        many("aws:TagKeys", members.tags.keys().cloned().collect());
    }
    if need.action == "route53:ChangeResourceRecordSets" {
        let all = |path: &str| members.all(path).map(ToOwned::to_owned).collect::<Vec<_>>();
        many("route53:ChangeResourceRecordSetsActions", all("Action"));
        many("route53:ChangeResourceRecordSetsRecordTypes", all("Type"));
        let names = all("Name").iter().map(|name| normalized(name)).collect();
        many("route53:ChangeResourceRecordSetsNormalizedRecordNames", names);
    }
    context
}

/// Whether an action gives tags to something that is there.
fn is_tagging(action: &str) -> bool {
    let operation = action.split_once(':').map_or("", |(_, operation)| operation);
    let reads = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
    operation.contains("Tag") && !reads
}

/// Lower case and without the last dot ("Using IAM policy conditions for fine-grained access
/// control", Amazon Route 53 developer guide).
fn normalized(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}
