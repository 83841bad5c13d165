//! Calls that the gateway has recorded, held against a policy document.

use std::collections::BTreeSet;

use serde_json::Value;

/// What recorded operations need that are not called as the action is, or that need more than one
/// (Service Authorization Reference; for the registry "Amazon ECR repository policies").
const NEEDED: [(&str, &[&str]); 22] = [
    (
        "cloudfront:CreateDistributionWithTags",
        &["cloudfront:CreateDistribution", "cloudfront:TagResource"],
    ),
    ("registry:GET base", &[]),
    ("registry:GET blobs", &["ecr:GetDownloadUrlForLayer"]),
    ("registry:GET manifests", &["ecr:BatchGetImage"]),
    ("registry:HEAD blobs", &["ecr:BatchCheckLayerAvailability"]),
    ("registry:HEAD manifests", &["ecr:BatchGetImage"]),
    ("registry:PATCH blobs", &["ecr:UploadLayerPart"]),
    ("registry:POST blobs", &["ecr:InitiateLayerUpload"]),
    ("registry:PUT blobs", &["ecr:CompleteLayerUpload"]),
    ("registry:PUT manifests", &["ecr:PutImage"]),
    ("s3:CopyObject", &["s3:GetObject", "s3:PutObject"]),
    ("s3:DeleteObjects", &["s3:DeleteObjectVersion"]),
    ("s3:GetBucketEncryption", &["s3:GetEncryptionConfiguration"]),
    ("s3:GetBucketLifecycleConfiguration", &["s3:GetLifecycleConfiguration"]),
    ("s3:GetPublicAccessBlock", &["s3:GetBucketPublicAccessBlock"]),
    ("s3:ListBuckets", &["s3:ListAllMyBuckets"]),
    ("s3:ListObjectVersions", &["s3:ListBucketVersions"]),
    ("s3:ListObjectsV2", &["s3:ListBucket"]),
    ("s3:PutBucketEncryption", &["s3:PutEncryptionConfiguration"]),
    ("s3:PutBucketLifecycleConfiguration", &["s3:PutLifecycleConfiguration"]),
    ("s3:PutPublicAccessBlock", &["s3:PutBucketPublicAccessBlock"]),
    (
        "secretsmanager:BatchGetSecretValue",
        &[
            "secretsmanager:BatchGetSecretValue",
            "secretsmanager:GetSecretValue",
            "secretsmanager:ListSecrets",
        ],
    ),
];

/// The actions that the calls need and no statement of `policy` allows; of S3, on the bucket or the
/// object that was called.
pub fn uncovered(calls: &[Value], policy: &Value) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for call in calls {
        let on = bucket_or_object(call);
        for action in needed(call) {
            if !statements(policy).any(|statement| allows(statement, &action, on.as_deref())) {
                let on = on.as_deref().unwrap_or("*");
                missing.insert(format!("{action} on {on}"));
            }
        }
    }
    missing.into_iter().collect()
}

/// The actions that `policy` names and no call needed.
pub fn idle(calls: &[Value], policy: &Value) -> Vec<String> {
    let needed: BTreeSet<String> = calls.iter().flat_map(needed).collect();
    let named = statements(policy).flat_map(|statement| texts(&statement["Action"]));
    let named: BTreeSet<&str> = named.collect();
    named.into_iter().filter(|action| !needed.contains(*action)).map(ToOwned::to_owned).collect()
}

fn needed(call: &Value) -> Vec<String> {
    let text = |name: &str| call[name].as_str().unwrap_or_default();
    let operation = format!("{}:{}", text("service"), text("operation"));
    match NEEDED.iter().find(|(name, _)| *name == operation) {
        Some((_, actions)) => actions.iter().map(|action| (*action).to_owned()).collect(),
        None => vec![operation],
    }
}

/// None for the deletion of many objects, whose names are in its body.
fn bucket_or_object(call: &Value) -> Option<String> {
    let bucket = call["bucket"].as_str().filter(|_| call["operation"] != "DeleteObjects")?;
    let key = call["key"].as_str().map(|key| format!("/{key}")).unwrap_or_default();
    Some(format!("arn:aws:s3:::{bucket}{key}"))
}

fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    policy["Statement"].as_array().into_iter().flatten()
}

fn allows(statement: &Value, action: &str, on: Option<&str>) -> bool {
    texts(&statement["Action"]).iter().any(|pattern| matches(pattern, action))
        && on.is_none_or(|on| {
            texts(&statement["Resource"]).iter().any(|pattern| matches(pattern, on))
        })
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// Whether `text` is of a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter_map(|at| text.get(at..)).any(|text| matches(rest, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_that_is_not_allowed_is_told() {
        let policy = json!({"Statement": [
            {"Action": ["ec2:Describe*", "s3:ListAllMyBuckets"], "Resource": "*"},
            {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::state/local/*"},
        ]});
        let call = |service: &str, operation: &str, bucket: Option<&str>, key: Option<&str>| json!({"service": service, "operation": operation, "bucket": bucket, "key": key});
        let calls = [
            call("ec2", "DescribeVpcs", None, None),
            call("ec2", "CreateVpc", None, None),
            call("s3", "ListBuckets", None, None),
            call("s3", "GetObject", Some("state"), Some("local/lock.json")),
            call("s3", "GetObject", Some("state"), Some("production/lock.json")),
        ];
        assert_eq!(
            uncovered(&calls, &policy),
            ["ec2:CreateVpc on *", "s3:GetObject on arn:aws:s3:::state/production/lock.json"]
        );
        assert_eq!(idle(&calls[2..], &policy), ["ec2:Describe*"]);
    }
}
