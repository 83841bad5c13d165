//! The least that somebody has to be allowed, as an IAM policy document: what the resources of an
//! environment ask for, and what `bme` calls besides.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    doctor,
    engine::{Node, Permission, ResourceId},
    environment::Environment,
    outline::on_paper,
    release,
    session::Selection,
    state::State,
    steps::{self, delivery},
};

/// Characters that a managed policy holds ("IAM and AWS STS quotas").
pub const MANAGED_POLICY: usize = 6_144;
/// Characters that all inline policies of a role hold together ("IAM and AWS STS quotas").
pub const INLINE_POLICIES: usize = 10_240;

/// What whoever provisions, deploys, rolls back, looks at and destroys the selected steps has to be
/// allowed. A run looks at every step: somebody with the policies of all steps may do everything.
pub fn operator(environment: &Environment, selection: &Selection) -> Value {
    document(&permissions(environment, selection))
}

/// The same, one by one, as those who ask for them say it.
pub(crate) fn permissions(environment: &Environment, selection: &Selection) -> Vec<Permission> {
    let stack = on_paper(environment);
    let mut permissions = vec![Permission::anywhere(["sts:GetCallerIdentity"])];
    // In one part, and a short one: whoever works has the parts of all steps.
    if selection.contains(&ResourceId::new("delivery", "")) {
        permissions.extend(doctor::permissions(&stack.aws));
    }
    permissions.extend(State::new(&stack.aws, &environment.name).permissions());
    let released = release::permissions(&stack).into_iter();
    let released = released.filter(|(step, _)| selection.contains(&ResourceId::new(step, "")));
    permissions.extend(released.map(|(_, permission)| permission));
    let graph = steps::graph(&stack);
    let wanted = graph.nodes().iter().filter(|node| selection.contains(&node.id));
    permissions.extend(wanted.flat_map(Node::permissions));
    let widest = steps::graph(&stack.widest());
    let others = widest.nodes().iter();
    let others = others.filter(|node| selection.contains(&node.id) && !graph.contains(&node.id));
    permissions.extend(others.flat_map(Node::permissions).filter_map(to_retire));
    permissions
}

/// What the deploy role is allowed, with which a pipeline deploys.
pub fn ci(environment: &Environment) -> Value {
    delivery::deploy_policy(&on_paper(environment))
}

/// Characters of a document as IAM counts them: without white space.
pub fn characters(document: &Value) -> usize {
    document.to_string().chars().count()
}

/// What is left of the permission of a resource that the file does not ask for: an older file may
/// have, so it is looked for and deleted, never made.
fn to_retire(permission: Permission) -> Option<Permission> {
    const VERBS: [&str; 11] = [
        "BatchGet",
        // Of records, deletions too.
        "Change",
        "Delete",
        "Deregister",
        "Describe",
        "Detach",
        "Disassociate",
        "Get",
        "List",
        "Release",
        "Revoke",
    ];
    // A database of another engine leaves a snapshot. While it is protected it is not deleted, but for
    // one that never came to be: the protection of that is taken off first.
    const DATABASES: [&str; 5] = [
        "rds:AddTagsToResource",
        "rds:CreateDBClusterSnapshot",
        "rds:CreateDBSnapshot",
        "rds:ModifyDBCluster",
        "rds:ModifyDBInstance",
    ];
    let Permission { mut actions, resources, condition } = permission;
    let is_made = actions
        .iter()
        .any(|action| operation(action).starts_with("Create") && !action.ends_with("Snapshot"));
    actions.retain(|action| {
        let goes = VERBS.iter().any(|verb| operation(action).starts_with(verb));
        (goes || !is_made && DATABASES.contains(action))
            // Which secret it was, only that older file knew.
            && *action != "secretsmanager:GetSecretValue"
    });
    (!actions.is_empty()).then_some(Permission { actions, resources, condition })
}

