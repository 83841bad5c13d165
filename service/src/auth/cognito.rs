//! Access tokens of `AUTH_MODE=cognito`: checked here, issued there.
//!
//! A user's row is created when the first token of the subject is seen. Access tokens carry no
//! e-mail address, so the pool's userInfo endpoint is asked once, if `COGNITO_DOMAIN` names it and
//! the token has the scope for it; without an answer about a verified address the account has none
//! and is linked to no other.

use std::sync::Arc;

use jsonwebtoken::Validation;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    identity::{self, Identity},
    key_set::{KeySet, KeysUnavailable},
    principal::Scopes,
    provider_client::{ProviderError, fetch},
    signed_token,
};
use crate::{config::CognitoConfig, database::Database, pii::Email, problem::Problem};

/// Name of the provider in `identities`.
const PROVIDER: &str = "cognito";

/// Checks access tokens of one user pool.
#[derive(Clone)]
pub struct Cognito {
    client: Client,
    /// The signing keys of the pool.
    pub keys: KeySet,
    validation: Validation,
    client_ids: Arc<[String]>,
    user_info_url: Option<Arc<str>>,
}

/// The claims of an access token (AWS, "Understanding the access token").
#[derive(Deserialize)]
struct Claims {
    sub: String,
    token_use: String,
    /// Access tokens have this instead of `aud`.
    client_id: String,
    #[serde(default)]
    scope: String,
}

/// The answer of `/oauth2/userInfo`.
#[derive(Default, Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<Email>,
    /// Cognito writes it as a string.
    #[serde(default)]
    email_verified: Value,
    name: Option<String>,
}

impl Cognito {
    /// A verifier. Fetches nothing yet.
    pub fn new(client: Client, config: &CognitoConfig) -> Self {
        Self {
            keys: KeySet::new(client.clone(), &config.jwks_url),
            client,
            validation: signed_token::validation(&[&config.issuer], None),
            client_ids: config.client_ids.clone().into(),
            user_info_url: config
                .domain
                .as_ref()
                .map(|domain| format!("{}/oauth2/userInfo", domain.trim_end_matches('/')).into()),
        }
    }

    /// The subject of a token, and what it was granted for. None if it is not valid.
    pub async fn check(&self, token: &str) -> Result<Option<(String, Scopes)>, Problem> {
        let claims: Option<Claims> = signed_token::claims(token, &self.keys, &self.validation)
            .await
            .map_err(|KeysUnavailable| unavailable())?;
        // An ID token is for the client that asked for it, not for us.
        let claims = claims.filter(|claims| {
            claims.token_use == "access"
                && self.client_ids.contains(&claims.client_id)
                && (1..=255).contains(&claims.sub.chars().count())
        });
        Ok(claims.map(|claims| (claims.sub, Scopes::parse(&claims.scope))))
    }

    /// The account that a subject has already.
    pub async fn known_account(
        subject: &str,
        database: &Database,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        identity::find_by_identity(database, PROVIDER, subject).await
    }

    /// The account of the subject of a valid token; a new one at first sight.
    pub async fn account(
        &self,
        token: &str,
        subject: &str,
        database: &Database,
    ) -> Result<Uuid, Problem> {
        match Self::known_account(subject, database).await? {
            Some(user) => Ok(user),
            None => self.first_sight(token, subject, database).await,
        }
    }

    async fn first_sight(
        &self,
        token: &str,
        subject: &str,
        database: &Database,
    ) -> Result<Uuid, Problem> {
        let info = self.user_info(token).await?.filter(|info| info.sub == subject);
        let info = info.unwrap_or_default();
        let verified = info.email_verified == Value::Bool(true) || info.email_verified == "true";
        let identity = Identity {
            provider: PROVIDER,
            subject,
            email: info.email.as_ref(),
            email_verified: verified,
            name: info.name.as_deref(),
        };
        let resolved = identity::resolve(database, &identity).await?;
        resolved.map_err(|identity::EmailUnproven| Problem::internal())
    }

    /// What the pool tells about the holder of a token. None where it is not asked, or refuses
    /// because the token has not the scope `openid`. While it fails nobody is created: a row without
    /// the address would stay without it.
    async fn user_info(&self, token: &str) -> Result<Option<UserInfo>, Problem> {
        let Some(url) = &self.user_info_url else { return Ok(None) };
        match fetch(self.client.get(&**url).bearer_auth(token)).await {
            Ok(info) => Ok(Some(info)),
            Err(ProviderError::Status(status))
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
            {
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "first sight of a user not completed");
                Err(unavailable())
            }
        }
    }
}

/// 503: the token may well be valid, but nobody can say at the moment.
pub(super) fn unavailable() -> Problem {
    Problem::unavailable(
        "identity-provider-unavailable",
        "The identity provider does not answer at the moment.",
        5,
    )
}
