//! One environment, opened: the commands of the product, without a terminal.

mod run;
mod selection;
mod ship;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_sdk_sts::config::{Credentials, SharedCredentialsProvider};
use tokio::time::Instant;

use crate::{
    aws::{self, Aws},
    engine::{
        Error, Graph, Interrupt, Outputs, Timings,
        apply::{Applied, apply},
        destroy::{destroy, kept, observe_left},
        events::{AwsCalls, Events},
        lock::{Holder, Lock},
        plan::{Action, Observed, Plan, observe, plan},
        retired,
    },
    environment::Environment,
    release::{Release, records},
    sandbox,
    state::State,
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

    /// The release that runs.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
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
        self.compare(&self.graph(), selection).await
    }

    async fn compare(&self, graph: &Graph, selection: &Selection) -> Result<Plan, Error> {
        let observed = observe(graph, &self.timings).await?;
        let mut plan = plan(graph, &observed);
        let Observed { outputs, since, .. } = &observed;
        let widest = self.widest_graph(self.release.clone());
        let others = retired::observe(&widest, graph, outputs, *since, &self.timings).await?;
        plan.changes.extend(retired::changes(&widest, &others));
        plan.changes.retain(|change| selection.contains(&change.id));
        Ok(plan)
    }

    /// Makes everything in the selection as it should be. When it is already, nothing is written,
    /// not even the lock.
    pub async fn provision(
        &self,
        selection: &Selection,
        options: &Options,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Summary, RunError> {
        let run = Run::new(self, "provision", options, events, interrupt);
        let graph = self.graph();
        let preview = self.compare(&graph, selection).await?;
        run.started(graph.nodes().len(), preview.estimated_seconds);
        if !preview.has_changes() {
            let unchanged = preview.count(Action::None);
            return run.finish(Applied { unchanged, ..Applied::default() });
        }
        if !options.allow_data_loss && !preview.losing_data().is_empty() {
            return Err(RunError::DataLoss(preview.losing_data()));
        }
        let lock = run.lock().await?;
        let applied = self.apply(&run, &lock, selection).await;
        run.end(lock, applied).await
    }

    async fn apply(
        &self,
        run: &Run<'_>,
        lock: &Lock,
        selection: &Selection,
    ) -> Result<Applied, Error> {
        // Others may have worked until the lock was ours, and shipped: a release from before would
        // be put back.
        let release = run.timings.repeat(|| records::current(&self.state)).await?;
        let graph = steps::graph(&self.stack(release.clone()));
        let observed = observe(&graph, &run.timings).await?;
        let outputs = observed.outputs.clone();
        let context = run.context(&graph, lock);
        let mut applied = apply(&context, observed, |id| selection.contains(id)).await;
        if applied.is_whole() {
            let widest = self.widest_graph(release);
            applied.add(self.retire(run, lock, &widest, &graph, &outputs, selection).await?);
        }
        Ok(applied)
    }

    /// Deletes what the file no longer asks for, when nothing uses it any more.
    async fn retire(
        &self,
        run: &Run<'_>,
        lock: &Lock,
        widest: &Graph,
        current: &Graph,
        outputs: &Outputs,
        selection: &Selection,
    ) -> Result<Applied, Error> {
        let now = Instant::now();
        let mut observed = retired::observe(widest, current, outputs, now, &run.timings).await?;
        for (node, seen) in widest.nodes().iter().zip(&mut observed.seen) {
            seen.take_if(|_| !selection.contains(&node.id));
        }
        let context = run.context(widest, lock);
        Ok(destroy(&context, observed, &BTreeSet::new()).await)
    }

    /// Deletes everything of the environment; with `keep_data` all but what holds data.
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
            Err(error) => return run.end(lock, Err(error)).await,
        };
        run.started(observed.seen.iter().flatten().count(), 0.0);
        let kept = if keep_data { kept(&graph) } else { BTreeSet::new() };
        let context = run.context(&graph, &lock);
        let applied = destroy(&context, observed, &kept).await;
        let whole = applied.is_whole() && !keep_data;
        let ended = run.end(lock, Ok(applied)).await;
        if whole && ended.is_ok() {
            self.timings.repeat(|| self.state.remove()).await?;
        }
        ended
    }

    /// Takes away the lock of a run that is known to be dead.
    pub async fn unlock(&self) -> Result<Option<Holder>, Error> {
        let store = self.state.store();
        let key = self.state.key("lock.json");
        let Some((version, body)) = store.get(&key).await? else { return Ok(None) };
        store.delete(&key, &version).await?;
        Ok(serde_json::from_slice(&body).ok())
    }

    /// Who holds the lock.
    pub async fn lock_holder(&self) -> Result<Option<Holder>, Error> {
        let body = self.state.read("lock.json").await?;
        Ok(body.and_then(|body| serde_json::from_slice(&body).ok()))
    }

    /// The releases, newest first.
    pub async fn releases(&self) -> Result<Vec<Release>, Error> {
        records::list(&self.state).await
    }
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
