//! The request id: `X-Request-Id` when it is well-formed, otherwise a new UUID v7.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header's name.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that is safe in headers, logs and URNs: `[A-Za-z0-9._-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id if it is acceptable, otherwise a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
            (Some(id), None) if is_acceptable(id) => Self(id.into()),
            _ => Self(Uuid::now_v7().to_string().into()),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the value of a response header.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an acceptable id has header-safe characters only")
    }
}

fn is_acceptable(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> RequestId {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        RequestId::of(&headers)
    }

    #[test]
    fn keeps_a_well_formed_id_only() {
        assert_eq!(of(&["a.B-c_9"]).as_str(), "a.B-c_9");
        let long = "x".repeat(65);
        for bad in [&["a b"][..], &["<script>"], &[""], &[long.as_str()], &["a", "b"], &[]] {
            assert_eq!(Uuid::parse_str(of(bad).as_str()).unwrap().get_version_num(), 7, "{bad:?}");
        }
    }
}
