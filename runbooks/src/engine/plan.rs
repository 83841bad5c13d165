//! The plan: everything is observed in parallel, then compared by a pure function.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Class, Condition, Error, Graph, Node, Outputs, ResourceId, Timings,
    diff::{Difference, Field, diff},
    graph::Seen,
    outputs::Known,
    pause,
};

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is deleted and made anew.
    Replace,
    /// It is deleted.
    Delete,
    /// It is right.
    None,
    /// It can't be made yet.
    Deferred,
}

/// What a change may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Nothing.
    Safe,
    /// Behaviour changes.
    Change,
    /// Service is interrupted.
    Downtime,
    /// Data is lost for good.
    DataLoss,
}

/// One resource in the plan.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which.
    pub id: ResourceId,
    /// Its step.
    pub step: String,
    /// What is done.
    pub action: Action,
    /// What that may break.
    pub risk: Risk,
    /// The members that differ.
    pub fields: Vec<Field>,
    /// What it costs as it is now, US dollars a month; nothing when it is not there, null when no
    /// price is known.
    pub monthly_cost_before: Option<f64>,
    /// What it costs when that is done, US dollars a month; null when no price is known.
    pub monthly_cost: Option<f64>,
    /// Why it is replaced or deferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It is there and finished.
    #[serde(skip)]
    pub ready: bool,
    /// It is there.
    #[serde(skip)]
    pub exists: bool,
}

/// The plan of a whole graph.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every resource, in the order of the graph.
    pub changes: Vec<Change>,
    /// Seconds along the critical path of what has to be done.
    pub estimated_seconds: f64,
}

impl Plan {
    /// Only what is `selected` of the plan of `graph`, and the time that it takes alone.
    #[must_use]
    pub fn narrowed(mut self, graph: &Graph, selected: impl Fn(&ResourceId) -> bool) -> Self {
        self.estimated_seconds = critical_path(graph, &self.changes, &selected).as_secs_f64();
        self.changes.retain(|change| selected(&change.id));
        self
    }

    /// Number of resources with this action.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }

    /// What loses data for good when this is applied.
    pub fn losing_data(&self) -> Vec<ResourceId> {
        let losing = self.changes.iter().filter(|change| change.risk == Risk::DataLoss);
        losing.map(|change| change.id.clone()).collect()
    }

    /// What everything in it costs now, US dollars a month, as far as prices are known.
    pub fn monthly_cost_before(&self) -> f64 {
        self.changes.iter().filter_map(|change| change.monthly_cost_before).sum()
    }

    /// What everything in it costs when it is done, US dollars a month, as far as prices are known.
    pub fn monthly_cost(&self) -> f64 {
        self.changes.iter().filter_map(|change| change.monthly_cost).sum()
    }

    /// Whose price, now or then, is not known and hence in no sum.
    pub fn unpriced(&self) -> Vec<&ResourceId> {
        let unknown = |change: &&Change| {
            change.monthly_cost.is_none() || change.monthly_cost_before.is_none()
        };
        self.changes.iter().filter(unknown).map(|change| &change.id).collect()
    }

    /// Whether anything has to be done.
    pub fn has_changes(&self) -> bool {
        self.changes.iter().any(|change| {
            !matches!(change.action, Action::None | Action::Deferred)
                || (change.action == Action::None && !change.ready)
        })
    }
}

/// Everything that was looked at, once.
pub struct Observed {
    /// What resources put out.
    pub outputs: Outputs,
    /// What was found, by position in the graph.
    pub seen: Vec<Option<Seen>>,
    /// When it was begun; answers are not older.
    pub since: Instant,
}

/// What could be looked at, and what could not.
pub struct Looked {
    /// What was found; what could not be looked at counts as not there.
    pub observed: Observed,
    /// The looks that failed for good.
    pub failed: Vec<(ResourceId, Error)>,
}

/// Looks at every resource, all at once. Those that must know another's id to be found wait for it.
pub async fn look_at_all(graph: &Graph, timings: &Timings) -> Looked {
    look_at(graph, &HashSet::new(), timings).await
}

/// Looks at every resource but those that are left out, all at once.
async fn look_at(graph: &Graph, left_out: &HashSet<ResourceId>, timings: &Timings) -> Looked {
    let outputs = graph.outputs();
    let since = Instant::now();
    let looks = graph.nodes().iter().map(|node| async {
        if left_out.contains(&node.id) {
            // Nobody may wait for it.
            outputs.set(&node.id, Known::Absent);
            return Ok(None);
        }
        look(node, &outputs, since, timings).await
    });
    let found = join_all(looks).await;
    let mut failed = Vec::new();
    let mut seen = Vec::with_capacity(found.len());
    for (node, found) in graph.nodes().iter().zip(found) {
        seen.push(found.unwrap_or_else(|error| {
            failed.push((node.id.clone(), error));
            None
        }));
    }
    Looked { observed: Observed { outputs, seen, since }, failed }
}

/// Looks at every resource, all of which can be looked at.
///
/// # Errors
/// The first call that failed for good.
pub async fn observe(graph: &Graph, timings: &Timings) -> Result<Observed, Error> {
    whole(look_at_all(graph, timings).await)
}

/// Looks at every resource that can be made. What waits for the first release is left as it is by a
/// run, so it is not looked at for one.
///
/// # Errors
/// The first call that failed for good.
pub async fn observe_to_apply(graph: &Graph, timings: &Timings) -> Result<Observed, Error> {
    whole(look_at(graph, &graph.deferred(), timings).await)
}

