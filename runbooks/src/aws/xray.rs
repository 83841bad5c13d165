//! X-Ray: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_xray as sdk;
use sdk::types::{GroupSummary, SamplingRule, Tag};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct XRay {
    /// The SDK's client.
    pub client: sdk::Client,
    groups: Batch<Vec<GroupSummary>>,
    sampling_rules: Batch<Vec<SamplingRule>>,
}

impl XRay {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            groups: Batch::default(),
            sampling_rules: Batch::default(),
        }
    }

    /// All groups.
    pub async fn groups(&self, since: Instant) -> Result<Arc<Vec<GroupSummary>>, Error> {
        self.groups
            .get(since, async {
                let pages = self.client.get_groups().into_paginator().items().send();
                pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("xray:GetGroups"))
            })
            .await
    }

    /// All sampling rules.
    pub async fn sampling_rules(&self, since: Instant) -> Result<Arc<Vec<SamplingRule>>, Error> {
        self.sampling_rules
            .get(since, async {
                let pages = self.client.get_sampling_rules().into_paginator().items().send();
                let records = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("xray:GetSamplingRules"))?;
                Ok(records.into_iter().filter_map(|record| record.sampling_rule).collect())
            })
            .await
    }

    /// The tags of a group or sampling rule.
    pub async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let answer = self
            .client
            .list_tags_for_resource()
            .resource_arn(arn)
            .send()
            .await
            .map_err(failed("xray:ListTagsForResource"))?;
        Ok(answer.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect())
    }

    /// Writes the label's tags on an existing group or sampling rule.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(tags(label)?))
            .send()
            .await
            .map_err(failed("xray:TagResource"))?;
        Ok(())
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("xray:TagResource", |key, value| Tag::builder().key(key).value(value).build())
}
