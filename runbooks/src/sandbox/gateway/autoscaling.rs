//! Application Auto Scaling: scalable targets and policies of ECS services (Application Auto
//! Scaling API reference). Nothing scales: the sandbox has no load to follow.

use serde_json::{Value, json};

use super::Gateway;
use super::answer::Answer;
use super::identify::{Call, Scope};
use super::state::Regional;
use super::upstream::Payload;

/// Answers the operations on targets, policies and their tags.
pub(super) async fn answer(gateway: &Gateway, call: &Call, body: &Payload) -> Option<Answer> {
    let input = body.json();
    let scope = &call.scope;
    let additions = &gateway.additions;
    let result = match call.operation.as_str() {
        "RegisterScalableTarget" => match missing_service(gateway, scope, &input).await {
            Some(message) => Err(("ValidationException", message)),
            None => additions.change(scope, |state| register(state, scope, &input)),
        },
        "DescribeScalableTargets" => additions.read(scope, |state| Ok(json!({
            "ScalableTargets": matching(state.scalable_targets.values(), &input, "ResourceIds", "ResourceId")
        }))),
        "DeregisterScalableTarget" => additions.change(scope, |state| deregister(state, &input)),
        "PutScalingPolicy" => additions.change(scope, |state| put_policy(state, scope, &input)),
        "DescribeScalingPolicies" => additions.read(scope, |state| {
            let mut narrowed = input.clone();
            if let Some(id) = input["ResourceId"].as_str() {
                narrowed["ResourceIds"] = json!([id]);
            }
            let policies = matching(state.scaling_policies.values(), &narrowed, "ResourceIds", "ResourceId");
            let named = json!({ "PolicyNames": input["PolicyNames"] });
            Ok(json!({ "ScalingPolicies": matching(policies.iter(), &named, "PolicyNames", "PolicyName") }))
        }),
        "DeleteScalingPolicy" => additions.change(scope, |state| {
            let key = policy_key(&input);
            state.scaling_policies.remove(&key).map(|_| json!({})).ok_or_else(|| missing("scaling policy", &input))
        }),
        "DescribeScalingActivities" => Ok(json!({ "ScalingActivities": [] })),
        "ListTagsForResource" => additions.read(scope, |state| {
            let arn = known_arn(state, &input)?;
            Ok(json!({ "Tags": state.tags.get(&arn).cloned().unwrap_or_default() }))
        }),
        "TagResource" => additions.change(scope, |state| {
            let arn = known_arn(state, &input)?;
            set_tags(state, &arn, &input["Tags"]);
            Ok(json!({}))
        }),
        "UntagResource" => additions.change(scope, |state| {
            let arn = known_arn(state, &input)?;
            if let Some(tags) = state.tags.get_mut(&arn) {
                let keys: Vec<&str> = input["TagKeys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
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

/// AWS refuses to scale an ECS service that does not exist.
async fn missing_service(gateway: &Gateway, scope: &Scope, input: &Value) -> Option<String> {
    let resource = input["ResourceId"].as_str()?;
    if input["ServiceNamespace"] != "ecs" {
        return None;
    }
    let mut words = resource.split('/').skip(1);
    let (cluster, service) = (words.next()?, words.next()?);
    let answer = gateway
        .upstream
        .json(
            scope,
            "ecs",
            "AmazonEC2ContainerServiceV20141113.DescribeServices",
            &json!({ "cluster": cluster, "services": [service] }),
        )
        .await;
    let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let active =
        found["services"].as_array().into_iter().flatten().any(|s| s["status"] == "ACTIVE");
    (!active).then(|| format!("ECS service doesn't exist: {resource}"))
}

fn register(state: &mut Regional, scope: &Scope, input: &Value) -> Outcome<Value> {
    let key = target_key(input);
    let existing = state.scalable_targets.get(&key).cloned();
    let new = existing.is_none();
    let mut target = existing.unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().simple().to_string();
        json!({
            "ServiceNamespace": input["ServiceNamespace"],
            "ResourceId": input["ResourceId"],
            "ScalableDimension": input["ScalableDimension"],
            "RoleARN": format!(
                "arn:aws:iam::{}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService",
                scope.account
            ),
            "CreationTime": jiff::Timestamp::now().as_second(),
            "SuspendedState": {
                "DynamicScalingInSuspended": false, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": false
            },
            "ScalableTargetARN": format!(
                "arn:aws:application-autoscaling:{}:{}:scalable-target/0ec5{}", scope.region, scope.account, &id[..28]
            ),
        })
    });
    if new && (input["MinCapacity"].is_null() || input["MaxCapacity"].is_null()) {
        return Err((
            "ValidationException",
            "MinCapacity and MaxCapacity are required for a new scalable target".into(),
        ));
    }
    for field in ["MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState"] {
        if !input[field].is_null() {
            target[field] = input[field].clone();
        }
    }
    let arn = target["ScalableTargetARN"].as_str().unwrap_or_default().to_owned();
    if new {
        set_tags(state, &arn, &input["Tags"]);
    } else if input["Tags"].as_object().is_some_and(|tags| !tags.is_empty()) {
        // AWS: tags are given at the first registration; afterwards by TagResource.
        return Err((
            "ValidationException",
            "Tags can only be set when a scalable target is registered for the first time".into(),
        ));
    }
    state.scalable_targets.insert(key, target);
    Ok(json!({ "ScalableTargetARN": arn }))
}

fn deregister(state: &mut Regional, input: &Value) -> Outcome<Value> {
    let key = target_key(input);
    let target =
        state.scalable_targets.remove(&key).ok_or_else(|| missing("scalable target", input))?;
    state.tags.remove(target["ScalableTargetARN"].as_str().unwrap_or_default());
    // Its policies go with it.
    let prefix = format!("{key}|");
    state.scaling_policies.retain(|key, _| !key.starts_with(&prefix));
    Ok(json!({}))
}

fn put_policy(state: &mut Regional, scope: &Scope, input: &Value) -> Outcome<Value> {
    if !state.scalable_targets.contains_key(&target_key(input)) {
        return Err(missing("scalable target", input));
    }
    let key = policy_key(input);
    let former = state.scaling_policies.get(&key);
    let arn = former.map_or_else(
        || {
            json!(format!(
                "arn:aws:autoscaling:{}:{}:scalingPolicy:{}:resource/{}/{}:policyName/{}",
                scope.region,
                scope.account,
                uuid::Uuid::new_v4(),
                input["ServiceNamespace"].as_str().unwrap_or_default(),
                input["ResourceId"].as_str().unwrap_or_default(),
                input["PolicyName"].as_str().unwrap_or_default(),
            ))
        },
        |policy| policy["PolicyARN"].clone(),
    );
    let created = former.map_or_else(
        || json!(jiff::Timestamp::now().as_second()),
        |policy| policy["CreationTime"].clone(),
    );
    let mut policy = json!({ "PolicyARN": arn, "CreationTime": created, "Alarms": [] });
    for (field, value) in input.as_object().into_iter().flatten() {
        policy[field] = value.clone();
    }
    state.scaling_policies.insert(key, policy);
    Ok(json!({ "PolicyARN": arn, "Alarms": [] }))
}

/// Values of the request's namespace and dimension, and of its list `names` if it has one.
fn matching<'a>(
    values: impl Iterator<Item = &'a Value>,
    input: &Value,
    names: &str,
    name: &str,
) -> Vec<Value> {
    let equal = |value: &Value, field: &str| input[field].is_null() || input[field] == value[field];
    let listed = |value: &Value| {
        input[names]
            .as_array()
            .is_none_or(|wanted| wanted.is_empty() || wanted.contains(&value[name]))
    };
    values
        .filter(|value| {
            equal(value, "ServiceNamespace") && equal(value, "ScalableDimension") && listed(value)
        })
        .cloned()
        .collect()
}

fn target_key(input: &Value) -> String {
    ["ServiceNamespace", "ResourceId", "ScalableDimension"]
        .map(|field| input[field].as_str().unwrap_or_default())
        .join("|")
}

fn policy_key(input: &Value) -> String {
    format!("{}|{}", target_key(input), input["PolicyName"].as_str().unwrap_or_default())
}

fn known_arn(state: &Regional, input: &Value) -> Outcome<String> {
    let arn = input["ResourceARN"].as_str().unwrap_or_default();
    let known = state.scalable_targets.values().any(|target| target["ScalableTargetARN"] == arn);
    known
        .then(|| arn.to_owned())
        .ok_or_else(|| ("ResourceNotFoundException", format!("no scalable target {arn}")))
}

fn set_tags(state: &mut Regional, arn: &str, tags: &Value) {
    let pairs = tags
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
    state.tags.entry(arn.to_owned()).or_default().extend(pairs);
}

fn missing(what: &str, input: &Value) -> (&'static str, String) {
    let field = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
    (
        "ObjectNotFoundException",
        format!(
            "No {what} found for service namespace: {}, resource ID: {}, scalable dimension: {}",
            field("ServiceNamespace"),
            field("ResourceId"),
            field("ScalableDimension")
        ),
    )
}
