//! An SQS queue: the voice jobs or their dead letters.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, sqs::Queue},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// A standard queue, encrypted with SQS's own keys, read by long polling.
pub struct SqsQueue {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Time within which a receiver must delete a message before others see it again, seconds.
    pub visibility_timeout: i32,
    /// Time that a message is kept, seconds.
    pub retention: i32,
    /// Where messages go that were received too often.
    pub redrive: Option<Redrive>,
    /// Names of the queues whose dead letters this one takes; empty when it takes none.
    pub dead_letters_of: Vec<String>,
}

/// Redrive to a dead-letter queue.
pub struct Redrive {
    /// The dead-letter queue.
    pub queue: Handle<SqsQueue>,
    /// Receives before a message goes there.
    pub max_receives: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SqsQueueOutput {
    /// Its URL.
    pub url: String,
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
}

#[async_trait]
impl Resource for SqsQueue {
    type Output = SqsQueueOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        self.redrive.iter().map(|redrive| redrive.queue.id()).collect()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<SqsQueueOutput>>, Error> {
        let Some(queue) = self.aws.sqs.queue(&self.label.name).await? else {
            return Ok(None);
        };
        let tags: BTreeMap<_, _> = queue.tags.clone().into_iter().collect();
        self.label.adopt(&tags)?;
        let mut properties: Map<_, _> = self
            .attributes(&Value::Null)
            .into_iter()
            .map(|(name, _)| (camel(&name), live(&queue, &name)))
            .collect();
        properties.insert("tags".into(), json!(tags));
        Ok(Some(Live {
            properties: properties.into(),
            condition: Condition::Ready,
            output: self.output(queue.url),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let mut members: Map<_, _> = self
            .attributes(&self.dead_letter_arn(outputs))
            .into_iter()
            .map(|(name, value)| (camel(&name), value))
            .collect();
        members.insert("tags".into(), self.label.tags());
        members.into()
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SqsQueueOutput>, Error> {
        let created = self
            .aws
            .sqs
            .client
            .create_queue()
            .queue_name(&self.label.name)
            .set_attributes(Some(self.given(outputs)))
            .set_tags(Some(self.tags()))
            .send()
            .await
            .map_err(failed("sqs:CreateQueue"))?;
        Ok(Some(self.output(created.queue_url.unwrap_or_default())))
    }

    async fn update(
        &self,
        live: &Live<SqsQueueOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let set = self.aws.sqs.client.set_queue_attributes().queue_url(&live.output.url);
            let set = set.set_attributes(Some(self.texts(outputs)));
            set.send().await.map_err(failed("sqs:SetQueueAttributes"))?;
        }
        if touches(fields, "tags") {
            let tag = self.aws.sqs.client.tag_queue().queue_url(&live.output.url);
            tag.set_tags(Some(self.tags())).send().await.map_err(failed("sqs:TagQueue"))?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<SqsQueueOutput>) -> Result<(), Error> {
        let delete = self.aws.sqs.client.delete_queue().queue_url(&live.output.url);
        delete.send().await.map_err(failed("sqs:DeleteQueue"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "sqs:CreateQueue",
            "sqs:DeleteQueue",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ListQueueTags",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
        ];
        vec![Permission::on(actions, [self.arn_of(&self.label.name)])]
    }
}

impl SqsQueue {
    fn output(&self, url: String) -> SqsQueueOutput {
        SqsQueueOutput { url, arn: self.arn_of(&self.label.name), name: self.label.name.clone() }
    }

    fn arn_of(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.aws.region, self.aws.account)
    }

    fn dead_letter_arn(&self, outputs: &Outputs) -> Value {
        let shown = self.redrive.as_ref();
        shown.map_or(Value::Null, |redrive| outputs.show(&redrive.queue, |queue| queue.arn.clone()))
    }

    fn tags(&self) -> HashMap<String, String> {
        self.label.tags.clone().into_iter().collect()
    }

    /// The attributes that we hold, typed; the two policies as JSON.
    fn attributes(&self, dead_letter_arn: &Value) -> Vec<(QueueAttributeName, Value)> {
        let redrive = self.redrive.as_ref().map_or(Value::Null, |redrive| {
            json!({
                "deadLetterTargetArn": dead_letter_arn,
                "maxReceiveCount": redrive.max_receives,
            })
        });
        let mut attributes = vec![
            (QueueAttributeName::VisibilityTimeout, json!(self.visibility_timeout)),
            (QueueAttributeName::MessageRetentionPeriod, json!(self.retention)),
            // 20 s, the longest: an idle receiver makes 3 calls a minute.
            (QueueAttributeName::ReceiveMessageWaitTimeSeconds, json!(20)),
            // Trap 10: audio never travels in a message, only a pointer to it.
            (QueueAttributeName::MaximumMessageSize, json!(262_144)),
            (QueueAttributeName::SqsManagedSseEnabled, json!(true)),
            (QueueAttributeName::RedrivePolicy, redrive),
        ];
        if !self.dead_letters_of.is_empty() {
            let sources: Vec<_> =
                self.dead_letters_of.iter().map(|name| self.arn_of(name)).collect();
            attributes.push((
                QueueAttributeName::RedriveAllowPolicy,
                json!({"redrivePermission": "byQueue", "sourceQueueArns": sources}),
            ));
        }
        attributes
    }

    /// The attributes for the creation, which takes no empty ones.
    fn given(&self, outputs: &Outputs) -> HashMap<QueueAttributeName, String> {
        let mut texts = self.texts(outputs);
        texts.retain(|_, text| !text.is_empty());
        texts
    }

    /// The attributes as SQS takes them: everything is text, and an empty policy removes one.
    fn texts(&self, outputs: &Outputs) -> HashMap<QueueAttributeName, String> {
        self.attributes(&self.dead_letter_arn(outputs))
            .into_iter()
            .map(|(name, value)| {
                (name, if value.is_null() { String::new() } else { value.to_string() })
            })
            .collect()
    }
}

fn camel(name: &QueueAttributeName) -> String {
    let name = name.as_str();
    name[..1].to_lowercase() + &name[1..]
}

/// The live value of an attribute: SQS answers with text for numbers, booleans and policies alike.
fn live(queue: &Queue, name: &QueueAttributeName) -> Value {
    let text = queue.attributes.get(name).map_or("", String::as_str);
    let mut value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    // AWS keeps this one as it was given, a number or its text.
    if let Some(count) = value.get_mut("maxReceiveCount")
        && let Some(number) = count.as_str().and_then(|text| text.parse::<i32>().ok())
    {
        *count = number.into();
    }
    value
}
