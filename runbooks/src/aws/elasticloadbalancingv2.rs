//! Elastic Load Balancing: its client and its batched answers.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_elasticloadbalancingv2 as sdk;
use sdk::types::{Listener, LoadBalancer, Rule, Tag, TargetGroup};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// The client and what it has answered.
pub struct ElasticLoadBalancing {
    /// The SDK's client.
    pub client: sdk::Client,
    load_balancers: Batch<Vec<LoadBalancer>>,
    target_groups: Batch<Vec<TargetGroup>>,
}

impl ElasticLoadBalancing {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            load_balancers: Batch::default(),
            target_groups: Batch::default(),
        }
    }

    /// All load balancers.
    pub async fn load_balancers(&self, since: Instant) -> Result<Arc<Vec<LoadBalancer>>, Error> {
        self.load_balancers
            .get(since, async {
                let pages = self.client.describe_load_balancers().into_paginator().items().send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("elasticloadbalancing:DescribeLoadBalancers"))
            })
            .await
    }

    /// All target groups.
    pub async fn target_groups(&self, since: Instant) -> Result<Arc<Vec<TargetGroup>>, Error> {
        self.target_groups
            .get(since, async {
                let pages = self.client.describe_target_groups().into_paginator().items().send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("elasticloadbalancing:DescribeTargetGroups"))
            })
            .await
    }

    /// The listeners of a load balancer; AWS describes them only by load balancer.
    pub async fn listeners(&self, load_balancer: &str) -> Result<Vec<Listener>, Error> {
        let pages =
            self.client.describe_listeners().load_balancer_arn(load_balancer).into_paginator();
        let listeners = pages.items().send().collect::<Result<Vec<_>, _>>().await;
        let listeners = listeners.map_err(failed("elasticloadbalancing:DescribeListeners"));
        Ok(not_found_is_none(listeners)?.unwrap_or_default())
    }

    /// The rules of a listener; AWS describes them only by listener.
    pub async fn rules(&self, listener: &str) -> Result<Vec<Rule>, Error> {
        let pages = self.client.describe_rules().listener_arn(listener).into_paginator();
        let rules = pages.items().send().collect::<Result<Vec<_>, _>>().await;
        let rules = rules.map_err(failed("elasticloadbalancing:DescribeRules"));
        Ok(not_found_is_none(rules)?.unwrap_or_default())
    }

    /// The tags of up to 20 load balancers, target groups, listeners or rules, by ARN; AWS does not
    /// tell them with the description.
    pub async fn live_tags(
        &self,
        arns: &[String],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        if arns.is_empty() {
            return Ok(BTreeMap::new());
        }
        let answer =
            self.client.describe_tags().set_resource_arns(Some(arns.to_vec())).send().await;
        let answer = answer.map_err(failed("elasticloadbalancing:DescribeTags"))?;
        let text =
            |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
        Ok(answer
            .tag_descriptions()
            .iter()
            .map(|of| {
                let arn = of.resource_arn().unwrap_or_default().to_owned();
                (arn, of.tags().iter().filter_map(text).collect())
            })
            .collect())
    }

    /// Writes the label's tags.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        let tag = self.client.add_tags().resource_arns(arn).set_tags(Some(tags(label)));
        tag.send().await.map_err(failed("elasticloadbalancing:AddTags"))?;
        Ok(())
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
