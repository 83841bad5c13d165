//! `CloudWatch` Logs: its client and its batched answers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// Details asked for at once.
const ABREAST: usize = 8;

/// A log group with its tags.
pub struct TaggedLogGroup {
    /// As `DescribeLogGroups` answers.
    pub group: sdk::types::LogGroup,
    /// Its ARN without the trailing `:*`, which is what tags and log destinations are named by.
    pub arn: String,
    /// As `ListTagsForResource` answers.
    pub tags: BTreeMap<String, String>,
}

/// The client and what it has answered.
pub struct CloudWatchLogs {
    /// The SDK's client.
    pub client: sdk::Client,
    log_groups: Batch<Vec<TaggedLogGroup>>,
}

impl CloudWatchLogs {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), log_groups: Batch::default() }
    }

    /// All log groups of `environment`, which is the same whoever asks, by their names: `bme-{env}-…` and
    /// WAF's `aws-waf-logs-bme-{env}`. The tags take a call each: hence those of no other environment.
    pub async fn log_groups(
        &self,
        environment: &str,
        since: Instant,
    ) -> Result<Arc<Vec<TaggedLogGroup>>, Error> {
        self.log_groups
            .get(since, async {
                let pattern = format!("bme-{environment}");
                let pages = self.client.describe_log_groups().log_group_name_pattern(pattern);
                let groups = pages
                    .into_paginator()
                    .items()
                    .send()
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("logs:DescribeLogGroups"))?;
                stream::iter(groups)
                    .map(|group| self.tagged(group))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |tagged| Ok(tagged))
                    .try_collect()
                    .await
            })
            .await
    }

    async fn tagged(&self, group: sdk::types::LogGroup) -> Result<Option<TaggedLogGroup>, Error> {
        let arn = group.arn().unwrap_or_default().trim_end_matches(":*").to_owned();
        let answer = self.client.list_tags_for_resource().resource_arn(&arn).send().await;
        let answer = not_found_is_none(answer.map_err(failed("logs:ListTagsForResource")))?;
        Ok(answer.map(|answer| TaggedLogGroup {
            group,
            arn,
            tags: answer.tags.unwrap_or_default().into_iter().collect(),
        }))
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> HashMap<String, String> {
    label.tags.clone().into_iter().collect()
}
