//! One environment, opened: the commands of the product, without a terminal.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sts::config::{Credentials, SharedCredentialsProvider};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    aws::{self, Aws},
    engine::{
        Error, Graph, Interrupt, ResourceId, Timings,
        apply::{Applied, Context, Failure, apply},
        destroy::{destroy, kept},
        events::{AwsCalls, Event, Events, Outcome},
        lock::{Holder, Lock, LockError, acquire},
        pause,
        plan::{Action, Plan, observe, plan},
    },
    environment::Environment,
    release::{self, Deploy, Phase, Release, Source, records},
    sandbox,
    state::State,
    steps::{self, STEPS, Stack},
};

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

/// Which steps a command is about; all when empty.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These steps only.
    pub steps: Vec<String>,
    /// From this step on.
    pub from: Option<String>,
    /// Up to this step.
    pub until: Option<String>,
}

/// How a run works.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Calls in flight at once, instead of the environment's.
    pub parallelism: Option<usize>,
    /// How long another run is waited for.
    pub lock_wait: Duration,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
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
    /// The whole run, seconds.
    pub seconds: f64,
    /// Calls that only read.
    pub read: u64,
    /// Calls that may have changed something.
    pub mutating: u64,
}

/// Why a run did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another run holds the lock.
    #[error("locked by {} since {}, last seen beating {}", .0.holder, .0.since, .0.last_beat)]
    Locked(Holder),
    /// Ctrl-C.
    #[error("interrupted; run the command again to go on where it stopped")]
    Interrupted,
    /// Resources failed; the others are done.
    #[error("{} of the resources failed", .failures.len())]
    Failed {
        /// What failed.
        failures: Vec<Failure>,
        /// What was not tried for that reason.
        held_back: usize,
        /// What was done all the same.
        summary: Summary,
    },
    /// The release failed; the one before runs again.
    #[error("the release failed and was rolled back: {0}")]
    RolledBack(release::Error),
    /// The release failed before anything was changed, or could not be rolled back.
    #[error(transparent)]
    Release(release::Error),
    /// A call outside any resource failed.
    #[error(transparent)]
    Aws(#[from] Error),
}

