//! A log group with a retention.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, cloudwatchlogs::tags, failed},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The log group; its name is the label's.
pub struct LogGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long lines are kept, days: one of the values that `CloudWatch` Logs knows.
    pub retention_days: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct LogGroupOutput {
    /// Its name.
    pub name: String,
    /// Its ARN, without the trailing `:*`.
    pub arn: String,
}

#[async_trait]
impl Resource for LogGroup {
    type Output = LogGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<LogGroupOutput>>, Error> {
        let groups = self.aws.cloudwatchlogs.log_groups(self.label.environment(), since).await?;
        let named = |name: Option<&str>| name == Some(self.label.name.as_str());
        let Some(found) = groups.iter().find(|found| named(found.group.log_group_name())) else {
            return Ok(None);
        };
        self.label.adopt(&found.tags)?;
        Ok(Some(Live {
            properties: json!({
                "retentionInDays": found.group.retention_in_days(),
                "tags": found.tags,
            }),
            condition: Condition::Ready,
            output: LogGroupOutput { name: self.label.name.clone(), arn: found.arn.clone() },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({ "retentionInDays": self.retention_days, "tags": self.label.tags() })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<LogGroupOutput>, Error> {
        self.aws
            .cloudwatchlogs
            .client
            .create_log_group()
            .log_group_name(&self.label.name)
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("logs:CreateLogGroup"))?;
        // Killed before this, the next run's comparison finds the retention missing.
        self.put_retention_policy().await?;
        Ok(Some(LogGroupOutput { name: self.label.name.clone(), arn: self.arn() }))
    }

    async fn update(
        &self,
        live: &Live<LogGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "retentionInDays") {
            self.put_retention_policy().await?;
        }
        if touches(fields, "tags") {
            self.aws
                .cloudwatchlogs
                .client
                .tag_resource()
                .resource_arn(&live.output.arn)
                .set_tags(Some(tags(&self.label)))
                .send()
                .await
                .map_err(failed("logs:TagResource"))?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<LogGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.cloudwatchlogs.client.delete_log_group();
        let delete = delete.log_group_name(&self.label.name);
        delete.send().await.map_err(failed("logs:DeleteLogGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
        ];
        let group = self.arn();
        let groups = format!("log-group:*bme-{}*", self.label.environment());
        vec![
            Permission::anywhere(["logs:DescribeLogGroups"]),
            // The tags of all that have the environment in their names are read.
            Permission::on(["logs:ListTagsForResource"], [self.aws.arn("logs", &groups)]),
            // Tags are of the ARN without `:*`, everything else is of the one with it ("CloudWatch
            // Logs resources and operations", CloudWatch Logs user guide).
            Permission::on(actions, [format!("{group}:*"), group]),
        ]
    }
}

impl LogGroup {
    fn arn(&self) -> String {
        let (region, account) = (&self.aws.region, &self.aws.account);
        format!("arn:aws:logs:{region}:{account}:log-group:{}", self.label.name)
    }

    async fn put_retention_policy(&self) -> Result<(), Error> {
        self.aws
            .cloudwatchlogs
            .client
            .put_retention_policy()
            .log_group_name(&self.label.name)
            .retention_in_days(self.retention_days)
            .send()
            .await
            .map_err(failed("logs:PutRetentionPolicy"))?;
        Ok(())
    }
}
