//! The X-Ray group: the traces of this environment, in a view of their own.

use async_trait::async_trait;
use aws_sdk_xray::types::InsightsConfiguration;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, xray::tags},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The group.
pub struct XRayGroup {
    /// Id, name and tags; a group's name has at most 32 characters.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Which traces belong to it, in X-Ray's filter language.
    pub filter_expression: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct XRayGroupOutput {
    /// `arn:aws:xray:…:group/…`.
    pub arn: String,
}

#[async_trait]
impl Resource for XRayGroup {
    type Output = XRayGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<XRayGroupOutput>>, Error> {
        let groups = self.aws.xray.groups(since).await?;
        let named = |name: Option<&str>| name == Some(self.label.name.as_str());
        let Some(group) = groups.iter().find(|group| named(group.group_name())) else {
            return Ok(None);
        };
        let arn = group.group_arn().unwrap_or_default().to_owned();
        let tags = self.aws.xray.tags_of(&arn).await?;
        self.label.adopt(&tags)?;
        let insights = group.insights_configuration();
        Ok(Some(Live {
            properties: json!({
                "filterExpression": group.filter_expression(),
                "insightsEnabled":
                    insights.and_then(InsightsConfiguration::insights_enabled).unwrap_or_default(),
                "notifications": insights.and_then(InsightsConfiguration::notifications_enabled),
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: XRayGroupOutput { arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "filterExpression": self.filter_expression,
            "insightsEnabled": true,
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<XRayGroupOutput>, Error> {
        let created = self
            .aws
            .xray
            .client
            .create_group()
            .group_name(&self.label.name)
            .filter_expression(&self.filter_expression)
            .insights_configuration(insights(None))
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed("xray:CreateGroup"))?;
        let arn = created.group().and_then(|group| group.group_arn()).unwrap_or_default();
        Ok(Some(XRayGroupOutput { arn: arn.to_owned() }))
    }

    async fn update(
        &self,
        live: &Live<XRayGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "filterExpression") || touches(fields, "insightsEnabled") {
            self.aws
                .xray
                .client
                .update_group()
                .group_arn(&live.output.arn)
                .filter_expression(&self.filter_expression)
                // Without a word on notifications they would be turned off (trap 5).
                .insights_configuration(insights(live.properties["notifications"].as_bool()))
                .send()
                .await
                .map_err(failed("xray:UpdateGroup"))?;
        }
        if touches(fields, "tags") {
            self.aws.xray.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<XRayGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.xray.client.delete_group().group_arn(&live.output.arn);
        delete.send().await.map_err(failed("xray:DeleteGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "xray:CreateGroup",
            "xray:DeleteGroup",
            "xray:ListTagsForResource",
            "xray:TagResource",
            "xray:UpdateGroup",
        ];
        let group = format!("group/{}/*", self.label.name);
        vec![
            Permission::anywhere(["xray:GetGroups"]),
            Permission::on(actions, [self.aws.arn("xray", &group)]),
        ]
    }
}

fn insights(notifications: Option<bool>) -> InsightsConfiguration {
    InsightsConfiguration::builder()
        .insights_enabled(true)
        .set_notifications_enabled(notifications)
        .build()
}
