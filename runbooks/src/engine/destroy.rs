//! Destroy: every resource that is there goes as soon as nothing needs it any more.

use std::collections::BTreeSet;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, time::Instant};

use super::{
    Class, Error, Graph, Node, Timings,
    apply::{Applied, Context, Failure},
    events::Event,
    graph::Seen,
    plan::{Action, Looked, Observed, look_at_all},
    work::{Shared, Stop, Work},
};

/// Looks at every resource that is to go. One that a list has, but whose further reads do not find it,
/// is on its way out already, by an earlier deletion.
///
/// # Errors
/// The first call that failed for good otherwise.
pub async fn observe_left(graph: &Graph, timings: &Timings) -> Result<Observed, Error> {
    let Looked { mut observed, failed } = look_at_all(graph, timings).await;
    for (id, error) in failed {
        if error.class != Class::NotFound {
            return Err(error);
        }
        let nodes = graph.nodes().iter().zip(&mut observed.seen);
        for (_, seen) in nodes.filter(|(node, _)| node.id == id) {
            *seen = Some(Seen::vanishing());
        }
    }
    Ok(observed)
}

/// The positions that stay when some are kept: those, and everything that they need.
pub fn kept(graph: &Graph, keep: impl Fn(&Node) -> bool) -> BTreeSet<usize> {
    let mut kept = BTreeSet::new();
    for (position, node) in graph.nodes().iter().enumerate().rev() {
        if keep(node) || kept.contains(&position) {
            kept.insert(position);
            kept.extend(&node.needs);
        }
    }
    kept
}

/// Deletes everything that was observed, in the reverse order of needs, but for `kept`.
pub async fn destroy(context: &Context<'_>, observed: Observed, kept: &BTreeSet<usize>) -> Applied {
    let graph = context.graph;
    let gone: Vec<_> = graph.nodes().iter().map(|_| watch::Sender::new(None)).collect();
    let shared = Shared::new(observed.outputs, context.timings.concurrency);
    let mut work: FuturesUnordered<_> = observed
        .seen
        .into_iter()
        .enumerate()
        .map(|(position, seen)| {
            let node = &graph.nodes()[position];
            let (gone, shared) = (&gone, &shared);
            async move {
                for dependent in &node.dependents {
                    let mut receiver = gone[*dependent].subscribe();
                    let state = receiver.wait_for(Option::is_some).await.map(|state| *state);
                    if !matches!(state, Ok(Some(true))) {
                        gone[position].send_replace(Some(false));
                        return (position, Err(Stop::Interrupted));
                    }
                }
                let result = match seen {
                    Some(_) if kept.contains(&position) => Ok(Some(Action::None)),
                    None => Ok(None),
                    Some(seen) => {
                        let start = Instant::now();
                        let id = node.id.to_string();
                        let step = node.id.step().to_owned();
                        context.events.emit(Event::ResourceStarted {
                            id: id.clone(),
                            step,
                            action: Action::Delete,
                        });
                        let result = Work::for_deletion(context, node, shared).delete(seen).await;
                        let seconds = start.elapsed().as_secs_f64();
                        match &result {
                            Ok(()) => context.events.emit(Event::ResourceDone { id, seconds }),
                            Err(Stop::Failed(error)) => {
                                context.events.emit(Event::ResourceFailed {
                                    id,
                                    operation: error.operation.clone(),
                                    code: error.code.clone(),
                                    request_id: error.request_id.clone(),
                                    message: error.message.clone(),
                                    hint: error.hint.clone(),
                                });
                            }
                            Err(Stop::Interrupted) => {}
                        }
                        result.map(|()| Some(Action::Delete))
                    }
                };
                gone[position].send_replace(Some(result.is_ok()));
                (position, result)
            }
        })
        .collect();

    let mut applied = Applied::default();
    while let Some((position, result)) = work.next().await {
        let id = graph.nodes()[position].id.clone();
        match result {
            Ok(Some(Action::Delete)) => applied.deleted += 1,
            Ok(Some(_)) => applied.unchanged += 1,
            Ok(None) => {}
            Err(Stop::Failed(error)) => applied.failures.push(Failure { id, error }),
            Err(Stop::Interrupted) => applied.held_back.push(id),
        }
    }
    applied.interrupted = context.interrupt.is_set();
    applied
}
