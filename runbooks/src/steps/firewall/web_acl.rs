//! The web ACL.

use async_trait::async_trait;
use aws_sdk_wafv2::types::{AllowAction, DefaultAction, Rule, Scope, WebAcl as LiveAcl};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    rule_members::{held, shown},
    rules::{rules, visibility},
};
use crate::{
    aws::{Aws, Label, built, failed, wafv2::tags},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
};

/// The regional web ACL: everything is let through that no rule blocks.
pub struct WebAcl {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Requests of one address in five minutes.
    pub rate_limit: i64,
    /// Largest body of the voice path, bytes.
    pub voice_body_bytes: u32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct WebAclOutput {
    /// Its id.
    pub id: String,
    /// `arn:aws:wafv2:…:regional/webacl/…`.
    pub arn: String,
}

#[async_trait]
impl Resource for WebAcl {
    type Output = WebAclOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<WebAclOutput>>, Error> {
        let acls = self.aws.wafv2.web_acls(since).await?;
        let Some(found) = acls.iter().find(|found| found.web_acl.name() == self.label.name) else {
            return Ok(None);
        };
        self.label.adopt(&found.tags)?;
        let acl = &found.web_acl;
        let allows = acl.default_action().is_some_and(|action| action.allow().is_some());
        Ok(Some(Live {
            properties: json!({
                "defaultAction": if allows { "allow" } else { "block" },
                "rules": shown(acl.rules(), &self.rules("wafv2:GetWebACL")?),
                "tags": found.tags,
            }),
            condition: Condition::Ready,
            output: WebAclOutput { id: acl.id().to_owned(), arn: acl.arn().to_owned() },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        let rules =
            self.rules("wafv2:CreateWebACL").map_or(Value::Null, |rules| shown(&rules, &rules));
        json!({ "defaultAction": "allow", "rules": rules, "tags": self.label.tags() })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<WebAclOutput>, Error> {
        let operation = "wafv2:CreateWebACL";
        let created = self
            .aws
            .wafv2
            .client
            .create_web_acl()
            .name(&self.label.name)
            .scope(Scope::Regional)
            .default_action(allow())
            .set_rules(Some(self.rules(operation)?))
            .visibility_config(visibility(&self.label.name).map_err(built(operation))?)
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed(operation))?;
        let summary = created.summary();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Ok(Some(WebAclOutput {
            id: text(summary.and_then(|summary| summary.id())),
            arn: text(summary.and_then(|summary| summary.arn())),
        }))
    }

    /// Reads, changes, writes back with the lock token: the update replaces all rules (trap 5).
    async fn update(
        &self,
        live: &Live<WebAclOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let client = &self.aws.wafv2.client;
        if touches(fields, "defaultAction") || touches(fields, "rules") {
            let operation = "wafv2:UpdateWebACL";
            let (now, lock_token) = self.now(&live.output.id).await?;
            let rules = held(self.rules(operation)?, now.rules());
            let allows = now.default_action.filter(|action| action.allow().is_some());
            let visibility = match now.visibility_config {
                Some(visibility) => visibility,
                None => visibility(&self.label.name).map_err(built(operation))?,
            };
            client
                .update_web_acl()
                .name(&self.label.name)
                .id(&live.output.id)
                .scope(Scope::Regional)
                .set_lock_token(lock_token)
                .default_action(allows.unwrap_or_else(allow))
                .set_rules(Some(rules))
                // AWS answers with an empty description and takes none (WAF API reference).
                .set_description(now.description.filter(|text| !text.is_empty()))
                .visibility_config(visibility)
                .set_data_protection_config(now.data_protection_config)
                .set_custom_response_bodies(
                    now.custom_response_bodies.filter(|bodies| !bodies.is_empty()),
                )
                .set_captcha_config(now.captcha_config)
                .set_challenge_config(now.challenge_config)
                .set_token_domains(now.token_domains)
                .set_association_config(now.association_config)
                .set_on_source_d_do_s_protection_config(now.on_source_d_do_s_protection_config)
                .set_application_config(now.application_config)
                .set_monetization_config(now.monetization_config)
                .send()
                .await
                .map_err(failed(operation))?;
        }
        if touches(fields, "tags") {
            client
                .tag_resource()
                .resource_arn(&live.output.arn)
                .set_tags(Some(tags(&self.label)?))
                .send()
                .await
                .map_err(failed("wafv2:TagResource"))?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<WebAclOutput>) -> Result<(), Error> {
        let (_, lock_token) = self.now(&live.output.id).await?;
        self.aws
            .wafv2
            .client
            .delete_web_acl()
            .name(&self.label.name)
            .id(&live.output.id)
            .scope(Scope::Regional)
            .set_lock_token(lock_token)
            .send()
            .await
            .map_err(failed("wafv2:DeleteWebACL"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let wafv2 = |rest: String| self.aws.arn("wafv2", &rest);
        let acl = wafv2(format!("regional/webacl/{}/*", self.label.name));
        vec![
            Permission::anywhere(["wafv2:ListWebACLs"]),
            // All that carry a name of ours are read, other environments' too.
            Permission::on(
                ["wafv2:GetWebACL", "wafv2:ListTagsForResource"],
                [wafv2("regional/webacl/bme-*/*".to_owned())],
            ),
            Permission::on(
                ["wafv2:CreateWebACL", "wafv2:UpdateWebACL"],
                // What a web ACL refers to is asked for too: AWS's own groups of rules.
                [acl.clone(), wafv2("regional/managedruleset/*/*".to_owned())],
            ),
            Permission::on(["wafv2:DeleteWebACL", "wafv2:TagResource"], [acl]),
        ]
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        let prices = Prices::of(&self.aws.region);
        let rules = prices.of_each(Item::WebAclRule, &properties["rules"])?;
        Some(prices.monthly(Item::WebAcl)? + rules)
    }
}

impl WebAcl {
    fn rules(&self, operation: &'static str) -> Result<Vec<Rule>, Error> {
        rules(self.rate_limit, self.voice_body_bytes).map_err(built(operation))
    }

    async fn now(&self, id: &str) -> Result<(LiveAcl, Option<String>), Error> {
        const OPERATION: &str = "wafv2:GetWebACL";
        let get = self.aws.wafv2.client.get_web_acl().name(&self.label.name).id(id);
        let answer = get.scope(Scope::Regional).send().await.map_err(failed(OPERATION))?;
        let empty = || Error::fatal(OPERATION, "empty-answer", format!("no web ACL {id}"));
        Ok((answer.web_acl.ok_or_else(empty)?, answer.lock_token))
    }
}

fn allow() -> DefaultAction {
    DefaultAction::builder().allow(AllowAction::builder().build()).build()
}
