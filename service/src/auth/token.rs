//! Access tokens of `AUTH_MODE=local`: HS256, 15 minutes.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{config::Secret, problem::Problem};

/// How long an access token is valid.
pub const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_mins(15);

/// Tolerated difference between the clocks of two instances.
const LEEWAY_SECONDS: u64 = 30;

const ISSUER: &str = "bme";
const AUDIENCE: &str = "bme-api";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The user.
    sub: Uuid,
    /// The session, that is the refresh-token family.
    sid: Uuid,
    iat: u64,
    exp: u64,
}

/// Issues and checks access tokens.
#[derive(Clone)]
pub struct Authority {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl Authority {
    /// An authority over one secret.
    pub fn new(secret: &Secret) -> Self {
        // The algorithm is ours; the token's header does not choose it.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            signing: EncodingKey::from_secret(secret.expose().as_bytes()),
            checking: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
        }
    }

    /// A new token for a user's session.
    pub fn issue(&self, user: Uuid, session: Uuid) -> Result<String, Problem> {
        let now = get_current_timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            sid: session,
            iat: now,
            exp: now + ACCESS_TOKEN_LIFETIME.as_secs(),
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map_err(|error| {
            tracing::error!(%error, "access token not signed");
            Problem::internal()
        })
    }

    /// The user of a valid token. What is wrong with another one is nobody's business.
    pub fn check(&self, token: &str) -> Option<Uuid> {
        decode::<Claims>(token, &self.checking, &self.validation).ok().map(|token| token.claims.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(secret: &str) -> Authority {
        Authority::new(&Secret::new(secret))
    }

    fn sign(header: &Header, exp: u64, aud: &str, key: &EncodingKey) -> String {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: aud.into(),
            sub: Uuid::now_v7(),
            sid: Uuid::now_v7(),
            iat: 0,
            exp,
        };
        encode(header, &claims, key).unwrap()
    }

    #[test]
    fn accepts_its_own_tokens_only() {
        let secret = "0123456789abcdef0123456789abcdef";
        let ours = authority(secret);
        let user = Uuid::now_v7();
        let token = ours.issue(user, Uuid::now_v7()).unwrap();
        assert_eq!(ours.check(&token), Some(user));
        assert_eq!(authority("another secret of thirty-two bytes").check(&token), None);

        let key = EncodingKey::from_secret(secret.as_bytes());
        let hs256 = Header::new(Algorithm::HS256);
        let now = get_current_timestamp();
        assert!(ours.check(&sign(&hs256, now + 60, AUDIENCE, &key)).is_some());
        assert_eq!(ours.check(&sign(&hs256, now - 60, AUDIENCE, &key)), None, "expired");
        assert_eq!(ours.check(&sign(&hs256, now + 60, "other", &key)), None, "audience");
        let hs512 = Header::new(Algorithm::HS512);
        assert_eq!(ours.check(&sign(&hs512, now + 60, AUDIENCE, &key)), None, "algorithm");

        let (_, rest) = token.split_once('.').unwrap();
        let none = format!("eyJhbGciOiJub25lIn0.{}.", rest.split('.').next().unwrap());
        assert_eq!(ours.check(&none), None, "alg none");
    }
}
