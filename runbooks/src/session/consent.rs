//! What whoever started a run has agreed to, held against what is there.

use std::collections::BTreeSet;

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
