//! What Redis holds under a key:
//! `P|<fingerprint>|<token>|<deadline>` while a request runs, in hexadecimal and milliseconds of the
//! Unix epoch; `D|<fingerprint>|<MessagePack of the answer>` when it is done.

use std::fmt;

use aws_lc_rs::digest::Digest;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::body::MAX_BODY;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl From<Digest> for Hash {
    fn from(digest: Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Headers of an answer that a replay repeats. Never Set-Cookie, never the request id.
const REPLAYED: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::LOCATION,
    header::ETAG,
    header::CACHE_CONTROL,
    header::LINK,
];

/// Largest body that is kept for replays. What is made of the largest body that is taken has an id and
/// dates besides, and its numbers may be written longer.
const BODY_MOST: usize = MAX_BODY + 4 * 1024;

/// Marks a replay.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines in order; a list, so that repeated names survive.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Answer {
    /// A JSON answer with further headers.
    pub fn json(status: StatusCode, body: Vec<u8>, headers: &[(HeaderName, String)]) -> Self {
        let mut lines = vec![(header::CONTENT_TYPE.to_string(), "application/json".to_owned())];
        lines.extend(headers.iter().map(|(name, value)| (name.to_string(), value.clone())));
        Self { status: status.as_u16(), headers: lines, body }
    }

    /// What may be kept of a response whose body is known.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let lines = headers
            .iter()
            .filter(|(name, _)| REPLAYED.contains(name))
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self { status: status.as_u16(), headers: lines.collect(), body: body.to_vec() }
    }

    /// Whether it may be kept for repetitions: it is not too large, and all of it is for them too.
    pub fn is_replayable(&self) -> bool {
        self.body.len() <= BODY_MOST && self.has_replayed_headers_only()
    }

    fn has_replayed_headers_only(&self) -> bool {
        let replayed = |name: &str| REPLAYED.iter().any(|own| own.as_str() == name);
        self.headers.iter().all(|(name, _)| replayed(name))
    }

    /// The response of the request that ran. None if this is not a response.
    pub fn respond(self) -> Option<Response> {
        let mut response = Response::new(Body::from(Bytes::from(self.body)));
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).ok()?;
            response.headers_mut().append(name, HeaderValue::try_from(value).ok()?);
        }
        Some(response)
    }

    /// The response of a repetition. None if what is stored is not one that is repeated.
    pub fn replay(self) -> Option<Response> {
        let mut response = Some(self).filter(Self::has_replayed_headers_only)?.respond()?;
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        Some(response)
    }
}

/// A decoded value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A request runs.
    Pending {
        /// Of the running request.
        fingerprint: Hash,
        /// Of its attempt.
        token: [u8; 16],
        /// When its lease ends, in milliseconds of the Unix epoch.
        deadline_ms: u64,
    },
    /// A request is done.
    Done {
        /// Of the request that was answered.
        fingerprint: Hash,
        /// What it was answered.
        answer: Answer,
    },
}

impl Value {
    /// The bytes for Redis.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Pending { fingerprint, token, deadline_ms } => {
                let mut bytes = pending_prefix(*fingerprint, token);
                bytes.extend_from_slice(deadline_ms.to_string().as_bytes());
                bytes
            }
            Self::Done { fingerprint, answer } => {
                let mut bytes = format!("D|{}|", hex(&fingerprint.0)).into_bytes();
                rmp_serde::encode::write(&mut bytes, answer)
                    .expect("numbers, strings and bytes fit MessagePack");
                bytes
            }
        }
    }

    /// The value in bytes from Redis. None if they are not ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_at_checked(2)?;
        let (fingerprint, rest) = rest.split_at_checked(64)?;
        let fingerprint = Hash(unhex(fingerprint)?);
        let rest = rest.strip_prefix(b"|")?;
        match kind {
            b"P|" => {
                let (token, rest) = rest.split_at_checked(32)?;
                let digits = std::str::from_utf8(rest.strip_prefix(b"|")?).ok()?;
                let deadline_ms =
                    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)?;
                Some(Self::Pending { fingerprint, token: unhex(token)?, deadline_ms })
            }
            b"D|" => {
                let mut rest = rest;
                let answer = rmp_serde::decode::from_read(&mut rest).ok()?;
                rest.is_empty().then_some(Self::Done { fingerprint, answer })
            }
            _ => None,
        }
    }
}

