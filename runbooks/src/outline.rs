//! An environment on paper: everything that its file asks for, without a call to AWS.

use serde::Serialize;

use crate::{
    aws::Aws,
    engine::{Graph, ResourceId},
    environment::Environment,
    steps::{self, Stack},
};

/// One resource on paper.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Which.
    pub id: ResourceId,
    /// What has to be usable before it is made.
    pub needs: Vec<ResourceId>,
    /// Median time from create to ready, seconds.
    pub typical_seconds: f64,
    /// US dollars a month; what depends on use is not in it. Null when no price is known.
    pub monthly_cost: Option<f64>,
}

/// Every resource of the environment, each after its needs; those that wait for the first release
/// are among them.
pub fn outline(environment: &Environment) -> Vec<Planned> {
    let graph = graph(environment);
    let outputs = graph.outputs();
    let nodes = graph.nodes();
    let planned = nodes.iter().map(|node| Planned {
        id: node.id.clone(),
        needs: node.needs.iter().map(|need| nodes[*need].id.clone()).collect(),
        typical_seconds: node.typical().as_secs_f64(),
        monthly_cost: node.monthly_cost(&node.desired(&outputs)),
    });
    planned.collect()
}

/// The graph of the environment, whose clients nobody may call.
pub(crate) fn graph(environment: &Environment) -> Graph {
    steps::graph(&on_paper(environment))
}

/// The stack of an environment whose account and region are those of its file.
pub(crate) fn on_paper(environment: &Environment) -> Stack {
    let account = environment.aws.accounts.first().map_or("", String::as_str);
    Stack {
        environment: environment.clone(),
        aws: Aws::unconnected(account, &environment.aws.region),
        release: None,
        sandbox_ca: None,
        every_way_out: false,
    }
}
