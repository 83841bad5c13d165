//! Tokens that this service makes up: 256 random bits, of which only the SHA-256 is kept.

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::problem::Problem;

/// A token of 256 random bits: 43 characters of base64url, which is also the shortest PKCE verifier
/// (RFC 7636, section 4.1).
pub(super) fn random_token() -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| {
        tracing::error!("the operating system gives no random bytes");
        Problem::internal()
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What is kept of a token. It has 256 random bits: a plain hash is as good as a slow one.
pub(super) fn hash(token: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, token.as_bytes())
}

/// The hash as text: a part of a Redis key, or the PKCE challenge of a verifier (RFC 7636, section
/// 4.2, S256).
pub(super) fn hash_text(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(hash(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636_appendix_b() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(hash_text(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn tokens_are_long_enough_and_differ() {
        let (one, two) = (random_token().unwrap(), random_token().unwrap());
        assert_eq!((one.len(), two.len()), (43, 43));
        assert_ne!(one, two);
    }
}
