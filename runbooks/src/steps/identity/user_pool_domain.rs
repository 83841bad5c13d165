//! The domain under which Cognito serves the sign-in pages.

use async_trait::async_trait;
use aws_sdk_cognitoidentityprovider::types::DomainStatusType;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::user_pool::UserPool;
use crate::{
    aws::{Aws, Label, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
};

/// The domain `{prefix}.auth.{region}.amazoncognito.com`.
pub struct UserPoolDomain {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its pool.
    pub pool: Handle<UserPool>,
    /// `bme-{env}-{account}`: unique in the region over all accounts, since it holds ours.
    pub prefix: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct UserPoolDomainOutput {
    /// The prefix.
    pub prefix: String,
    /// The whole host name.
    pub host: String,
}

#[async_trait]
impl Resource for UserPoolDomain {
    type Output = UserPoolDomainOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.pool.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<UserPoolDomainOutput>>, Error> {
        let answer = self
            .aws
            .cognitoidentityprovider
            .client
            .describe_user_pool_domain()
            .domain(&self.prefix)
            .send()
            .await
            .map_err(failed("cognito-idp:DescribeUserPoolDomain"))?;
        // Cognito describes a domain that does not exist as an empty one.
        let Some(domain) = answer.domain_description.filter(|domain| domain.domain.is_some())
        else {
            return Ok(None);
        };
        let condition = match domain.status() {
            Some(DomainStatusType::Creating | DomainStatusType::Updating) => {
                Condition::Pending("creating".into())
            }
            Some(DomainStatusType::Deleting) => Condition::Deleting("deleting".into()),
            Some(DomainStatusType::Failed) => {
                Condition::Failed("the domain's status is FAILED".into())
            }
            _ => Condition::Ready,
        };
        Ok(Some(Live {
            properties: json!({ "userPoolId": domain.user_pool_id() }),
            condition,
            output: self.output(),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({ "userPoolId": outputs.show(&self.pool, |pool| pool.id.clone()) })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("userPoolId", "a domain belongs to one user pool")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<UserPoolDomainOutput>, Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .create_user_pool_domain()
            .user_pool_id(outputs.get(&self.pool)?.id)
            .domain(&self.prefix)
            .send()
            .await
            .map_err(failed("cognito-idp:CreateUserPoolDomain"))?;
        Ok(Some(self.output()))
    }

    async fn update(
        &self,
        _: &Live<UserPoolDomainOutput>,
        _: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        // Its one member can't be changed in place.
        Ok(())
    }

    async fn delete(&self, live: &Live<UserPoolDomainOutput>) -> Result<(), Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .delete_user_pool_domain()
            .domain(&self.prefix)
            .user_pool_id(live.properties["userPoolId"].as_str().unwrap_or_default())
            .send()
            .await
            .map_err(failed("cognito-idp:DeleteUserPoolDomain"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let changes = ["cognito-idp:CreateUserPoolDomain", "cognito-idp:DeleteUserPoolDomain"];
        vec![
            Permission::anywhere(["cognito-idp:DescribeUserPoolDomain"]),
            Permission::on(changes, [self.aws.arn("cognito-idp", "userpool/*")])
                .only_if(self.label.resource_tagged()),
        ]
    }
}

impl UserPoolDomain {
    fn output(&self) -> UserPoolDomainOutput {
        let Self { aws, prefix, .. } = self;
        UserPoolDomainOutput {
            prefix: prefix.clone(),
            host: format!("{prefix}.auth.{}.amazoncognito.com", aws.region),
        }
    }
}
