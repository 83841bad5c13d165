//! What whoever started a run has agreed to, held against what is there.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::engine::{
    Condition, Graph, Node, ResourceId,
    graph::Seen,
    plan::{Action, Change, Observed, Plan},
};

/// What `plan` would do that `agreed` does not: to a resource more, another thing to it, at a higher risk,
/// or to members more. That something is done already is no reason to ask again.
pub(super) fn grown(agreed: &Plan, plan: &Plan) -> Vec<ResourceId> {
    let covers = |one: &Change, other: &Change| {
        one.id == other.id
            && one.action == other.action
            && one.risk >= other.risk
            && other.fields.iter().all(|field| one.fields.iter().any(|it| it.path == field.path))
    };
    let doing = plan
        .changes
        .iter()
        .filter(|change| !matches!(change.action, Action::None | Action::Deferred));
    doing
        .filter(|change| !agreed.changes.iter().any(|agreed| covers(agreed, change)))
        .map(|change| change.id.clone())
        .collect()
}

/// What is there and would go, since it is not `kept`, and passes `test`.
fn going(
    graph: &Graph,
    observed: &Observed,
    kept: &BTreeSet<usize>,
    test: impl Fn(&Node, &Seen) -> bool,
) -> Vec<ResourceId> {
    let looked = graph.nodes().iter().zip(&observed.seen).enumerate();
    looked
        .filter(|(position, _)| !kept.contains(position))
        .filter_map(|(_, (node, seen))| Some((node, seen.as_ref()?)))
        // What is on its way out, or never came to be, has nothing left to lose.
        .filter(|(_, seen)| {
            !matches!(seen.condition, Condition::Deleting(_) | Condition::Failed(_))
        })
        .filter(|(node, seen)| test(node, seen))
        .map(|(node, _)| node.id.clone())
        .collect()
}

/// Whose data a destroy would lose for good.
pub(super) fn losing(
    graph: &Graph,
    observed: &Observed,
    kept: &BTreeSet<usize>,
) -> Vec<ResourceId> {
    going(graph, observed, kept, |node, _| node.holds_data())
}

/// Whose data would go although `plan` does not say so: it was not to be seen when that was made, and
/// nobody has agreed to its loss.
pub(super) fn unplanned(graph: &Graph, observed: &Observed, plan: &Plan) -> Vec<ResourceId> {
    let mut unplanned = losing(graph, observed, &BTreeSet::new());
    let is_going = |id: &ResourceId| {
        let mut changes = plan.changes.iter();
        changes.any(|change| change.action == Action::Delete && change.id == *id)
    };
    unplanned.retain(|id| !is_going(id));
    unplanned
}

/// What is protected against deletion as it is now. The file may say otherwise by now, but that no run has
/// taken the protection off means that nobody has agreed to it.
pub(super) fn protected(
    graph: &Graph,
    observed: &Observed,
    kept: &BTreeSet<usize>,
) -> Vec<ResourceId> {
    going(graph, observed, kept, |_, seen| is_protected(&seen.properties))
}

/// What `plan` would take away, also to make it anew, although it is one of those that are `protected`. That
/// data may be lost is no answer to that: whoever has said so has not said that the protection goes.
pub(super) fn taken_away(plan: &Plan, protected: &[ResourceId]) -> Vec<ResourceId> {
    let going = plan
        .changes
        .iter()
        .filter(|change| matches!(change.action, Action::Delete | Action::Replace));
    going.map(|change| change.id.clone()).filter(|id| protected.contains(id)).collect()
}

/// Whether it is, in the words of RDS, Cognito and Elastic Load Balancing.
fn is_protected(properties: &Value) -> bool {
    [&properties["deletionProtection"], &properties["attributes"]["deletion_protection.enabled"]]
        .into_iter()
        .any(|value| {
            value == &Value::Bool(true) || matches!(value.as_str(), Some("true" | "ACTIVE"))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::{diff::Field, plan::Risk};

    fn change(name: &str, action: Action, risk: Risk, paths: &[&str]) -> Change {
        let field = |path: &&str| Field { path: (*path).into(), before: json!(1), after: json!(2) };
        Change {
            id: ResourceId::new("cache", name),
            step: "cache".into(),
            action,
            risk,
            fields: paths.iter().map(field).collect(),
            monthly_cost_before: Some(0.0),
            monthly_cost: Some(0.0),
            why: None,
            ready: true,
            exists: true,
        }
    }

    fn plan(changes: &[Change]) -> Plan {
        Plan { changes: changes.to_vec(), estimated_seconds: 0.0 }
    }

    #[test]
    fn less_than_was_agreed_to_is_no_surprise() {
        let agreed = plan(&[
            change("a", Action::Create, Risk::Safe, &[]),
            change("b", Action::Update, Risk::Downtime, &["size", "tags.team"]),
            change("c", Action::None, Risk::Safe, &[]),
        ]);
        let less = plan(&[
            change("a", Action::None, Risk::Safe, &[]),
            change("b", Action::Update, Risk::Change, &["tags.team"]),
            change("c", Action::None, Risk::Safe, &[]),
        ]);
        assert!(grown(&agreed, &agreed).is_empty());
        assert!(grown(&agreed, &less).is_empty());
    }

    #[test]
    fn more_than_was_agreed_to_is_named() {
        let agreed = plan(&[
            change("a", Action::Update, Risk::Change, &["size"]),
            change("b", Action::None, Risk::Safe, &[]),
        ]);
        for more in [
            change("a", Action::Update, Risk::Change, &["size", "engine"]),
            change("a", Action::Update, Risk::Downtime, &["size"]),
            change("a", Action::Replace, Risk::Change, &["size"]),
            change("b", Action::Update, Risk::Safe, &["tags.team"]),
            change("new", Action::Delete, Risk::Change, &[]),
        ] {
            let id = more.id.clone();
            assert_eq!(grown(&agreed, &plan(&[more])), [id]);
        }
    }

    #[test]
    fn what_is_protected_may_be_changed_and_is_neither_deleted_nor_replaced() {
        let doing = |action| plan(&[change("a", action, Risk::DataLoss, &[])]);
        let id = || vec![ResourceId::new("cache", "a")];
        for action in [Action::Delete, Action::Replace] {
            assert_eq!(taken_away(&doing(action), &id()), id());
            assert!(taken_away(&doing(action), &[]).is_empty());
        }
        for action in [Action::Update, Action::None, Action::Create, Action::Deferred] {
            assert!(taken_away(&doing(action), &id()).is_empty());
        }
    }

    #[test]
    fn protection_is_seen_in_each_services_words() {
        assert!(is_protected(&json!({"deletionProtection": true})));
        assert!(is_protected(&json!({"deletionProtection": "ACTIVE"})));
        assert!(is_protected(&json!({"attributes": {"deletion_protection.enabled": "true"}})));
        for off in [
            json!({"deletionProtection": false}),
            json!({"deletionProtection": "INACTIVE"}),
            json!({"deletionProtection": null, "attributes": []}),
            json!({"attributes": {"deletion_protection.enabled": "false"}}),
            json!(null),
        ] {
            assert!(!is_protected(&off), "{off}");
        }
    }
}
