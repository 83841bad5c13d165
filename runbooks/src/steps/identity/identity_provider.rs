//! An identity provider outside Cognito: Google or Facebook.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use aws_sdk_cognitoidentityprovider::types::{IdentityProviderType, IdentityProviderTypeType};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::user_pool::UserPool;
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
};

/// Which provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Sign in with Google.
    Google,
    /// Sign in with Facebook.
    Facebook,
}

impl Provider {
    /// Its name in Cognito, which knows it by that.
    pub fn name(self) -> &'static str {
        match self {
            Self::Google => "Google",
            Self::Facebook => "Facebook",
        }
    }

    fn kind(self) -> IdentityProviderTypeType {
        match self {
            Self::Google => IdentityProviderTypeType::Google,
            Self::Facebook => IdentityProviderTypeType::Facebook,
        }
    }

    /// Which of the provider's data the sign-in asks for.
    fn scopes(self) -> &'static str {
        match self {
            Self::Google => "openid email profile",
            Self::Facebook => "public_profile,email",
        }
    }

    /// From the pool's attribute to the provider's.
    fn attributes(self) -> BTreeMap<&'static str, &'static str> {
        let subject = match self {
            Self::Google => "sub",
            Self::Facebook => "id",
        };
        BTreeMap::from([("email", "email"), ("name", "name"), ("username", subject)])
    }
}

/// The provider in our pool.
pub struct IdentityProvider {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its pool.
    pub pool: Handle<UserPool>,
    /// Which provider.
    pub provider: Provider,
    /// Name of the secret `{"clientId": …, "clientSecret": …}`, which a person has put there.
    pub secret: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct IdentityProviderOutput {
    /// As clients name it.
    pub name: String,
}

/// Our client at the provider.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    client_id: String,
    client_secret: String,
}

#[async_trait]
impl Resource for IdentityProvider {
    type Output = IdentityProviderOutput;

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
    ) -> Result<Option<Live<IdentityProviderOutput>>, Error> {
        let Some(pool) = outputs.when_observed(&self.pool).await else { return Ok(None) };
        let Some(live) = self.now(pool.id).await? else { return Ok(None) };
        let empty = HashMap::new();
        let details = live.provider_details().unwrap_or(&empty);
        // Trap 11: whether the secret was changed is told, never what it holds.
        let credentials = self.credentials().await?;
        let same = details.get("client_id") == Some(&credentials.client_id)
            && details.get("client_secret") == Some(&credentials.client_secret);
        Ok(Some(Live {
            properties: json!({
                "userPoolId": live.user_pool_id(),
                "credentialsAreOfSecret": if same { self.secret.as_str() } else { "another" },
                "authorizeScopes": details.get("authorize_scopes"),
                "attributeMapping": live.attribute_mapping().map(|mapping| json!(mapping)),
            }),
            condition: Condition::Ready,
            output: self.output(),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "userPoolId": outputs.show(&self.pool, |pool| pool.id.clone()),
            "credentialsAreOfSecret": self.secret,
            "authorizeScopes": self.provider.scopes(),
            "attributeMapping": self.provider.attributes(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("userPoolId", "an identity provider belongs to one user pool")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<IdentityProviderOutput>, Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .create_identity_provider()
            .user_pool_id(outputs.get(&self.pool)?.id)
            .provider_name(self.provider.name())
            .provider_type(self.provider.kind())
            .set_provider_details(Some(self.details().await?))
            .set_attribute_mapping(Some(self.attribute_mapping()))
            .send()
            .await
            .map_err(failed("cognito-idp:CreateIdentityProvider"))?;
        Ok(Some(self.output()))
    }

    /// Reads, changes, writes: the update replaces the details as a whole (trap 5), and with them
    /// the version of the provider's API that a team has chosen.
    async fn update(
        &self,
        _: &Live<IdentityProviderOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let pool = outputs.get(&self.pool)?.id;
        let now = self.now(pool.clone()).await?;
        let mut details =
            now.as_ref().and_then(|now| now.provider_details.clone()).unwrap_or_default();
        details.extend(self.details().await?);
        let identifiers = now.and_then(|now| now.idp_identifiers);
        self.aws
            .cognitoidentityprovider
            .client
            .update_identity_provider()
            .user_pool_id(pool)
            .provider_name(self.provider.name())
            .set_provider_details(Some(details))
            .set_attribute_mapping(Some(self.attribute_mapping()))
            .set_idp_identifiers(identifiers.filter(|identifiers| !identifiers.is_empty()))
            .send()
            .await
            .map_err(failed("cognito-idp:UpdateIdentityProvider"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<IdentityProviderOutput>) -> Result<(), Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .delete_identity_provider()
            .user_pool_id(live.properties["userPoolId"].as_str().unwrap_or_default())
            .provider_name(self.provider.name())
            .send()
            .await
            .map_err(failed("cognito-idp:DeleteIdentityProvider"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let pools = self.aws.arn("cognito-idp", "userpool/*");
        let changes = [
            "cognito-idp:CreateIdentityProvider",
            "cognito-idp:DeleteIdentityProvider",
            "cognito-idp:UpdateIdentityProvider",
        ];
        vec![
            Permission::on(["cognito-idp:DescribeIdentityProvider"], [pools.clone()]),
            Permission::on(["secretsmanager:GetSecretValue"], [self.aws.secret_arn(&self.secret)]),
            Permission::on(changes, [pools]).only_if(self.label.resource_tagged()),
        ]
    }
}

impl IdentityProvider {
    fn output(&self) -> IdentityProviderOutput {
        IdentityProviderOutput { name: self.provider.name().into() }
    }

    async fn now(&self, pool: String) -> Result<Option<IdentityProviderType>, Error> {
        let describe = self.aws.cognitoidentityprovider.client.describe_identity_provider();
        let describe = describe.user_pool_id(pool).provider_name(self.provider.name());
        let answer = describe.send().await.map_err(failed("cognito-idp:DescribeIdentityProvider"));
        Ok(not_found_is_none(answer)?.and_then(|answer| answer.identity_provider))
    }

    fn attribute_mapping(&self) -> HashMap<String, String> {
        let mapping = self.provider.attributes().into_iter();
        mapping.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).collect()
    }

    async fn details(&self) -> Result<HashMap<String, String>, Error> {
        let Credentials { client_id, client_secret } = self.credentials().await?;
        Ok(HashMap::from([
            ("client_id".into(), client_id),
            ("client_secret".into(), client_secret),
            ("authorize_scopes".into(), self.provider.scopes().into()),
        ]))
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let operation = "secretsmanager:GetSecretValue";
        let hint = format!(
            "put {{\"clientId\": …, \"clientSecret\": …}} of your {} client into the secret `{}`",
            self.provider.name(),
            self.secret
        );
        let answer = self
            .aws
            .secretsmanager
            .client
            .get_secret_value()
            .secret_id(&self.secret)
            .send()
            .await
            .map_err(failed(operation))
            .map_err(|error| error.with_hint(&hint))?;
        serde_json::from_str(answer.secret_string().unwrap_or_default()).map_err(|_| {
            let message = format!("`{}` does not hold a client's credentials", self.secret);
            Error::fatal(operation, "malformed-secret", message).with_hint(&hint)
        })
    }
}
