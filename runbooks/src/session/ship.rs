//! Deploy and rollback: two ways to a release, one code path.

use std::sync::{Mutex, PoisonError};

use super::{Options, Run, RunError, Session, Summary};
use crate::{
    engine::{
        Interrupt, ResourceId,
        apply::{Applied, apply},
        events::Events,
        plan::observe,
    },
    release::{self, Deploy, Phase, Release, Source, Tag},
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

    /// The lock, what the graph puts out, the road, the end.
    async fn ship(&self, run: &Run<'_>, road: Road<'_>) -> Result<Summary, RunError> {
        let url = self.url().await?.unwrap_or_default();
        let stack = self.stack(self.release.clone());
        let steps = steps::steps(&stack);
        let observed = observe(&steps.graph, &run.timings).await?;
        let platform = steps.platform(&stack, &observed.outputs, url).map_err(|error| {
            error.with_hint("a release needs all ten steps: run `bme provision` first")
        })?;
        run.started(platform.services.len(), 0.0);
        let lock = run.lock().await?;
        let done = Mutex::new(Applied::default());
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
        // What waits for a release belongs to it.
        let belongs = steps::graph(&self.stack(None)).deferred();
        let apply = async |release: &Release, phase: Phase| {
            let steps = steps::steps(&self.stack(Some(release.clone())));
            let observed = observe(&steps.graph, &run.timings).await?;
            let context = run.context(&steps.graph, &lock);
            let selected = |id: &ResourceId| match phase {
                Phase::Migration => *id == steps.services.migrate.id(),
                Phase::Services => belongs.contains(id),
            };
            let applied = apply(&context, observed, selected).await;
            let failed = applied.failures.first().map(|failure| failure.error.clone());
            done.lock().unwrap_or_else(PoisonError::into_inner).add(applied);
            failed.map_or(Ok(()), Err)
        };
        let shipped = match road {
            Road::Deploy { tag, image } => {
                deploy.deploy(tag, Source { root: &self.project, image }, apply).await
            }
            Road::Rollback { to } => deploy.rollback(to, apply).await,
        };
        if shipped.is_ok()
            && let Some(missing) = steps.services.keys.missing(&observed.outputs)
        {
            run.events.note(missing);
        }
        let applied = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        run.shipped(lock, applied, shipped.map(|_| ())).await
    }
}
