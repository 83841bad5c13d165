//! The resource server: the scopes that a client may ask for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_cognitoidentityprovider::types::ResourceServerScopeType;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::user_pool::UserPool;
use crate::{
    aws::{Aws, Label, built, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
};

/// The resource server.
pub struct ResourceServer {
    /// Its id and name. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its pool.
    pub pool: Handle<UserPool>,
    /// Unique in the pool; the first part of each scope.
    pub identifier: &'static str,
    /// Name and description of each scope.
    pub scopes: &'static [(&'static str, &'static str)],
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ResourceServerOutput {
    /// The scopes as clients ask for them: `{identifier}/{scope}`.
    pub scopes: Vec<String>,
}

#[async_trait]
impl Resource for ResourceServer {
    type Output = ResourceServerOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.pool.id()]
    }

    async fn find(
        &self,
        outputs: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<ResourceServerOutput>>, Error> {
        let Some(pool) = outputs.when_observed(&self.pool).await else { return Ok(None) };
        let answer = self
            .aws
            .cognitoidentityprovider
            .client
            .describe_resource_server()
            .user_pool_id(pool.id)
            .identifier(self.identifier)
            .send()
            .await
            .map_err(failed("cognito-idp:DescribeResourceServer"));
        let answer = not_found_is_none(answer)?;
        let Some(server) = answer.and_then(|answer| answer.resource_server) else {
            return Ok(None);
        };
        let scopes: BTreeMap<_, _> = server
            .scopes()
            .iter()
            .map(|scope| (scope.scope_name(), scope.scope_description()))
            .collect();
        Ok(Some(Live {
            properties: json!({
                "userPoolId": server.user_pool_id(), "name": server.name(), "scopes": scopes,
            }),
            condition: Condition::Ready,
            output: self.output(),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "userPoolId": outputs.show(&self.pool, |pool| pool.id.clone()),
            "name": self.label.name,
            "scopes": self.scopes.iter().copied().collect::<BTreeMap<_, _>>(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("userPoolId", "a resource server belongs to one user pool")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<ResourceServerOutput>, Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .create_resource_server()
            .user_pool_id(outputs.get(&self.pool)?.id)
            .identifier(self.identifier)
            .name(&self.label.name)
            .set_scopes(Some(self.scopes()?))
            .send()
            .await
            .map_err(failed("cognito-idp:CreateResourceServer"))?;
        Ok(Some(self.output()))
    }

    async fn update(
        &self,
        _: &Live<ResourceServerOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .update_resource_server()
            .user_pool_id(outputs.get(&self.pool)?.id)
            .identifier(self.identifier)
            .name(&self.label.name)
            .set_scopes(Some(self.scopes()?))
            .send()
            .await
            .map_err(failed("cognito-idp:UpdateResourceServer"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<ResourceServerOutput>) -> Result<(), Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .delete_resource_server()
            .user_pool_id(live.properties["userPoolId"].as_str().unwrap_or_default())
            .identifier(self.identifier)
            .send()
            .await
            .map_err(failed("cognito-idp:DeleteResourceServer"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let pools = self.aws.arn("cognito-idp", "userpool/*");
        let changes = [
            "cognito-idp:CreateResourceServer",
            "cognito-idp:DeleteResourceServer",
            "cognito-idp:UpdateResourceServer",
        ];
        vec![
            Permission::on(["cognito-idp:DescribeResourceServer"], [pools.clone()]),
            Permission::on(changes, [pools]).only_if(self.label.resource_tagged()),
        ]
    }
}

impl ResourceServer {
    fn output(&self) -> ResourceServerOutput {
        let scope = |(name, _): &(&str, &str)| format!("{}/{name}", self.identifier);
        ResourceServerOutput { scopes: self.scopes.iter().map(scope).collect() }
    }

    fn scopes(&self) -> Result<Vec<ResourceServerScopeType>, Error> {
        self.scopes
            .iter()
            .map(|(name, description)| {
                ResourceServerScopeType::builder()
                    .scope_name(*name)
                    .scope_description(*description)
                    .build()
            })
            .collect::<Result<_, _>>()
            .map_err(built("cognito-idp:CreateResourceServer"))
    }
}
