//! SCRAM-SHA-256 verifiers: what `CREATE ROLE … PASSWORD` accepts instead of the password itself
//! (Postgres documentation of `pg_authid`, RFC 5802), so that the password never stands in a
//! statement that the server may log.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Postgres's default (`scram_iterations`).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// The verifier of a printable-ASCII password, with a new salt. None if the operating system gives
/// no random bytes.
pub fn verifier(password: &str) -> Option<String> {
    let mut salt = [0_u8; 16];
    rand::fill(&mut salt).ok()?;
    Some(with_salt(password, &salt))
}

fn with_salt(password: &str, salt: &[u8]) -> String {
    let mut salted = [0_u8; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, password.as_bytes(), &mut salted);
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}
