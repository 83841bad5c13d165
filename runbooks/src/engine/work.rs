//! The work on one resource: look, compare, make, change, delete, and wait.

use std::time::Duration;

use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{
    Class, Condition, Error, Fault, Node,
    apply::Context,
    diff::{Difference, Field, diff},
    events::Event,
    gate::{Gate, Permit},
    graph::Seen,
    outputs::Known,
    pause,
    plan::{Action, find},
};

/// Rounds of look, compare and change before a resource that will not come right is given up.
const ROUNDS: usize = 6;

/// Longest time that something new, a role above all, takes to be seen by all of AWS (a role is
/// usable 5 to 15 s after its creation, by public logs).
const PROPAGATION: Duration = Duration::from_mins(1);

pub(super) const NOT_TAKEN: Fault = Fault {
    code: "not-taken",
    cause: "the change was accepted, but what is read back is still the old value: somebody or \
            something sets it back, or the service does not know the member",
    mend: "run `bme plan` to see the members that differ",
};

pub(super) const NO_END: Fault = Fault {
    code: "no-end",
    cause: "it was made or deleted again and again and is still not as it should be: mostly \
            somebody else works on it at the same time",
    mend: "look at it in the AWS console, then run the command again",
};

pub(super) const FAILED: Fault = Fault {
    code: "failed",
    cause: "the service says that it failed while it was being made",
    mend: "run the command again: it is deleted and made anew",
};

pub(super) const TOO_LATE: Fault = Fault {
    code: "timeout",
    cause: "it takes many times as long as usual (`engine.patience`, `engine.deletion_seconds`), or \
            a call had no answer within the time allowed",
    mend: "it may still be on its way: look at it in the AWS console, then run the command again",
};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Progress {
    Waiting,
    Usable,
    /// Usable, and made anew in this run: what was observed of its dependents no longer holds.
    Replaced,
    Blocked,
}

pub(super) enum Ended {
    Did(Action),
    Failed(Error),
    HeldBack,
    /// Not selected.
    Outside,
}

/// The work on one resource.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) node: &'a Node,
    pub(super) outputs: &'a super::Outputs,
    pub(super) gate: &'a Gate,
    pub(super) pole: Duration,
    pub(super) progress: &'a watch::Sender<Progress>,
    pub(super) start: Instant,
    pub(super) told: Option<Action>,
}

