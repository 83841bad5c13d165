//! A permission that work on a resource needs.

use serde_json::Value;

/// Actions that are needed on the same resources, under the same condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    /// As IAM writes them: `ec2:CreateVpc`.
    pub actions: Vec<&'static str>,
    /// ARNs, with `*` for what is not known before.
    pub resources: Vec<String>,
    /// The statement's condition block.
    pub condition: Option<Value>,
}
