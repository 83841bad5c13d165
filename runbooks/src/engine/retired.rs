//! What an environment had and its file no longer asks for: a third zone, a NAT gateway for each
//! zone, a second cache node's alarms.
//!
//! Nothing in the graph of today's file leads to them. They are looked for in a second graph, that
//! of the widest file there can be, where each has the same id and is found by the same tags.

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    Class, Error, Graph, Outputs, Timings,
    graph::Seen,
    plan::{Action, Change, Observed, Risk, cost_of, look},
};

/// Looks for the resources of `widest` that `current` has not; `outputs` is what is known of those
/// that it has.
///
/// # Errors
/// The first call that failed for good.
pub async fn observe(
    widest: &Graph,
    current: &Graph,
    outputs: &Outputs,
    since: Instant,
    timings: &Timings,
) -> Result<Observed, Error> {
    let known = widest.outputs();
    known.take_over(outputs);
    let looks = widest.nodes().iter().map(|node| async {
        if current.contains(&node.id) {
            return Ok(None);
        }
        match look(node, &known, since, timings).await {
            Err(error) if error.class == Class::NotFound => Ok(Some(Seen::vanishing())),
            found => found,
        }
    });
    let seen = join_all(looks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Observed { outputs: known, seen, since })
}

/// One deletion for each that is there.
pub fn changes(widest: &Graph, observed: &Observed) -> Vec<Change> {
    let looked = widest.nodes().iter().zip(&observed.seen);
    let there = looked.filter_map(|(node, seen)| Some((node, seen.as_ref()?)));
    there
        .map(|(node, seen)| Change {
            id: node.id.clone(),
            step: node.id.step().to_owned(),
            action: Action::Delete,
            risk: if node.resource.holds_data() { Risk::DataLoss } else { Risk::Change },
            fields: Vec::new(),
            monthly_cost_before: cost_of(node, seen),
            monthly_cost: Some(0.0),
            why: Some("the environment file no longer asks for it".into()),
            ready: false,
            exists: true,
        })
        .collect()
}
