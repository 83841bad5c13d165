//! The parameter group of the database.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_rds::types::{ApplyMethod, Parameter};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, rds::tags},
    engine::{
        Condition, Error, Live, Outputs, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What differs from `PostgreSQL`'s defaults. `rds.force_ssl` refuses a connection without TLS (RDS
/// user guide, "Requiring an SSL/TLS connection to a `PostgreSQL` DB instance").
const PARAMETERS: [(&str, &str); 1] = [("rds.force_ssl", "1")];

/// The settings of the database engine.
pub struct DbParameterGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Major version of `PostgreSQL`.
    pub major: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbParameterGroupOutput {
    /// Name.
    pub name: String,
    /// ARN.
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
        let Some(group) =
            groups.iter().find(|g| g.db_parameter_group_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let arn = group.db_parameter_group_arn().unwrap_or_default().to_owned();
        let (tags, parameters) =
            futures::try_join!(self.aws.rds.tags(&arn), self.live_parameters())?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "dbParameterGroupFamily": group.db_parameter_group_family(),
                "parameters": parameters,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: DbParameterGroupOutput { name: self.label.name.clone(), arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "dbParameterGroupFamily": self.family(),
            "parameters": BTreeMap::from(PARAMETERS),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("dbParameterGroupFamily", "a parameter group is for one major version")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<DbParameterGroupOutput>, Error> {
        let created = self
            .aws
            .rds
            .client
            .create_db_parameter_group()
            .db_parameter_group_name(&self.label.name)
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
            name: self.label.name.clone(),
            arn: arn.unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<DbParameterGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "parameters") {
            self.set_parameters().await?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbParameterGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.rds.client.delete_db_parameter_group();
        let deleted = delete.db_parameter_group_name(&live.output.name).send().await;
        deleted.map_err(failed("rds:DeleteDBParameterGroup"))?;
        Ok(())
    }
}

impl DbParameterGroup {
    fn family(&self) -> String {
        format!("postgres{}", self.major)
    }

    /// Our parameters as they are. Those that somebody has set come on one page; only when one of
    /// ours is not among them are the hundreds of defaults asked for.
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
        let describe = self.aws.rds.client.describe_db_parameters();
        let describe = describe.db_parameter_group_name(&self.label.name);
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
            .db_parameter_group_name(&self.label.name)
            .set_parameters(Some(parameters.collect()))
            .send()
            .await
            .map_err(failed("rds:ModifyDBParameterGroup"))?;
        Ok(())
    }
}
