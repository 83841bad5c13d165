//! The graph of resources, in an order in which every need comes before what needs it.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    outputs::Known,
};

/// All resources of an environment. A need has to be added before what needs it, so the graph has
/// no cycle and is always in order.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<ResourceId, usize>,
}

/// One resource in the graph.
pub struct Node {
    /// Its id.
    pub id: ResourceId,
    /// The positions of its needs.
    pub needs: Vec<usize>,
    /// The positions of those that need it.
    pub dependents: Vec<usize>,
    pub(super) resource: Box<dyn Erased>,
}

impl Node {
    /// Median time from create to ready.
    pub fn typical(&self) -> Duration {
        self.resource.typical()
    }

    /// What it should be, with placeholders for what is not known.
    pub fn desired(&self, outputs: &Outputs) -> Value {
        self.resource.desired(outputs)
    }

    /// Members that can't be changed in place, each with the reason.
    pub fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        self.resource.immutable()
    }

    /// Why it can't be made yet although its needs are there.
    pub fn deferred(&self) -> Option<String> {
        self.resource.deferred()
    }

    /// Deleting it loses data that nobody can bring back.
    pub fn holds_data(&self) -> bool {
        self.resource.holds_data()
    }

    /// US dollars a month with these members; what depends on use is not in it. `None` when no price
    /// is known.
    pub fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        self.resource.monthly_cost(properties)
    }

    /// What it asks to be allowed.
    pub fn permissions(&self) -> Vec<Permission> {
        self.resource.permissions()
    }
}

impl Graph {
    /// Adds a resource.
    ///
    /// # Panics
    /// When its id is taken or a need is not in the graph: both are mistakes in a step.
    pub fn add<R: Resource>(&mut self, resource: R) -> Handle<R> {
        let id = resource.id();
        let position = self.nodes.len();
        let mut needs: Vec<usize> = resource
            .needs()
            .iter()
            .map(|need| {
                *self
                    .index
                    .get(need)
                    .unwrap_or_else(|| panic!("{id} needs {need}, which comes later"))
            })
            .collect();
        needs.sort_unstable();
        needs.dedup();
        assert!(self.index.insert(id.clone(), position).is_none(), "two resources are called {id}");
        for need in &needs {
            self.nodes[*need].dependents.push(position);
        }
        self.nodes.push(Node {
            id: id.clone(),
            needs,
            dependents: Vec::new(),
            resource: Box::new(Typed(resource)),
        });
        Handle::new(id)
    }

    /// The resources, each after its needs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether there is a resource of this id.
    pub fn contains(&self, id: &ResourceId) -> bool {
        self.index.contains_key(id)
    }

    /// Empty outputs for one run over this graph.
    pub fn outputs(&self) -> Outputs {
        Outputs::new(self.nodes.iter().map(|node| node.id.clone()))
    }

    /// What a resource should be, with placeholders for what is not known.
    #[cfg(test)]
    pub(crate) fn desired(&self, id: &ResourceId) -> Value {
        self.nodes[self.index[id]].resource.desired(&self.outputs())
    }

    /// The resources that can't be made yet, and those that need them.
    pub fn deferred(&self) -> HashSet<ResourceId> {
        let mut deferred = HashSet::new();
        for node in &self.nodes {
            let waits = node.needs.iter().any(|need| deferred.contains(&self.nodes[*need].id));
            if waits || node.resource.deferred().is_some() {
                deferred.insert(node.id.clone());
            }
        }
        deferred
    }

    /// For each resource the time from the start of its creation to the end of everything that
    /// waits for it, by typical times: what is longest goes first.
    pub fn poles(&self) -> Vec<Duration> {
        let mut poles = vec![Duration::ZERO; self.nodes.len()];
        for (position, node) in self.nodes.iter().enumerate().rev() {
            let after = node.dependents.iter().map(|dependent| poles[*dependent]).max();
            poles[position] = node.resource.typical() + after.unwrap_or_default();
        }
        poles
    }
}

/// What was found of one resource, its output's type erased.
#[derive(Clone)]
pub struct Seen {
    output: Arc<dyn Any + Send + Sync>,
    /// The live members.
    pub properties: Value,
    /// How far it is.
    pub condition: Condition,
}

impl Seen {
    /// What is listed, but is not there when it is asked for more: it is on its way out. Nothing is
    /// known of it, and nothing but waiting for its end is done with it.
    pub(super) fn vanishing() -> Self {
        Self {
            output: Arc::new(()),
            properties: Value::Null,
            condition: Condition::Deleting("vanishing".into()),
        }
    }

    pub(super) fn known(&self) -> Known {
        Known::Output(Arc::clone(&self.output))
    }
}

/// [`Resource`] without its associated type.
#[async_trait]
pub(super) trait Erased: Send + Sync {
    async fn find(&self, outputs: &Outputs, since: Instant) -> Result<Option<Seen>, Error>;
    fn desired(&self, outputs: &Outputs) -> Value;
    fn immutable(&self) -> &'static [(&'static str, &'static str)];
    async fn create(&self, outputs: &Outputs) -> Result<Option<Known>, Error>;
    async fn update(&self, seen: &Seen, fields: &[Field], outputs: &Outputs) -> Result<(), Error>;
    async fn delete(&self, seen: &Seen) -> Result<(), Error>;
    fn permissions(&self) -> Vec<Permission>;
    fn typical(&self) -> Duration;
    fn holds_data(&self) -> bool;
    fn interrupts(&self, path: &str) -> bool;
    fn monthly_cost(&self, properties: &Value) -> Option<f64>;
    fn deferred(&self) -> Option<String>;
}

struct Typed<R>(R);

impl<R: Resource> Typed<R> {
    fn live(seen: &Seen) -> Live<R::Output> {
        Live {
            output: seen
                .output
                .downcast_ref::<R::Output>()
                .expect("a node only sees what its own find has answered")
                .clone(),
            properties: seen.properties.clone(),
            condition: seen.condition.clone(),
        }
    }
}

#[async_trait]
impl<R: Resource> Erased for Typed<R> {
    async fn find(&self, outputs: &Outputs, since: Instant) -> Result<Option<Seen>, Error> {
        let live = self.0.find(outputs, since).await?;
        Ok(live.map(|live| Seen {
            output: Arc::new(live.output),
            properties: live.properties,
            condition: live.condition,
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        self.0.desired(outputs)
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        self.0.immutable()
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<Known>, Error> {
        let output = self.0.create(outputs).await?;
        Ok(output.map(|output| Known::Output(Arc::new(output))))
    }

    async fn update(&self, seen: &Seen, fields: &[Field], outputs: &Outputs) -> Result<(), Error> {
        self.0.update(&Self::live(seen), fields, outputs).await
    }

    async fn delete(&self, seen: &Seen) -> Result<(), Error> {
        self.0.delete(&Self::live(seen)).await
    }

    fn permissions(&self) -> Vec<Permission> {
        self.0.permissions()
    }

    fn typical(&self) -> Duration {
        self.0.typical()
    }

    fn holds_data(&self) -> bool {
        self.0.holds_data()
    }

    fn interrupts(&self, path: &str) -> bool {
        self.0.interrupts(path)
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        self.0.monthly_cost(properties)
    }

    fn deferred(&self) -> Option<String> {
        self.0.deferred()
    }
}
