//! Who issues access tokens.

use super::{
    Secret,
    reader::{Reader, is_http_url},
};

/// Shortest accepted `JWT_SECRET` in bytes: the output length of SHA-256 (RFC 7518, section 3.2).
pub const JWT_SECRET_MIN_BYTES: usize = 32;

/// Who issues access tokens (`AUTH_MODE`).
#[derive(Clone, Debug)]
pub enum AuthConfig {
    /// This service: own accounts, HS256 tokens.
    Local {
        /// `JWT_SECRET`, at least [`JWT_SECRET_MIN_BYTES`] bytes.
        jwt_secret: Secret,
    },
    /// Amazon Cognito: the service only validates.
    Cognito {
        /// `COGNITO_ISSUER`, the user pool's https URL.
        issuer: String,
        /// `COGNITO_CLIENT_ID`.
        client_id: String,
    },
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
            Some("cognito") => {
                let issuer = self.required("COGNITO_ISSUER", "AUTH_MODE is cognito");
                let client_id = self.required("COGNITO_CLIENT_ID", "AUTH_MODE is cognito");
                if issuer.as_deref().is_some_and(|issuer| !is_http_url(issuer)) {
                    self.problem("COGNITO_ISSUER is not an http or https URL");
                }
                Some(AuthConfig::Cognito { issuer: issuer?, client_id: client_id? })
            }
            Some(_) => {
                self.problem("AUTH_MODE is not one of local, cognito");
                None
            }
        }
    }
}
