//! The parameter group of the cache.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_elasticache::types::{CacheParameterGroup as LiveGroup, Parameter, ParameterNameValue};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, elasticache::tags, failed},
    engine::{
        Class, Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What differs from the defaults. The queue and the idempotency keys live in Redis: when memory is
/// full a write must fail, not push out a key that was promised to stay.
const PARAMETERS: [(&str, &str); 1] = [("maxmemory-policy", "noeviction")];

/// The settings of the cache engine. A group is for one major version of one engine, which its name
/// ends with: an upgrade makes the next one beside it, moves the replication group over, and then
/// deletes it.
pub struct CacheParameterGroup {
    /// Id, name without the family, and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// `redis7` or `valkey8`.
    pub family: &'static str,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct CacheParameterGroupOutput {
    /// Name of the group for the family that is wanted.
    pub name: String,
    /// Names of those for other families.
    pub(super) former: Vec<String>,
    /// Name of the group that was found.
    found: String,
    /// Its ARN.
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
        let named =
            |group: &&LiveGroup, name: &str| group.cache_parameter_group_name() == Some(name);
        let name = self.name();
        let former = self.former(&groups).await?;
        let Some(group) = groups.iter().find(|group| named(group, &name)).or_else(|| {
            let latest = former.last()?;
            groups.iter().find(|group| named(group, latest))
        }) else {
            return Ok(None);
        };
        let found = group.cache_parameter_group_name().unwrap_or_default().to_owned();
        let arn = group.arn().unwrap_or_default().to_owned();
        let (tags, parameters) =
            futures::try_join!(self.aws.elasticache.tags(&arn), self.live_parameters(&found))?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "cacheParameterGroupFamily": group.cache_parameter_group_family(),
                "parameters": parameters,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: CacheParameterGroupOutput { name, former, found, arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "cacheParameterGroupFamily": self.family,
            "parameters": BTreeMap::from(PARAMETERS),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<CacheParameterGroupOutput>, Error> {
        let name = self.name();
        let created = self
            .aws
            .elasticache
            .client
            .create_cache_parameter_group()
            .cache_parameter_group_name(&name)
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
            found: name.clone(),
            name,
            former: Vec::new(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<CacheParameterGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "cacheParameterGroupFamily") {
            // The one that was found serves the replication group until that is upgraded.
            return match self.create(outputs).await {
                Err(error) if error.class != Class::AlreadyExists => Err(error),
                _ => Ok(()),
            };
        }
        if touches(fields, "parameters") {
            self.set_parameters().await?;
        }
        if touches(fields, "tags") {
            self.aws.elasticache.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<CacheParameterGroupOutput>) -> Result<(), Error> {
        delete(&self.aws, &live.output.found).await
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticache:AddTagsToResource",
            "elasticache:CreateCacheParameterGroup",
            "elasticache:DeleteCacheParameterGroup",
            "elasticache:DescribeCacheParameters",
            "elasticache:ListTagsForResource",
            "elasticache:ModifyCacheParameterGroup",
        ];
        // Those for other families too.
        let groups = self.aws.arn("elasticache", &format!("parametergroup:{}-*", self.label.name));
        vec![
            Permission::anywhere(["elasticache:DescribeCacheParameterGroups"]),
            Permission::on(actions, [groups]),
        ]
    }
}

impl CacheParameterGroup {
    fn name(&self) -> String {
        format!("{}-{}", self.label.name, self.family)
    }

    /// Names of the groups that were made for other families.
    async fn former(&self, groups: &[LiveGroup]) -> Result<Vec<String>, Error> {
        let mut former = Vec::new();
        for group in groups {
            let name = group.cache_parameter_group_name().unwrap_or_default();
            if name == self.name() || !is_of(name, &self.label.name) {
                continue;
            }
            let tags = self.aws.elasticache.tags(group.arn().unwrap_or_default()).await?;
            if self.label.adopt(&tags).is_ok() {
                former.push(name.to_owned());
            }
        }
        former.sort_unstable();
        Ok(former)
    }

    /// Our parameters as they are. Parameters that somebody has set come on one page; only when one
    /// of ours is not among them are the defaults asked for.
    async fn live_parameters(&self, group: &str) -> Result<BTreeMap<String, String>, Error> {
        let ours = |parameters: Vec<Parameter>| -> BTreeMap<String, String> {
            parameters
                .into_iter()
                .filter_map(|parameter| {
                    Some((parameter.parameter_name?, parameter.parameter_value?))
                })
                .filter(|(name, _)| PARAMETERS.iter().any(|(ours, _)| ours == name))
                .collect()
        };
        let set = ours(self.parameters(group, Some("user")).await?);
        if set.len() == PARAMETERS.len() {
            Ok(set)
        } else {
            Ok(ours(self.parameters(group, None).await?))
        }
    }

    async fn parameters(&self, group: &str, source: Option<&str>) -> Result<Vec<Parameter>, Error> {
        const OPERATION: &str = "elasticache:DescribeCacheParameters";
        let describe = self.aws.elasticache.client.describe_cache_parameters();
        let describe = describe.cache_parameter_group_name(group);
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
            .cache_parameter_group_name(self.name())
            .set_parameter_name_values(Some(parameters.collect()))
            .send()
            .await
            .map_err(failed("elasticache:ModifyCacheParameterGroup"))?;
        Ok(())
    }
}

/// Keeps the names of the parameter groups that are there.
pub(super) async fn retain_existing(
    aws: &Aws,
    names: &mut Vec<String>,
    since: Instant,
) -> Result<(), Error> {
    if !names.is_empty() {
        let there = aws.elasticache.parameter_groups(since).await?;
        names.retain(|name| {
            there.iter().any(|group| group.cache_parameter_group_name() == Some(name.as_str()))
        });
    }
    Ok(())
}

/// Deletes the parameter group of that name.
pub(super) async fn delete(aws: &Aws, name: &str) -> Result<(), Error> {
    let delete = aws.elasticache.client.delete_cache_parameter_group();
    let deleted = delete.cache_parameter_group_name(name).send().await;
    deleted.map_err(failed("elasticache:DeleteCacheParameterGroup"))?;
    Ok(())
}

/// Whether `name` is that of a group called `base` for some major version of an engine.
fn is_of(name: &str, base: &str) -> bool {
    let family = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('-'));
    family.is_some_and(|family| {
        ["redis", "valkey"].iter().any(|engine| {
            family.strip_prefix(engine).is_some_and(|version| version.parse::<u32>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_environment_with_a_family_are_ours() {
        let base = "bme-a-cache-parameter-group";
        assert!(is_of("bme-a-cache-parameter-group-redis7", base));
        assert!(is_of("bme-a-cache-parameter-group-valkey8", base));
        assert!(!is_of("bme-a-cache-parameter-group", base));
        assert!(!is_of("bme-a-cache-parameter-group-redis-own", base));
        assert!(!is_of("bme-b-cache-parameter-group-redis7", base));
    }
}
