//! An SNS topic with its e-mail subscriptions.

use async_trait::async_trait;
use aws_sdk_sns::types::Subscription;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, sns::tags},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What SNS calls a subscription that nobody has confirmed; it has no ARN and can't be removed, it
/// goes by itself after three days.
const PENDING: &str = "PendingConfirmation";

/// A topic to which alarms are published. Not encrypted with `alias/aws/sns`: `CloudWatch` may not use
/// that key, and its alarms would be lost without a word.
pub struct Topic {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Who is told, by e-mail; each has to confirm once.
    pub emails: Vec<String>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct TopicOutput {
    /// Its ARN.
    pub arn: String,
}

#[async_trait]
impl Resource for Topic {
    type Output = TopicOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<TopicOutput>>, Error> {
        let arn = self.arn();
        let Some(tags) = self.aws.sns.live_tags(&arn).await? else {
            return Ok(None);
        };
        self.label.adopt(&tags)?;
        let emails: Map<_, _> = self
            .aws
            .sns
            .subscriptions(&arn)
            .await?
            .iter()
            .filter(|subscription| self.counts(subscription))
            .map(|subscription| (endpoint(subscription).to_owned(), Value::Bool(true)))
            .collect();
        Ok(Some(Live {
            properties: json!({"emails": emails, "tags": tags}),
            condition: Condition::Ready,
            output: TopicOutput { arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        let emails: Map<_, _> =
            self.emails.iter().map(|email| (email.clone(), Value::Bool(true))).collect();
        json!({"emails": emails, "tags": self.label.tags()})
    }

    async fn create(&self, _: &Outputs) -> Result<Option<TopicOutput>, Error> {
        let create = self.aws.sns.client.create_topic().name(&self.label.name);
        let create = create.set_tags(Some(tags(&self.label)?));
        create.send().await.map_err(failed("sns:CreateTopic"))?;
        // Killed before this, the next run's comparison finds who is missing.
        for email in &self.emails {
            self.subscribe(email).await?;
        }
        Ok(Some(TopicOutput { arn: self.arn() }))
    }

    async fn update(
        &self,
        live: &Live<TopicOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "emails") {
            let there = self.aws.sns.subscriptions(&live.output.arn).await?;
            for subscription in there.iter().filter(|subscription| self.counts(subscription)) {
                if !self.emails.iter().any(|email| email == endpoint(subscription)) {
                    let arn = subscription.subscription_arn().unwrap_or_default();
                    let unsubscribe = self.aws.sns.client.unsubscribe().subscription_arn(arn);
                    unsubscribe.send().await.map_err(failed("sns:Unsubscribe"))?;
                }
            }
            for email in &self.emails {
                if live.properties["emails"].get(email).is_none() {
                    self.subscribe(email).await?;
                }
            }
        }
        if touches(fields, "tags") {
            let tag = self.aws.sns.client.tag_resource().resource_arn(&live.output.arn);
            let tag = tag.set_tags(Some(tags(&self.label)?));
            tag.send().await.map_err(failed("sns:TagResource"))?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<TopicOutput>) -> Result<(), Error> {
        let delete = self.aws.sns.client.delete_topic().topic_arn(&live.output.arn);
        delete.send().await.map_err(failed("sns:DeleteTopic"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:ListSubscriptionsByTopic",
            "sns:ListTagsForResource",
            "sns:Subscribe",
            "sns:TagResource",
        ];
        vec![Permission::on(actions, [self.arn()]), Permission::anywhere(["sns:Unsubscribe"])]
    }
}

impl Topic {
    fn arn(&self) -> String {
        format!("arn:aws:sns:{}:{}:{}", self.aws.region, self.aws.account, self.label.name)
    }

    /// Whether a subscription is ours to hold: an e-mail address, and if nobody has confirmed it, one
    /// that we want, since an unwanted one can't be removed. A team's own chat hooks are left alone.
    fn counts(&self, subscription: &Subscription) -> bool {
        let wanted = self.emails.iter().any(|email| email == endpoint(subscription));
        subscription.protocol() == Some("email")
            && (wanted || subscription.subscription_arn() != Some(PENDING))
    }

    async fn subscribe(&self, email: &str) -> Result<(), Error> {
        self.aws
            .sns
            .client
            .subscribe()
            .topic_arn(self.arn())
            .protocol("email")
            .endpoint(email)
            .send()
            .await
            .map_err(failed("sns:Subscribe"))?;
        Ok(())
    }
}

fn endpoint(subscription: &Subscription) -> &str {
    subscription.endpoint().unwrap_or_default()
}
