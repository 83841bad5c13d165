//! ID tokens of social logins (`OpenID` Connect Core 1.0, section 3.1.3.7): Google's, and those of
//! Facebook's Limited Login.

use jsonwebtoken::Validation;
use reqwest::Client;
use serde::Deserialize;

use super::{
    key_set::{KeySet, KeysUnavailable},
    signed_token,
};
use crate::{config::IdProviderConfig, pii::Email};

/// A provider of ID tokens.
#[derive(Clone)]
pub struct IdProvider {
    /// Name of the provider in `identities`.
    pub name: &'static str,
    /// The provider's signing keys.
    pub keys: KeySet,
    validation: Validation,
}

/// The claims of an ID token.
#[derive(Deserialize)]
pub struct IdClaims {
    /// The provider's stable id of the person.
    pub sub: String,
    /// The person's address.
    pub email: Option<Email>,
    /// Whether the provider checked the address. Facebook never says so.
    #[serde(default)]
    pub email_verified: bool,
    /// The person's name.
    pub name: Option<String>,
    nonce: Option<String>,
}

impl IdProvider {
    /// Google. Its tokens have one of two spellings of the issuer (Google, "Verify the ID token").
    pub fn google(client: Client, config: &IdProviderConfig) -> Self {
        let issuers = ["https://accounts.google.com", "accounts.google.com"];
        Self::new("google", &issuers, client, config)
    }

    /// Facebook Limited Login.
    pub fn facebook(client: Client, config: &IdProviderConfig) -> Self {
        Self::new("facebook", &["https://www.facebook.com"], client, config)
    }

    fn new(
        name: &'static str,
        issuers: &[&str],
        client: Client,
        config: &IdProviderConfig,
    ) -> Self {
        Self {
            name,
            keys: KeySet::new(client, &config.jwks_url),
            validation: signed_token::validation(issuers, Some(&config.client_id)),
        }
    }

    /// The claims of a valid token; None if it is not valid, or not for this nonce.
    pub async fn check(
        &self,
        token: &str,
        nonce: Option<&str>,
    ) -> Result<Option<IdClaims>, KeysUnavailable> {
        let claims: Option<IdClaims> =
            signed_token::claims(token, &self.keys, &self.validation).await?;
        Ok(claims.filter(|claims| {
            // A token that was asked for with a nonce is good for nobody who does not know it.
            claims.nonce.as_deref() == nonce && (1..=255).contains(&claims.sub.chars().count())
        }))
    }
}
