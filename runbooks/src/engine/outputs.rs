//! What resources put out for others, as far as it is known.

use std::{any::Any, collections::HashMap, sync::Arc};

use serde_json::Value;
use tokio::sync::watch;

use super::{Error, Fault, Handle, Resource, ResourceId};

pub(super) const NEED_MISSING: Fault = Fault {
    code: "need-missing",
    cause: "what it is made from is not there: it was left out by `--step`, or somebody has deleted \
            it while the run went on",
    mend: "run `bme provision` for all steps",
};

/// How a value begins that is not known before a need exists.
const UNKNOWN: &str = "(known after ";

/// Whether a wanted value has a part that is not known yet.
pub(super) fn is_unknown(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(UNKNOWN),
        Value::Array(values) => values.iter().any(is_unknown),
        Value::Object(members) => members.values().any(is_unknown),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What is known of one resource.
#[derive(Clone)]
pub(super) enum Known {
    /// Nobody has looked yet.
    Unseen,
    /// Looked, and it is not there.
    Absent,
    /// It is there.
    Output(Arc<dyn Any + Send + Sync>),
}

/// The outputs of all resources of one run. Cheap to clone.
#[derive(Clone)]
pub struct Outputs(Arc<HashMap<ResourceId, watch::Sender<Known>>>);

impl Outputs {
    pub(super) fn new(ids: impl Iterator<Item = ResourceId>) -> Self {
        Self(Arc::new(ids.map(|id| (id, watch::Sender::new(Known::Unseen))).collect()))
    }

    pub(super) fn set(&self, id: &ResourceId, known: Known) {
        if let Some(sender) = self.0.get(id) {
            sender.send_replace(known);
        }
    }

    /// Takes over what `others` know of the resources that both have.
    pub(super) fn take_over(&self, others: &Self) {
        for (id, sender) in others.0.iter() {
            self.set(id, sender.borrow().clone());
        }
    }

    fn known<R: Resource>(&self, handle: &Handle<R>) -> Option<R::Output> {
        let sender = self.0.get(&handle.id())?;
        match &*sender.borrow() {
            Known::Output(output) => output.downcast_ref::<R::Output>().cloned(),
            Known::Unseen | Known::Absent => None,
        }
    }

    /// What the resource puts out; an error when it does not exist, which the graph's order
    /// prevents while something is made.
    pub fn get<R: Resource>(&self, handle: &Handle<R>) -> Result<R::Output, Error> {
        self.known(handle)
            .ok_or_else(|| NEED_MISSING.error("engine", format!("{} does not exist", handle.id())))
    }

    /// What `resource` itself puts out, as far as it was seen: for what it is wanted to be can depend on
    /// what it has become.
    pub fn own<R: Resource>(&self, resource: &R) -> Option<R::Output> {
        self.known(&Handle::<R>::new(resource.id()))
    }

    /// A member of what the resource puts out, or a placeholder for the plan.
    pub fn show<R: Resource, T: Into<Value>>(
        &self,
        handle: &Handle<R>,
        member: impl FnOnce(&R::Output) -> T,
    ) -> Value {
        match self.known(handle) {
            Some(output) => member(&output).into(),
            None => Value::String(format!("{UNKNOWN}{})", handle.id())),
        }
    }

    /// Like [`Outputs::get`] while the observation still runs: waits until somebody has looked.
    pub async fn when_observed<R: Resource>(&self, handle: &Handle<R>) -> Option<R::Output> {
        let mut receiver = self.0.get(&handle.id())?.subscribe();
        receiver.wait_for(|known| !matches!(known, Known::Unseen)).await.ok()?;
        self.known(handle)
    }
}
