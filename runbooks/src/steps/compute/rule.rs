//! The listener's rule that lets `CloudFront` in.

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::types::{
    HttpHeaderConditionConfig, Rule as LiveRule, RuleCondition,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    listener::{Listener, action, forward},
    target_group::TargetGroup,
};
use crate::{
    aws::{Aws, Label, elasticloadbalancingv2::tags, failed, secretsmanager::fingerprint},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::edge::{ORIGIN_HEADER, ORIGIN_KEY, OriginSecret},
};

/// Forwards requests that carry the secret header, which `CloudFront` adds to what it passes on.
pub struct Rule {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The listener.
    pub listener: Handle<Listener>,
    /// Where it forwards to.
    pub target_group: Handle<TargetGroup>,
    /// Holds the header's value.
    pub secret: OriginSecret,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct RuleOutput {
    /// Its ARN.
    pub arn: String,
}

const PRIORITY: i32 = 10;

#[async_trait]
impl Resource for Rule {
    type Output = RuleOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.listener.id(), self.target_group.id(), self.secret.id()]
    }

    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<RuleOutput>>, Error> {
        let elb = &self.aws.elasticloadbalancingv2;
        let Some(listener) = outputs.when_observed(&self.listener).await else {
            return Ok(None);
        };
        let mut rules = elb.rules(&listener.arn).await?;
        rules.retain(|rule| rule.is_default() != Some(true));
        let arn_of = |rule: &LiveRule| rule.rule_arn().unwrap_or_default().to_owned();
        let tags = elb.live_tags(&rules.iter().map(arn_of).collect::<Vec<_>>()).await?;
        let of = |rule: &LiveRule| tags.get(&arn_of(rule)).cloned().unwrap_or_default();
        // By tags, or by the priority, of which a listener has one rule.
        let tagged = rules.iter().find(|rule| self.label.matches(&of(rule)));
        let prior = || rules.iter().find(|rule| rule.priority() == Some(&PRIORITY.to_string()));
        let Some(rule) = tagged.or_else(prior) else {
            return Ok(None);
        };
        let header = rule.conditions().iter().find(|condition| is_header(condition));
        let header = header.and_then(RuleCondition::http_header_config);
        let value = header.and_then(|header| header.values().first());
        Ok(Some(Live {
            properties: json!({
                "priority": rule.priority(),
                "header": header.and_then(HttpHeaderConditionConfig::http_header_name),
                "value": self.shown(value, outputs).await?,
                "action": rule.actions().first().map_or(Value::Null, action),
                "tags": of(rule),
            }),
            condition: Condition::Ready,
            output: RuleOutput { arn: arn_of(rule) },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "priority": PRIORITY.to_string(),
            "header": ORIGIN_HEADER,
            // Trap 11: never the value.
            "value": outputs.show(&self.secret, |secret| secret.fingerprint.clone()),
            "action": {"forward": outputs.show(&self.target_group, |group| group.arn.clone())},
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("priority", "a rule of another priority may be somebody else's")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<RuleOutput>, Error> {
        let created = self
            .aws
            .elasticloadbalancingv2
            .client
            .create_rule()
            .listener_arn(outputs.get(&self.listener)?.arn)
            .priority(PRIORITY)
            .conditions(self.condition(outputs).await?)
            .actions(forward(&outputs.get(&self.target_group)?.arn))
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:CreateRule"))?;
        let arn = created.rules().first().and_then(LiveRule::rule_arn);
        Ok(Some(RuleOutput { arn: arn.unwrap_or_default().to_owned() }))
    }

    async fn update(
        &self,
        live: &Live<RuleOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let modify = self.aws.elasticloadbalancingv2.client.modify_rule();
            let mut modify = modify.rule_arn(&live.output.arn);
            if touches(fields, "header") || touches(fields, "value") {
                modify = modify.set_conditions(Some(self.conditions(live, outputs).await?));
            }
            // Conditions or actions that are left out stay (ELB API reference, ModifyRule).
            if touches(fields, "action") {
                modify = modify.actions(forward(&outputs.get(&self.target_group)?.arn));
            }
            modify.send().await.map_err(failed("elasticloadbalancing:ModifyRule"))?;
        }
        if touches(fields, "tags") {
            self.aws.elasticloadbalancingv2.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<RuleOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticloadbalancingv2.client.delete_rule();
        let delete = delete.rule_arn(&live.output.arn).send().await;
        delete.map_err(failed("elasticloadbalancing:DeleteRule"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticloadbalancing:AddTags",
            "elasticloadbalancing:DeleteRule",
            "elasticloadbalancing:ModifyRule",
        ];
        // Listeners and rules are named by their load balancer.
        let balancer = ResourceId::new(self.label.id.step(), "load-balancer");
        let balancer = self.label.sibling(&balancer, 32);
        let elb = |rest: String| self.aws.arn("elasticloadbalancing", &rest);
        vec![
            Permission::anywhere([
                "elasticloadbalancing:DescribeRules",
                "elasticloadbalancing:DescribeTags",
            ]),
            Permission::on(
                ["elasticloadbalancing:CreateRule"],
                [elb(format!("listener/app/{balancer}/*"))],
            ),
            Permission::on(actions, [elb(format!("listener-rule/app/{balancer}/*"))]),
            Permission::on(
                ["secretsmanager:GetSecretValue"],
                [self.aws.secret_arn(&self.label.sibling(&self.secret.id(), 512))],
            ),
        ]
    }

    fn interrupts(&self, path: &str) -> bool {
        // Until CloudFront sends the new value everywhere, requests are refused.
        path.starts_with("value") || path.starts_with("header")
    }
}

impl Rule {
    /// What stands for the live value in a plan: the secret's fingerprint while the rule holds the
    /// secret's value, else the value's own.
    async fn shown(&self, value: Option<&String>, outputs: &Outputs) -> Result<Value, Error> {
        let Some(value) = value else {
            return Ok(Value::Null);
        };
        let Some(secret) = outputs.when_observed(&self.secret).await else {
            return Ok(fingerprint(value).into());
        };
        let same = *value == self.value(&secret.arn).await?;
        Ok(if same { secret.fingerprint } else { fingerprint(value) }.into())
    }

    /// Ours, and those that a team has added: the update replaces all of them (trap 5).
    async fn conditions(
        &self,
        live: &Live<RuleOutput>,
        outputs: &Outputs,
    ) -> Result<Vec<RuleCondition>, Error> {
        let listener = outputs.get(&self.listener)?.arn;
        let rules = self.aws.elasticloadbalancingv2.rules(&listener).await?;
        let arn = Some(live.output.arn.as_str());
        let now = rules.into_iter().find(|rule| rule.rule_arn() == arn);
        let theirs = now.and_then(|rule| rule.conditions).unwrap_or_default();
        let theirs = theirs.into_iter().filter(|condition| !is_header(condition)).map(writable);
        Ok([self.condition(outputs).await?].into_iter().chain(theirs).collect())
    }

    async fn condition(&self, outputs: &Outputs) -> Result<RuleCondition, Error> {
        let header = HttpHeaderConditionConfig::builder()
            .http_header_name(ORIGIN_HEADER)
            .values(self.value(&outputs.get(&self.secret)?.arn).await?)
            .build();
        Ok(RuleCondition::builder().field("http-header").http_header_config(header).build())
    }

    /// The header's value.
    async fn value(&self, arn: &str) -> Result<String, Error> {
        let get = self.aws.secretsmanager.client.get_secret_value().secret_id(arn);
        let answer = get.send().await.map_err(failed("secretsmanager:GetSecretValue"))?;
        let value: Value =
            serde_json::from_str(answer.secret_string().unwrap_or_default()).unwrap_or_default();
        value[ORIGIN_KEY].as_str().map(ToOwned::to_owned).ok_or_else(|| {
            let what = format!("the value of {} has no member {ORIGIN_KEY}", self.secret.id());
            Error::fatal("secretsmanager:GetSecretValue", "no-member", what)
                .with_hint(format!("put it back as {{\"{ORIGIN_KEY}\": \"…\"}}"))
        })
    }
}

/// Whether this is the condition on [`ORIGIN_HEADER`].
fn is_header(condition: &RuleCondition) -> bool {
    let header = condition.http_header_config();
    let name = header.and_then(HttpHeaderConditionConfig::http_header_name);
    name.is_some_and(|name| name.eq_ignore_ascii_case(ORIGIN_HEADER))
}

/// A condition as it is read carries its values twice, which a write refuses.
fn writable(mut condition: RuleCondition) -> RuleCondition {
    if condition.host_header_config.is_some() || condition.path_pattern_config.is_some() {
        condition.values = None;
    }
    condition
}
