//! One environment, opened: the commands of the product, without a terminal.

mod consent;
mod run;
mod selection;
mod ship;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_sdk_sts::config::{Credentials, SharedCredentialsProvider};
use tokio::time::Instant;

use crate::{
    aws::{self, Aws},
    engine::{
        Error, Graph, Interrupt, Node, Outputs, ResourceId, Timings,
        apply::{Applied, Context, apply},
        destroy::{destroy, kept, observe_left},
        events::{AwsCalls, Events},
        lock::{Held, Holder, Lock, held, take_away},
        plan::{Action, Observed, Plan, observe, observe_to_apply, plan},
        retired,
    },
    environment::Environment,
    release::{Release, records},
    sandbox,
    state::{LOCK, LockHistory, State},
    steps::{self, Stack},
};

pub(crate) use run::Run;
pub use run::{LOCKED, Options, RunError, Summary};
pub use selection::Selection;

/// An environment with clients, sandbox and the release that runs.
pub struct Session {
    pub(crate) environment: Environment,
    pub(crate) aws: Aws,
    pub(crate) state: State,
    pub(crate) timings: Timings,
    pub(crate) project: PathBuf,
    release: Option<Release>,
    sandbox: Option<sandbox::Running>,
    sandbox_ca: Option<String>,
    endpoint_url: Option<String>,
}

/// What a run has seen before it had the lock.
struct Preview {
    /// When it was begun, by the clock that goes on while a laptop sleeps.
    begun: SystemTime,
    /// Of the lock, before anything else was looked at.
    history: LockHistory,
    graph: Graph,
    observed: Observed,
    plan: Plan,
    /// What is live and protected against deletion, whatever the file says by now.
    protected: Vec<ResourceId>,
}

