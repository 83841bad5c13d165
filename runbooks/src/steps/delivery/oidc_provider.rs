//! The OIDC provider by which AWS believes GitHub's tokens.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_iam::types::Tag;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, failed, not_found_is_none},
    engine::{Condition, Error, Live, Outputs, Permission, Resource, ResourceId, diff::Field},
};

/// Issuer of the tokens of GitHub Actions.
pub const ISSUER: &str = "token.actions.githubusercontent.com";
/// Audience of the tokens that GitHub's AWS action asks for.
pub const AUDIENCE: &str = "sts.amazonaws.com";

/// The provider. An account can have one for each issuer, so that all environments of an account
/// share it: one that is there is used as it is, and only the environment that made it takes it away.
pub struct OidcProvider {
    /// Its id and tags; it has no name.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    let_go: AtomicBool,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct OidcProviderOutput {
    /// `arn:aws:iam::…:oidc-provider/…`.
    pub arn: String,
}

impl OidcProvider {
    /// The provider, told by its issuer.
    pub fn new(label: Label, aws: Aws) -> Self {
        Self { label, aws, let_go: AtomicBool::new(false) }
    }
}

/// The ARN of the provider in `account`.
pub fn arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:oidc-provider/{ISSUER}")
}

#[async_trait]
impl Resource for OidcProvider {
    type Output = OidcProviderOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<OidcProviderOutput>>, Error> {
        if self.let_go.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let arn = arn(&self.aws.account);
        let get = self.aws.iam.client.get_open_id_connect_provider();
        let answer = get.open_id_connect_provider_arn(&arn).send().await;
        let answer = not_found_is_none(answer.map_err(failed("iam:GetOpenIDConnectProvider")))?;
        Ok(answer.map(|provider| {
            let environment =
                provider.tags().iter().find(|tag| tag.key() == "bme:env").map(Tag::value);
            Live {
                properties: json!({
                    "trustsAudience": provider.client_id_list().iter().any(|id| id == AUDIENCE),
                    "environment": environment,
                }),
                condition: Condition::Ready,
                output: OidcProviderOutput { arn },
            }
        }))
    }

    /// Without tags: it may be another environment's, or a team's own.
    fn desired(&self, _: &Outputs) -> Value {
        json!({ "trustsAudience": true })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<OidcProviderOutput>, Error> {
        let operation = "iam:CreateOpenIDConnectProvider";
        let tags = self
            .label
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(built(operation))?;
        // No thumbprint: AWS checks this issuer against its own list of certificate authorities.
        let created = self
            .aws
            .iam
            .client
            .create_open_id_connect_provider()
            .url(format!("https://{ISSUER}"))
            .client_id_list(AUDIENCE)
            .set_tags(Some(tags))
            .send()
            .await
            .map_err(failed(operation))?;
        let arn = created.open_id_connect_provider_arn().unwrap_or_default().to_owned();
        Ok(Some(OidcProviderOutput { arn }))
    }

    async fn update(
        &self,
        live: &Live<OidcProviderOutput>,
        _: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        self.aws
            .iam
            .client
            .add_client_id_to_open_id_connect_provider()
            .open_id_connect_provider_arn(&live.output.arn)
            .client_id(AUDIENCE)
            .send()
            .await
            .map_err(failed("iam:AddClientIDToOpenIDConnectProvider"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<OidcProviderOutput>) -> Result<(), Error> {
        let ours = live.properties["environment"].as_str();
        if ours.is_none() || ours != self.label.tags.get("bme:env").map(String::as_str) {
            // Somebody else's: for this environment it is gone when it is let go.
            self.let_go.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.aws
            .iam
            .client
            .delete_open_id_connect_provider()
            .open_id_connect_provider_arn(&live.output.arn)
            .send()
            .await
            .map_err(failed("iam:DeleteOpenIDConnectProvider"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "iam:AddClientIDToOpenIDConnectProvider",
            "iam:CreateOpenIDConnectProvider",
            "iam:DeleteOpenIDConnectProvider",
            "iam:GetOpenIDConnectProvider",
            "iam:TagOpenIDConnectProvider",
        ];
        vec![Permission::on(actions, [arn(&self.aws.account)])]
    }
}
