//! The web ACL's log.

use async_trait::async_trait;
use aws_sdk_wafv2::types::{FieldToMatch, LoggingConfiguration, SingleHeader};
use aws_smithy_types::error::operation::BuildError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::web_acl::WebAcl;
use crate::{
    aws::{Aws, Label, built, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::observability::log_group::LogGroup,
};

/// Sends what the web ACL decides to a log group.
pub struct Logging {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The web ACL.
    pub web_acl: Handle<WebAcl>,
    /// The log group, whose name must start with `aws-waf-logs-`.
    pub log_group: Handle<LogGroup>,
}

/// Headers whose values are credentials.
const REDACTED: [&str; 3] = ["authorization", "cookie", "x-bme-origin"];

#[async_trait]
impl Resource for Logging {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.web_acl.id(), self.log_group.id()]
    }

    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        let Some(acl) = outputs.when_observed(&self.web_acl).await else { return Ok(None) };
        Ok(self.now(acl.arn).await?.map(|configuration| {
            let redacted = configuration.redacted_fields().iter().filter_map(ours);
            let mut redacted: Vec<_> = redacted.collect();
            redacted.sort_unstable();
            Live {
                properties: json!({
                    "resourceArn": configuration.resource_arn(),
                    "logDestinationConfigs": configuration.log_destination_configs(),
                    "redactedHeaders": redacted,
                }),
                condition: Condition::Ready,
                output: (),
            }
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "resourceArn": outputs.show(&self.web_acl, |acl| acl.arn.clone()),
            "logDestinationConfigs": [outputs.show(&self.log_group, |group| group.arn.clone())],
            "redactedHeaders": REDACTED,
        })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<()>, Error> {
        self.put(None, outputs).await?;
        Ok(Some(()))
    }

    /// Reads, changes, writes: the update replaces the whole configuration (trap 5), a team's filter
    /// and what else it redacts included.
    async fn update(&self, live: &Live<()>, _: &[Field], outputs: &Outputs) -> Result<(), Error> {
        let acl = live.properties["resourceArn"].as_str().unwrap_or_default();
        let now = self.now(acl.to_owned()).await?;
        self.put(now, outputs).await
    }

    async fn delete(&self, live: &Live<()>) -> Result<(), Error> {
        self.aws
            .wafv2
            .client
            .delete_logging_configuration()
            .resource_arn(live.properties["resourceArn"].as_str().unwrap_or_default())
            .send()
            .await
            .map_err(failed("wafv2:DeleteLoggingConfiguration"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "wafv2:DeleteLoggingConfiguration",
            "wafv2:GetLoggingConfiguration",
            "wafv2:PutLoggingConfiguration",
        ];
        let acl = self.label.sibling(&self.web_acl.id(), 128);
        vec![
            Permission::on(actions, [self.aws.arn("wafv2", &format!("regional/webacl/{acl}/*"))]),
            // WAF lets its logs into the log group in the caller's name ("Logging to CloudWatch
            // Logs", WAF developer guide). A service-linked role is for other destinations.
            Permission::anywhere([
                "logs:CreateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
                "logs:PutResourcePolicy",
            ]),
        ]
    }
}

impl Logging {
    async fn now(&self, web_acl: String) -> Result<Option<LoggingConfiguration>, Error> {
        let get = self.aws.wafv2.client.get_logging_configuration().resource_arn(web_acl);
        let answer = get.send().await.map_err(failed("wafv2:GetLoggingConfiguration"));
        Ok(not_found_is_none(answer)?.and_then(|answer| answer.logging_configuration))
    }

    async fn put(&self, now: Option<LoggingConfiguration>, outputs: &Outputs) -> Result<(), Error> {
        let operation = "wafv2:PutLoggingConfiguration";
        let (acl, group) = (outputs.get(&self.web_acl)?.arn, outputs.get(&self.log_group)?.arn);
        self.aws
            .wafv2
            .client
            .put_logging_configuration()
            .logging_configuration(configuration(now, acl, group).map_err(built(operation))?)
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(())
    }
}

/// The configuration: a new one, or `now` with our members set.
fn configuration(
    now: Option<LoggingConfiguration>,
    web_acl: String,
    log_group: String,
) -> Result<LoggingConfiguration, BuildError> {
    let mut redacted = REDACTED
        .iter()
        .map(|name| {
            let header = SingleHeader::builder().name(*name).build()?;
            Ok(FieldToMatch::builder().single_header(header).build())
        })
        .collect::<Result<Vec<_>, BuildError>>()?;
    let Some(mut now) = now else {
        return LoggingConfiguration::builder()
            .resource_arn(web_acl)
            .log_destination_configs(log_group)
            .set_redacted_fields(Some(redacted))
            .build();
    };
    let theirs = now.redacted_fields.unwrap_or_default();
    redacted.extend(theirs.into_iter().filter(|field| ours(field).is_none()));
    now.redacted_fields = Some(redacted);
    now.resource_arn = web_acl;
    // A web ACL logs to one place (WAF API reference, LoggingConfiguration).
    now.log_destination_configs = vec![log_group];
    Ok(now)
}

/// The name of a header that we redact.
fn ours(field: &FieldToMatch) -> Option<String> {
    let name = field.single_header()?.name().to_lowercase();
    REDACTED.contains(&name.as_str()).then_some(name)
}

#[cfg(test)]
mod tests {
    use aws_sdk_wafv2::types::{FilterBehavior, LoggingFilter, QueryString};

    use super::*;

    #[test]
    fn a_teams_filter_and_redactions_survive_an_update() {
        let new = || configuration(None, "acl".into(), "group".into()).unwrap();
        let mut theirs = new();
        let filter = LoggingFilter::builder().default_behavior(FilterBehavior::Keep);
        theirs.logging_filter = Some(filter.set_filters(Some(Vec::new())).build().unwrap());
        let query = FieldToMatch::builder().query_string(QueryString::builder().build()).build();
        theirs.redacted_fields.as_mut().unwrap().push(query);
        let mut drifted = theirs.clone();
        drifted.redacted_fields.as_mut().unwrap().remove(0);
        drifted.log_destination_configs = vec!["elsewhere".into()];
        assert_eq!(configuration(Some(drifted), "acl".into(), "group".into()).unwrap(), theirs);
    }
}
