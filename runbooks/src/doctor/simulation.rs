//! What a simulation of policies is asked: for whom, about what, in which context. No call here.

use std::collections::BTreeMap;

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum};
use serde_json::Value;

use crate::engine::Permission;

/// The most answers asked for in one call: actions times resources. One page of answers holds 100
/// (IAM API reference, `MaxItems` of `SimulatePrincipalPolicy`).
const ANSWERS: usize = 100;

/// Whose policies are simulated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// The root user, whom no policy of the account limits.
    Root,
    /// A user.
    User(String),
    /// A role, of which a session's ARN keeps the name but not the path.
    Role {
        /// Its name.
        name: String,
        /// Its ARN, if it has no path.
        arn: String,
    },
    /// A federated user, who has no policies of its own to simulate.
    Other,
}

/// Reads the ARN that STS answers with.
pub(super) fn principal(arn: &str) -> Principal {
    let words: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, _, account, resource] = words[..] else {
        return Principal::Other;
    };
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" => Principal::Root,
        ("iam", Some(("user", _))) => Principal::User(arn.to_owned()),
        ("sts", Some(("assumed-role", session))) => {
            let name = session.split('/').next().unwrap_or_default().to_owned();
            Principal::Role { arn: format!("arn:{partition}:iam::{account}:role/{name}"), name }
        }
        _ => Principal::Other,
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    /// What is asked for.
    pub(super) actions: Needed,
    /// ARNs. The simulation compares them as text with the patterns of the policies, so that a `*`
    /// of ours is covered by the same or by a wider pattern.
    pub(super) resources: Vec<String>,
    /// What the request would carry.
    pub(super) context: Vec<ContextEntry>,
}

/// Actions, each with the step that first needs it.
type Needed = Vec<(&'static str, &'static str)>;

