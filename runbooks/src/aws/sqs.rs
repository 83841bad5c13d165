//! SQS: its client and what its queues are like. SQS has no call that describes several queues.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_sqs as sdk;
use sdk::types::QueueAttributeName;

use super::{Calls, failed, not_found_is_none};
use crate::engine::Error;

/// The client.
pub struct Sqs {
    /// The SDK's client.
    pub client: sdk::Client,
}

/// A queue with its attributes and tags.
pub struct Queue {
    /// Its URL.
    pub url: String,
    /// Its attributes.
    pub attributes: HashMap<QueueAttributeName, String>,
    /// Its tags.
    pub tags: HashMap<String, String>,
}

impl Sqs {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The queue of that name. Asked by name, since `ListQueues` lags behind by up to a minute.
    pub async fn queue(&self, name: &str) -> Result<Option<Queue>, Error> {
        let answer = self.client.get_queue_url().queue_name(name).send().await;
        let answer = not_found_is_none(answer.map_err(failed("sqs:GetQueueUrl")))?;
        let Some(url) = answer.and_then(|answer| answer.queue_url) else {
            return Ok(None);
        };
        let attributes = async {
            let get = self.client.get_queue_attributes().queue_url(&url);
            let answer = get.attribute_names(QueueAttributeName::All).send().await;
            answer.map_err(failed("sqs:GetQueueAttributes"))
        };
        let tags = async {
            let answer = self.client.list_queue_tags().queue_url(&url).send().await;
            answer.map_err(failed("sqs:ListQueueTags"))
        };
        // Deleted in between, it is gone.
        let Some((attributes, tags)) = not_found_is_none(futures::try_join!(attributes, tags))?
        else {
            return Ok(None);
        };
        Ok(Some(Queue {
            url,
            attributes: attributes.attributes.unwrap_or_default(),
            tags: tags.tags.unwrap_or_default(),
        }))
    }
}