impl From<LockError> for RunError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(holder) => Self::Locked(holder),
            LockError::Interrupted => Self::Interrupted,
            LockError::Store(error) => Self::Aws(error),
        }
    }
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
        let aws = Aws::connect(&config, &environment.aws.accounts).await?;
        let state = State::new(&aws, &environment.name);
        let release = records::current(&state).await?;
        Ok(Self {
            timings: timings(&environment),
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
        }
    }

    pub(crate) fn graph(&self) -> Graph {
        steps::graph(&self.stack(self.release.clone()))
    }

    /// Where the sandbox's load balancer answers.
    pub(crate) fn sandbox_url(&self) -> Option<&str> {
        self.sandbox.as_ref().map(|sandbox| sandbox.url.as_str())
    }

    /// Observes and compares; changes nothing.
    pub async fn plan(&self, selection: &Selection) -> Result<Plan, Error> {
        let graph = self.graph();
        let observed = observe(&graph, &self.timings).await?;
        let mut plan = plan(&graph, &observed);
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
        let observed = observe(&graph, &self.timings).await?;
        let mut preview = plan(&graph, &observed);
        preview.changes.retain(|change| selection.contains(&change.id));
        run.started(graph.nodes().len(), preview.estimated_seconds);
        if !preview.has_changes() {
            let unchanged = preview.count(Action::None);
            return run.finish(Applied { unchanged, ..Applied::default() });
        }
        let lock = run.lock().await?;
        let applied = self.apply(&run, &lock, &graph, selection).await;
        run.end(lock, applied).await
    }

    async fn apply(
        &self,
        run: &Run<'_>,
        lock: &Lock,
        graph: &Graph,
        selection: &Selection,
    ) -> Result<Applied, Error> {
        // Others may have worked until the lock was ours.
        let observed = observe(graph, &run.timings).await?;
        let context = run.context(graph, lock);
        Ok(apply(&context, observed, |id| selection.contains(id)).await)
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
        let graph = self.graph();
        let lock = run.lock().await?;
        let observed = match observe(&graph, &self.timings).await {
            Ok(observed) => observed,
            Err(error) => return run.end(lock, Err(error)).await,
        };
        run.started(graph.nodes().len(), 0.0);
        let kept = if keep_data { kept(&graph) } else { BTreeSet::new() };
        let context = run.context(&graph, &lock);
        let applied = destroy(&context, observed, &kept).await;
        let whole = applied.failures.is_empty() && applied.held_back.is_empty() && !keep_data;
        let ended = run.end(lock, Ok(applied)).await;
        if whole && ended.is_ok() {
            self.state.remove().await?;
        }
        ended
    }

    /// Builds the project's service, or takes the image with this digest, and runs it as `tag`.
    pub async fn deploy(
        &self,
        tag: &str,
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
        let applied = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        run.shipped(lock, applied, shipped.map(|_| ())).await
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

impl Selection {
    /// Whether the resource's step is selected.
    pub fn contains(&self, id: &ResourceId) -> bool {
        let number = |name: &str| {
            STEPS
                .iter()
                .find(|(number, step, _)| *step == name || number.to_string() == name)
                .map(|(number, ..)| *number)
        };
        let Some(own) = number(id.step()) else { return false };
        let from = self.from.as_deref().and_then(number).unwrap_or(1);
        let until = self.until.as_deref().and_then(number).unwrap_or(10);
        (from..=until).contains(&own)
            && (self.steps.is_empty() || self.steps.iter().any(|step| number(step) == Some(own)))
    }
}

/// Two ways to a release.
enum Road<'a> {
    Deploy { tag: &'a str, image: Option<&'a str> },
    Rollback { to: Option<&'a str> },
}

/// One run of a command that changes something.
pub(crate) struct Run<'a> {
    session: &'a Session,
    command: &'a str,
    lock_wait: Duration,
    pub(crate) timings: Timings,
    pub(crate) events: &'a Events,
    pub(crate) interrupt: &'a Interrupt,
    start: Instant,
    since: Timestamp,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        session: &'a Session,
        command: &'a str,
        options: &Options,
        events: &'a Events,
        interrupt: &'a Interrupt,
    ) -> Self {
        let mut timings = session.timings.clone();
        timings.concurrency = options.parallelism.unwrap_or(timings.concurrency);
        Self {
            session,
            command,
            lock_wait: options.lock_wait,
            timings,
            events,
            interrupt,
            start: Instant::now(),
            since: Timestamp::now(),
        }
    }

    pub(crate) fn started(&self, resources: usize, estimated_seconds: f64) {
        self.events.emit(Event::RunStarted {
            command: self.command.to_owned(),
            env: self.session.environment.name.clone(),
            account: self.session.aws.account.clone(),
            region: self.session.aws.region.clone(),
            resources,
            estimated_seconds,
        });
    }

    pub(crate) async fn lock(&self) -> Result<Lock, RunError> {
        let state = &self.session.state;
        self.timings.repeat(|| state.ensure()).await?;
        let me = Holder {
            holder: me(),
            run: self.events.run().to_owned(),
            since: self.since.to_string(),
            last_beat: String::new(),
        };
        let lock = acquire(
            state.store(),
            state.key("lock.json"),
            me,
            self.lock_wait,
            &self.timings,
            self.events,
            self.interrupt,
        )
        .await?;
        if lock.after_unclean_end {
            self.events.note("the run before ended without a word; its lease has run out, going on from what is there");
            // What it made last may not be visible yet.
            pause(self.timings.lag).await;
        }
        Ok(lock)
    }

    pub(crate) fn context<'b>(&'b self, graph: &'b Graph, lock: &'b Lock) -> Context<'b> {
        Context {
            graph,
            timings: &self.timings,
            events: self.events,
            interrupt: self.interrupt,
            fence: lock.fence(),
        }
    }

    /// Releases the lock, whatever happened, and tells how it ended.
    pub(crate) async fn end(
        &self,
        lock: Lock,
        applied: Result<Applied, Error>,
    ) -> Result<Summary, RunError> {
        let record = self.record(&applied);
        let written =
            self.session.state.write(&format!("runs/{}.json", self.events.run()), record).await;
        let released = lock.release().await;
        let ended = self.finish(applied?);
        written?;
        released?;
        ended
    }

    /// Like [`Run::end`] for a deploy: what was applied before a failure was put right by it.
    async fn shipped(
        &self,
        lock: Lock,
        applied: Applied,
        shipped: Result<(), release::Error>,
    ) -> Result<Summary, RunError> {
        let Err(error) = shipped else { return self.end(lock, Ok(applied)).await };
        let failed = Error::fatal("bme:Deploy", "release-failed", error.to_string());
        let record = self.record(&Err(failed));
        let written =
            self.session.state.write(&format!("runs/{}.json", self.events.run()), record).await;
        let released = lock.release().await;
        for result in [written, released] {
            if let Err(error) = result {
                self.events.note(format!("the run's end could not be recorded: {error}"));
            }
        }
        let (outcome, error) = match error {
            release::Error::RolledBack { .. } => (Outcome::RolledBack, RunError::RolledBack(error)),
            release::Error::Interrupted { .. } => (Outcome::Interrupted, RunError::Interrupted),
            _ => (Outcome::Failed, RunError::Release(error)),
        };
        self.finished(outcome, &self.summary(&applied));
        Err(error)
    }

    fn record(&self, applied: &Result<Applied, Error>) -> Vec<u8> {
        let (counts, failures) = match applied {
            Ok(applied) => (
                serde_json::json!({
                    "created": applied.created, "updated": applied.updated, "replaced": applied.replaced,
                    "deleted": applied.deleted, "unchanged": applied.unchanged,
                }),
                applied
                    .failures
                    .iter()
                    .map(|failure| format!("{}: {}", failure.id, failure.error))
                    .collect(),
            ),
            Err(error) => (serde_json::Value::Null, vec![error.to_string()]),
        };
        serde_json::json!({
            "run": self.events.run(),
            "command": self.command,
            "holder": me(),
            "since": self.since.to_string(),
            "until": Timestamp::now().to_string(),
            "counts": counts,
            "failures": failures,
        })
        .to_string()
        .into_bytes()
    }

    pub(crate) fn finish(&self, applied: Applied) -> Result<Summary, RunError> {
        let summary = self.summary(&applied);
        let outcome = if applied.interrupted {
            Outcome::Interrupted
        } else if applied.failures.is_empty() && applied.held_back.is_empty() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        self.finished(outcome, &summary);
        match outcome {
            Outcome::Done | Outcome::RolledBack => Ok(summary),
            Outcome::Interrupted => Err(RunError::Interrupted),
            Outcome::Failed => Err(RunError::Failed {
                failures: applied.failures,
                held_back: applied.held_back.len(),
                summary,
            }),
        }
    }

    fn summary(&self, applied: &Applied) -> Summary {
        let calls = self.session.calls();
        Summary {
            created: applied.created,
            updated: applied.updated,
            replaced: applied.replaced,
            deleted: applied.deleted,
            unchanged: applied.unchanged,
            seconds: self.start.elapsed().as_secs_f64(),
            read: calls.read,
            mutating: calls.mutating,
        }
    }

    pub(crate) fn finished(&self, outcome: Outcome, summary: &Summary) {
        self.events.emit(Event::RunFinished {
            outcome,
            created: summary.created,
            updated: summary.updated,
            replaced: summary.replaced,
            deleted: summary.deleted,
            unchanged: summary.unchanged,
            seconds: summary.seconds,
            aws_calls: AwsCalls { read: summary.read, mutating: summary.mutating },
        });
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
fn sandbox_credentials(environment: &Environment) -> Option<SharedCredentialsProvider> {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return None;
    }
    let account = environment.aws.accounts.first()?;
    let credentials = Credentials::new(account, "sandbox", None, None, "sandbox");
    Some(SharedCredentialsProvider::new(credentials))
}

fn timings(environment: &Environment) -> Timings {
    let engine = &environment.engine;
    Timings {
        concurrency: engine.concurrency,
        poll: Duration::from_millis(engine.poll_milliseconds),
        first_look: f64::from(engine.first_look_percent) / 100.0,
        backoff: Duration::from_millis(engine.backoff_milliseconds),
        retry: Duration::from_secs(engine.retry_seconds),
        patience: engine.patience,
        lease: Duration::from_millis(engine.lease_milliseconds),
        beat: Duration::from_millis(engine.beat_milliseconds),
        lag: Duration::from_millis(engine.lag_milliseconds),
        rollout: Duration::from_secs(engine.rollout_seconds),
    }
}

fn me() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".into());
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".into());
    format!("{user}@{} (pid {})", host.trim(), std::process::id())
}
