//! The plan: as a table for people, as the contract's document for programs, as a file.

use std::fmt::Write as _;
use std::path::Path;

use bme_runbooks::{
    engine::{
        ResourceId,
        plan::{Action, Change, Plan},
    },
    prices::Prices,
    session::Selection,
};
use console::{Style, style};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::words::{difference, dollars, elapsed, from_to, risk, same};
use crate::exit::Stop;

/// The document of `plan --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document<'a> {
    env: &'a str,
    account: &'a str,
    region: &'a str,
    changes: &'a [Change],
    summary: Summary,
    estimated_seconds: f64,
    monthly_cost_before: f64,
    monthly_cost: f64,
    price_region: &'static str,
    unpriced: Vec<&'a ResourceId>,
}

#[derive(Debug, Serialize)]
struct Summary {
    create: usize,
    update: usize,
    replace: usize,
    delete: usize,
    unchanged: usize,
    deferred: usize,
}

impl<'a> Document<'a> {
    pub(crate) fn new(plan: &'a Plan, env: &'a str, account: &'a str, region: &'a str) -> Self {
        Self {
            env,
            account,
            region,
            changes: &plan.changes,
            summary: Summary {
                create: plan.count(Action::Create),
                update: plan.count(Action::Update),
                replace: plan.count(Action::Replace),
                delete: plan.count(Action::Delete),
                unchanged: plan.count(Action::None),
                deferred: plan.count(Action::Deferred),
            },
            estimated_seconds: plan.estimated_seconds,
            monthly_cost_before: plan.monthly_cost_before(),
            monthly_cost: plan.monthly_cost(),
            price_region: Prices::of(region).region(),
            unpriced: plan.unpriced(),
        }
    }
}

/// A plan in a file: what was selected, and the document that somebody has read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Saved {
    steps: Vec<String>,
    from: Option<String>,
    until: Option<String>,
    plan: Value,
}

impl Saved {
    pub(crate) fn new(selection: &Selection, document: &Document<'_>) -> Self {
        Self {
            steps: selection.steps.clone(),
            from: selection.from.clone(),
            until: selection.until.clone(),
            plan: serde_json::to_value(document).unwrap_or_default(),
        }
    }

    /// Reads a file that `plan --out` wrote.
    pub(crate) fn read(file: impl AsRef<Path>) -> Result<Self, Stop> {
        let file = file.as_ref();
        let text = std::fs::read(file).map_err(Stop::io(format!("read {}", file.display())))?;
        serde_json::from_slice(&text).map_err(|error| {
            Stop::usage(
                format!("{} is not a plan: {error}", file.display()),
                "`bme plan --out FILE` writes one",
            )
        })
    }

    pub(crate) fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::to_value(self).unwrap_or_default())
    }

    pub(crate) fn selection(&self) -> Selection {
        Selection { steps: self.steps.clone(), from: self.from.clone(), until: self.until.clone() }
    }

    /// Whether `document` would do the same things in the same place.
    pub(crate) fn is_for(&self, document: &Document<'_>) -> bool {
        let now = serde_json::to_value(document).unwrap_or_default();
        ["env", "account", "region", "changes"]
            .iter()
            .all(|member| self.plan.get(member) == now.get(member))
    }
}

/// The plan for a person; `verbose` also lists what stays and what new resources will be.
pub(crate) fn table(plan: &Plan, document: &Document<'_>, verbose: bool) -> String {
    let Document { env, account, region, summary, .. } = document;
    let mut text = format!("plan for `{env}` in {region} of account {account}\n");
    let shown: Vec<&Change> = plan
        .changes
        .iter()
        .filter(|change| verbose || change.action != Action::None || !change.ready)
        .collect();
    let width = shown.iter().map(|change| change.id.as_str().len()).max().unwrap_or_default();
    let mut step = "";
    for change in shown {
        if change.step != step {
            step = &change.step;
            let _ = writeln!(text, "\n{}", style(step).bold());
        }
        text.push_str(&row(change, width));
    }
    let _ = writeln!(
        text,
        "\n{} to create, {} to update, {} to replace, {} to delete, {} unchanged, {} deferred",
        summary.create,
        summary.update,
        summary.replace,
        summary.delete,
        summary.unchanged,
        summary.deferred
    );
    let takes = match plan.estimated_seconds {
        seconds if seconds > 0.0 => format!("takes about {}", elapsed(seconds)),
        _ => "takes no time".into(),
    };
    let _ = writeln!(text, "{takes}; {}", together(document));
    text.push_str(&reservations(document.region, document.price_region, &document.unpriced));
    text
}

/// What everything costs, and how much more or less than now that is.
fn together(document: &Document<'_>) -> String {
    let (before, after) = (document.monthly_cost_before, document.monthly_cost);
    if same(before, after) {
        return format!("everything together costs {} a month, without traffic", dollars(after));
    }
    format!(
        "everything together: {} a month ({}), without traffic",
        from_to(before, after),
        difference(before, after)
    )
}

/// What is to be known of the prices: whose they are, and which are missing.
pub(crate) fn reservations(region: &str, prices: &str, unpriced: &[&ResourceId]) -> String {
    let mut text = String::new();
    if region != prices {
        let _ = writeln!(text, "list prices of {prices}, since those of {region} are not known");
    }
    if !unpriced.is_empty() {
        let names: Vec<_> = unpriced.iter().map(|id| id.as_str()).collect();
        let _ = writeln!(text, "not counted, since the price is unknown: {}", names.join(", "));
    }
    text
}

