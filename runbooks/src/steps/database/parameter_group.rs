//! The parameter group of the database.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_rds::types::{ApplyMethod, DbParameterGroup as LiveGroup, Parameter};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, rds::tags},
    engine::{
        Class, Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What differs from `PostgreSQL`'s defaults. `rds.force_ssl` refuses a connection without TLS (RDS
/// user guide, "Requiring an SSL/TLS connection to a `PostgreSQL` DB instance").
const PARAMETERS: [(&str, &str); 1] = [("rds.force_ssl", "1")];

/// The settings of the database engine. A group is for one major version, which its name ends with:
/// an upgrade makes the next one beside it, moves the instance over, and then deletes it.
pub struct DbParameterGroup {
    /// Id, name without the version, and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Major version of `PostgreSQL`.
    pub major: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbParameterGroupOutput {
    /// Name of the group for the version that is wanted.
    pub name: String,
    /// Names of those for other versions.
    pub(super) former: Vec<String>,
    /// Name of the group that was found.
    found: String,
    /// Its ARN.
    arn: String,
}

#[async_trait]
impl Resource for DbParameterGroup {
    type Output = DbParameterGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DbParameterGroupOutput>>, Error> {
        let groups = self.aws.rds.parameter_groups(since).await?;
        let named = |group: &&LiveGroup, name: &str| group.db_parameter_group_name() == Some(name);
        let name = self.name();
        let former = self.former(&groups).await?;
        let Some(group) = groups.iter().find(|group| named(group, &name)).or_else(|| {
            let latest = former.last()?;
            groups.iter().find(|group| named(group, latest))
        }) else {
            return Ok(None);
        };
        let found = group.db_parameter_group_name().unwrap_or_default().to_owned();
        let arn = group.db_parameter_group_arn().unwrap_or_default().to_owned();
        let (tags, parameters) =
            futures::try_join!(self.aws.rds.tags(&arn), self.live_parameters(&found))?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "dbParameterGroupFamily": group.db_parameter_group_family(),
                "parameters": parameters,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: DbParameterGroupOutput { name, former, found, arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "dbParameterGroupFamily": self.family(),
            "parameters": BTreeMap::from(PARAMETERS),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<DbParameterGroupOutput>, Error> {
        let name = self.name();
        let created = self
            .aws
            .rds
            .client
            .create_db_parameter_group()
            .db_parameter_group_name(&name)
            .db_parameter_group_family(self.family())
            .description("Settings of the database")
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("rds:CreateDBParameterGroup"))?;
        // Killed before this, the next run's comparison finds the parameters missing.
        self.set_parameters().await?;
        let arn = created.db_parameter_group().and_then(|group| group.db_parameter_group_arn());
        Ok(Some(DbParameterGroupOutput {
            found: name.clone(),
            name,
            former: Vec::new(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<DbParameterGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "dbParameterGroupFamily") {
            // The one that was found serves the instance until that is upgraded.
            return match self.create(outputs).await {
                Err(error) if error.class != Class::AlreadyExists => Err(error),
                _ => Ok(()),
            };
        }
        if touches(fields, "parameters") {
            self.set_parameters().await?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbParameterGroupOutput>) -> Result<(), Error> {
        delete(&self.aws, &live.output.found).await
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "rds:AddTagsToResource",
            "rds:CreateDBParameterGroup",
            "rds:DeleteDBParameterGroup",
            "rds:DescribeDBParameters",
            "rds:ListTagsForResource",
            "rds:ModifyDBParameterGroup",
        ];
        // Those for other versions too.
        let groups = self.aws.arn("rds", &format!("pg:{}-*", self.label.name));
        vec![
            Permission::anywhere(["rds:DescribeDBParameterGroups"]),
            Permission::on(actions, [groups]),
        ]
    }
}

impl DbParameterGroup {
    fn family(&self) -> String {
        format!("postgres{}", self.major)
    }

    fn name(&self) -> String {
        format!("{}-{}", self.label.name, self.family())
    }

    /// Names of the groups that were made for other versions, in order of their versions.
    async fn former(&self, groups: &[LiveGroup]) -> Result<Vec<String>, Error> {
        let mut former = Vec::new();
        for group in groups {
            let name = group.db_parameter_group_name().unwrap_or_default();
            let Some(major) = major_of(name, &self.label.name) else { continue };
            let arn = group.db_parameter_group_arn().unwrap_or_default();
            if name != self.name() && self.label.adopt(&self.aws.rds.tags(arn).await?).is_ok() {
                former.push((major, name.to_owned()));
            }
        }
        former.sort_unstable();
        Ok(former.into_iter().map(|(_, name)| name).collect())
    }

    /// Our parameters as they are. Those that somebody has set come on one page; only when one of
    /// ours is not among them are the hundreds of defaults asked for.
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
        let describe = self.aws.rds.client.describe_db_parameters();
        let describe = describe.db_parameter_group_name(group);
        let describe = describe.set_source(source.map(ToOwned::to_owned));
        let pages = describe.into_paginator().items().send();
        let parameters = pages.collect::<Result<Vec<_>, _>>().await;
        parameters.map_err(failed("rds:DescribeDBParameters"))
    }

    async fn set_parameters(&self) -> Result<(), Error> {
        let parameters = PARAMETERS.iter().map(|(name, value)| {
            Parameter::builder()
                .parameter_name(*name)
                .parameter_value(*value)
                .apply_method(ApplyMethod::Immediate)
                .build()
        });
        let modify = self.aws.rds.client.modify_db_parameter_group();
        modify
            .db_parameter_group_name(self.name())
            .set_parameters(Some(parameters.collect()))
            .send()
            .await
            .map_err(failed("rds:ModifyDBParameterGroup"))?;
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
        let there = aws.rds.parameter_groups(since).await?;
        names.retain(|name| {
            there.iter().any(|group| group.db_parameter_group_name() == Some(name.as_str()))
        });
    }
    Ok(())
}

/// Deletes the parameter group of that name.
pub(super) async fn delete(aws: &Aws, name: &str) -> Result<(), Error> {
    let delete = aws.rds.client.delete_db_parameter_group().db_parameter_group_name(name);
    delete.send().await.map_err(failed("rds:DeleteDBParameterGroup"))?;
    Ok(())
}

/// The major version of `PostgreSQL` that the group `name` of those called `base` is for.
fn major_of(name: &str, base: &str) -> Option<u32> {
    name.strip_prefix(base)?.strip_prefix("-postgres")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_environment_with_a_version_are_ours() {
        let of = |name| major_of(name, "bme-a-parameter-group");
        assert_eq!(of("bme-a-parameter-group-postgres15"), Some(15));
        assert_eq!(of("bme-a-parameter-group"), None);
        // Of an environment called `a-parameter-group`.
        assert_eq!(of("bme-a-parameter-group-parameter-group-postgres15"), None);
        assert_eq!(of("bme-b-parameter-group-postgres15"), None);
    }
}
