//! WAF: its client and its batched answers. Only regional web ACLs are looked at.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_wafv2 as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use sdk::types::{Scope, Tag, WebAcl, WebAclSummary};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// Details asked for at once.
const ABREAST: usize = 8;

/// A web ACL with its tags.
pub struct TaggedWebAcl {
    /// As `GetWebACL` answers.
    pub web_acl: WebAcl,
    /// As `ListTagsForResource` answers.
    pub tags: BTreeMap<String, String>,
}

/// The client and what it has answered.
pub struct Wafv2 {
    /// The SDK's client.
    pub client: sdk::Client,
    web_acls: Batch<Vec<TaggedWebAcl>>,
}

impl Wafv2 {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), web_acls: Batch::default() }
    }

    /// All regional web ACLs whose name is one that `bme` gives.
    pub async fn web_acls(&self, since: Instant) -> Result<Arc<Vec<TaggedWebAcl>>, Error> {
        self.web_acls
            .get(since, async {
                let ours =
                    self.list().await?.into_iter().filter(|summary| {
                        summary.name().is_some_and(|name| name.starts_with("bme-"))
                    });
                stream::iter(ours)
                    .map(|summary| self.tagged(summary))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |tagged| Ok(tagged))
                    .try_collect()
                    .await
            })
            .await
    }

    async fn list(&self) -> Result<Vec<WebAclSummary>, Error> {
        let mut summaries = Vec::new();
        let mut marker = None;
        loop {
            let answer = self
                .client
                .list_web_acls()
                .scope(Scope::Regional)
                .limit(100)
                .set_next_marker(marker)
                .send()
                .await
                .map_err(failed("wafv2:ListWebACLs"))?;
            let page = answer.web_acls.unwrap_or_default();
            // WAF answers with a marker after the last full page too; an empty page ends the list.
            marker = answer.next_marker.filter(|marker| !marker.is_empty() && !page.is_empty());
            summaries.extend(page);
            if marker.is_none() {
                return Ok(summaries);
            }
        }
    }

    async fn tagged(&self, summary: WebAclSummary) -> Result<Option<TaggedWebAcl>, Error> {
        let answer = self
            .client
            .get_web_acl()
            .set_name(summary.name)
            .set_id(summary.id)
            .scope(Scope::Regional)
            .send()
            .await;
        let answer = not_found_is_none(answer.map_err(failed("wafv2:GetWebACL")))?;
        let Some(web_acl) = answer.and_then(|answer| answer.web_acl) else { return Ok(None) };
        let tags = self
            .client
            .list_tags_for_resource()
            .resource_arn(web_acl.arn())
            .send()
            .await
            .map_err(failed("wafv2:ListTagsForResource"))?
            .tag_info_for_resource
            .and_then(|info| info.tag_list)
            .unwrap_or_default();
        let tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        Ok(Some(TaggedWebAcl { web_acl, tags }))
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("wafv2:TagResource", |key, value| Tag::builder().key(key).value(value).build())
}
