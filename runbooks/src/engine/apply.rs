//! Apply: every resource is made as it should be as soon as its needs are usable.
//!
//! Forward only. A failed resource keeps back what needs it and nothing else; a run that ends early
//! is resumed by running again, since each resource is looked for before it is made.

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, time::Instant};

use super::{
    Error, Graph, Interrupt, ResourceId, Timings,
    events::Events,
    gate::Gate,
    lock::Fence,
    plan::{Action, Observed},
    work::{Ended, Progress, Work},
};

/// What a run works with.
pub struct Context<'a> {
    /// The resources.
    pub graph: &'a Graph,
    /// Timings.
    pub timings: &'a Timings,
    /// Where events go.
    pub events: &'a Events,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Whether this run still holds the lock.
    pub fence: &'a Fence,
    /// Whether what holds data may be replaced.
    pub allow_data_loss: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Resources made.
    pub created: usize,
    /// Resources changed in place.
    pub updated: usize,
    /// Resources made anew.
    pub replaced: usize,
    /// Resources deleted.
    pub deleted: usize,
    /// Resources that were right.
    pub unchanged: usize,
    /// What failed.
    pub failures: Vec<Failure>,
    /// What was not tried since something before it failed or the run was interrupted.
    pub held_back: Vec<ResourceId>,
    /// Ctrl-C was pressed.
    pub interrupted: bool,
}

impl Applied {
    /// Whether everything was done that was tried.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty() && self.held_back.is_empty() && !self.interrupted
    }

    /// Adds what another part of the same run did.
    pub fn add(&mut self, other: Self) {
        self.created += other.created;
        self.updated += other.updated;
        self.replaced += other.replaced;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.failures.extend(other.failures);
        self.held_back.extend(other.held_back);
        self.interrupted |= other.interrupted;
    }
}

/// A resource that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub id: ResourceId,
    /// Why.
    pub error: Error,
}

/// Makes everything that `selected` names as it should be. What is not selected is only read.
pub async fn apply(
    context: &Context<'_>,
    observed: Observed,
    selected: impl Fn(&ResourceId) -> bool,
) -> Applied {
    let graph = context.graph;
    let progress: Vec<_> =
        graph.nodes().iter().map(|_| watch::Sender::new(Progress::Waiting)).collect();
    let poles = graph.poles();
    let gate = Gate::new(context.timings.concurrency);
    let Observed { outputs, seen, .. } = observed;

    let mut work: FuturesUnordered<_> = seen
        .into_iter()
        .enumerate()
        .map(|(position, seen)| {
            let node = &graph.nodes()[position];
            let (progress, outputs, gate) = (&progress, &outputs, &gate);
            let work = Work {
                context,
                node,
                outputs,
                gate,
                pole: poles[position],
                progress: &progress[position],
                start: Instant::now(),
                told: None,
            };
            let selected = selected(&node.id);
            async move {
                let mut replaced = false;
                for need in &node.needs {
                    let mut receiver = progress[*need].subscribe();
                    let state = receiver.wait_for(|state| *state != Progress::Waiting).await;
                    match state.as_deref() {
                        Ok(Progress::Usable) => {}
                        Ok(Progress::Replaced) => replaced = true,
                        _ => {
                            progress[position].send_replace(Progress::Blocked);
                            return (position, work.blocked(selected));
                        }
                    }
                }
                let ended =
                    if selected { work.run(seen, replaced).await } else { work.only_read(seen) };
                // Whoever did its work has said that it is usable.
                if *progress[position].borrow() == Progress::Waiting {
                    progress[position].send_replace(Progress::Blocked);
                }
                (position, ended)
            }
        })
        .collect();

    let mut applied = Applied::default();
    let mut deferred = vec![false; graph.nodes().len()];
    while let Some((position, ended)) = work.next().await {
        let node = &graph.nodes()[position];
        match ended {
            Ended::Did(Action::Create) => applied.created += 1,
            Ended::Did(Action::Update) => applied.updated += 1,
            Ended::Did(Action::Replace) => applied.replaced += 1,
            Ended::Did(Action::Delete) => applied.deleted += 1,
            Ended::Did(Action::None) => applied.unchanged += 1,
            Ended::Did(Action::Deferred) => deferred[position] = true,
            Ended::Failed(error) => applied.failures.push(Failure { id: node.id.clone(), error }),
            Ended::HeldBack if node.needs.iter().any(|need| deferred[*need]) => {
                deferred[position] = true;
            }
            Ended::HeldBack => applied.held_back.push(node.id.clone()),
            Ended::Outside => {}
        }
    }
    applied.interrupted = context.interrupt.is_set();
    applied
}
