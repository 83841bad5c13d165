//! Who issues access tokens, and who else signs people in.

use reqwest::Url;

use super::{
    Secret,
    reader::{Reader, is_http_url},
};

/// Shortest accepted `JWT_SECRET` in bytes: the output length of SHA-256 (RFC 7518, section 3.2).
pub const JWT_SECRET_MIN_BYTES: usize = 32;

/// Google's signing keys, from its discovery document.
const GOOGLE_JWKS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Facebook's signing keys, from its discovery document.
const FACEBOOK_JWKS_URL: &str = "https://www.facebook.com/.well-known/oauth/openid/jwks/";

/// Where X asks the person (X developer documentation, "OAuth 2.0 Authorization Code Flow with
/// PKCE"; so are the next two).
const TWITTER_AUTHORIZE_URL: &str = "https://x.com/i/oauth2/authorize";

/// Where X exchanges authorization codes.
const TWITTER_TOKEN_URL: &str = "https://api.x.com/2/oauth2/token";

/// Where X tells who the person is.
const TWITTER_USER_URL: &str = "https://api.x.com/2/users/me";

/// Who issues access tokens (`AUTH_MODE`).
#[derive(Clone, Debug)]
pub enum AuthConfig {
    /// This service: own accounts, HS256 tokens.
    Local {
        /// `JWT_SECRET`, at least [`JWT_SECRET_MIN_BYTES`] bytes.
        jwt_secret: Secret,
    },
    /// Amazon Cognito: the service only validates.
    Cognito(CognitoConfig),
}

/// One Cognito user pool.
#[derive(Clone, Debug)]
pub struct CognitoConfig {
    /// `COGNITO_ISSUER`, the user pool's https URL.
    pub issuer: String,
    /// `COGNITO_CLIENT_ID`: the app clients whose tokens are accepted, separated by commas.
    pub client_ids: Vec<String>,
    /// `COGNITO_JWKS_URL`, by default `/.well-known/jwks.json` below the issuer.
    pub jwks_url: String,
    /// `COGNITO_DOMAIN`: the URL that `/oauth2/userInfo` is below, if the pool has one.
    pub domain: Option<String>,
}

impl CognitoConfig {
    /// A pool with one client, and everything else as the issuer says.
    pub fn new(issuer: &str, client_id: &str) -> Self {
        Self {
            jwks_url: format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
            issuer: issuer.to_owned(),
            client_ids: vec![client_id.to_owned()],
            domain: None,
        }
    }
}

/// The social logins of `AUTH_MODE=local`; the routes of those that are absent answer 404.
#[derive(Clone, Debug, Default)]
pub struct SocialConfig {
    /// `GOOGLE_CLIENT_ID` and `GOOGLE_JWKS_URL`.
    pub google: Option<IdProviderConfig>,
    /// `FACEBOOK_APP_ID` and `FACEBOOK_JWKS_URL`.
    pub facebook: Option<IdProviderConfig>,
    /// `TWITTER_CLIENT_ID` and the rest.
    pub twitter: Option<TwitterConfig>,
}

/// A provider of ID tokens.
#[derive(Clone, Debug)]
pub struct IdProviderConfig {
    /// The audience that its tokens must have.
    pub client_id: String,
    /// Where its signing keys are.
    pub jwks_url: String,
}

/// X, formerly Twitter.
#[derive(Clone, Debug)]
pub struct TwitterConfig {
    /// `TWITTER_CLIENT_ID`.
    pub client_id: String,
    /// `TWITTER_CLIENT_SECRET`.
    pub client_secret: Secret,
    /// `TWITTER_AUTHORIZE_URL`.
    pub authorize_url: Url,
    /// `TWITTER_TOKEN_URL`.
    pub token_url: Url,
    /// `TWITTER_USER_URL`.
    pub user_url: Url,
    /// `PUBLIC_URL`, without a slash at the end: X sends the person back below it.
    pub public_url: String,
}

