//! Tokens that an issuer elsewhere signed with RS256: the part of the check that Cognito's access
//! tokens and the ID tokens of social logins share.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::key_set::{KeySet, KeysUnavailable};

/// Tolerated difference between our clock and the issuer's.
const LEEWAY_SECONDS: u64 = 30;

/// Longest token that is looked at; those of the known issuers have less than half.
const MAX_LENGTH: usize = 8 * 1024;

/// Header parameters (RFC 7515, section 4.1) that would let the token choose its own key, or
/// demand extensions that nobody here understands.
const REFUSED_PARAMETERS: [&str; 5] = ["jku", "jwk", "x5u", "x5c", "crit"];

/// What is asked of every token: RS256, which is ours to say and not the header's, an issuer, a
/// subject and an expiry. `audience` is the `aud` it must have; None leaves that to the caller.
pub(super) fn validation(issuers: &[&str], audience: Option<&str>) -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_issuer(issuers);
    if let Some(audience) = audience {
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
    } else {
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    }
    validation
}

/// The claims of a valid token. What is wrong with another one is nobody's business.
pub(super) async fn claims<T: DeserializeOwned>(
    token: &str,
    keys: &KeySet,
    validation: &Validation,
) -> Result<Option<T>, KeysUnavailable> {
    let Some(id) = key_id(token) else { return Ok(None) };
    let Some(key) = keys.key(&id).await? else { return Ok(None) };
    Ok(decode(token, &key, validation).ok().map(|token| token.claims))
}

/// The key id in an acceptable header.
fn key_id(token: &str) -> Option<String> {
    let (header, _) = token.split_once('.').filter(|_| token.len() <= MAX_LENGTH)?;
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
    if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name))
        || header.get("alg")?.as_str()? != "RS256"
    {
        return None;
    }
    header.get("kid")?.as_str().filter(|id| is_key_id(id)).map(str::to_owned)
}

/// `[A-Za-z0-9+/=_-]{1,64}`: base64 in either alphabet, or a name.
fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_key_id_of_acceptable_headers_only() {
        let id = |header: &str| key_id(&format!("{}.e30.x", URL_SAFE_NO_PAD.encode(header)));
        assert_eq!(id(r#"{"alg":"RS256","kid":"aB+/=_-9"}"#).as_deref(), Some("aB+/=_-9"));
        for refused in [
            r#"{"alg":"none","kid":"a"}"#,
            r#"{"alg":"HS256","kid":"a"}"#,
            r#"{"alg":"rs256","kid":"a"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":""}"#,
            r#"{"alg":"RS256","kid":"../../etc/passwd"}"#,
            r#"{"alg":"RS256","kid":1}"#,
            r#"{"alg":"RS256","kid":"a","jku":"https://evil.example"}"#,
            r#"{"alg":"RS256","kid":"a","jwk":{}}"#,
            r#"{"alg":"RS256","kid":"a","x5u":"https://evil.example"}"#,
            r#"{"alg":"RS256","kid":"a","crit":["b64"]}"#,
            "[]",
        ] {
            assert_eq!(id(refused), None, "{refused}");
        }
        assert!(is_key_id(&"a".repeat(64)) && !is_key_id(&"a".repeat(65)));
        assert_eq!(key_id("no dots"), None);
    }
}
