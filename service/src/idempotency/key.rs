//! The key a client sends: `Idempotency-Key` (IETF draft, a quoted string or a bare token) or the
//! product's older `X-Idempotency-Key`.

use axum::http::{HeaderMap, HeaderName};

use crate::problem::Problem;

/// The IETF spelling.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The product's own spelling.
pub const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// A well-formed key: 16 to 255 characters of `[A-Za-z0-9_.:-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The request's key. None when it has none; a problem when it has an unusable one.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut found: Option<Self> = None;
        for name in [IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY] {
            for value in headers.get_all(name) {
                let key = value.to_str().ok().and_then(Self::parse).ok_or_else(malformed)?;
                if found.as_ref().is_some_and(|other| *other != key) {
                    return Err(Problem::bad_request(
                        "idempotency-key-ambiguous",
                        "The request has two different idempotency keys.",
                    ));
                }
                found = Some(key);
            }
        }
        Ok(found)
    }

    fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let key = match value.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None => value,
        };
        let plain = key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'));
        (plain && (16..=255).contains(&key.len())).then(|| Self(key.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn malformed() -> Problem {
    Problem::bad_request(
        "idempotency-key-malformed",
        "An idempotency key has 16 to 255 characters of A-Z, a-z, 0-9, '_', '.', ':' and '-'.",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "0190b5b2-7f6e-7cc0-8000-0123456789ab";

    fn of(pairs: &[(HeaderName, &str)]) -> Result<Option<Key>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Key::of(&headers).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn accepts_both_spellings_and_quotes() {
        let quoted = format!("\"{GOOD}\"");
        let key = Some(Key(GOOD.to_owned()));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(IDEMPOTENCY_KEY, &quoted)]), Ok(key.clone()));
        assert_eq!(of(&[(X_IDEMPOTENCY_KEY, GOOD)]), Ok(key.clone()));
        assert_eq!(of(&[(X_IDEMPOTENCY_KEY, GOOD), (IDEMPOTENCY_KEY, &quoted)]), Ok(key));
    }

    #[test]
    fn refuses_ambiguous_and_malformed_keys() {
        let other = "another-key-of-enough-characters";
        assert_eq!(of(&[(X_IDEMPOTENCY_KEY, GOOD), (IDEMPOTENCY_KEY, other)]), Err(400));
        assert_eq!(of(&[(IDEMPOTENCY_KEY, GOOD), (IDEMPOTENCY_KEY, other)]), Err(400));
        let long = "k".repeat(256);
        for bad in [
            "",
            "short",
            "\"0123456789abcdef",
            "0123456789abcdef\"",
            "0123456789 abcdef",
            "0123456789abcdéf",
            &long,
        ] {
            assert_eq!(of(&[(IDEMPOTENCY_KEY, bad)]), Err(400), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_safe(value in "[ -~]{0,300}") {
            if let Some(key) = Key::parse(&value) {
                prop_assert!((16..=255).contains(&key.as_str().len()));
                prop_assert!(!key.as_str().contains(['|', '"', ' ', '\\']));
            }
        }
    }
}
