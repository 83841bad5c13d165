//! The public client: the single-page application and MCP clients, which can't keep a secret.

use async_trait::async_trait;
use aws_sdk_cognitoidentityprovider::types::{
    ExplicitAuthFlowsType, OAuthFlowType, PreventUserExistenceErrorTypes, TimeUnitsType,
    TokenValidityUnitsType, UserPoolClientType,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    identity_provider::IdentityProvider, resource_server::ResourceServer, user_pool::UserPool,
};
use crate::{
    aws::{Aws, Label, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::edge::distribution::Distribution,
};

/// The client: code grant only, without a secret, so that Cognito demands PKCE of whoever uses it
/// as RFC 7636 tells; tokens can be revoked (RFC 7009).
pub struct UserPoolClient {
    /// Its id and name. It takes no tags and is told by its name inside its pool.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its pool.
    pub pool: Handle<UserPool>,
    /// Whose scopes it may ask for.
    pub resource_server: Handle<ResourceServer>,
    /// Who else signs users in.
    pub identity_providers: Vec<Handle<IdentityProvider>>,
    /// Where the application is served when there is no own domain.
    pub distribution: Handle<Distribution>,
    /// Own domain of the application.
    pub domain: Option<String>,
    /// Further callback URLs.
    pub callback_urls: Vec<String>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct UserPoolClientOutput {
    /// The client id, which is public.
    pub id: String,
}

/// Validity of access and id tokens, minutes.
const TOKEN_MINUTES: i32 = 60;
/// Validity of refresh tokens, days.
const REFRESH_DAYS: i32 = 30;

/// What of Cognito's own is asked for, besides the resource server's scopes.
const OPENID_SCOPES: [&str; 3] = ["email", "openid", "profile"];

#[async_trait]
impl Resource for UserPoolClient {
    type Output = UserPoolClientOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.pool.id(), self.resource_server.id(), self.distribution.id()];
        needs.extend(self.identity_providers.iter().map(Handle::id));
        needs
    }

    async fn find(
        &self,
        outputs: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<UserPoolClientOutput>>, Error> {
        let Some(pool) = outputs.when_observed(&self.pool).await else { return Ok(None) };
        let client = &self.aws.cognitoidentityprovider.client;
        let clients = client
            .list_user_pool_clients()
            .user_pool_id(&pool.id)
            .max_results(60)
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(failed("cognito-idp:ListUserPoolClients"))?;
        let named = |name: Option<&str>| name == Some(self.label.name.as_str());
        let Some(id) = clients
            .into_iter()
            .find(|client| named(client.client_name()))
            .and_then(|client| client.client_id)
        else {
            return Ok(None);
        };
        let Some(live) = self.describe(&pool.id, &id).await? else { return Ok(None) };
        Ok(Some(Live {
            properties: shown(&live),
            condition: Condition::Ready,
            output: UserPoolClientOutput { id },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "userPoolId": outputs.show(&self.pool, |pool| pool.id.clone()),
            "callbackUrls": sorted(self.urls(&self.shown_host(outputs), "/auth/callback")),
            "logoutUrls": sorted(vec![format!("https://{}/", self.shown_host(outputs))]),
            "allowedOAuthFlows": ["code"],
            "allowedOAuthScopes": sorted(scopes(
                outputs.show(&self.resource_server, |server| server.scopes.clone()),
            )),
            "allowedOAuthFlowsUserPoolClient": true,
            "supportedIdentityProviders": sorted(self.providers(outputs)),
            "explicitAuthFlows": ["ALLOW_REFRESH_TOKEN_AUTH"],
            "enableTokenRevocation": true,
            "preventUserExistenceErrors": "ENABLED",
            "accessTokenValidity": TOKEN_MINUTES,
            "idTokenValidity": TOKEN_MINUTES,
            "refreshTokenValidity": REFRESH_DAYS,
            "tokenValidityUnits":
                {"accessToken": "minutes", "idToken": "minutes", "refreshToken": "days"},
            "hasSecret": false,
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("userPoolId", "a client belongs to one user pool"),
            ("hasSecret", "a secret can't be taken from a client that was made with one"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<UserPoolClientOutput>, Error> {
        let host = self.host(outputs)?;
        self.aws
            .cognitoidentityprovider
            .client
            .create_user_pool_client()
            .user_pool_id(outputs.get(&self.pool)?.id)
            .client_name(&self.label.name)
            .generate_secret(false)
            .set_callback_urls(Some(self.urls(&host, "/auth/callback")))
            .logout_urls(format!("https://{host}/"))
            .allowed_o_auth_flows(OAuthFlowType::Code)
            .set_allowed_o_auth_scopes(Some(self.scopes(outputs)?))
            .allowed_o_auth_flows_user_pool_client(true)
            .set_supported_identity_providers(Some(self.providers(outputs)))
            .explicit_auth_flows(ExplicitAuthFlowsType::AllowRefreshTokenAuth)
            .enable_token_revocation(true)
            .prevent_user_existence_errors(PreventUserExistenceErrorTypes::Enabled)
            .access_token_validity(TOKEN_MINUTES)
            .id_token_validity(TOKEN_MINUTES)
            .refresh_token_validity(REFRESH_DAYS)
            .token_validity_units(units())
            .send()
            .await
            .map_err(failed("cognito-idp:CreateUserPoolClient"))?;
        Ok(None)
    }

    /// Reads, changes, writes: `UpdateUserPoolClient` resets what it is not given (trap 5).
    async fn update(
        &self,
        live: &Live<UserPoolClientOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let pool = outputs.get(&self.pool)?.id;
        let host = self.host(outputs)?;
        let now = self.describe(&pool, &live.output.id).await?;
        let now = now.unwrap_or_else(|| UserPoolClientType::builder().build());
        self.aws
            .cognitoidentityprovider
            .client
            .update_user_pool_client()
            .user_pool_id(pool)
            .client_id(&live.output.id)
            .client_name(&self.label.name)
            .set_callback_urls(Some(self.urls(&host, "/auth/callback")))
            .logout_urls(format!("https://{host}/"))
            .allowed_o_auth_flows(OAuthFlowType::Code)
            .set_allowed_o_auth_scopes(Some(self.scopes(outputs)?))
            .allowed_o_auth_flows_user_pool_client(true)
            .set_supported_identity_providers(Some(self.providers(outputs)))
            .explicit_auth_flows(ExplicitAuthFlowsType::AllowRefreshTokenAuth)
            .enable_token_revocation(true)
            .prevent_user_existence_errors(PreventUserExistenceErrorTypes::Enabled)
            .access_token_validity(TOKEN_MINUTES)
            .id_token_validity(TOKEN_MINUTES)
            .refresh_token_validity(REFRESH_DAYS)
            .token_validity_units(units())
            .set_read_attributes(now.read_attributes.filter(|names| !names.is_empty()))
            .set_write_attributes(now.write_attributes.filter(|names| !names.is_empty()))
            .set_default_redirect_uri(now.default_redirect_uri.filter(|uri| !uri.is_empty()))
            .set_analytics_configuration(now.analytics_configuration)
            .set_enable_propagate_additional_user_context_data(
                now.enable_propagate_additional_user_context_data,
            )
            .set_auth_session_validity(now.auth_session_validity)
            .set_refresh_token_rotation(now.refresh_token_rotation)
            .send()
            .await
            .map_err(failed("cognito-idp:UpdateUserPoolClient"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<UserPoolClientOutput>) -> Result<(), Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .delete_user_pool_client()
            .user_pool_id(live.properties["userPoolId"].as_str().unwrap_or_default())
            .client_id(&live.output.id)
            .send()
            .await
            .map_err(failed("cognito-idp:DeleteUserPoolClient"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let pools = self.aws.arn("cognito-idp", "userpool/*");
        let changes = [
            "cognito-idp:CreateUserPoolClient",
            "cognito-idp:DeleteUserPoolClient",
            "cognito-idp:UpdateUserPoolClient",
        ];
        vec![
            Permission::on(
                ["cognito-idp:DescribeUserPoolClient", "cognito-idp:ListUserPoolClients"],
                [pools.clone()],
            ),
            Permission::on(changes, [pools]).only_if(self.label.resource_tagged()),
        ]
    }
}

impl UserPoolClient {
    async fn describe(&self, pool: &str, id: &str) -> Result<Option<UserPoolClientType>, Error> {
        let answer = self
            .aws
            .cognitoidentityprovider
            .client
            .describe_user_pool_client()
            .user_pool_id(pool)
            .client_id(id)
            .send()
            .await
            .map_err(failed("cognito-idp:DescribeUserPoolClient"));
        Ok(crate::aws::not_found_is_none(answer)?.and_then(|answer| answer.user_pool_client))
    }

    fn host(&self, outputs: &Outputs) -> Result<String, Error> {
        match &self.domain {
            Some(domain) => Ok(domain.clone()),
            None => Ok(outputs.get(&self.distribution)?.domain_name),
        }
    }

    fn shown_host(&self, outputs: &Outputs) -> String {
        let shown =
            outputs.show(&self.distribution, |distribution| distribution.domain_name.clone());
        self.domain.clone().or_else(|| shown.as_str().map(ToOwned::to_owned)).unwrap_or_default()
    }

    fn urls(&self, host: &str, path: &str) -> Vec<String> {
        let mut urls = self.callback_urls.clone();
        urls.push(format!("https://{host}{path}"));
        urls
    }

    fn scopes(&self, outputs: &Outputs) -> Result<Vec<String>, Error> {
        let server = outputs.get(&self.resource_server)?;
        Ok(scopes(server.scopes.into()))
    }

    fn providers(&self, outputs: &Outputs) -> Vec<String> {
        let mut names = vec!["COGNITO".to_owned()];
        names.extend(self.identity_providers.iter().filter_map(|provider| {
            outputs.show(provider, |output| output.name.clone()).as_str().map(ToOwned::to_owned)
        }));
        names
    }
}

fn shown(client: &UserPoolClientType) -> Value {
    let units = client.token_validity_units();
    let unit = |unit: Option<&TimeUnitsType>| unit.map(|unit| unit.as_str().to_owned());
    let texts = |texts: &[String]| sorted(texts.to_vec());
    let flows = client.allowed_o_auth_flows().iter().map(|flow| flow.as_str().to_owned());
    let explicit = client.explicit_auth_flows().iter().map(|flow| flow.as_str().to_owned());
    json!({
        "userPoolId": client.user_pool_id(),
        "callbackUrls": texts(client.callback_urls()),
        "logoutUrls": texts(client.logout_urls()),
        "allowedOAuthFlows": sorted(flows.collect()),
        "allowedOAuthScopes": texts(client.allowed_o_auth_scopes()),
        "allowedOAuthFlowsUserPoolClient": client.allowed_o_auth_flows_user_pool_client(),
        "supportedIdentityProviders": texts(client.supported_identity_providers()),
        "explicitAuthFlows": sorted(explicit.collect()),
        "enableTokenRevocation": client.enable_token_revocation(),
        "preventUserExistenceErrors":
            client.prevent_user_existence_errors().map(PreventUserExistenceErrorTypes::as_str),
        "accessTokenValidity": client.access_token_validity(),
        "idTokenValidity": client.id_token_validity(),
        "refreshTokenValidity": client.refresh_token_validity(),
        "tokenValidityUnits": units.map(|units| json!({
            "accessToken": unit(units.access_token()),
            "idToken": unit(units.id_token()),
            "refreshToken": unit(units.refresh_token()),
        })),
        "hasSecret": client.client_secret().is_some(),
    })
}

/// The scopes of the resource server, or its placeholder, behind `OpenID`'s.
fn scopes(server: Value) -> Vec<String> {
    let server = match server {
        Value::Array(scopes) => scopes,
        placeholder => vec![placeholder],
    };
    let server = server.iter().filter_map(|scope| scope.as_str().map(ToOwned::to_owned));
    OPENID_SCOPES.map(str::to_owned).into_iter().chain(server).collect()
}

fn units() -> TokenValidityUnitsType {
    TokenValidityUnitsType::builder()
        .access_token(TimeUnitsType::Minutes)
        .id_token(TimeUnitsType::Minutes)
        .refresh_token(TimeUnitsType::Days)
        .build()
}

/// Sets in AWS's eyes: the order of the answer says nothing.
fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}
