//! ECS: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_ecs as sdk;
use sdk::types::{
    Cluster, ClusterField, Service, ServiceField, Tag, TaskDefinition, TaskDefinitionField,
    TaskDefinitionStatus,
};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// The client and what it has answered.
pub struct Ecs {
    /// The SDK's client.
    pub client: sdk::Client,
    services: Batch<Vec<Service>>,
}

impl Ecs {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), services: Batch::default() }
    }

    /// The cluster of that name with settings and tags, unless it is deleted: ECS goes on describing
    /// a deleted cluster as `INACTIVE`.
    pub async fn cluster(&self, name: &str) -> Result<Option<Cluster>, Error> {
        let answer = self
            .client
            .describe_clusters()
            .clusters(name)
            .include(ClusterField::Settings)
            .include(ClusterField::Tags)
            .send()
            .await
            .map_err(failed("ecs:DescribeClusters"))?;
        Ok(answer
            .clusters
            .unwrap_or_default()
            .into_iter()
            .find(|found| found.status() != Some("INACTIVE")))
    }

    /// All services of an environment with their tags, in one call; `names` are the same whoever
    /// asks, at most ten. By name, since `ListServices` may leave out one that is draining.
    pub async fn services(
        &self,
        since: Instant,
        cluster: &str,
        names: &[String],
    ) -> Result<Arc<Vec<Service>>, Error> {
        self.services
            .get(since, async {
                let answer = self
                    .client
                    .describe_services()
                    .cluster(cluster)
                    .set_services(Some(names.to_vec()))
                    .include(ServiceField::Tags)
                    .send()
                    .await
                    .map_err(failed("ecs:DescribeServices"));
                let answer = not_found_is_none(answer)?;
                Ok(answer.and_then(|answer| answer.services).unwrap_or_default())
            })
            .await
    }

    /// The latest active revision of a family with its tags.
    pub async fn task_definition(
        &self,
        family: &str,
    ) -> Result<Option<(TaskDefinition, Vec<Tag>)>, Error> {
        let answer = self
            .client
            .describe_task_definition()
            .task_definition(family)
            .include(TaskDefinitionField::Tags)
            .send()
            .await
            .map_err(failed("ecs:DescribeTaskDefinition"));
        let Some(answer) = not_found_is_none(answer)? else {
            return Ok(None);
        };
        let tags = answer.tags.unwrap_or_default();
        Ok(answer
            .task_definition
            .filter(|found| found.status() == Some(&TaskDefinitionStatus::Active))
            .map(|found| (found, tags)))
    }

    /// ARNs of a family's revisions in this status.
    pub async fn revisions(
        &self,
        family: &str,
        status: TaskDefinitionStatus,
    ) -> Result<Vec<String>, Error> {
        let pages = self
            .client
            .list_task_definitions()
            .family_prefix(family)
            .status(status)
            .into_paginator();
        let found = pages.items().send().collect::<Result<Vec<_>, _>>().await;
        let mut found = found.map_err(failed("ecs:ListTaskDefinitions"))?;
        // The filter is by prefix: `bme-x-api` must not answer for `bme-x-api-2`.
        found.retain(|arn| {
            let name = arn.rsplit('/').next().and_then(|last| last.rsplit_once(':'));
            name.is_some_and(|(name, _)| name == family)
        });
        Ok(found)
    }

    /// Writes the label's tags on an existing cluster, service or task definition.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        let tag = self.client.tag_resource().resource_arn(arn).set_tags(Some(tags(label)));
        tag.send().await.map_err(failed("ecs:TagResource"))?;
        Ok(())
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The tags that ECS answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}