/// What one resource costs, and what it did; nothing about one that is free.
fn cost(change: &Change) -> String {
    match (change.monthly_cost_before, change.monthly_cost) {
        (Some(before), Some(after)) => match change.action {
            _ if same(before, after) && same(after, 0.0) => String::new(),
            Action::Create | Action::Delete => format!("{}/month", difference(before, after)),
            // It is counted already, since the next deploy makes it.
            Action::Deferred if same(before, 0.0) => format!("{}/month", dollars(after)),
            _ if same(before, after) => format!("{}/month", dollars(after)),
            _ => {
                let by = difference(before, after);
                format!("{}/month ({by})", from_to(before, after))
            }
        },
        (Some(before), None) if !same(before, 0.0) => {
            format!("{}/month -> price unknown", dollars(before))
        }
        (None, Some(after)) => format!("price unknown -> {}/month", dollars(after)),
        (_, None) => "price unknown".into(),
    }
}

fn row(change: &Change, width: usize) -> String {
    let (sign, word, colour) = match change.action {
        Action::Create => ("+", "create", Style::new().green()),
        Action::Update => ("~", "update", Style::new().yellow()),
        Action::Replace => ("±", "replace", Style::new().red()),
        Action::Delete => ("-", "delete", Style::new().red()),
        Action::None if change.ready => ("=", "right", Style::new().dim()),
        Action::None => ("…", "not ready", Style::new().yellow()),
        Action::Deferred => ("?", "deferred", Style::new().dim()),
    };
    let line = format!(
        "  {} {:<width$}  {:<9}  {:<18}  {}",
        colour.apply_to(sign),
        change.id.as_str(),
        word,
        risk(change.risk),
        cost(change),
    );
    let mut text = format!("{}\n", line.trim_end());
    for field in &change.fields {
        let _ = writeln!(
            text,
            "      {}: {} -> {}",
            field.path,
            short(&field.before),
            short(&field.after)
        );
    }
    if let Some(why) = &change.why {
        let _ = writeln!(text, "      {why}");
    }
    text
}

/// A value in one line of at most 60 characters.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "(none)".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    console::truncate_str(&text.replace('\n', " "), 60, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use bme_runbooks::engine::{diff::Field, plan::Risk};
    use serde_json::json;

    use super::*;

    fn change(step: &str, name: &str, action: Action) -> Change {
        Change {
            id: ResourceId::new(step, name),
            step: step.into(),
            action,
            risk: Risk::Safe,
            fields: Vec::new(),
            monthly_cost_before: Some(0.0),
            monthly_cost: Some(0.0),
            why: None,
            ready: action == Action::None,
            exists: action != Action::Create,
        }
    }

    fn plan() -> Plan {
        let field = |path: &str, before, after| Field { path: path.into(), before, after };
        Plan {
            changes: vec![
                change("network", "vpc", Action::None),
                Change {
                    monthly_cost: Some(32.85),
                    ..change("network", "nat-gateway-a", Action::Create)
                },
                Change {
                    risk: Risk::DataLoss,
                    monthly_cost_before: Some(12.41),
                    monthly_cost: Some(12.41),
                    fields: vec![field("DBSubnetGroup", json!("old"), json!("new"))],
                    why: Some("an instance cannot move to another subnet group".into()),
                    ..change("database", "instance", Action::Replace)
                },
                Change {
                    risk: Risk::Change,
                    monthly_cost_before: Some(11.68),
                    monthly_cost: Some(23.36),
                    fields: vec![
                        field("NumNodeGroups", json!(1), json!(2)),
                        field("tags.team", json!(null), json!("platform")),
                    ],
                    ..change("cache", "replication-group", Action::Update)
                },
                Change { ready: false, ..change("cache", "parameter-group", Action::None) },
                Change {
                    monthly_cost: None,
                    why: Some("waits for the first deploy".into()),
                    ..change("compute", "api", Action::Deferred)
                },
                Change {
                    risk: Risk::Change,
                    monthly_cost_before: Some(3.0),
                    why: Some("the environment file no longer asks for it".into()),
                    ..change("observability", "dashboard", Action::Delete)
                },
            ],
            estimated_seconds: 483.0,
        }
    }

    #[test]
    fn for_people() {
        console::set_colors_enabled(false);
        let plan = plan();
        let document = Document::new(&plan, "staging", "123456789012", "eu-west-1");
        insta::assert_snapshot!(table(&plan, &document, false));
    }

    #[test]
    fn for_programs() {
        let plan = plan();
        let document = Document::new(&plan, "staging", "123456789012", "eu-west-1");
        insta::assert_snapshot!(format!("{:#}", serde_json::to_value(&document).unwrap()));
    }

    #[test]
    fn a_total_that_stays_is_one_amount_and_another_regions_prices_are_told() {
        let plan = Plan { changes: Vec::new(), ..plan() };
        let document = Document::new(&plan, "staging", "123456789012", "ap-south-1");
        let text = table(&plan, &document, false);
        assert!(text.contains("everything together costs $0.00 a month, without"), "{text}");
        assert!(
            text.ends_with("\nlist prices of us-east-1, since those of ap-south-1 are not known\n")
        );
    }

    #[test]
    fn a_saved_plan_is_for_what_it_was_made_for() {
        let plan = plan();
        let document = Document::new(&plan, "staging", "123456789012", "eu-west-1");
        let selection = Selection { steps: vec!["cache".into()], ..Selection::default() };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), Saved::new(&selection, &document).to_json()).unwrap();
        let saved = Saved::read(file.path()).unwrap();
        assert_eq!(saved.selection().steps, ["cache"]);
        assert!(saved.is_for(&document));
        let elsewhere = Document::new(&plan, "staging", "999999999999", "eu-west-1");
        assert!(!saved.is_for(&elsewhere));
    }
}
