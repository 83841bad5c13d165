//! SNS: its client and what its topics are like.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_sns as sdk;
use sdk::types::{Subscription, Tag};

use super::{Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// The client.
pub struct Sns {
    /// The SDK's client.
    pub client: sdk::Client,
}

impl Sns {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The tags of a topic, or none when there is no such topic.
    pub async fn live_tags(&self, arn: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let answer = self.client.list_tags_for_resource().resource_arn(arn).send().await;
        let answer = not_found_is_none(answer.map_err(failed("sns:ListTagsForResource")))?;
        let text = |tag: &Tag| (tag.key().to_owned(), tag.value().to_owned());
        Ok(answer.map(|answer| answer.tags().iter().map(text).collect()))
    }

    /// The subscriptions of a topic, confirmed or not.
    pub async fn subscriptions(&self, arn: &str) -> Result<Vec<Subscription>, Error> {
        let pages = self.client.list_subscriptions_by_topic().topic_arn(arn).into_paginator();
        let mut pages = pages.send();
        let mut subscriptions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed("sns:ListSubscriptionsByTopic"))?;
            subscriptions.extend(page.subscriptions.unwrap_or_default());
        }
        Ok(subscriptions)
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("sns:TagResource", |key, value| Tag::builder().key(key).value(value).build())
}