impl Reader<'_> {
    pub(super) fn auth(&mut self) -> Option<AuthConfig> {
        match self.get("AUTH_MODE").as_deref() {
            None | Some("local") => {
                let secret = self.required("JWT_SECRET", "it signs the access tokens")?;
                if secret.len() < JWT_SECRET_MIN_BYTES {
                    self.problem(format!(
                        "JWT_SECRET has {} bytes; at least {JWT_SECRET_MIN_BYTES} are needed",
                        secret.len()
                    ));
                }
                Some(AuthConfig::Local { jwt_secret: Secret::new(secret) })
            }
            Some("cognito") => self.cognito().map(AuthConfig::Cognito),
            Some(_) => {
                self.problem("AUTH_MODE is not one of local, cognito");
                None
            }
        }
    }

    fn cognito(&mut self) -> Option<CognitoConfig> {
        let issuer = self.required("COGNITO_ISSUER", "AUTH_MODE is cognito");
        let client_ids = self.required("COGNITO_CLIENT_ID", "AUTH_MODE is cognito");
        let jwks_url = self.get("COGNITO_JWKS_URL");
        let domain = self.get("COGNITO_DOMAIN");
        for (name, url) in [
            ("COGNITO_ISSUER", &issuer),
            ("COGNITO_JWKS_URL", &jwks_url),
            ("COGNITO_DOMAIN", &domain),
        ] {
            if url.as_deref().is_some_and(|url| !is_http_url(url)) {
                self.problem(format!("{name} is not an http or https URL"));
            }
        }
        let client_ids = client_ids?;
        let client_ids: Vec<_> =
            client_ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
        if client_ids.is_empty() {
            self.problem("COGNITO_CLIENT_ID names no client");
        }
        let config = CognitoConfig::new(&issuer?, "");
        Some(CognitoConfig {
            client_ids: client_ids.into_iter().map(str::to_owned).collect(),
            jwks_url: jwks_url.unwrap_or(config.jwks_url),
            domain,
            ..config
        })
    }

    pub(super) fn social(&mut self) -> SocialConfig {
        SocialConfig {
            google: self.id_provider("GOOGLE_CLIENT_ID", "GOOGLE_JWKS_URL", GOOGLE_JWKS_URL),
            facebook: self.id_provider("FACEBOOK_APP_ID", "FACEBOOK_JWKS_URL", FACEBOOK_JWKS_URL),
            twitter: self.twitter(),
        }
    }

    fn twitter(&mut self) -> Option<TwitterConfig> {
        let urls = (
            self.url("TWITTER_AUTHORIZE_URL", TWITTER_AUTHORIZE_URL),
            self.url("TWITTER_TOKEN_URL", TWITTER_TOKEN_URL),
            self.url("TWITTER_USER_URL", TWITTER_USER_URL),
        );
        let Some(client_id) = self.get("TWITTER_CLIENT_ID") else {
            if self.get("TWITTER_CLIENT_SECRET").is_some() {
                self.problem("TWITTER_CLIENT_ID is not set: TWITTER_CLIENT_SECRET is set");
            }
            return None;
        };
        let client_secret = self.required("TWITTER_CLIENT_SECRET", "TWITTER_CLIENT_ID is set");
        let public_url = self.required("PUBLIC_URL", "X sends people back to it");
        let (Some(authorize_url), Some(token_url), Some(user_url)) = urls else { return None };
        Some(TwitterConfig {
            client_id,
            client_secret: Secret::new(client_secret?),
            authorize_url,
            token_url,
            user_url,
            public_url: public_url?.trim_end_matches('/').to_owned(),
        })
    }

    fn url(&mut self, name: &str, default: &str) -> Option<Url> {
        let text = self.get(name).unwrap_or_else(|| default.to_owned());
        let url = Url::parse(&text).ok().filter(|_| is_http_url(&text));
        if url.is_none() {
            self.problem(format!("{name} is not an http or https URL"));
        }
        url
    }

    fn id_provider(
        &mut self,
        client_id: &str,
        jwks_url: &str,
        default: &str,
    ) -> Option<IdProviderConfig> {
        let url = self.get(jwks_url).unwrap_or_else(|| default.to_owned());
        if !is_http_url(&url) {
            self.problem(format!("{jwks_url} is not an http or https URL"));
        }
        let client_id = self.get(client_id)?;
        Some(IdProviderConfig { client_id, jwks_url: url })
    }
}