impl Work<'_> {
    /// A resource outside the selection serves those inside if it is there.
    pub(super) fn only_read(&self, seen: Option<Seen>) -> Ended {
        if let Some(seen) = seen
            && !matches!(seen.condition, Condition::Failed(_) | Condition::Deleting(_))
        {
            self.usable(seen.known());
        }
        Ended::Outside
    }

    pub(super) fn blocked(&self, selected: bool) -> Ended {
        if !selected {
            Ended::Outside
        } else if self.node.resource.deferred().is_some() {
            Ended::Did(Action::Deferred)
        } else {
            Ended::HeldBack
        }
    }

    pub(super) async fn run(mut self, mut seen: Option<Seen>, replaced: bool) -> Ended {
        if self.node.resource.deferred().is_some() {
            return Ended::Did(Action::Deferred);
        }
        if replaced {
            match self.find().await {
                Ok(found) => seen = found,
                Err(stop) => return self.stopped(stop),
            }
        }
        self.start = Instant::now();
        match self.converge(seen).await {
            Ok(()) => {
                if self.told.is_some() {
                    self.context.events.emit(Event::ResourceDone {
                        id: self.node.id.to_string(),
                        seconds: self.start.elapsed().as_secs_f64(),
                    });
                }
                Ended::Did(self.told.unwrap_or(Action::None))
            }
            Err(stop) => self.stopped(stop),
        }
    }

    fn stopped(&self, stop: Stop) -> Ended {
        let Stop::Failed(error) = stop else { return Ended::HeldBack };
        self.context.events.emit(Event::ResourceFailed {
            id: self.node.id.to_string(),
            operation: error.operation.clone(),
            code: error.code.clone(),
            request_id: error.request_id.clone(),
            message: error.message.clone(),
            hint: error.hint.clone(),
        });
        Ended::Failed(error)
    }

    async fn converge(&mut self, mut seen: Option<Seen>) -> Result<(), Stop> {
        let resource = &self.node.resource;
        for round in 0..ROUNDS {
            if self.context.interrupt.is_set() {
                return Err(Stop::Interrupted);
            }
            let Some(live) = seen else {
                self.tell(Action::Create);
                // What was there before has no say in what is made now.
                self.outputs.set(&self.node.id, Known::Absent);
                match self.create().await? {
                    Made::Ready(known) => {
                        self.usable(known);
                        return Ok(());
                    }
                    Made::Pending => {
                        seen = Some(self.until_there(false).await?);
                    }
                    Made::Found(found) => seen = Some(found),
                }
                continue;
            };
            match &live.condition {
                Condition::Deleting(_) => {
                    self.until_gone().await?;
                    seen = None;
                    continue;
                }
                Condition::Failed(why) => {
                    self.context
                        .events
                        .note(format!("{}: {why}; it is deleted and made again", self.node.id));
                    self.tell(Action::Replace);
                    self.delete(live).await?;
                    seen = None;
                    continue;
                }
                Condition::Pending(_) | Condition::Usable | Condition::Ready => {}
            }
            let desired = resource.desired(self.outputs);
            match diff(&desired, &live.properties, resource.immutable()) {
                Difference::Unchanged => return self.until_ready(live).await,
                Difference::Update(fields) => {
                    // A database refuses changes until it has been made.
                    let live = self.until_usable(live).await?;
                    if round + 1 == ROUNDS {
                        let paths: Vec<_> =
                            fields.iter().map(|field| field.path.as_str()).collect();
                        return Err(Stop::Failed(NOT_TAKEN.error(
                            "engine",
                            format!(
                                "{} was changed but does not keep {}",
                                self.node.id,
                                paths.join(", ")
                            ),
                        )));
                    }
                    self.tell(Action::Update);
                    self.change(|| resource.update(&live, &fields, self.outputs)).await?;
                    if round > 0 {
                        self.pause(self.context.timings.poll()).await?;
                    }
                    seen = self.until_changed(&desired, &fields).await?;
                }
                Difference::Replace(_, why)
                    if resource.holds_data() && !self.context.allow_data_loss =>
                {
                    let message = format!("{why}: replacing it would lose its data");
                    return Err(Stop::Failed(
                        Error::fatal("engine", "data-loss", message)
                            .with_hint("run `bme plan` to see why, then decide"),
                    ));
                }
                Difference::Replace(_, why) => {
                    self.context.events.note(format!("{}: {why}; it is replaced", self.node.id));
                    self.tell(Action::Replace);
                    self.delete(live).await?;
                    seen = None;
                }
            }
        }
        let what = format!("{} does not come to rest", self.node.id);
        Err(Stop::Failed(NO_END.error("engine", what)))
    }

    fn tell(&mut self, action: Action) {
        // A replacement goes on with a creation, which is not news.
        if self.told.is_none() {
            self.context.events.emit(Event::ResourceStarted {
                id: self.node.id.to_string(),
                step: self.node.id.step().to_owned(),
                action,
            });
            self.told = Some(action);
        } else if action == Action::Replace {
            self.told = Some(action);
        }
    }

    fn usable(&self, known: Known) {
        self.outputs.set(&self.node.id, known);
        let replaced = self.told == Some(Action::Replace);
        self.progress.send_replace(if replaced { Progress::Replaced } else { Progress::Usable });
    }

    async fn create(&self) -> Result<Made, Stop> {
        let timings = self.context.timings;
        // Without the time in which others had all the places, or their service was left alone.
        let mut spent = Duration::ZERO;
        let mut attempt = 0;
        loop {
            let (start, error) = {
                let _permit = self.permit().await?;
                let start = Instant::now();
                match self.node.resource.create(self.outputs).await {
                    Ok(Some(known)) => return Ok(Made::Ready(known)),
                    Ok(None) => return Ok(Made::Pending),
                    Err(error) => (start, error),
                }
            };
            match error.class {
                Class::AlreadyExists => {
                    return match self.within_the_lag().await? {
                        Some(seen) => Ok(Made::Found(seen)),
                        None => Err(Stop::Failed(error)),
                    };
                }
                // Carried out or not, nobody knows: wait out the read-after-write lag.
                Class::Unknown => {
                    if self.pause(timings.lag).await.is_err() {
                        // Interrupted, but with this in doubt: whoever ends the run has to know.
                        return Err(Stop::Failed(error));
                    }
                }
                // What it needs was usable a moment ago, so that it is not seen is read-after-write
                // lag too (a subnet that is not there for the next call).
                Class::Throttled
                | Class::Propagating
                | Class::InUse
                | Class::Conflict
                | Class::NotFound => {}
                Class::Unreachable | Class::Fatal => {
                    return Err(Stop::Failed(error));
                }
            }
            let bound = match error.class {
                Class::Propagating | Class::NotFound => timings.retry.min(PROPAGATION),
                _ => timings.retry,
            };
            if spent + start.elapsed() > bound {
                return Err(Stop::Failed(error));
            }
            let wait = timings.backoff(attempt);
            self.cool(&error, wait);
            self.pause(wait).await?;
            attempt += 1;
            // A creation of several calls may have failed after the first of them: never again
            // before looking, or what has neither name nor token is there twice.
            if let Some(seen) = self.find().await? {
                return Ok(Made::Found(seen));
            }
            spent += start.elapsed();
        }
    }

    /// Deletes until it is gone.
    pub(super) async fn delete(&self, mut seen: Seen) -> Result<(), Stop> {
        let deadline = Instant::now() + self.context.timings.deletion;
        let mut last = None;
        loop {
            if !matches!(seen.condition, Condition::Deleting(_)) {
                let result = {
                    let _permit = self.permit().await?;
                    self.node.resource.delete(&seen).await
                };
                match result {
                    Ok(()) => {}
                    Err(error) if error.class == Class::NotFound => {}
                    Err(error) if error.class == Class::Fatal || Instant::now() > deadline => {
                        return Err(Stop::Failed(error));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "calling again");
                        self.cool(&error, self.context.timings.poll());
                        self.state(&error.code);
                        last = Some(error);
                    }
                }
            }
            match self.find_left().await? {
                None => return Ok(()),
                Some(_) if Instant::now() > deadline => {
                    return Err(Stop::Failed(last.unwrap_or_else(|| self.too_late("deleted"))));
                }
                Some(live) => {
                    if let Condition::Deleting(state) = &live.condition {
                        self.state(state);
                    }
                    seen = live;
                    self.pause(self.context.timings.poll()).await?;
                }
            }
        }
    }

    /// Looks until it can be used. Whatever ends that before what was just made is `visible` is in doubt:
    /// whoever ends the run has to know, as whoever comes next may not see it either and must not make
    /// another one.
    async fn until_there(&self, mut visible: bool) -> Result<Seen, Stop> {
        let doubted = |stop: Stop, visible: bool| match stop {
            Stop::Failed(error) if !visible => {
                Stop::Failed(Error { class: Class::Unknown, ..error })
            }
            stop => stop,
        };
        let deadline = self.deadline();
        // Some are usable long before they are ready (a distribution is accepted within seconds), so
        // there is one early look before most of the typical time is slept away.
        let mut wait = self.node.resource.typical().mul_f64(self.context.timings.first_look);
        loop {
            match self.find().await.map_err(|stop| doubted(stop, visible))? {
                Some(seen) if !matches!(seen.condition, Condition::Pending(_)) => return Ok(seen),
                Some(seen) => {
                    visible = true;
                    if let Condition::Pending(state) = &seen.condition {
                        self.state(state);
                    }
                }
                // Not visible yet.
                None => {}
            }
            if Instant::now() > deadline {
                return Err(doubted(Stop::Failed(self.too_late("ready")), visible));
            }
            let paused = self.pause(wait.max(self.context.timings.poll())).await;
            if paused.is_err() && !visible {
                // An interrupt alone would tell nobody that this was made.
                return Err(doubted(Stop::Failed(self.too_late("seen")), visible));
            }
            paused?;
            wait = Duration::ZERO;
        }
    }

    async fn until_gone(&self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.context.timings.deletion;
        while self.find_left().await?.is_some() {
            if Instant::now() > deadline {
                return Err(Stop::Failed(self.too_late("gone")));
            }
            self.pause(self.context.timings.poll()).await?;
        }
        Ok(())
    }

    async fn until_usable(&self, seen: Seen) -> Result<Seen, Stop> {
        if matches!(seen.condition, Condition::Pending(_)) {
            self.until_there(true).await
        } else {
            Ok(seen)
        }
    }

    async fn until_ready(&mut self, seen: Seen) -> Result<(), Stop> {
        let mut seen = self.until_usable(seen).await?;
        if let Condition::Failed(why) = &seen.condition {
            let what = format!("{}: {why}", self.node.id);
            return Err(Stop::Failed(FAILED.error("engine", what)));
        }
        self.usable(seen.known());
        let deadline = self.deadline();
        loop {
            match &seen.condition {
                Condition::Ready => return Ok(()),
                Condition::Usable | Condition::Pending(_) => {}
                Condition::Failed(why) => {
                    let what = format!("{}: {why}", self.node.id);
                    return Err(Stop::Failed(FAILED.error("engine", what)));
                }
                Condition::Deleting(_) => return Err(Stop::Failed(self.too_late("there"))),
            }
            if Instant::now() > deadline {
                return Err(Stop::Failed(self.too_late("ready")));
            }
            self.pause(self.context.timings.poll()).await?;
            match self.find().await? {
                Some(next) => seen = next,
                None => return Err(Stop::Failed(self.too_late("there"))),
            }
        }
    }

    /// Looks until a change shows, or what was changed for as long as it may not be seen yet.
    async fn until_changed(&self, desired: &Value, fields: &[Field]) -> Result<Option<Seen>, Stop> {
        let deadline = Instant::now() + self.context.timings.lag;
        loop {
            let found = self.find().await?;
            let same = found.as_ref().is_some_and(|live| {
                diff(desired, &live.properties, &[]) == Difference::Update(fields.to_vec())
            });
            if !same || Instant::now() >= deadline {
                return Ok(found);
            }
            self.pause(self.context.timings.poll()).await?;
        }
    }

    /// Looks for what is said to be there, for as long as it may not be seen yet.
    async fn within_the_lag(&self) -> Result<Option<Seen>, Stop> {
        let deadline = Instant::now() + self.context.timings.lag;
        loop {
            let found = self.find().await?;
            if found.is_some() || Instant::now() >= deadline {
                return Ok(found);
            }
            self.pause(self.context.timings.poll()).await?;
        }
    }

    async fn find(&self) -> Result<Option<Seen>, Stop> {
        let (outputs, timings) = (self.outputs, self.context.timings);
        find(self.node, outputs, Instant::now(), timings).await.map_err(Stop::Failed)
    }

    /// Looks for what is to go: what a second read no longer finds is gone, though a list may have it
    /// for a while. Not for a creation in doubt, for which that would not be certain enough.
    async fn find_left(&self) -> Result<Option<Seen>, Stop> {
        match self.find().await {
            Err(Stop::Failed(error)) if error.class == Class::NotFound => Ok(None),
            found => found,
        }
    }

    /// Makes a change that may be repeated blindly, while its error is transient. Its place among the
    /// calls in flight is free between two tries: what is in the way may need it to go on.
    async fn change<F, Fut>(&self, call: F) -> Result<(), Stop>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let timings = self.context.timings;
        // Without the time in which others had all the places.
        let mut spent = Duration::ZERO;
        let mut attempt = 0;
        loop {
            let error = {
                let _permit = self.permit().await?;
                let start = Instant::now();
                let Err(error) = call().await else { return Ok(()) };
                spent += start.elapsed();
                error
            };
            let made = matches!(self.told, Some(Action::Create | Action::Replace));
            let bound = match error.class {
                // Made in this run, and seen, but not by everything at AWS yet.
                Class::NotFound if made => Some(timings.retry.min(PROPAGATION)),
                // Something takes no change while another one goes on, which can take as long as
                // its creation: a database that is backed up.
                Class::InUse | Class::Conflict => Some(timings.retry.max(self.patience())),
                class => timings.bound(class),
            };
            let wait = timings.backoff(attempt);
            if bound.is_none_or(|bound| spent + wait > bound) {
                return Err(Stop::Failed(error));
            }
            if matches!(error.class, Class::InUse | Class::Conflict) {
                self.state(&error.code);
            }
            tracing::debug!(%error, ?wait, "calling again");
            self.cool(&error, wait);
            self.pause(wait).await?;
            spent += wait;
            attempt += 1;
        }
    }

    /// A throttled call slows all others of its service.
    fn cool(&self, error: &Error, pause: Duration) {
        if error.class == Class::Throttled {
            self.gate.cool(service(&error.operation), pause);
        }
    }

    /// The right to make a mutating call now: no service that wants to be left alone, a free place, no
    /// interrupt, and the lock still ours.
    async fn permit(&self) -> Result<Permit, Stop> {
        let permissions = self.node.permissions();
        let actions = permissions.iter().flat_map(|permission| &permission.actions);
        let services: Vec<&str> = actions.map(|action| service(action)).collect();
        let permit = loop {
            while let Some(left) = self.gate.cooling(&services) {
                self.pause(left).await?;
            }
            let permit = self.gate.enter(self.pole).await;
            // Another call may have been throttled while this one waited for its place.
            if self.gate.cooling(&services).is_none() {
                break permit;
            }
        };
        if self.context.interrupt.is_set() {
            return Err(Stop::Interrupted);
        }
        self.context.fence.check().map_err(Stop::Failed)?;
        Ok(permit)
    }

    async fn pause(&self, duration: Duration) -> Result<(), Stop> {
        let mut interrupt = self.context.interrupt.clone();
        tokio::select! {
            () = pause(duration) => Ok(()),
            () = interrupt.set() => Err(Stop::Interrupted),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    /// How long something of this kind is waited for.
    fn patience(&self) -> Duration {
        let typical = self.node.resource.typical().max(Duration::from_secs(15));
        typical * self.context.timings.patience
    }

    fn state(&self, state: &str) {
        self.context.events.emit(Event::ResourceProgress {
            id: self.node.id.to_string(),
            state: state.to_owned(),
        });
    }

    fn too_late(&self, what: &str) -> Error {
        TOO_LATE.error(
            "engine",
            format!("{} was not {what} after {} s", self.node.id, self.start.elapsed().as_secs()),
        )
    }
}

/// The service of an operation as IAM writes it.
fn service(operation: &str) -> &str {
    operation.split_once(':').map_or(operation, |(service, _)| service)
}

enum Made {
    Ready(Known),
    Pending,
    Found(Seen),
}

pub(super) enum Stop {
    Interrupted,
    Failed(Error),
}

impl<'a> Work<'a> {
    pub(super) fn for_deletion(
        context: &'a Context<'a>,
        node: &'a Node,
        shared: &'a Shared,
    ) -> Self {
        Self {
            context,
            node,
            outputs: &shared.outputs,
            gate: &shared.gate,
            pole: Duration::ZERO,
            progress: &shared.progress,
            start: Instant::now(),
            told: None,
        }
    }
}

/// What the deletions of one run have in common.
pub(super) struct Shared {
    outputs: super::Outputs,
    gate: Gate,
    progress: watch::Sender<Progress>,
}

impl Shared {
    pub(super) fn new(outputs: super::Outputs, concurrency: usize) -> Self {
        Self {
            outputs,
            gate: Gate::new(concurrency),
            progress: watch::Sender::new(Progress::Waiting),
        }
    }
}
