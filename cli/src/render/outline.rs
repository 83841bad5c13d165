//! An environment on paper: its cost as a table, its resources as a drawing.

use std::fmt::Write as _;

use bme_runbooks::{engine::ResourceId, outline::Planned, prices::Prices, steps::STEPS};
use comfy_table::CellAlignment;
use serde::Serialize;

use super::{
    plan::reservations,
    status::{headed, push},
    words::dollars,
};

/// The document of `cost --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Estimate<'a> {
    env: &'a str,
    region: &'a str,
    price_region: &'static str,
    monthly_cost: f64,
    unpriced: Vec<&'a ResourceId>,
    steps: Vec<StepCost<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepCost<'a> {
    name: &'static str,
    monthly_cost: f64,
    resources: Vec<ResourceCost<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceCost<'a> {
    id: &'a ResourceId,
    monthly_cost: Option<f64>,
}

impl<'a> Estimate<'a> {
    pub(crate) fn new(env: &'a str, region: &'a str, planned: &'a [Planned]) -> Self {
        let steps = by_step(planned).map(|(name, _, resources)| StepCost {
            name,
            monthly_cost: sum(&resources),
            resources: resources
                .iter()
                .filter(|resource| resource.monthly_cost.is_none_or(|cost| cost > 0.0))
                .map(|Planned { id, monthly_cost, .. }| ResourceCost {
                    id,
                    monthly_cost: *monthly_cost,
                })
                .collect(),
        });
        let unpriced = planned.iter().filter(|resource| resource.monthly_cost.is_none());
        Self {
            env,
            region,
            price_region: Prices::of(region).region(),
            monthly_cost: planned.iter().filter_map(|resource| resource.monthly_cost).sum(),
            unpriced: unpriced.map(|resource| &resource.id).collect(),
            steps: steps.collect(),
        }
    }

    /// What is to be known of the prices, a line each.
    pub(crate) fn reservations(&self) -> String {
        reservations(self.region, self.price_region, &self.unpriced)
    }
}

/// What costs something, step by step, and the sum.
pub(crate) fn cost(cost: &Estimate<'_>) -> String {
    let mut table = headed(&["step", "resource", "USD a month"]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for step in &cost.steps {
        let mut name = step.name;
        for resource in &step.resources {
            let cost = resource.monthly_cost.map_or_else(|| "unknown".into(), dollars);
            table.add_row([name, resource.id.name(), &cost]);
            name = "";
        }
    }
    table.add_row(["total", "", &dollars(cost.monthly_cost)]);
    let Estimate { env, region, price_region, .. } = cost;
    let mut text = format!("`{env}` in {region}, list prices of {price_region}\n\n");
    push(&mut text, &table);
    text
}

/// A flowchart with a box for each step.
pub(crate) fn mermaid(planned: &[Planned]) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (name, title, resources) in by_step(planned) {
        let _ = writeln!(text, "  subgraph {name}[\"{title}\"]");
        for resource in resources {
            let _ = writeln!(text, "    {}[\"{}\"]", node(&resource.id), resource.id.name());
        }
        text.push_str("  end\n");
    }
    for (need, dependent) in arrows(planned) {
        let _ = writeln!(text, "  {} --> {}", node(need), node(dependent));
    }
    text
}

/// A digraph with a cluster for each step.
pub(crate) fn dot(planned: &[Planned]) -> String {
    let mut text = "digraph bme {\n  rankdir=LR\n  node [shape=box]\n".to_owned();
    for (name, title, resources) in by_step(planned) {
        let _ = writeln!(text, "  subgraph \"cluster_{name}\" {{\n    label=\"{title}\"");
        for resource in resources {
            let _ = writeln!(text, "    \"{}\" [label=\"{}\"]", resource.id, resource.id.name());
        }
        text.push_str("  }\n");
    }
    for (need, dependent) in arrows(planned) {
        let _ = writeln!(text, "  \"{need}\" -> \"{dependent}\"");
    }
    text.push_str("}\n");
    text
}

/// Name and title of each step that has any of them.
fn by_step(
    planned: &[Planned],
) -> impl Iterator<Item = (&'static str, &'static str, Vec<&Planned>)> {
    STEPS.into_iter().filter_map(|(_, name, title)| {
        let resources: Vec<_> =
            planned.iter().filter(|resource| resource.id.step() == name).collect();
        (!resources.is_empty()).then_some((name, title, resources))
    })
}

/// Every need and what needs it, where both are drawn.
fn arrows(planned: &[Planned]) -> impl Iterator<Item = (&ResourceId, &ResourceId)> {
    let is_drawn = |id: &ResourceId| planned.iter().any(|resource| resource.id == *id);
    planned.iter().flat_map(move |resource| {
        let drawn = resource.needs.iter().filter(move |need| is_drawn(need));
        drawn.map(|need| (need, &resource.id))
    })
}

fn sum(resources: &[&Planned]) -> f64 {
    resources.iter().filter_map(|resource| resource.monthly_cost).sum()
}

/// A name that mermaid takes: no slash, and no word of its own such as `end`.
fn node(id: &ResourceId) -> String {
    id.as_str().replace('/', "__")
}
