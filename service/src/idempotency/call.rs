//! What identifies a request: who, which key, and a fingerprint of everything it asks for.

use aws_lc_rs::digest::{Context, SHA256, digest};
use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::{Method, request::Parts},
};
use uuid::Uuid;

use super::{Key, value::Hash};
use crate::{app::App, body, problem::Problem, request_id::RequestId};

/// Version of the fingerprint's recipe; a new recipe must not match what an old one stored.
const RECIPE: u8 = 1;

/// The parts of a request that the fingerprint covers besides its body.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) key: Option<Key>,
    pub(super) request_id: RequestId,
    method: Method,
    pub(super) route: String,
    target: String,
    essence: String,
}

impl FromRequestParts<App> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let route = parts.extensions.get::<MatchedPath>();
        let target = parts.uri.path_and_query();
        Ok(Self {
            key: Key::of(&parts.headers)?,
            request_id: parts
                .extensions
                .get::<RequestId>()
                .cloned()
                .unwrap_or_else(|| RequestId::of(&parts.headers)),
            method: parts.method.clone(),
            route: route.map(|route| route.as_str().to_owned()).unwrap_or_default(),
            target: target.map(ToString::to_string).unwrap_or_default(),
            essence: body::essence(&parts.headers),
        })
    }
}

impl Call {
    /// SHA-256 of the key, if the request has one.
    pub fn key_hash(&self) -> Option<Hash> {
        self.key.as_ref().map(|key| Hash::from(digest(&SHA256, key.as_str().as_bytes())))
    }

    /// The id of this request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// SHA-256 over the method, the route, the raw path and query, the media type and the raw body.
    /// Every part is preceded by its length, so that no two requests share an input. Raw bytes, not
    /// canonical JSON: a retry must send the same bytes.
    pub(super) fn fingerprint(&self, body: &[u8]) -> Hash {
        let mut context = Context::new(&SHA256);
        context.update(&[RECIPE]);
        let parts = [
            self.method.as_str().as_bytes(),
            self.route.as_bytes(),
            self.target.as_bytes(),
            self.essence.as_bytes(),
            body,
        ];
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Hash::from(context.finish())
    }
}

/// One attempt at a request that has a key.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) user: Uuid,
    pub(super) key_hash: Hash,
    pub(super) fingerprint: Hash,
    /// Random: proves that a lock in Redis is this attempt's own.
    pub(super) token: [u8; 16],
}

impl Attempt {
    /// None if the operating system gives no random bytes.
    pub(super) fn new(user: Uuid, key: &Key, fingerprint: Hash) -> Option<Self> {
        let mut token = [0; 16];
        aws_lc_rs::rand::fill(&mut token).ok()?;
        let key_hash = Hash::from(digest(&SHA256, key.as_str().as_bytes()));
        Some(Self { user, key_hash, fingerprint, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, target: &str, essence: &str) -> Call {
        Call {
            key: None,
            request_id: RequestId::of(&axum::http::HeaderMap::new()),
            method,
            route: "/api/transactions".into(),
            target: target.into(),
            essence: essence.into(),
        }
    }

    #[test]
    fn covers_every_part() {
        let base = call(Method::POST, "/api/transactions", "application/json");
        let fingerprint = base.fingerprint(b"{}");
        assert_eq!(base.clone().fingerprint(b"{}"), fingerprint);
        assert_ne!(base.fingerprint(b"{ }"), fingerprint);
        assert_ne!(
            call(Method::PATCH, "/api/transactions", "application/json").fingerprint(b"{}"),
            fingerprint
        );
        assert_ne!(
            call(Method::POST, "/api/transactions?a", "application/json").fingerprint(b"{}"),
            fingerprint
        );
        assert_ne!(
            call(Method::POST, "/api/transactions", "application/jso").fingerprint(b"n{}"),
            fingerprint
        );
    }
}
