//! WAF logging configurations (AWS WAF API reference); everything else of WAF the emulator has.

use serde_json::{Value, json};

use super::Gateway;
use super::answer::Answer;
use super::identify::Call;
use super::upstream::Payload;

/// Answers the four operations on logging configurations.
pub(super) fn answer(gateway: &Gateway, call: &Call, body: &Payload) -> Option<Answer> {
    let input = body.json();
    let scope = &call.scope;
    let arn = input["ResourceArn"].as_str().unwrap_or_default();
    Some(match call.operation.as_str() {
        "PutLoggingConfiguration" => {
            let configuration = &input["LoggingConfiguration"];
            let destinations = configuration["LogDestinationConfigs"].as_array();
            // Log groups, buckets and streams for WAF must be called aws-waf-logs-….
            let named = |d: &Value| d.as_str().is_some_and(|arn| arn.contains("aws-waf-logs-"));
            if !destinations.is_some_and(|list| list.len() == 1 && list.iter().all(named)) {
                return Some(Answer::json_error(
                    "WAFInvalidParameterException",
                    "LogDestinationConfigs must name one destination whose name starts with aws-waf-logs-",
                ));
            }
            let key = configuration["ResourceArn"].as_str().unwrap_or_default().to_owned();
            gateway
                .additions
                .change(scope, |state| state.waf_logging.insert(key, configuration.clone()));
            Answer::json(&json!({ "LoggingConfiguration": configuration }))
        }
        "GetLoggingConfiguration" => match gateway
            .additions
            .read(scope, |state| state.waf_logging.get(arn).cloned())
        {
            Some(configuration) => Answer::json(&json!({ "LoggingConfiguration": configuration })),
            None => nonexistent(),
        },
        "ListLoggingConfigurations" => {
            let wanted = if input["Scope"] == "CLOUDFRONT" { ":global/" } else { ":regional/" };
            let configurations: Vec<Value> = gateway.additions.read(scope, |state| {
                state
                    .waf_logging
                    .iter()
                    .filter(|(arn, _)| arn.contains(wanted))
                    .map(|(_, value)| value.clone())
                    .collect()
            });
            Answer::json(&json!({ "LoggingConfigurations": configurations }))
        }
        "DeleteLoggingConfiguration" => {
            match gateway.additions.change(scope, |state| state.waf_logging.remove(arn)) {
                Some(_) => Answer::json(&json!({})),
                None => nonexistent(),
            }
        }
        _ => return None,
    })
}

fn nonexistent() -> Answer {
    Answer::json_error(
        "WAFNonexistentItemException",
        "AWS WAF couldn't perform the operation because your resource doesn't exist.",
    )
}
