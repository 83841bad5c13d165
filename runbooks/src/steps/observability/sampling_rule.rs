//! The X-Ray sampling rule: which share of this environment's requests is traced.

use async_trait::async_trait;
use aws_sdk_xray::types::{SamplingRule as Rule, SamplingRuleUpdate};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, failed, xray::tags},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The rule.
pub struct SamplingRule {
    /// Id, name and tags; a rule's name has at most 32 characters.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Share of the requests above the reservoir that is traced, 0 to 1.
    pub fixed_rate: f64,
    /// Name of the traced service; `*` at its end stands for anything.
    pub service_name: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SamplingRuleOutput {
    /// `arn:aws:xray:…:sampling-rule/…`.
    pub arn: String,
}

/// Below the default rule's 10000, above a team's own urgent ones.
const PRIORITY: i32 = 1000;
/// Requests a second that are traced whatever the rate, so that a quiet service is seen at all.
const RESERVOIR: i32 = 1;
/// Version of the rule format; 1 is the only one.
const VERSION: i32 = 1;

#[async_trait]
impl Resource for SamplingRule {
    type Output = SamplingRuleOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<SamplingRuleOutput>>, Error> {
        let rules = self.aws.xray.sampling_rules(since).await?;
        let named = |name: Option<&str>| name == Some(self.label.name.as_str());
        let Some(rule) = rules.iter().find(|rule| named(rule.rule_name())) else {
            return Ok(None);
        };
        let arn = rule.rule_arn().unwrap_or_default().to_owned();
        let tags = self.aws.xray.tags_of(&arn).await?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "fixedRate": rule.fixed_rate(),
                "reservoirSize": rule.reservoir_size(),
                "priority": rule.priority(),
                "serviceName": rule.service_name(),
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: SamplingRuleOutput { arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "fixedRate": self.fixed_rate,
            "reservoirSize": RESERVOIR,
            "priority": PRIORITY,
            "serviceName": self.service_name,
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<SamplingRuleOutput>, Error> {
        let rule = Rule::builder()
            .rule_name(&self.label.name)
            .resource_arn("*")
            .priority(PRIORITY)
            .fixed_rate(self.fixed_rate)
            .reservoir_size(RESERVOIR)
            .service_name(&self.service_name)
            .service_type("*")
            .host("*")
            .http_method("*")
            .url_path("*")
            .version(VERSION)
            .build()
            .map_err(built("xray:CreateSamplingRule"))?;
        let created = self
            .aws
            .xray
            .client
            .create_sampling_rule()
            .sampling_rule(rule)
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed("xray:CreateSamplingRule"))?;
        let record = created.sampling_rule_record();
        let arn = record.and_then(|record| record.sampling_rule()).and_then(Rule::rule_arn);
        Ok(Some(SamplingRuleOutput { arn: arn.unwrap_or_default().to_owned() }))
    }

    async fn update(
        &self,
        live: &Live<SamplingRuleOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let update = SamplingRuleUpdate::builder()
                .rule_arn(&live.output.arn)
                .priority(PRIORITY)
                .fixed_rate(self.fixed_rate)
                .reservoir_size(RESERVOIR)
                .service_name(&self.service_name)
                .build();
            self.aws
                .xray
                .client
                .update_sampling_rule()
                .sampling_rule_update(update)
                .send()
                .await
                .map_err(failed("xray:UpdateSamplingRule"))?;
        }
        if touches(fields, "tags") {
            self.aws.xray.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<SamplingRuleOutput>) -> Result<(), Error> {
        let delete = self.aws.xray.client.delete_sampling_rule().rule_arn(&live.output.arn);
        delete.send().await.map_err(failed("xray:DeleteSamplingRule"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "xray:CreateSamplingRule",
            "xray:DeleteSamplingRule",
            "xray:ListTagsForResource",
            "xray:TagResource",
            "xray:UpdateSamplingRule",
        ];
        let rule = format!("sampling-rule/{}", self.label.name);
        vec![
            Permission::anywhere(["xray:GetSamplingRules"]),
            Permission::on(actions, [self.aws.arn("xray", &rule)]),
        ]
    }
}
