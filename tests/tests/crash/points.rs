//! The points at which a run is killed.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// From nothing to the stack.
    Provision,
    /// From the stack to a larger one, with changes in place.
    Update,
    /// From the larger one back.
    Shrink,
    /// From the stack to nothing.
    Destroy,
}

impl Phase {
    /// In the order of a stack's life.
    pub(crate) const ALL: [Self; 4] = [Self::Provision, Self::Update, Self::Shrink, Self::Destroy];
}

/// One call of one phase, and on which side of it the process dies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    /// Which run.
    pub(crate) phase: Phase,
    /// `ec2:CreateSubnet`.
    pub(crate) operation: String,
    /// The how manieth of this operation.
    pub(crate) call: usize,
    /// The gateway's fault: `hold_before` is not carried out, `hold_after` is, without an answer.
    pub(crate) kind: &'static str,
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, operation, call, kind } = self;
        write!(formatter, "{phase:?}: {kind} {operation} #{call}")
    }
}

/// Every point of a run that made these calls. A read is one point: what has been read changes
/// nothing, so it is the same whether it was carried out.
pub(crate) fn points(phase: Phase, calls: &[Value]) -> Vec<Point> {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut points = Vec::new();
    for call in calls {
        let service = call["service"].as_str().unwrap_or_default();
        if service == "registry" {
            continue;
        }
        let operation = format!("{service}:{}", call["operation"].as_str().unwrap_or_default());
        let count = counts.entry(operation.clone()).or_default();
        *count += 1;
        let kinds: &[_] = if call["mutating"] == true {
            &["hold_before", "hold_after"]
        } else {
            &["hold_before"]
        };
        points.extend(kinds.iter().map(|kind| Point {
            phase,
            operation: operation.clone(),
            call: *count,
            kind,
        }));
    }
    points
}
