//! The public keys of one issuer (RFC 7517), kept in memory and refreshed when they rotate.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};

use super::provider_client::{ProviderError, fetch};

/// Unknown key ids cause at most one refresh in this time: whoever floods us with invented ones
/// must not flood the issuer through us.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_mins(1);

/// Without any key every token is refused, so another attempt is made this soon.
const EMPTY_PAUSE: Duration = Duration::from_secs(5);

/// How often the keys are refreshed in the background, so that withdrawn ones are forgotten.
const PERIOD: Duration = Duration::from_hours(1);

/// How long keys are used while the issuer does not answer.
const STALE: Duration = Duration::from_hours(24);

/// There are no keys to check with: the issuer did not answer yet, or not for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysUnavailable;

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub struct KeySet {
    client: Client,
    url: Arc<str>,
    keys: Arc<RwLock<Option<Keys>>>,
    /// Held while the keys are fetched, so that one fetch serves all who wait.
    attempts: Arc<Mutex<Attempts>>,
}

struct Keys {
    by_id: HashMap<String, DecodingKey>,
    fetched: Instant,
}

#[derive(Default)]
struct Attempts {
    /// The last fetch that had no keys to fall back on.
    empty: Option<Instant>,
    /// The last fetch for an unknown key id.
    unknown: Option<Instant>,
}

#[derive(Deserialize)]
struct Document {
    /// Parsed one by one: a key of a kind that we do not know is no reason to refuse the rest.
    keys: Vec<Value>,
}

impl KeySet {
    /// The keys at an address. Fetches nothing yet.
    pub fn new(client: Client, url: &str) -> Self {
        Self { client, url: url.into(), keys: Arc::default(), attempts: Arc::default() }
    }

    /// Refreshes the keys for ever. Run it in a task.
    pub async fn keep(self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let _turn = self.attempts.lock().await;
            self.refresh().await;
        }
    }

    /// The key of an id; None if the issuer has no such key.
    pub(super) async fn key(&self, id: &str) -> Result<Option<DecodingKey>, KeysUnavailable> {
        if let Ok(Some(key)) = self.known(id) {
            return Ok(Some(key));
        }
        let mut attempts = self.attempts.lock().await;
        // Somebody else may have fetched it while we waited.
        let last = match self.known(id) {
            Ok(Some(key)) => return Ok(Some(key)),
            Ok(None) => (&mut attempts.unknown, UNKNOWN_KEY_PAUSE),
            Err(KeysUnavailable) => (&mut attempts.empty, EMPTY_PAUSE),
        };
        let (last, pause) = last;
        if last.is_none_or(|last| last.elapsed() >= pause) {
            *last = Some(Instant::now());
            self.refresh().await;
        }
        self.known(id)
    }

    fn known(&self, id: &str) -> Result<Option<DecodingKey>, KeysUnavailable> {
        // The lock guards one assignment, which cannot be half done.
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let keys = keys.as_ref().filter(|keys| keys.fetched.elapsed() < STALE);
        Ok(keys.ok_or(KeysUnavailable)?.by_id.get(id).cloned())
    }

    /// Replaces the keys as a whole. A failure leaves those that are there.
    async fn refresh(&self) {
        match self.fetch().await {
            Ok(by_id) => {
                let keys = Keys { by_id, fetched: Instant::now() };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
            }
            Err(error) => tracing::warn!(%error, "keys of the identity provider not refreshed"),
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, DecodingKey>, ProviderError> {
        let document: Document = fetch(self.client.get(&*self.url)).await?;
        let by_id: HashMap<_, _> = document.keys.into_iter().filter_map(signing_key).collect();
        // An issuer without keys is broken, and would sign everybody out.
        if by_id.is_empty() { Err(ProviderError::Answer) } else { Ok(by_id) }
    }
}

/// An RSA key for signatures, with its id.
fn signing_key(value: Value) -> Option<(String, DecodingKey)> {
    let key: Jwk = serde_json::from_value(value).ok()?;
    let signs = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let is_rsa = matches!(key.algorithm, AlgorithmParameters::RSA(_));
    let decoding = DecodingKey::from_jwk(&key).ok().filter(|_| signs && is_rsa)?;
    Some((key.common.key_id?, decoding))
}
