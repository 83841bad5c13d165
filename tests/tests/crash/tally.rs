//! What became of the points.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;

use crate::{
    points::{Phase, Point},
    stage::Settings,
};

/// The points of each phase, with how they ended.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<Phase, Row>);

#[derive(Default)]
struct Row {
    tried: usize,
    /// The run did not come to the call: a poll or a renewal of the lock that was not needed.
    not_reached: usize,
    converged: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Takes down how a point ended.
    pub(crate) fn note(&mut self, point: &Point, ended: Result<bool>) {
        let row = self.0.entry(point.phase).or_default();
        row.tried += 1;
        match ended {
            Ok(reached) => {
                row.converged += 1;
                row.not_reached += usize::from(!reached);
            }
            Err(error) => row.failures.push(format!("{point}: {error:#}")),
        }
    }

    /// Takes down that a run without a point went wrong.
    pub(crate) fn fault(&mut self, phase: Phase, what: String) {
        self.0.entry(phase).or_default().failures.push(what);
    }

    /// Adds another one.
    pub(crate) fn add(&mut self, other: Self) {
        for (phase, row) in other.0 {
            let sum = self.0.entry(phase).or_default();
            sum.tried += row.tried;
            sum.not_reached += row.not_reached;
            sum.converged += row.converged;
            sum.failures.extend(row.failures);
        }
    }

    /// Every point that did not converge, with why.
    pub(crate) fn failures(&self) -> Vec<&str> {
        self.0.values().flat_map(|row| &row.failures).map(String::as_str).collect()
    }

    /// As Markdown. A point counts as converged only when the second run ended well by itself, the plan
    /// after it was empty, and every count of every kind was that of an undisturbed run: nothing twice,
    /// nothing left over.
    pub(crate) fn table(&self, settings: Settings, there_are: usize) -> String {
        let mut text = format!(
            "{settings:?}, {there_are} points\n\n| phase | tried | reached | converged | not converged |\n|---|---|---|---|---|\n"
        );
        for (phase, Row { tried, not_reached, converged, failures }) in &self.0 {
            let reached = tried - not_reached;
            let _ = writeln!(
                text,
                "| {phase:?} | {tried} | {reached} | {converged} | {} |",
                failures.len()
            );
        }
        text
    }
}
