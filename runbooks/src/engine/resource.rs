//! A resource: the unit of everything.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use super::{Error, Outputs, Permission, diff::Field};

/// `step/name`, for instance `cache/replication-group`; also the value of the tag `bme:resource`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(Arc<str>);

impl ResourceId {
    /// The id `step/name`.
    pub fn new(step: &str, name: &str) -> Self {
        Self(format!("{step}/{name}").into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    pub fn step(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(step, _)| step)
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ResourceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A reference to a resource that is in the graph already, and through it to what that resource
/// puts out. Only [`Graph::add`](super::Graph::add) makes one, so a need that is missing from the
/// graph does not compile.
pub struct Handle<R> {
    id: ResourceId,
    of: PhantomData<fn() -> R>,
}

impl<R> Handle<R> {
    pub(super) fn new(id: ResourceId) -> Self {
        Self { id, of: PhantomData }
    }

    /// The id of the resource.
    pub fn id(&self) -> ResourceId {
        self.id.clone()
    }
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self::new(self.id.clone())
    }
}

/// How far a live resource is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Done; nothing more will happen by itself.
    Ready,
    /// Dependents may go on, though something still happens (a database that is `backing-up`).
    Usable,
    /// On its way; holds the service's word for it.
    Pending(String),
    /// On its way out; holds the service's word for it.
    Deleting(String),
    /// Its creation failed and it holds nothing: it is deleted and made again. Holds the reason.
    Failed(String),
}

/// A resource as the cloud has it now.
#[derive(Debug, Clone)]
pub struct Live<O> {
    /// What dependents read.
    pub output: O,
    /// The same members as [`Resource::desired`] gives, as the cloud has them.
    pub properties: Value,
    /// How far it is.
    pub condition: Condition,
}

/// One thing in the cloud: found by a name or tag, compared member by member, made, changed,
/// deleted. Each method is one intention and safe to repeat.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// What dependents read of it: ids, ARNs, endpoints. Never a secret.
    type Output: Clone + Send + Sync + 'static;

    /// Its id.
    fn id(&self) -> ResourceId;

    /// The ids of what must be usable before it is made; of every handle that it holds.
    fn needs(&self) -> Vec<ResourceId> {
        Vec::new()
    }

    /// Looks for it, in answers fetched at or after `since`.
    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<Self::Output>>, Error>;

    /// What it should be: a JSON object of members, in AWS's words. Pure; a value that is not known
    /// before a need exists comes from [`Outputs::show`].
    fn desired(&self, outputs: &Outputs) -> Value;

    /// Members that can't be changed in place, each with the reason.
    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Makes it. `Some` when it is ready at once, `None` when it has to be polled.
    ///
    /// What neither a name nor a token makes safe to repeat is made by one call alone, and answered
    /// with `None`: it is seen before anything else is done, so that whatever fails next can't lead to
    /// a second one.
    async fn create(&self, outputs: &Outputs) -> Result<Option<Self::Output>, Error>;

    /// Changes the given members in place.
    async fn update(
        &self,
        live: &Live<Self::Output>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error>;

    /// Deletes it, or takes the next step towards that; called again until it is gone.
    async fn delete(&self, live: &Live<Self::Output>) -> Result<(), Error>;

    /// What finding, making, changing and deleting it calls, and what those calls call in the name of
    /// whoever makes them. Pure. It has no default: what asks for nothing can't be made.
    fn permissions(&self) -> Vec<Permission>;

    /// Median time from create to ready: orders the work, and tells how long it will take.
    fn typical(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Deleting it loses data that nobody can bring back.
    fn holds_data(&self) -> bool {
        false
    }

    /// Changing this member in place interrupts service.
    fn interrupts(&self, _path: &str) -> bool {
        false
    }

    /// What it costs with these members, live or desired, US dollars a month; what depends on use is
    /// not in it. `None` when no price is known. Pure.
    fn monthly_cost(&self, _properties: &Value) -> Option<f64> {
        Some(0.0)
    }

    /// Why it can't be made yet although its needs are there.
    fn deferred(&self) -> Option<String> {
        None
    }
}
