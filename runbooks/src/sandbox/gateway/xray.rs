//! X-Ray groups and sampling rules (AWS X-Ray API reference).

use serde_json::{Value, json};

use super::Gateway;
use super::answer::Answer;
use super::identify::{Call, Scope};
use super::state::Regional;
use super::upstream::Payload;

/// Answers the operations on groups, sampling rules and their tags.
pub(super) fn answer(gateway: &Gateway, call: &Call, body: &Payload) -> Option<Answer> {
    let input = body.json();
    let scope = &call.scope;
    let additions = &gateway.additions;
    let result = match call.operation.as_str() {
        "CreateGroup" => additions.change(scope, |state| create_group(state, scope, &input)),
        "GetGroups" => Ok(
            json!({ "Groups": additions.read(scope, |s| s.groups.values().cloned().collect::<Vec<_>>()) }),
        ),
        "GetGroup" => additions
            .read(scope, |s| group_name(s, &input).map(|name| json!({ "Group": s.groups[&name] }))),
        "UpdateGroup" => additions.change(scope, |state| update_group(state, &input)),
        "DeleteGroup" => additions.change(scope, |state| {
            let name = group_name(state, &input)?;
            let arn = state.groups.remove(&name).map(|group| text(&group, "GroupARN"));
            state.tags.remove(&arn.unwrap_or_default());
            Ok(json!({}))
        }),
        "CreateSamplingRule" => additions.change(scope, |state| create_rule(state, scope, &input)),
        "GetSamplingRules" => Ok(json!({
            "SamplingRuleRecords": additions.read(scope, |s| s.sampling_rules.values().cloned().collect::<Vec<_>>())
        })),
        "UpdateSamplingRule" => {
            additions.change(scope, |state| update_rule(state, &input["SamplingRuleUpdate"]))
        }
        "DeleteSamplingRule" => additions.change(scope, |state| {
            let name = rule_name(state, &input)?;
            let record = state.sampling_rules.remove(&name).unwrap_or_default();
            state.tags.remove(&text(&record["SamplingRule"], "RuleARN"));
            Ok(json!({ "SamplingRuleRecord": record }))
        }),
        "ListTagsForResource" => additions.read(scope, |state| {
            let tags = state.tags.get(&known_arn(state, &input)?).cloned().unwrap_or_default();
            let tags: Vec<Value> =
                tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
            Ok(json!({ "Tags": tags }))
        }),
        "TagResource" => additions.change(scope, |state| {
            let arn = known_arn(state, &input)?;
            set_tags(state, &arn, &input["Tags"]);
            Ok(json!({}))
        }),
        "UntagResource" => additions.change(scope, |state| {
            let arn = known_arn(state, &input)?;
            if let Some(tags) = state.tags.get_mut(&arn) {
                let keys: Vec<&str> = input["TagKeys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                tags.retain(|key, _| !keys.contains(&key.as_str()));
            }
            Ok(json!({}))
        }),
        _ => return None,
    };
    Some(result.map_or_else(
        |(code, message)| Answer::json_error(code, &message),
        |value| Answer::json(&value),
    ))
}

type Outcome<T> = Result<T, (&'static str, String)>;

fn create_group(state: &mut Regional, scope: &Scope, input: &Value) -> Outcome<Value> {
    let name = text(input, "GroupName");
    if name.is_empty() {
        return Err(invalid("GroupName is required"));
    }
    if state.groups.contains_key(&name) {
        return Err(invalid(format!("Group with name {name} already exists")));
    }
    let id = uuid::Uuid::new_v4().simple().to_string().to_uppercase();
    let arn = format!("arn:aws:xray:{}:{}:group/{name}/{}", scope.region, scope.account, &id[..26]);
    let mut group = json!({ "GroupName": name, "GroupARN": arn });
    copy(&mut group, input, &["FilterExpression", "InsightsConfiguration"]);
    if group["InsightsConfiguration"].is_null() {
        group["InsightsConfiguration"] =
            json!({ "InsightsEnabled": false, "NotificationsEnabled": false });
    }
    set_tags(state, &arn, &input["Tags"]);
    state.groups.insert(name, group.clone());
    Ok(json!({ "Group": group }))
}

fn update_group(state: &mut Regional, input: &Value) -> Outcome<Value> {
    let name = group_name(state, input)?;
    let group = state.groups.entry(name).or_default();
    copy(group, input, &["FilterExpression", "InsightsConfiguration"]);
    Ok(json!({ "Group": group }))
}

fn create_rule(state: &mut Regional, scope: &Scope, input: &Value) -> Outcome<Value> {
    let mut rule = input["SamplingRule"].clone();
    let name = text(&rule, "RuleName");
    if name.is_empty() {
        return Err(invalid("RuleName is required"));
    }
    if state.sampling_rules.contains_key(&name) {
        return Err(invalid(format!("A sampling rule with name {name} already exists")));
    }
    let arn = format!("arn:aws:xray:{}:{}:sampling-rule/{name}", scope.region, scope.account);
    rule["RuleARN"] = json!(arn);
    if rule["Attributes"].is_null() {
        rule["Attributes"] = json!({});
    }
    let now = jiff::Timestamp::now().as_second();
    let record = json!({ "SamplingRule": rule, "CreatedAt": now, "ModifiedAt": now });
    set_tags(state, &arn, &input["Tags"]);
    state.sampling_rules.insert(name, record.clone());
    Ok(json!({ "SamplingRuleRecord": record }))
}

fn update_rule(state: &mut Regional, update: &Value) -> Outcome<Value> {
    let name = rule_name(state, update)?;
    let record = state.sampling_rules.entry(name).or_default();
    let fields = [
        "ResourceARN",
        "Priority",
        "FixedRate",
        "ReservoirSize",
        "Host",
        "ServiceName",
        "ServiceType",
        "HTTPMethod",
        "URLPath",
        "Attributes",
    ];
    copy(&mut record["SamplingRule"], update, &fields);
    record["ModifiedAt"] = json!(jiff::Timestamp::now().as_second());
    Ok(json!({ "SamplingRuleRecord": record }))
}

fn group_name(state: &Regional, input: &Value) -> Outcome<String> {
    state
        .groups
        .iter()
        .find(|(name, group)| {
            **name == text(input, "GroupName") || group["GroupARN"] == input["GroupARN"]
        })
        .map(|(name, _)| name.clone())
        .ok_or_else(|| invalid("Group not found"))
}

fn rule_name(state: &Regional, input: &Value) -> Outcome<String> {
    state
        .sampling_rules
        .iter()
        .find(|(name, record)| {
            **name == text(input, "RuleName")
                || record["SamplingRule"]["RuleARN"] == input["RuleARN"]
        })
        .map(|(name, _)| name.clone())
        .ok_or_else(|| invalid("Sampling rule does not exist"))
}

/// The request's ARN, if it is one of ours.
fn known_arn(state: &Regional, input: &Value) -> Outcome<String> {
    let arn = text(input, "ResourceARN");
    let known = state.groups.values().any(|group| group["GroupARN"] == arn.as_str())
        || state
            .sampling_rules
            .values()
            .any(|record| record["SamplingRule"]["RuleARN"] == arn.as_str());
    known
        .then_some(arn)
        .ok_or_else(|| ("ResourceNotFoundException", "The resource was not found".into()))
}

fn set_tags(state: &mut Regional, arn: &str, tags: &Value) {
    let pairs =
        tags.as_array().into_iter().flatten().map(|tag| (text(tag, "Key"), text(tag, "Value")));
    state.tags.entry(arn.to_owned()).or_default().extend(pairs);
}

fn invalid(message: impl Into<String>) -> (&'static str, String) {
    ("InvalidRequestException", message.into())
}

fn copy(target: &mut Value, source: &Value, fields: &[&str]) {
    for field in fields.iter().filter(|field| !source[**field].is_null()) {
        target[*field] = source[*field].clone();
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