/// As few calls as the permissions of all steps need; `needed` is in the order of the steps.
pub(super) fn questions(needed: Vec<(&'static str, Vec<Permission>)>) -> Vec<Question> {
    // By resources and condition, which all actions of a call share.
    let mut groups: BTreeMap<(Vec<String>, String), (Option<Value>, Needed)> = BTreeMap::new();
    for (step, permissions) in needed {
        for Permission { actions, mut resources, condition } in permissions {
            resources.sort();
            resources.dedup();
            let key = (resources, condition.as_ref().map(Value::to_string).unwrap_or_default());
            let (_, known) = groups.entry(key).or_insert_with(|| (condition, Vec::new()));
            for action in actions {
                if !known.iter().any(|(other, _)| *other == action) {
                    known.push((action, step));
                }
            }
        }
    }
    let mut questions = Vec::new();
    for ((resources, _), (condition, actions)) in groups {
        let context = condition.as_ref().map(context).unwrap_or_default();
        for some in actions.chunks((ANSWERS / resources.len().max(1)).max(1)) {
            questions.push(Question {
                actions: some.to_vec(),
                resources: resources.clone(),
                context: context.clone(),
            });
        }
    }
    questions
}

/// The keys of a request that satisfies a condition block. A key that has to be absent, or only has
/// to differ, is left out.
fn context(condition: &Value) -> Vec<ContextEntry> {
    let mut entries: BTreeMap<String, ContextEntry> = BTreeMap::new();
    for (operator, keys) in condition.as_object().into_iter().flatten() {
        let (set, operator) =
            operator.split_once(':').map_or((false, operator.as_str()), |it| (true, it.1));
        let kind = match operator.strip_suffix("IfExists").unwrap_or(operator) {
            "StringEquals" | "StringEqualsIgnoreCase" | "StringLike" | "ArnEquals" | "ArnLike" => {
                if set {
                    ContextKeyTypeEnum::StringList
                } else {
                    ContextKeyTypeEnum::String
                }
            }
            "Bool" => ContextKeyTypeEnum::Boolean,
            "NumericEquals" | "NumericLessThanEquals" | "NumericGreaterThanEquals" => {
                ContextKeyTypeEnum::Numeric
            }
            _ => continue,
        };
        for (key, expected) in keys.as_object().into_iter().flatten() {
            let mut values = texts(expected);
            if !set {
                // A request has one value, of which the condition lists the choices.
                values.truncate(1);
            }
            let entry = ContextEntry::builder()
                .context_key_name(key)
                .set_context_key_values(Some(values))
                .context_key_type(kind.clone())
                .build();
            entries.entry(key.clone()).or_insert(entry);
        }
    }
    entries.into_values().collect()
}

/// One value or a list of them, as text.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_leads_to_its_role() {
        let role = principal("arn:aws:sts::123456789012:assumed-role/deployer/anna");
        let arn = "arn:aws:iam::123456789012:role/deployer".to_owned();
        assert_eq!(role, Principal::Role { name: "deployer".into(), arn });
        let china = principal("arn:aws-cn:sts::123456789012:assumed-role/x/a/b");
        let arn = "arn:aws-cn:iam::123456789012:role/x".to_owned();
        assert_eq!(china, Principal::Role { name: "x".into(), arn });
        let user = "arn:aws:iam::123456789012:user/team/anna";
        assert_eq!(principal(user), Principal::User(user.into()));
        assert_eq!(principal("arn:aws:iam::123456789012:root"), Principal::Root);
        let federated = "arn:aws:sts::123456789012:federated-user/anna";
        assert_eq!(principal(federated), Principal::Other);
        assert_eq!(principal("nonsense"), Principal::Other);
    }

    fn permission(actions: &[&'static str], resource: &str) -> Permission {
        Permission { actions: actions.to_vec(), resources: vec![resource.into()], condition: None }
    }

    #[test]
    fn what_shares_resources_shares_a_call_and_each_action_keeps_its_first_step() {
        let asked = questions(vec![
            ("network", vec![permission(&["ec2:CreateVpc", "ec2:CreateTags"], "*")]),
            ("compute", vec![permission(&["ec2:CreateTags", "ecs:CreateCluster"], "*")]),
            ("queue", vec![permission(&["sqs:CreateQueue"], "arn:aws:sqs:*:*:bme-*")]),
        ]);
        assert_eq!(asked.len(), 2, "{asked:#?}");
        assert_eq!(
            asked[0].actions,
            [
                ("ec2:CreateVpc", "network"),
                ("ec2:CreateTags", "network"),
                ("ecs:CreateCluster", "compute")
            ]
        );
        assert_eq!(asked[1].actions, [("sqs:CreateQueue", "queue")]);
    }

    #[test]
    fn a_call_has_no_more_answers_than_a_page() {
        let resources = (0..40).map(|number| format!("arn:{number}")).collect();
        let actions = vec!["a:A", "a:B", "a:C", "a:D", "a:E"];
        let asked =
            questions(vec![("edge", vec![Permission { actions, resources, condition: None }])]);
        assert_eq!(asked.iter().map(|one| one.actions.len()).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn a_condition_becomes_the_keys_of_a_request() {
        let entries = context(&json!({
            "StringEquals": { "aws:RequestTag/bme:env": "staging" },
            "ForAllValues:StringEquals": { "aws:TagKeys": ["bme:env", "Name"] },
            "StringNotEquals": { "aws:ResourceTag/bme:env": "production" },
            "Bool": { "aws:SecureTransport": true },
        }));
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.context_key_name().unwrap(), entry.context_key_values()))
            .collect();
        assert_eq!(told.len(), 3, "{told:#?}");
        assert_eq!(told[0], ("aws:RequestTag/bme:env", &["staging".to_owned()][..]));
        assert_eq!(told[1], ("aws:SecureTransport", &["true".to_owned()][..]));
        assert_eq!(told[2].1.len(), 2);
        assert_eq!(entries[2].context_key_type(), Some(&ContextKeyTypeEnum::StringList));
    }
}
