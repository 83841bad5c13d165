//! Step 8: the web ACL on the load balancer.

pub mod association;
#[cfg(test)]
mod evaluation;
pub mod logging;
pub mod rule_members;
pub mod rules;
pub mod web_acl;

use association::Association;
use logging::Logging;
use web_acl::WebAcl;

use super::{About, Stack, compute::Platform, observability::log_group::LogGroup};
use crate::{aws::Label, engine::Graph};

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A web ACL with seven rules on the load balancer, and a log group for what it does.",
    why: "It stops floods from one address, bodies that are too large, and requests that are \
          known to be bad, before a task has to look at them.",
    order: "The web ACL comes first; it is put on the load balancer when both are there, and its \
            log is turned on.",
    trouble: &[
        (
            "WAFUnavailableEntityException: one of both was just made",
            "bme calls again for a minute",
        ),
        (
            "403 for requests that are right",
            "the log group says which rule it was; a team's own rules and overrides stay as they \
             are",
        ),
    ],
};

/// Adds the step's resources.
pub fn add(graph: &mut Graph, stack: &Stack, platform: &Platform) {
    let settings = &stack.environment.firewall;
    // 128 is the limit of a web ACL's name (WAF API reference).
    let label = |name: &str| stack.label("firewall", name, 128);
    let web_acl = graph.add(WebAcl {
        label: label("web-acl"),
        aws: stack.aws.clone(),
        rate_limit: settings.rate_limit,
        voice_body_bytes: settings.voice_body_bytes,
    });
    graph.add(Association {
        label: label("association"),
        aws: stack.aws.clone(),
        web_acl: web_acl.clone(),
        load_balancer: platform.load_balancer.clone(),
    });
    let log_group = graph.add(LogGroup {
        label: log_group_label(stack),
        aws: stack.aws.clone(),
        retention_days: settings.log_retention_days,
    });
    graph.add(Logging { label: label("logging"), aws: stack.aws.clone(), web_acl, log_group });
}

/// WAF writes only to log groups whose name starts with `aws-waf-logs-`.
fn log_group_label(stack: &Stack) -> Label {
    let mut label = stack.label("firewall", "log-group", 512);
    label.name = format!("aws-waf-logs-bme-{}", stack.environment.name);
    label.tags.insert("Name".into(), label.name.clone());
    label
}
