//! What a command is about: some of the ten steps.

use crate::{engine::ResourceId, steps::STEPS};

/// Which steps a command is about; all when empty.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These steps only.
    pub steps: Vec<String>,
    /// From this step on.
    pub from: Option<String>,
    /// Up to this step.
    pub until: Option<String>,
}

impl Selection {
    /// Whether it leaves no step out by name.
    pub fn is_whole(&self) -> bool {
        self.steps.is_empty() && self.from.is_none() && self.until.is_none()
    }

    /// Whether the resource's step is selected.
    pub fn contains(&self, id: &ResourceId) -> bool {
        let number = |name: &str| {
            STEPS
                .iter()
                .find(|(number, step, _)| *step == name || number.to_string() == name)
                .map(|(number, ..)| *number)
        };
        let Some(own) = number(id.step()) else { return false };
        let from = self.from.as_deref().and_then(number).unwrap_or(1);
        let until = self.until.as_deref().and_then(number).unwrap_or(10);
        (from..=until).contains(&own)
            && (self.steps.is_empty() || self.steps.iter().any(|step| number(step) == Some(own)))
    }
}
