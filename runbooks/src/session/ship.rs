//! Deploy and rollback: two ways to a release, one code path.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use super::{Options, Run, RunError, Session, Summary};
use crate::{
    engine::{
        Condition, Error, Graph, Interrupt, ResourceId,
        apply::{Applied, apply},
        events::Events,
        lock::Lock,
        pause,
        plan::{Observed, observe},
    },
    release::{self, Deploy, Outcome, Phase, Release, Source, Tag, records},
    steps,
};

/// Two ways to a release.
enum Road<'a> {
    Deploy { tag: &'a Tag, image: Option<&'a str> },
    Rollback { to: Option<&'a str> },
}

impl Session {
    /// Builds the project's service, or takes the image with this digest, and runs it as `tag`.
    pub async fn deploy(
        &self,
        tag: &Tag,
        image: Option<&str>,
        options: &Options,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Summary, RunError> {
        let run = Run::new(self, "deploy", options, events, interrupt);
        self.ship(&run, Road::Deploy { tag, image }).await
    }

    /// Runs an earlier release again: `to`, or the one before the one that runs.
    pub async fn rollback(
        &self,
        to: Option<&str>,
        options: &Options,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Summary, RunError> {
        let run = Run::new(self, "rollback", options, events, interrupt);
        self.ship(&run, Road::Rollback { to }).await
    }

    /// The lock, the road, the end.
    async fn ship(&self, run: &Run<'_>, road: Road<'_>) -> Result<Summary, RunError> {
        // What waits for a release belongs to it.
        let belongs = steps::graph(&self.stack(None)).deferred();
        run.started(belongs.len(), 0.0);
        let lock = run.lock().await.map_err(|error| run.refused(error))?;
        let done = Mutex::new(Applied::default());
        let shipped = self.travel(run, &lock, road, &belongs, &done).await;
        let applied = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        run.shipped(lock, applied, shipped).await
    }

    /// What the graph puts out, and the road. Both are read under the lock, since others may have worked
    /// until it was had.
    async fn travel(
        &self,
        run: &Run<'_>,
        lock: &Lock,
        road: Road<'_>,
        belongs: &HashSet<ResourceId>,
        done: &Mutex<Applied>,
    ) -> Result<(), release::Error> {
        let stack = self.stack(run.timings.repeat(|| records::current(&self.state)).await?);
        let steps = steps::steps(&stack);
        let observed = settled(run, &steps.graph, |id| belongs.contains(id)).await?;
        let url = run.timings.repeat(|| self.url()).await?.unwrap_or_default();
        let platform = steps
            .platform(&stack, &observed.outputs, url)
            .map_err(|error| error.with_hint(ALL_STEPS))?;
        let events = run.events.clone();
        let tell = move |progress: release::Progress| events.note(progress.to_string());
        let deploy = Deploy {
            aws: &self.aws,
            environment: &self.environment,
            state: &self.state,
            platform: &platform,
            timings: &run.timings,
            endpoint_url: self.endpoint_url.as_deref(),
            fence: lock.fence(),
            interrupt: run.interrupt,
            tell: &tell,
        };
        let apply = async |release: &Release, phase: Phase| -> Result<(), release::Error> {
            let steps = steps::steps(&self.stack(Some(release.clone())));
            let selected = |id: &ResourceId| match phase {
                Phase::Migration => *id == steps.services.migrate.id(),
                Phase::Ground | Phase::Services => belongs.contains(id),
            };
            let observed = settled(run, &steps.graph, selected).await?;
            if phase == Phase::Ground {
                return Ok(());
            }
            let context = run.context(&steps.graph, lock);
            let applied = apply(&context, observed, selected).await;
            let ended = ended(&applied);
            done.lock().unwrap_or_else(PoisonError::into_inner).add(applied);
            ended
        };
        let outcome = match road {
            Road::Deploy { tag, image } => {
                deploy.deploy(tag, Source { root: &self.project, image }, apply).await?
            }
            Road::Rollback { to } => deploy.rollback(to, apply).await?,
        };
        let (Outcome::Done(release) | Outcome::Unchanged(release)) = outcome;
        if let Some(missing) = steps.services.keys.missing(&observed.outputs, &release) {
            run.events.note(missing);
        }
        Ok(())
    }
}

/// What everything that a release stands on is made by.
const ALL_STEPS: &str = "a release needs all ten steps: run `bme provision` first";

/// How a part of the release's resources ended.
fn ended(applied: &Applied) -> Result<(), release::Error> {
    if let Some(failure) = applied.failures.first() {
        return Err(failure.error.clone().into());
    }
    match applied.held_back.first() {
        Some(_) if applied.interrupted => Err(release::Error::Interrupted {
            before: "the end of the changes",
            left: "some of the release's resources are changed, others not",
        }),
        Some(id) => Err(absent(id).into()),
        None => Ok(()),
    }
}

fn absent(id: &ResourceId) -> Error {
    let message = format!("what the release stands on is not there: {id}");
    Error::fatal("engine", "need-missing", message).with_hint(ALL_STEPS)
}

/// Looks until all is usable that the resources which are `made` stand on and that this run does not make:
/// what is on its way puts out nothing that could be relied upon.
async fn settled(
    run: &Run<'_>,
    graph: &Graph,
    made: impl Fn(&ResourceId) -> bool,
) -> Result<Observed, release::Error> {
    let ground = ground(graph, made);
    let start = Instant::now();
    let mut told = false;
    loop {
        let observed = observe(graph, &run.timings).await?;
        let conditions = ground.iter().map(|position| {
            let seen = observed.seen[*position].as_ref();
            (&graph.nodes()[*position].id, seen.map(|seen| &seen.condition))
        });
        let Some((id, state)) = unsettled(conditions).map_err(|id| absent(&id))? else {
            return Ok(observed);
        };
        if start.elapsed() > run.timings.rollout {
            let message = format!("{id} is still {state} after {} s", start.elapsed().as_secs());
            let hint = "`bme provision` waits for it; then run the command again";
            return Err(Error::fatal("engine", "timeout", message).with_hint(hint).into());
        }
        if !told {
            told = true;
            run.events.note(format!("{id} is {state}: it is waited for"));
        }
        let mut interrupt = run.interrupt.clone();
        tokio::select! {
            () = pause(run.timings.poll()) => {}
            () = interrupt.set() => {
                return Err(release::Error::Interrupted {
                    before: "the services",
                    left: "they run what they ran before",
                });
            }
        }
    }
}

/// The positions of all that those which are `made` need, directly or not, and that is not made with them.
fn ground(graph: &Graph, made: impl Fn(&ResourceId) -> bool) -> BTreeSet<usize> {
    let nodes = graph.nodes();
    let mut ground = BTreeSet::new();
    for (position, node) in nodes.iter().enumerate().rev() {
        if made(&node.id) || ground.contains(&position) {
            ground.extend(node.needs.iter().filter(|need| !made(&nodes[**need].id)));
        }
    }
    ground
}

/// The first that is still on its way, with the service's word for it.
///
/// # Errors
/// The first that is not there, or can't be used any more.
fn unsettled<'a>(
    conditions: impl Iterator<Item = (&'a ResourceId, Option<&'a Condition>)>,
) -> Result<Option<(ResourceId, String)>, ResourceId> {
    let mut pending = None;
    for (id, condition) in conditions {
        match condition {
            Some(Condition::Ready | Condition::Usable) => {}
            Some(Condition::Pending(state)) => {
                pending.get_or_insert_with(|| (id.clone(), state.clone()));
            }
            Some(Condition::Deleting(_) | Condition::Failed(_)) | None => return Err(id.clone()),
        }
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_before_what_is_on_its_way() {
        let id = |name: &str| ResourceId::new("database", name);
        let (one, two, three) = (id("one"), id("two"), id("three"));
        let (ready, usable) = (Condition::Ready, Condition::Usable);
        let pending = Condition::Pending("creating".into());
        let deleting = Condition::Deleting("deleting".into());
        let look = |conditions: [Option<&Condition>; 3]| {
            unsettled([&one, &two, &three].into_iter().zip(conditions))
        };
        assert_eq!(look([Some(&ready), Some(&usable), Some(&ready)]), Ok(None));
        let waits = Ok(Some((two.clone(), "creating".to_owned())));
        assert_eq!(look([Some(&ready), Some(&pending), Some(&pending)]), waits);
        assert_eq!(look([Some(&pending), Some(&ready), None]), Err(three.clone()));
        assert_eq!(look([Some(&deleting), Some(&pending), None]), Err(one.clone()));
    }

    #[test]
    fn held_back_is_no_success_and_an_interrupt_no_failure() {
        let held =
            || Applied { held_back: vec![ResourceId::new("compute", "api")], ..Applied::default() };
        assert!(ended(&Applied::default()).is_ok());
        let Err(release::Error::Call(error)) = ended(&held()) else { panic!("it is an error") };
        assert_eq!(error.code, "need-missing");
        let interrupted = Applied { interrupted: true, ..held() };
        assert!(matches!(ended(&interrupted), Err(release::Error::Interrupted { .. })));
    }
}
