//! The parameter group of the database, of an instance or of a cluster.

mod of;

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_rds::types::{ApplyMethod, Parameter};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, rds::tags},
    engine::{
        Class, Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

use of::Group;
pub use of::Of;

/// What differs from `PostgreSQL`'s defaults. `rds.force_ssl` refuses a connection without TLS (RDS
/// user guide, "Requiring an SSL/TLS connection to a `PostgreSQL` DB instance"; of Aurora it is a
/// parameter of the cluster).
const PARAMETERS: [(&str, &str); 1] = [("rds.force_ssl", "1")];

/// The settings of the database engine. A group is for one major version, which its name ends with:
/// an upgrade makes the next one beside it, moves the database over, and then deletes it.
pub struct DbParameterGroup {
    /// Id, name without the version, and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What it is of.
    pub of: Of,
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
        let groups = self.of.groups(&self.aws, since).await?;
        let name = self.name();
        let former = self.former(&groups).await?;
        let Some(group) = groups.iter().find(|group| group.name == name).or_else(|| {
            let latest = former.last()?;
            groups.iter().find(|group| group.name == *latest)
        }) else {
            return Ok(None);
        };
        let (tags, parameters) =
            futures::try_join!(self.aws.rds.tags(&group.arn), self.live_parameters(&group.name))?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "dbParameterGroupFamily": group.family,
                "parameters": parameters,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: DbParameterGroupOutput {
                name,
                former,
                found: group.name.clone(),
                arn: group.arn.clone(),
            },
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
        let arn = self.make().await?;
        // Killed before this, the next run's comparison finds the parameters missing.
        self.set_parameters().await?;
        let name = self.name();
        Ok(Some(DbParameterGroupOutput { found: name.clone(), name, former: Vec::new(), arn }))
    }

    async fn update(
        &self,
        live: &Live<DbParameterGroupOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "dbParameterGroupFamily") {
            // The one that was found serves the database until that is upgraded.
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
        self.of.delete(&self.aws, &live.output.found).await
    }

    fn permissions(&self) -> Vec<Permission> {
        let groups = [self.of.arns(&self.aws, &self.label.name)];
        match self.of {
            Of::Instance => vec![
                Permission::anywhere(["rds:DescribeDBParameterGroups"]),
                Permission::on(
                    [
                        "rds:AddTagsToResource",
                        "rds:CreateDBParameterGroup",
                        "rds:DeleteDBParameterGroup",
                        "rds:DescribeDBParameters",
                        "rds:ListTagsForResource",
                        "rds:ModifyDBParameterGroup",
                    ],
                    groups,
                ),
            ],
            Of::Cluster => vec![
                Permission::anywhere(["rds:DescribeDBClusterParameterGroups"]),
                Permission::on(
                    [
                        "rds:AddTagsToResource",
                        "rds:CreateDBClusterParameterGroup",
                        "rds:DeleteDBClusterParameterGroup",
                        "rds:DescribeDBClusterParameters",
                        "rds:ListTagsForResource",
                        "rds:ModifyDBClusterParameterGroup",
                    ],
                    groups,
                ),
            ],
        }
    }
}

impl DbParameterGroup {
    fn family(&self) -> String {
        format!("{}{}", self.of.engine(), self.major)
    }

    fn name(&self) -> String {
        format!("{}-{}", self.label.name, self.family())
    }

    /// Names of the groups that were made for other versions, in order of their versions.
    async fn former(&self, groups: &[Group]) -> Result<Vec<String>, Error> {
        let mut former = Vec::new();
        for Group { name, arn, .. } in groups {
            let Some(major) = self.of.major(name, &self.label.name) else { continue };
            if *name != self.name() && self.label.adopt(&self.aws.rds.tags(arn).await?).is_ok() {
                former.push((major, name.clone()));
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
        let client = &self.aws.rds.client;
        let source = source.map(ToOwned::to_owned);
        match self.of {
            Of::Instance => {
                let describe = client.describe_db_parameters().db_parameter_group_name(group);
                let pages = describe.set_source(source).into_paginator().items().send();
                let parameters = pages.collect::<Result<Vec<_>, _>>().await;
                parameters.map_err(failed("rds:DescribeDBParameters"))
            }
            Of::Cluster => {
                let describe = client.describe_db_cluster_parameters();
                let describe = describe.db_cluster_parameter_group_name(group).set_source(source);
                let pages = describe.into_paginator().items().send();
                let parameters = pages.collect::<Result<Vec<_>, _>>().await;
                parameters.map_err(failed("rds:DescribeDBClusterParameters"))
            }
        }
    }

    /// Makes the group; its ARN.
    async fn make(&self) -> Result<String, Error> {
        const DESCRIPTION: &str = "Settings of the database";
        let client = &self.aws.rds.client;
        let arn = match self.of {
            Of::Instance => client
                .create_db_parameter_group()
                .db_parameter_group_name(self.name())
                .db_parameter_group_family(self.family())
                .description(DESCRIPTION)
                .set_tags(Some(tags(&self.label)))
                .send()
                .await
                .map_err(failed("rds:CreateDBParameterGroup"))?
                .db_parameter_group
                .and_then(|group| group.db_parameter_group_arn),
            Of::Cluster => client
                .create_db_cluster_parameter_group()
                .db_cluster_parameter_group_name(self.name())
                .db_parameter_group_family(self.family())
                .description(DESCRIPTION)
                .set_tags(Some(tags(&self.label)))
                .send()
                .await
                .map_err(failed("rds:CreateDBClusterParameterGroup"))?
                .db_cluster_parameter_group
                .and_then(|group| group.db_cluster_parameter_group_arn),
        };
        Ok(arn.unwrap_or_default())
    }

    async fn set_parameters(&self) -> Result<(), Error> {
        let parameters = PARAMETERS.iter().map(|(name, value)| {
            Parameter::builder()
                .parameter_name(*name)
                .parameter_value(*value)
                .apply_method(ApplyMethod::Immediate)
                .build()
        });
        let parameters = Some(parameters.collect());
        let client = &self.aws.rds.client;
        match self.of {
            Of::Instance => {
                let modify = client.modify_db_parameter_group();
                let modify = modify.db_parameter_group_name(self.name());
                let modified = modify.set_parameters(parameters).send().await;
                modified.map_err(failed("rds:ModifyDBParameterGroup"))?;
            }
            Of::Cluster => {
                let modify = client.modify_db_cluster_parameter_group();
                let modify = modify.db_cluster_parameter_group_name(self.name());
                let modified = modify.set_parameters(parameters).send().await;
                modified.map_err(failed("rds:ModifyDBClusterParameterGroup"))?;
            }
        }
        Ok(())
    }
}
