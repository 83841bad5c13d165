//! Who issues access tokens, and who else signs people in.

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
}

/// A provider of ID tokens.
#[derive(Clone, Debug)]
pub struct IdProviderConfig {
    /// The audience that its tokens must have.
    pub client_id: String,
    /// Where its signing keys are.
    pub jwks_url: String,
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
        }
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
