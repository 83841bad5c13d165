//! What a run tells while it works. Renderers subscribe; the engine never prints.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::plan::Action;

/// One event with its time (RFC 3339) and its run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stamped {
    /// When.
    pub ts: String,
    /// Which run.
    pub run: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Stamped {
    /// The event as one line of JSON, with its line end.
    pub fn line(&self) -> String {
        let mut line =
            serde_json::to_string(self).expect("texts and numbers can be written as JSON");
        line.push('\n');
        line
    }
}

/// What happened.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// `provision`, `deploy`, `rollback` or `destroy`.
        command: String,
        /// The environment.
        env: String,
        /// The account.
        account: String,
        /// The region.
        region: String,
        /// Resources in the graph.
        resources: usize,
        /// Seconds that the run will take, by typical times.
        estimated_seconds: f64,
    },
    /// Another run holds the lock.
    LockWaiting {
        /// Who.
        holder: String,
        /// Since when.
        since: String,
        /// Its last sign of life.
        last_beat: String,
    },
    /// Work on a resource begins.
    ResourceStarted {
        /// Which.
        id: String,
        /// Its step.
        step: String,
        /// What is done.
        action: Action,
    },
    /// A resource on its way says how far it is, in the service's word.
    ResourceProgress {
        /// Which.
        id: String,
        /// The service's word.
        state: String,
    },
    /// A resource is as it should be.
    ResourceDone {
        /// Which.
        id: String,
        /// Since its start.
        seconds: f64,
    },
    /// A resource failed; independent ones go on.
    ResourceFailed {
        /// Which.
        id: String,
        /// The operation as IAM writes it.
        operation: String,
        /// The error code.
        code: String,
        /// The service's request id.
        request_id: Option<String>,
        /// Its own words.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Something else worth a line, for instance what a build says.
    Note {
        /// The line.
        message: String,
    },
    /// The run ends.
    RunFinished {
        /// How.
        outcome: Outcome,
        /// Resources made.
        created: usize,
        /// Resources changed in place.
        updated: usize,
        /// Resources made anew.
        replaced: usize,
        /// Resources deleted.
        deleted: usize,
        /// Resources that were right.
        unchanged: usize,
        /// The whole run.
        seconds: f64,
        /// Calls to AWS.
        aws_calls: AwsCalls,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is as it should be.
    Done,
    /// Something failed; run it again.
    Failed,
    /// A deploy failed and the previous release runs again.
    RolledBack,
    /// Ctrl-C.
    Interrupted,
}

/// Calls of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AwsCalls {
    /// Calls that only read.
    pub read: u64,
    /// Calls that may change something.
    pub mutating: u64,
}

/// The JSON schema of one line of `--output json`; checked in as `docs/events.schema.json`.
pub fn schema_json() -> String {
    let schema = schemars::schema_for!(Stamped);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema can be written");
    text.push('\n');
    text
}

/// Where a run's events go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    run: String,
    sender: mpsc::UnboundedSender<Stamped>,
    lines: Arc<Mutex<String>>,
}

/// The id of a run: sorts by time in the bucket, and tells apart two runs of one moment, also those of
/// two containers in which every process has the same number. Who holds the lock is known by it.
pub fn new_run() -> String {
    let moment = Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
    format!("{moment}-{}", &Uuid::new_v4().simple().to_string()[..8])
}

impl Events {
    /// A sender for `run` and what it sends to.
    pub fn channel(run: String) -> (Self, mpsc::UnboundedReceiver<Stamped>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { run, sender, lines: Arc::default() }, receiver)
    }

    /// The run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Tells it. Nobody listening is not the run's concern.
    pub fn emit(&self, event: Event) {
        let stamped = self.stamp(event);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push_str(&stamped.line());
        let _ = self.sender.send(stamped);
    }

    /// The record of the run: everything told so far, and how it will end, as JSON lines.
    pub fn record(&self, end: &Event) -> String {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.push_str(&self.stamp(end.clone()).line());
        lines
    }

    fn stamp(&self, event: Event) -> Stamped {
        Stamped { ts: Timestamp::now().to_string(), run: self.run.clone(), event }
    }

    /// Tells a line.
    pub fn note(&self, message: impl Into<String>) {
        self.emit(Event::Note { message: message.into() });
    }
}
