//! What a resource asks to be allowed.

use serde_json::Value;

/// Actions that are called on resources: one statement of a policy, before it is merged with those
/// of other resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// As a policy document writes them, `service:Operation`.
    pub actions: Vec<&'static str>,
    /// Patterns of what they are called on; `*` for actions that name nothing.
    pub resources: Vec<String>,
    /// When they are allowed, as in a policy document; always without one.
    pub condition: Option<Value>,
}

impl Permission {
    /// `actions` on `resources`.
    pub fn on<const N: usize>(
        actions: [&'static str; N],
        resources: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            actions: actions.to_vec(),
            resources: resources.into_iter().collect(),
            condition: None,
        }
    }

    /// `actions` on everything.
    pub fn anywhere<const N: usize>(actions: [&'static str; N]) -> Self {
        Self::on(actions, ["*".to_owned()])
    }

    /// The same, but only under `condition`.
    #[must_use]
    pub fn only_if(self, condition: Value) -> Self {
        Self { condition: Some(condition), ..self }
    }
}
