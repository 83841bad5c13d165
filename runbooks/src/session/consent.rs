//! What whoever started a run has agreed to, held against what is there.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::engine::{Condition, Graph, Node, ResourceId, graph::Seen, plan::Observed};

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

/// What is protected against deletion as it is now. The file may say otherwise by now, but that no run has
/// taken the protection off means that nobody has agreed to it.
pub(super) fn protected(
    graph: &Graph,
    observed: &Observed,
    kept: &BTreeSet<usize>,
) -> Vec<ResourceId> {
    going(graph, observed, kept, |_, seen| is_protected(&seen.properties))
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
