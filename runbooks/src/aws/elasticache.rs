//! `ElastiCache`: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_elasticache as sdk;
use sdk::types::{CacheCluster, CacheParameterGroup, CacheSubnetGroup, ReplicationGroup, Tag};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct ElastiCache {
    /// The SDK's client.
    pub client: sdk::Client,
    replication_groups: Batch<Vec<ReplicationGroup>>,
    clusters: Batch<Vec<CacheCluster>>,
    subnet_groups: Batch<Vec<CacheSubnetGroup>>,
    parameter_groups: Batch<Vec<CacheParameterGroup>>,
}

impl ElastiCache {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            replication_groups: Batch::default(),
            clusters: Batch::default(),
            subnet_groups: Batch::default(),
            parameter_groups: Batch::default(),
        }
    }

    /// All replication groups.
    pub async fn replication_groups(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<ReplicationGroup>>, Error> {
        self.replication_groups
            .get(since, async {
                let groups = self.client.describe_replication_groups();
                let pages = groups.into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("elasticache:DescribeReplicationGroups"))
            })
            .await
    }

    /// All clusters: the nodes of replication groups, which know their subnet, parameter and
    /// security groups while the replication group itself does not.
    pub async fn clusters(&self, since: Instant) -> Result<Arc<Vec<CacheCluster>>, Error> {
        self.clusters
            .get(since, async {
                let pages = self.client.describe_cache_clusters().into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("elasticache:DescribeCacheClusters"))
            })
            .await
    }

    /// All subnet groups.
    pub async fn subnet_groups(&self, since: Instant) -> Result<Arc<Vec<CacheSubnetGroup>>, Error> {
        self.subnet_groups
            .get(since, async {
                let groups = self.client.describe_cache_subnet_groups();
                let pages = groups.into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("elasticache:DescribeCacheSubnetGroups"))
            })
            .await
    }

    /// All parameter groups.
    pub async fn parameter_groups(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<CacheParameterGroup>>, Error> {
        self.parameter_groups
            .get(since, async {
                let groups = self.client.describe_cache_parameter_groups();
                let pages = groups.into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("elasticache:DescribeCacheParameterGroups"))
            })
            .await
    }

    /// Tags of one resource; no description brings them along.
    pub async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let list = self.client.list_tags_for_resource().resource_name(arn).send().await;
        Ok(live_tags(list.map_err(failed("elasticache:ListTagsForResource"))?.tag_list()))
    }

    /// Writes the label's tags on an existing resource.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .add_tags_to_resource()
            .resource_name(arn)
            .set_tags(Some(tags(label)))
            .send()
            .await
            .map_err(failed("elasticache:AddTagsToResource"))?;
        Ok(())
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The tags that `ElastiCache` answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}
