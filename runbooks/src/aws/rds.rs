//! RDS: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_rds as sdk;
use sdk::types::{
    DbCluster, DbClusterParameterGroup, DbInstance, DbParameterGroup, DbProxy, DbSubnetGroup, Tag,
};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct Rds {
    /// The SDK's client.
    pub client: sdk::Client,
    instances: Batch<Vec<DbInstance>>,
    clusters: Batch<Vec<DbCluster>>,
    subnet_groups: Batch<Vec<DbSubnetGroup>>,
    parameter_groups: Batch<Vec<DbParameterGroup>>,
    cluster_parameter_groups: Batch<Vec<DbClusterParameterGroup>>,
    proxies: Batch<Vec<DbProxy>>,
}

impl Rds {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            instances: Batch::default(),
            clusters: Batch::default(),
            subnet_groups: Batch::default(),
            parameter_groups: Batch::default(),
            cluster_parameter_groups: Batch::default(),
            proxies: Batch::default(),
        }
    }

    /// All instances.
    pub async fn instances(&self, since: Instant) -> Result<Arc<Vec<DbInstance>>, Error> {
        self.instances
            .get(since, async {
                let pages = self.client.describe_db_instances().into_paginator().items().send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("rds:DescribeDBInstances"))
            })
            .await
    }

    /// All clusters.
    pub async fn clusters(&self, since: Instant) -> Result<Arc<Vec<DbCluster>>, Error> {
        self.clusters
            .get(since, async {
                let pages = self.client.describe_db_clusters().into_paginator().items().send();
                pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("rds:DescribeDBClusters"))
            })
            .await
    }

    /// All subnet groups.
    pub async fn subnet_groups(&self, since: Instant) -> Result<Arc<Vec<DbSubnetGroup>>, Error> {
        self.subnet_groups
            .get(since, async {
                let pages = self.client.describe_db_subnet_groups().into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("rds:DescribeDBSubnetGroups"))
            })
            .await
    }

    /// All parameter groups of instances.
    pub async fn parameter_groups(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<DbParameterGroup>>, Error> {
        self.parameter_groups
            .get(since, async {
                let groups = self.client.describe_db_parameter_groups();
                let pages = groups.into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("rds:DescribeDBParameterGroups"))
            })
            .await
    }

    /// All parameter groups of clusters.
    pub async fn cluster_parameter_groups(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<DbClusterParameterGroup>>, Error> {
        self.cluster_parameter_groups
            .get(since, async {
                let groups = self.client.describe_db_cluster_parameter_groups();
                let pages = groups.into_paginator().items().send();
                let pages = pages.collect::<Result<Vec<_>, _>>().await;
                pages.map_err(failed("rds:DescribeDBClusterParameterGroups"))
            })
            .await
    }

    /// All proxies.
    pub async fn proxies(&self, since: Instant) -> Result<Arc<Vec<DbProxy>>, Error> {
        self.proxies
            .get(since, async {
                let pages = self.client.describe_db_proxies().into_paginator().items().send();
                pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("rds:DescribeDBProxies"))
            })
            .await
    }

    /// Tags of one resource; only instances and clusters bring theirs with their description.
    pub async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let list = self.client.list_tags_for_resource().resource_name(arn).send().await;
        Ok(live_tags(list.map_err(failed("rds:ListTagsForResource"))?.tag_list()))
    }

    /// Writes the label's tags on an existing resource.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .add_tags_to_resource()
            .resource_name(arn)
            .set_tags(Some(tags(label)))
            .send()
            .await
            .map_err(failed("rds:AddTagsToResource"))?;
        Ok(())
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The tags that RDS answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}