/// What a pending value of one attempt begins with: the proof of ownership.
pub(super) fn pending_prefix(fingerprint: Hash, token: &[u8; 16]) -> Vec<u8> {
    format!("P|{}|{}|", hex(&fingerprint.0), hex(token)).into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let hash = any::<[u8; 32]>().prop_map(Hash);
        let pending = (hash.clone(), any::<[u8; 16]>(), any::<u64>()).prop_map(
            |(fingerprint, token, deadline_ms)| Value::Pending { fingerprint, token, deadline_ms },
        );
        let answer = (any::<u16>(), vec((".{0,20}", ".{0,40}"), 0..4), vec(any::<u8>(), 0..300))
            .prop_map(|(status, headers, body)| Answer { status, headers, body });
        let done =
            (hash, answer).prop_map(|(fingerprint, answer)| Value::Done { fingerprint, answer });
        prop_oneof![pending, done]
    }

    proptest! {
        #[test]
        fn comes_back_unchanged(value in values()) {
            prop_assert_eq!(Value::decode(&value.encode()), Some(value));
        }

        #[test]
        fn a_cut_or_longer_value_is_not_ours(value in values(), cut in any::<proptest::sample::Index>()) {
            let bytes = value.encode();
            let cut = cut.index(bytes.len());
            // A deadline that lost digits is still a number; everything else must be refused.
            if !matches!(value, Value::Pending { .. }) || cut <= 99 {
                prop_assert_eq!(Value::decode(&bytes[..cut]), None);
            }
            let mut longer = bytes;
            longer.push(b'|');
            prop_assert_eq!(Value::decode(&longer), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), head in "[PD]\\|[0-9a-f]{64}\\|") {
            let _ = Value::decode(&bytes);
            let _ = Value::decode(&[head.as_bytes(), &bytes].concat());
        }

        #[test]
        fn a_pending_value_begins_with_its_proof(fp in any::<[u8; 32]>(), token in any::<[u8; 16]>(), deadline_ms in any::<u64>()) {
            let value = Value::Pending { fingerprint: Hash(fp), token, deadline_ms };
            prop_assert!(value.encode().starts_with(&pending_prefix(Hash(fp), &token)));
        }
    }

    #[test]
    fn keeps_neither_cookies_nor_request_ids() {
        let mut headers = HeaderMap::new();
        headers.append(header::SET_COOKIE, HeaderValue::from_static("a=b"));
        headers.append("x-request-id", HeaderValue::from_static("r"));
        headers.append(header::LINK, HeaderValue::from_static("<a>"));
        headers.append(header::LINK, HeaderValue::from_static("<b>"));
        let answer = Answer::of(StatusCode::CREATED, &headers, b"x");
        assert_eq!(answer.headers, [("link".into(), "<a>".into()), ("link".into(), "<b>".into())]);
        let forged = Answer { headers: vec![("set-cookie".into(), "a=b".into())], ..answer };
        assert!(forged.replay().is_none());
    }

    #[test]
    fn a_cookie_and_a_body_that_is_too_large_are_not_replayable() {
        let location = (header::LOCATION, "/a".to_owned());
        let most = Answer::json(StatusCode::CREATED, vec![b'1'; BODY_MOST], &[location]);
        assert!(most.is_replayable());
        let body = vec![b'1'; BODY_MOST + 1];
        assert!(!Answer { body, ..most }.is_replayable());
        let cookie = (header::SET_COOKIE, "a=b".to_owned());
        let cookie = Answer::json(StatusCode::CREATED, Vec::new(), &[cookie]);
        assert!(!cookie.is_replayable());
        let response = cookie.respond().unwrap();
        assert_eq!(response.headers()[header::SET_COOKIE], "a=b");
    }
}