/// Why an environment could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The sandbox did not start.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// AWS, or who stands for it, refused or did not answer.
    #[error(transparent)]
    Aws(#[from] Error),
    /// The sandbox's certificate could not be read.
    #[error("cannot read {path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Session {
    /// Starts the sandbox if the file has one, connects, and reads which release runs.
    pub async fn open(
        environment: Environment,
        project: &Path,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Self, SessionError> {
        let mut running = None;
        let mut sandbox_ca = None;
        if let Some(settings) = sandbox_settings(&environment, project) {
            let up = sandbox::up(&settings, progress).await?;
            let ca = std::fs::read_to_string(&up.ca_pem);
            sandbox_ca =
                Some(ca.map_err(|source| SessionError::Certificate {
                    path: up.ca_pem.clone(),
                    source,
                })?);
            running = Some(up);
        }
        let endpoint = running
            .as_ref()
            .map(|up| up.endpoint_url.clone())
            .or(environment.aws.endpoint_url.clone());
        let config = aws::config(
            &environment.aws.region,
            endpoint.as_deref(),
            running.is_some().then(|| sandbox_credentials(&environment)).flatten(),
        )
        .await;
        let timings = timings(&environment);
        let aws = timings.repeat(|| Aws::connect(&config, &environment.aws.accounts)).await?;
        let state = State::new(&aws, &environment.name);
        let release = timings.repeat(|| records::current(&state)).await?;
        Ok(Self {
            timings,
            project: project.to_owned(),
            environment,
            aws,
            state,
            release,
            sandbox: running,
            sandbox_ca,
            endpoint_url: config.endpoint_url().map(ToOwned::to_owned),
        })
    }

    /// The environment file.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The account.
    pub fn account(&self) -> &str {
        &self.aws.account
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.aws.region
    }

    /// Calls made so far.
    pub fn calls(&self) -> AwsCalls {
        AwsCalls { read: self.aws.calls.read(), mutating: self.aws.calls.mutating() }
    }

    pub(crate) fn stack(&self, release: Option<Release>) -> Stack {
        Stack {
            environment: self.environment.clone(),
            aws: self.aws.clone(),
            release,
            sandbox_ca: self.sandbox_ca.clone(),
            every_way_out: false,
        }
    }

    pub(crate) fn graph(&self) -> Graph {
        steps::graph(&self.stack(self.release.clone()))
    }

    /// Everything that some file of this environment may have asked for.
    fn widest_graph(&self, release: Option<Release>) -> Graph {
        steps::graph(&self.stack(release).widest())
    }

    /// Where the sandbox's load balancer answers.
    pub(crate) fn sandbox_url(&self) -> Option<&str> {
        self.sandbox.as_ref().map(|sandbox| sandbox.url.as_str())
    }

    /// Observes and compares; changes nothing.
    pub async fn plan(&self, selection: &Selection) -> Result<Plan, Error> {
        let graph = self.graph();
        let observed = observe(&graph, &self.timings).await?;
        let compared = self.compare(&graph, &observed, self.release.clone(), selection).await;
        compared.map(|(plan, _)| plan)
    }

    /// Observes, and compares with what everything should be while `release` runs.
    pub(crate) async fn plan_with(&self, release: Option<Release>) -> Result<Plan, Error> {
        let graph = steps::graph(&self.stack(release.clone()));
        let observed = observe(&graph, &self.timings).await?;
        let compared = self.compare(&graph, &observed, release, &Selection::default()).await;
        compared.map(|(plan, _)| plan)
    }

    /// What makes `graph` as it should be, and what goes that only a wider file has asked for; with it
    /// what of both is protected against deletion.
    async fn compare(
        &self,
        graph: &Graph,
        observed: &Observed,
        release: Option<Release>,
        selection: &Selection,
    ) -> Result<(Plan, Vec<ResourceId>), Error> {
        let mut plan = plan(graph, observed).narrowed(graph, |id| selection.contains(id));
        let Observed { outputs, since, .. } = observed;
        let widest = self.widest_graph(release);
        let others = retired::observe(&widest, graph, outputs, *since, &self.timings).await?;
        let retired = retired::changes(&widest, &others).into_iter();
        plan.changes.extend(retired.filter(|change| selection.contains(&change.id)));
        let nothing_kept = BTreeSet::new();
        let mut protected = consent::protected(graph, observed, &nothing_kept);
        protected.extend(consent::protected(&widest, &others, &nothing_kept));
        Ok((plan, protected))
    }

    async fn preview(&self, selection: &Selection) -> Result<Preview, Error> {
        let begun = SystemTime::now();
        let history = self.timings.repeat(|| self.state.lock_history()).await?;
        let graph = self.graph();
        let observed = observe_to_apply(&graph, &self.timings).await?;
        let (plan, protected) =
            self.compare(&graph, &observed, self.release.clone(), selection).await?;
        Ok(Preview { begun, history, graph, observed, plan, protected })
    }

    /// Makes everything in the selection as it should be. When it is already, nothing is written,
    /// not even the lock.
    ///
    /// # Errors
    /// [`RunError::DataLoss`] and [`RunError::Grown`] when that is more than was agreed to, and
    /// [`RunError::Protected`] when it would take away what is protected against deletion, before the
    /// lock is had or under it.
    pub async fn provision(
        &self,
        selection: &Selection,
        options: &Options,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Summary, RunError> {
        let run = Run::new(self, "provision", options, events, interrupt);
        let preview = self.preview(selection).await?;
        let plan = &preview.plan;
        run.started(preview.graph.nodes().len(), plan.estimated_seconds);
        if !plan.has_changes() {
            let unchanged = plan.count(Action::None);
            return run.finish(Applied { unchanged, ..Applied::default() });
        }
        run.agrees_to(plan, &preview.protected).map_err(|error| run.refused(error))?;
        let lock = run.lock().await.map_err(|error| run.refused(error))?;
        let mut applied = Applied::default();
        let ended = self.apply(&run, &lock, preview, selection, &mut applied).await;
        run.end(lock, applied, ended).await
    }

    /// What was done is in `applied`, however this ends.
    async fn apply(
        &self,
        run: &Run<'_>,
        lock: &Lock,
        preview: Preview,
        selection: &Selection,
        applied: &mut Applied,
    ) -> Result<(), RunError> {
        // Others may have worked until the lock was ours, and shipped: a release from before would
        // be put back.
        let release = run.timings.repeat(|| records::current(&self.state)).await?;
        let Preview { graph, observed, plan, .. } =
            if release == self.release && self.holds(run, lock, &preview).await? {
                preview
            } else {
                let graph = steps::graph(&self.stack(release.clone()));
                let observed = observe_to_apply(&graph, &run.timings).await?;
                let (plan, protected) =
                    self.compare(&graph, &observed, release.clone(), selection).await?;
                run.agrees_to(&plan, &protected)?;
                Preview { graph, observed, plan, protected, ..preview }
            };
        let outputs = observed.outputs.clone();
        let context = run.context(&graph, lock);
        applied.add(apply(&context, observed, |id| selection.contains(id)).await);
        // A plan deletes only what the file no longer asks for.
        if plan.count(Action::Delete) > 0 && applied.is_whole() {
            let widest = self.widest_graph(release);
            let context = run.context(&widest, lock);
            applied.add(retire(&context, &graph, &outputs, &plan, selection).await?);
        }
        Ok(())
    }

    /// Whether what was seen before the lock was ours is as good as a look under the lock, so that
    /// nothing is looked at twice.
    ///
    /// What is made without a name or a token must not be made twice, and what makes such things is a
    /// run. Every run takes the lock first, and taking it leaves a trace that nobody clears away but a
    /// whole destroy, after which nothing is there to be made twice. So without a trace between the
    /// first look and our lock nobody has made anything, with four exceptions, which all lead to a
    /// second look as if there had been no first:
    ///
    /// * A run that was killed holds the lock, or has lost it to us: its last calls may have come through
    ///   after the first look, and the lag was waited out since.
    /// * A run that was interrupted has released the lock before what it made was to be seen: its end
    ///   has to be older than the first look by the lag.
    /// * People change things without a lock. A look under the lock is minutes old, too, when the last
    ///   of its plan is done; the first look may add no more to that than the time of a lease.
    /// * S3 takes up to a quarter of an hour until it keeps versions in a bucket that is new, so that
    ///   another run may have come and gone without a trace. Until a release is that old the records of
    ///   runs are asked as well, with one call more: a run writes its record before it releases the lock,
    ///   and leaves the lock when it can't. That needs no versions, and what S3 has written it lists.
    async fn holds(&self, run: &Run<'_>, lock: &Lock, preview: &Preview) -> Result<bool, Error> {
        let age = age(preview.observed.since, preview.begun);
        if lock.after_unclean_end || age >= run.timings.lease {
            return Ok(false);
        }
        let now = run.timings.repeat(|| self.state.lock_history()).await?;
        let lag = run.timings.lag;
        let goes_on = preview.history.goes_on_in(&now, age, lag);
        if !goes_on || now.is_whole(age) {
            return Ok(goes_on);
        }
        let record = run.timings.repeat(|| self.state.last_record()).await?;
        Ok(now.is_after(record, age, lag))
    }

    /// Deletes everything of the environment; with `keep_data` all but what holds data.
    ///
    /// # Errors
    /// [`RunError::DataLoss`] when nobody has said that the data may be lost. What is live decides: where
    /// nothing holds data, or in a sandbox, there is nothing to agree to. [`RunError::Protected`] when
    /// something live is protected against deletion, whatever the file says by now.
    pub async fn destroy(
        &self,
        keep_data: bool,
        options: &Options,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Summary, RunError> {
        let run = Run::new(self, "destroy", options, events, interrupt);
        let graph = self.widest_graph(self.release.clone());
        let lock = run.lock().await?;
        let observed = match observe_left(&graph, &self.timings).await {
            Ok(observed) => observed,
            Err(error) => {
                run.started(0, 0.0);
                return run.end(lock, Applied::default(), Err(error.into())).await;
            }
        };
        run.started(observed.seen.iter().flatten().count(), 0.0);
        let kept = if keep_data { kept(&graph, Node::holds_data) } else { BTreeSet::new() };
        let protected = consent::protected(&graph, &observed, &kept);
        if !protected.is_empty() {
            let refused = Err(RunError::Protected(protected));
            return run.end(lock, Applied::default(), refused).await;
        }
        let losing = consent::losing(&graph, &observed, &kept);
        // What is in a sandbox is made to be thrown away.
        if !options.allow_data_loss && self.sandbox.is_none() && !losing.is_empty() {
            let refused = Err(RunError::DataLoss(losing));
            return run.end(lock, Applied::default(), refused).await;
        }
        let context = run.context(&graph, &lock);
        let applied = destroy(&context, observed, &kept).await;
        if applied.is_whole() && !keep_data {
            run.vanished(lock, applied).await
        } else {
            run.end(lock, applied, Ok(())).await
        }
    }

    /// Takes away the lock of a run that is known to be dead. The next run waits out the lag that it
    /// would wait out after a lease that has run out.
    ///
    /// # Errors
    /// [`RunError::Locked`] when the lock has changed since `seen`: its holder lives, or it is another.
    pub async fn unlock(&self, seen: &Held) -> Result<(), RunError> {
        let store = self.state.store();
        let key = self.state.key(LOCK);
        match take_away(&*store, &key, seen, run::me(), &self.timings).await? {
            Some(now) => Err(RunError::Locked(now.holder)),
            None => Ok(()),
        }
    }

    /// Who holds the lock.
    pub async fn lock_held(&self) -> Result<Option<Held>, Error> {
        held(&*self.state.store(), &self.state.key(LOCK)).await
    }

    /// Who holds the lock.
    pub(crate) async fn lock_holder(&self) -> Result<Option<Holder>, Error> {
        Ok(self.lock_held().await?.map(|held| held.holder))
    }

    /// The releases, newest first.
    pub async fn releases(&self) -> Result<Vec<Release>, Error> {
        records::list(&self.state).await
    }
}

/// How long ago that is, by the clock that has gone on further: the monotonic one stands still while a
/// laptop sleeps, the other one can be set back.
fn age(since: Instant, begun: SystemTime) -> Duration {
    since.elapsed().max(begun.elapsed().unwrap_or_default())
}

/// Deletes what of the context's graph the file no longer asks for, when nothing uses it any more. It is
/// looked for again, since what was planned is done by now; of what holds data only that goes which `plan`
/// has said would, since no more was agreed to.
async fn retire(
    context: &Context<'_>,
    current: &Graph,
    outputs: &Outputs,
    plan: &Plan,
    selection: &Selection,
) -> Result<Applied, Error> {
    let (widest, now) = (context.graph, Instant::now());
    let mut observed = retired::observe(widest, current, outputs, now, context.timings).await?;
    for (node, seen) in widest.nodes().iter().zip(&mut observed.seen) {
        seen.take_if(|_| !selection.contains(&node.id));
    }
    let unplanned = consent::unplanned(widest, &observed, plan);
    for id in &unplanned {
        context.events.note(format!(
            "{id} is there, which the plan did not know: it stays, `bme plan` tells what becomes of it"
        ));
    }
    let kept = kept(widest, |node| unplanned.contains(&node.id));
    Ok(destroy(context, observed, &kept).await)
}

/// The sandbox that the environment asks for.
pub fn sandbox_settings(environment: &Environment, project: &Path) -> Option<sandbox::Settings> {
    let wanted = environment.sandbox.as_ref()?;
    Some(sandbox::Settings {
        directory: project.join(&wanted.directory),
        port: wanted.port,
        gateway_port: wanted.gateway_port,
        environment: environment.name.clone(),
        account: environment.aws.accounts.first().cloned().unwrap_or_default(),
        region: environment.aws.region.clone(),
    })
}

/// The sandbox takes any credentials and reads the account out of the key, so a machine without AWS
/// credentials can use it; credentials in the environment variables are left to the standard chain.
pub(crate) fn sandbox_credentials(environment: &Environment) -> Option<SharedCredentialsProvider> {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return None;
    }
    let account = environment.aws.accounts.first()?;
    let credentials = Credentials::new(account, "sandbox", None, None, "sandbox");
    Some(SharedCredentialsProvider::new(credentials))
}

/// The engine's timings, as the file has them.
pub(crate) fn timings(environment: &Environment) -> Timings {
    let engine = &environment.engine;
    Timings {
        concurrency: engine.concurrency,
        poll: Duration::from_millis(engine.poll_milliseconds),
        first_look: f64::from(engine.first_look_percent) / 100.0,
        backoff: Duration::from_millis(engine.backoff_milliseconds),
        retry: Duration::from_secs(engine.retry_seconds),
        patience: engine.patience,
        deletion: Duration::from_secs(engine.deletion_seconds),
        lease: Duration::from_millis(engine.lease_milliseconds),
        beat: Duration::from_millis(engine.beat_milliseconds),
        lag: Duration::from_millis(engine.lag_milliseconds),
        rollout: Duration::from_secs(engine.rollout_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_a_laptop_slept_is_as_old_as_its_sleep() {
        let hour = Duration::from_hours(1);
        assert!(age(Instant::now(), SystemTime::now() - hour) >= hour);
        let set_back = SystemTime::now() + hour;
        assert!(age(Instant::now(), set_back) < hour, "the monotonic clock counts");
    }
}
