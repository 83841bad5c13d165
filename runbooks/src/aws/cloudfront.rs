//! `CloudFront`: its client and its batched answers. A distribution has no name: all are listed
//! with their tags, those that carry ours are read whole.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_cloudfront as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use sdk::types::{
    Distribution, OriginAccessControlSummary, ResponseHeadersPolicy, ResponseHeadersPolicyType,
    Tag, Tags,
};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// Details asked for at once.
const ABREAST: usize = 8;

/// A distribution with its tags.
pub struct TaggedDistribution {
    /// As `GetDistribution` answers.
    pub distribution: Distribution,
    /// As `ListTagsForResource` answers.
    pub tags: BTreeMap<String, String>,
}

/// The client and what it has answered.
pub struct CloudFront {
    /// The SDK's client.
    pub client: sdk::Client,
    distributions: Batch<Vec<TaggedDistribution>>,
    origin_access_controls: Batch<Vec<OriginAccessControlSummary>>,
    response_headers_policies: Batch<Vec<ResponseHeadersPolicy>>,
}

impl CloudFront {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            distributions: Batch::default(),
            origin_access_controls: Batch::default(),
            response_headers_policies: Batch::default(),
        }
    }

    /// All distributions that carry one of our tags.
    pub async fn distributions(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<TaggedDistribution>>, Error> {
        self.distributions
            .get(since, async {
                let pages = self.client.list_distributions().into_paginator().items().send();
                let listed = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("cloudfront:ListDistributions"))?;
                stream::iter(listed)
                    .map(|summary| self.tagged(summary.id, summary.arn))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |tagged| Ok(tagged))
                    .try_collect()
                    .await
            })
            .await
    }

    async fn tagged(&self, id: String, arn: String) -> Result<Option<TaggedDistribution>, Error> {
        let Some(tags) = not_found_is_none(self.tags_of(&arn).await)? else { return Ok(None) };
        let ours = |(key, value): (&String, &String)| {
            key.starts_with("bme:") || key == "Name" && value.starts_with("bme-")
        };
        if !tags.iter().any(ours) {
            return Ok(None);
        }
        let answer = self.client.get_distribution().id(id).send().await;
        let answer = not_found_is_none(answer.map_err(failed("cloudfront:GetDistribution")))?;
        Ok(answer
            .and_then(|answer| answer.distribution)
            .map(|distribution| TaggedDistribution { distribution, tags }))
    }

    /// All origin access controls.
    pub async fn origin_access_controls(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<OriginAccessControlSummary>>, Error> {
        self.origin_access_controls
            .get(since, async {
                let pages = self.client.list_origin_access_controls().into_paginator().send();
                let pages = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("cloudfront:ListOriginAccessControls"))?;
                Ok(pages
                    .into_iter()
                    .filter_map(|page| page.origin_access_control_list)
                    .flat_map(|list| list.items.unwrap_or_default())
                    .collect())
            })
            .await
    }

    /// All response headers policies of the account, without AWS's own.
    pub async fn response_headers_policies(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<ResponseHeadersPolicy>>, Error> {
        self.response_headers_policies
            .get(since, async {
                let mut policies = Vec::new();
                let mut marker = None;
                loop {
                    let list = self
                        .client
                        .list_response_headers_policies()
                        .r#type(ResponseHeadersPolicyType::Custom)
                        .set_marker(marker)
                        .send()
                        .await
                        .map_err(failed("cloudfront:ListResponseHeadersPolicies"))?
                        .response_headers_policy_list;
                    let Some(list) = list else { return Ok(policies) };
                    policies.extend(
                        list.items
                            .unwrap_or_default()
                            .into_iter()
                            .filter_map(|summary| summary.response_headers_policy),
                    );
                    marker = list.next_marker.filter(|marker| !marker.is_empty());
                    if marker.is_none() {
                        return Ok(policies);
                    }
                }
            })
            .await
    }

    /// The tags of a distribution or function.
    pub async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let answer = self
            .client
            .list_tags_for_resource()
            .resource(arn)
            .send()
            .await
            .map_err(failed("cloudfront:ListTagsForResource"))?;
        let items = answer.tags.and_then(|tags| tags.items).unwrap_or_default();
        Ok(items.into_iter().map(|tag| (tag.key, tag.value.unwrap_or_default())).collect())
    }

    /// Writes the label's tags on an existing distribution or function.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .tag_resource()
            .resource(arn)
            .tags(tags(label)?)
            .send()
            .await
            .map_err(failed("cloudfront:TagResource"))?;
        Ok(())
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Tags, Error> {
    let items = label.build_tags("cloudfront:TagResource", |key, value| {
        Tag::builder().key(key).value(value).build()
    })?;
    Ok(Tags::builder().set_items(Some(items)).build())
}
