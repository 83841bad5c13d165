//! `CloudWatch`: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_cloudwatch as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use sdk::types::{MetricAlarm, Tag};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// Details asked for at once.
const ABREAST: usize = 8;

/// An alarm with its tags.
pub struct TaggedAlarm {
    /// As `DescribeAlarms` answers.
    pub alarm: MetricAlarm,
    /// As `ListTagsForResource` answers.
    pub tags: BTreeMap<String, String>,
}

/// The client and what it has answered.
pub struct CloudWatch {
    /// The SDK's client.
    pub client: sdk::Client,
    alarms: Batch<Vec<TaggedAlarm>>,
}

impl CloudWatch {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), alarms: Batch::default() }
    }

    /// All metric alarms of `environment`, which is the same whoever asks, by their names. The tags take
    /// a call each, since AWS has no other way: hence those of no other environment.
    pub async fn alarms(
        &self,
        environment: &str,
        since: Instant,
    ) -> Result<Arc<Vec<TaggedAlarm>>, Error> {
        self.alarms
            .get(since, async {
                let prefix = format!("bme-{environment}-");
                let pages = self.client.describe_alarms().alarm_name_prefix(prefix);
                let pages = pages
                    .into_paginator()
                    .send()
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("cloudwatch:DescribeAlarms"))?;
                let alarms =
                    pages.into_iter().flat_map(|page| page.metric_alarms.unwrap_or_default());
                stream::iter(alarms)
                    .map(|alarm| self.tagged(alarm))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |tagged| Ok(tagged))
                    .try_collect()
                    .await
            })
            .await
    }

    async fn tagged(&self, alarm: MetricAlarm) -> Result<Option<TaggedAlarm>, Error> {
        let arn = alarm.alarm_arn().unwrap_or_default();
        let tags = not_found_is_none(self.tags_of(arn).await)?;
        Ok(tags.map(|tags| TaggedAlarm { alarm, tags }))
    }

    /// The tags of an alarm.
    pub async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let answer = self
            .client
            .list_tags_for_resource()
            .resource_arn(arn)
            .send()
            .await
            .map_err(failed("cloudwatch:ListTagsForResource"))?;
        Ok(answer
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect())
    }

    /// Writes the label's tags on an existing alarm.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(tags(label)))
            .send()
            .await
            .map_err(failed("cloudwatch:TagResource"))?;
        Ok(())
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