fn whole(Looked { observed, failed }: Looked) -> Result<Observed, Error> {
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(observed),
    }
}

/// Looks at one resource and tells those who wait for what it puts out.
pub(super) async fn look(
    node: &Node,
    outputs: &Outputs,
    since: Instant,
    timings: &Timings,
) -> Result<Option<Seen>, Error> {
    let found = find(node, outputs, since, timings).await;
    outputs.set(
        &node.id,
        match &found {
            Ok(Some(seen)) => seen.known(),
            Ok(None) | Err(_) => Known::Absent,
        },
    );
    found
}

/// Looks for one resource. A list that has it and a second read that does not are looked at again until
/// the read-after-write lag is over: it is too new for the one, or on its way out and still in the other.
///
/// # Errors
/// [`Class::NotFound`] when they still disagree then: for what is to go that is its end, but nothing is
/// made in its place. Else what the looks end with.
pub(super) async fn find(
    node: &Node,
    outputs: &Outputs,
    since: Instant,
    timings: &Timings,
) -> Result<Option<Seen>, Error> {
    let deadline = Instant::now() + timings.lag;
    let mut since = since;
    loop {
        let found = timings.repeat(|| node.resource.find(outputs, since)).await;
        match &found {
            Err(error) if error.class == Class::NotFound && Instant::now() < deadline => {
                tracing::debug!(%error, "looking again");
                pause(timings.poll()).await;
                since = Instant::now();
            }
            _ => return found,
        }
    }
}

/// Compares what was observed with what is wanted.
pub fn plan(graph: &Graph, observed: &Observed) -> Plan {
    let mut changes: Vec<Change> = Vec::with_capacity(graph.nodes().len());
    for (position, node) in graph.nodes().iter().enumerate() {
        let waits = node.needs.iter().find(|need| changes[**need].action == Action::Deferred);
        let deferred =
            node.resource.deferred().or_else(|| waits.and_then(|need| changes[*need].why.clone()));
        changes.push(change(node, observed.seen[position].as_ref(), &observed.outputs, deferred));
    }
    Plan { estimated_seconds: critical_path(graph, &changes, |_| true).as_secs_f64(), changes }
}

fn change(node: &Node, seen: Option<&Seen>, outputs: &Outputs, deferred: Option<String>) -> Change {
    let desired = node.resource.desired(outputs);
    let mut change = Change {
        id: node.id.clone(),
        step: node.id.step().to_owned(),
        action: Action::None,
        risk: Risk::Safe,
        fields: Vec::new(),
        monthly_cost_before: seen.map_or(Some(0.0), |seen| cost_of(node, seen)),
        monthly_cost: node.resource.monthly_cost(&desired),
        why: None,
        ready: false,
        exists: seen.is_some(),
    };
    if deferred.is_some() {
        change.action = Action::Deferred;
        change.why = deferred;
        return change;
    }
    let Some(seen) = seen else {
        change.action = Action::Create;
        return change;
    };
    match &seen.condition {
        Condition::Failed(why) => {
            change.action = Action::Replace;
            change.why = Some(why.clone());
            return change;
        }
        Condition::Deleting(state) => {
            change.action = Action::Create;
            change.why = Some(format!("the one there is {state}"));
            return change;
        }
        Condition::Ready | Condition::Usable | Condition::Pending(_) => {}
    }
    match diff(&desired, &seen.properties, node.resource.immutable()) {
        Difference::Unchanged => change.ready = !matches!(seen.condition, Condition::Pending(_)),
        Difference::Update(fields) => {
            change.action = Action::Update;
            change.risk = if fields.iter().any(|field| node.resource.interrupts(&field.path)) {
                Risk::Downtime
            } else if fields.iter().all(|field| field.path.starts_with("tags")) {
                Risk::Safe
            } else {
                Risk::Change
            };
            change.fields = fields;
        }
        Difference::Replace(fields, why) => {
            change.action = Action::Replace;
            change.risk = if node.resource.holds_data() { Risk::DataLoss } else { Risk::Downtime };
            change.fields = fields;
            change.why = Some(why.to_owned());
        }
    }
    change
}

/// What something live costs. What never came to be, or is on its way out, is not paid for.
pub(super) fn cost_of(node: &Node, seen: &Seen) -> Option<f64> {
    match seen.condition {
        Condition::Failed(_) | Condition::Deleting(_) => Some(0.0),
        Condition::Ready | Condition::Usable | Condition::Pending(_) => {
            node.resource.monthly_cost(&seen.properties)
        }
    }
}

/// What is not `selected` is left as it is, and takes no time.
fn critical_path(
    graph: &Graph,
    changes: &[Change],
    selected: impl Fn(&ResourceId) -> bool,
) -> Duration {
    let mut ends = vec![Duration::ZERO; changes.len()];
    for (position, node) in graph.nodes().iter().enumerate() {
        let start = node.needs.iter().map(|need| ends[*need]).max().unwrap_or_default();
        let own = match changes[position].action {
            Action::Create | Action::Replace | Action::Update if selected(&node.id) => {
                node.resource.typical()
            }
            _ => Duration::ZERO,
        };
        ends[position] = start + own;
    }
    ends.into_iter().max().unwrap_or_default()
}
