//! The web ACL's log.

use async_trait::async_trait;
use aws_sdk_wafv2::types::{FieldToMatch, LoggingConfiguration, SingleHeader};
use aws_smithy_types::error::operation::BuildError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::web_acl::WebAcl;
use crate::{
    aws::{Aws, Label, built, failed, not_found_is_none},
    engine::{Condition, Error, Handle, Live, Outputs, Resource, ResourceId, diff::Field},
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
        let get = self.aws.wafv2.client.get_logging_configuration().resource_arn(acl.arn);
        let answer = get.send().await.map_err(failed("wafv2:GetLoggingConfiguration"));
        let configuration =
            not_found_is_none(answer)?.and_then(|answer| answer.logging_configuration);
        Ok(configuration.map(|configuration| {
            let mut redacted: Vec<_> = configuration
                .redacted_fields()
                .iter()
                .filter_map(FieldToMatch::single_header)
                .map(|header| header.name().to_lowercase())
                .collect();
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
        self.put(outputs).await?;
        Ok(Some(()))
    }

    async fn update(&self, _: &Live<()>, _: &[Field], outputs: &Outputs) -> Result<(), Error> {
        self.put(outputs).await
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
}

impl Logging {
    async fn put(&self, outputs: &Outputs) -> Result<(), Error> {
        let operation = "wafv2:PutLoggingConfiguration";
        let configuration = LoggingConfiguration::builder()
            .resource_arn(outputs.get(&self.web_acl)?.arn)
            .log_destination_configs(outputs.get(&self.log_group)?.arn)
            .set_redacted_fields(Some(redacted().map_err(built(operation))?))
            .build()
            .map_err(built(operation))?;
        self.aws
            .wafv2
            .client
            .put_logging_configuration()
            .logging_configuration(configuration)
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(())
    }
}

fn redacted() -> Result<Vec<FieldToMatch>, BuildError> {
    REDACTED
        .iter()
        .map(|name| {
            let header = SingleHeader::builder().name(*name).build()?;
            Ok(FieldToMatch::builder().single_header(header).build())
        })
        .collect()
}