/// Services whose actions each take resources of their own type: one statement for all that has a name
/// of ours allows no more than one for each type, and is shorter.
const BY_NAME: [&str; 1] = ["rds"];

/// Service, condition as text, and resources of a statement.
type Scope<'a> = (&'a str, &'a str, BTreeSet<&'a str>);

/// One statement for the actions of a service that share condition and resources, in their order.
fn document(permissions: &[Permission]) -> Value {
    let texts: Vec<String> = permissions
        .iter()
        .map(|permission| permission.condition.as_ref().map(Value::to_string).unwrap_or_default())
        .collect();
    // What one resource asks for an action adds to what the others do.
    let mut asked: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut conditions: BTreeMap<&str, &Value> = BTreeMap::new();
    for (permission, text) in permissions.iter().zip(&texts) {
        conditions
            .extend(permission.condition.as_ref().map(|condition| (text.as_str(), condition)));
        for action in &permission.actions {
            let resources = permission.resources.iter().map(String::as_str);
            asked.entry((*action, text.as_str())).or_default().extend(resources);
        }
    }
    let everywhere: BTreeSet<&str> = asked
        .iter()
        .filter(|((_, text), resources)| text.is_empty() && resources.contains("*"))
        .map(|((action, _), _)| *action)
        .collect();
    asked.retain(|(action, text), _| text.is_empty() || !everywhere.contains(action));

    let mut ours: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for ((action, text), resources) in &asked {
        if conditions.get(text).is_some_and(|condition| is_tag_of_ours(condition))
            || is_by_name(action, text, resources)
        {
            ours.entry((service(action), *text)).or_default().extend(resources);
        }
    }
    let mut statements: BTreeMap<Scope<'_>, Vec<&str>> = BTreeMap::new();
    for ((action, text), resources) in asked {
        let together = !text.is_empty() || is_by_name(action, text, &resources);
        let resources = match ours.get(&(service(action), text)).filter(|_| together) {
            // What carries our tag, or has a name of ours, is ours whatever it is. One statement for
            // all of it is a third of the length and allows no more: no action takes a resource of
            // another action's type.
            Some(all) => all.clone(),
            None if resources.contains("*") => BTreeSet::from(["*"]),
            None => resources,
        };
        statements.entry((service(action), text, resources)).or_default().push(action);
    }
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let statements = statements.into_iter().map(|((service, text, resources), actions)| {
        let number = numbers.entry(service).or_default();
        *number += 1;
        let mut statement = json!({
            "Sid": format!("{}{number}", identifier(service)),
            "Effect": "Allow",
            "Action": one_or_all(&actions),
            "Resource": one_or_all(&resources.into_iter().collect::<Vec<_>>()),
        });
        if let Some(condition) = conditions.get(text) {
            statement["Condition"] = (*condition).clone();
        }
        statement
    });
    json!({ "Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>() })
}

fn service(action: &str) -> &str {
    action.split_once(':').map_or(action, |(service, _)| service)
}

fn operation(action: &str) -> &str {
    action.split_once(':').map_or("", |(_, operation)| operation)
}

fn is_by_name(action: &str, condition: &str, resources: &BTreeSet<&str>) -> bool {
    condition.is_empty()
        && BY_NAME.contains(&service(action))
        && resources.iter().all(|resource| resource.contains(":bme-"))
}

fn is_tag_of_ours(condition: &Value) -> bool {
    condition["StringEquals"].get("aws:ResourceTag/bme:env").is_some()
}

/// `cognito-idp` as `CognitoIdp`: a statement's id has letters and digits only.
fn identifier(service: &str) -> String {
    let words = service.split('-').filter_map(|word| word.split_at_checked(1));
    words.map(|(first, rest)| first.to_uppercase() + rest).collect()
}

fn one_or_all(texts: &[&str]) -> Value {
    match texts {
        [one] => json!(one),
        all => json!(all),
    }
}

#[cfg(test)]
mod tests;
