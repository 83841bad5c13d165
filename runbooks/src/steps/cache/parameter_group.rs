//! The parameter group of the cache.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_elasticache::types::{Parameter, ParameterNameValue};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, elasticache::tags, failed},
    engine::{
        Condition, Error, Live, Outputs, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What differs from the defaults. The queue and the idempotency keys live in Redis: when memory is
/// full a write must fail, not push out a key that was promised to stay.
const PARAMETERS: [(&str, &str); 1] = [("maxmemory-policy", "noeviction")];

/// The settings of the cache engine.
pub struct CacheParameterGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// `redis7` or `valkey8`.
    pub family: &'static str,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct CacheParameterGroupOutput {
    /// Name.
    pub name: String,
    /// ARN.
    arn: String,
}

#[async_trait]
impl Resource for CacheParameterGroup {
    type Output = CacheParameterGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<CacheParameterGroupOutput>>, Error> {
        let groups = self.aws.elasticache.parameter_groups(since).await?;
        let Some(group) =
            groups.iter().find(|g| g.cache_parameter_group_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let arn = group.arn().unwrap_or_default().to_owned();
        let (tags, parameters) =
            futures::try_join!(self.aws.elasticache.tags(&arn), self.live_parameters())?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "cacheParameterGroupFamily": group.cache_parameter_group_family(),
                "parameters": parameters,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: CacheParameterGroupOutput { name: self.label.name.clone(), arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "cacheParameterGroupFamily": self.family,
            "parameters": BTreeMap::from(PARAMETERS),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("cacheParameterGroupFamily", "a parameter group is for one major version of one engine")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<CacheParameterGroupOutput>, Error> {
        let created = self
            .aws
            .elasticache
            .client
            .create_cache_parameter_group()
            .cache_parameter_group_name(&self.label.name)
            .cache_parameter_group_family(self.family)
            .description("Settings of the cache")
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticache:CreateCacheParameterGroup"))?;
        // Killed before this, the next run's comparison finds the parameters missing.
        self.set_parameters().await?;
        let arn = created.cache_parameter_group().and_then(|group| group.arn());
        Ok(Some(CacheParameterGroupOutput {
            name: self.label.name.clone(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<CacheParameterGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "parameters") {
            self.set_parameters().await?;
        }
        if touches(fields, "tags") {
            self.aws.elasticache.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<CacheParameterGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticache.client.delete_cache_parameter_group();
        let deleted = delete.cache_parameter_group_name(&live.output.name).send().await;
        deleted.map_err(failed("elasticache:DeleteCacheParameterGroup"))?;
        Ok(())
    }
}

impl CacheParameterGroup {
    /// Our parameters as they are. Parameters that somebody has set come on one page; only when one
    /// of ours is not among them are the defaults asked for.
    async fn live_parameters(&self) -> Result<BTreeMap<String, String>, Error> {
        let ours = |parameters: Vec<Parameter>| -> BTreeMap<String, String> {
            parameters
                .into_iter()
                .filter_map(|parameter| {
                    Some((parameter.parameter_name?, parameter.parameter_value?))
                })
                .filter(|(name, _)| PARAMETERS.iter().any(|(ours, _)| ours == name))
                .collect()
        };
        let set = ours(self.parameters(Some("user")).await?);
        if set.len() == PARAMETERS.len() { Ok(set) } else { Ok(ours(self.parameters(None).await?)) }
    }

    async fn parameters(&self, source: Option<&str>) -> Result<Vec<Parameter>, Error> {
        const OPERATION: &str = "elasticache:DescribeCacheParameters";
        let describe = self.aws.elasticache.client.describe_cache_parameters();
        let describe = describe.cache_parameter_group_name(&self.label.name);
        let mut pages = describe.set_source(source.map(ToOwned::to_owned)).into_paginator().send();
        let mut parameters = Vec::new();
        while let Some(page) = pages.next().await {
            parameters.extend(page.map_err(failed(OPERATION))?.parameters.unwrap_or_default());
        }
        Ok(parameters)
    }

    async fn set_parameters(&self) -> Result<(), Error> {
        let parameters = PARAMETERS.iter().map(|(name, value)| {
            ParameterNameValue::builder().parameter_name(*name).parameter_value(*value).build()
        });
        let modify = self.aws.elasticache.client.modify_cache_parameter_group();
        modify
            .cache_parameter_group_name(&self.label.name)
            .set_parameter_name_values(Some(parameters.collect()))
            .send()
            .await
            .map_err(failed("elasticache:ModifyCacheParameterGroup"))?;
        Ok(())
    }
}
