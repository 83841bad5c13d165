//! X, formerly Twitter: OAuth 2.0 authorization code flow of a confidential client with PKCE (X
//! developer documentation, "OAuth 2.0 Authorization Code Flow with PKCE").

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Url, header};
use serde::Deserialize;

use super::provider_client::{ProviderError, fetch};
use crate::config::{Secret, TwitterConfig};

/// What the look-up of the person needs (X, "Get my user"); no access beyond the visit.
const SCOPE: &str = "users.read tweet.read";

/// Everything but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Signs people in with X.
#[derive(Clone)]
pub struct Twitter {
    client: Client,
    config: TwitterConfig,
}

/// Whom X says it is. X vouches for no e-mail address.
#[derive(Deserialize)]
pub struct TwitterUser {
    /// X's stable id of the person.
    pub id: String,
    /// The person's name.
    pub name: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
}

#[derive(Deserialize)]
struct Me {
    data: TwitterUser,
}

impl Twitter {
    /// Connects to nothing yet.
    pub fn new(client: Client, config: &TwitterConfig) -> Self {
        Self { client, config: config.clone() }
    }

    /// Where the person is asked.
    pub fn authorize_url(&self, state: &str, challenge: &str) -> Url {
        let mut url = self.config.authorize_url.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", &self.redirect_uri()),
            ("scope", SCOPE),
            ("state", state),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ]);
        url
    }

    /// Whose authorization code this is. X's access token is used for this one look-up and dropped.
    pub async fn user(&self, code: &str, verifier: &str) -> Result<TwitterUser, ProviderError> {
        let form = form(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri()),
            ("code_verifier", verifier),
        ]);
        // RFC 6749, section 2.3.1: both are form-encoded first.
        let (id, secret) = (&self.config.client_id, self.config.client_secret.expose());
        let request = self
            .client
            .post(self.config.token_url.clone())
            .basic_auth(encode(id), Some(encode(secret)))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let token: Token = fetch(request).await?;
        let request =
            self.client.get(self.config.user_url.clone()).bearer_auth(token.access_token.expose());
        let Me { data } = fetch(request).await?;
        // X's ids are 64-bit numbers in decimal.
        if (1..=20).contains(&data.id.len()) && data.id.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(data)
        } else {
            Err(ProviderError::Answer)
        }
    }

    /// The front end's page that finishes the sign-in, with one parameter: a one-time code, or what
    /// went wrong.
    pub fn front_end(&self, parameter: &str, value: &str) -> String {
        format!("{}/auth/callback?{parameter}={value}", self.config.public_url)
    }

    /// It must be the one registered with X, to the letter.
    fn redirect_uri(&self) -> String {
        format!("{}/api/auth/twitter/callback", self.config.public_url)
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

fn encode(value: &str) -> String {
    utf8_percent_encode(value, RESERVED).to_string()
}
