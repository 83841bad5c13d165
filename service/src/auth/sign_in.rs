//! Sign-ins by redirection, between their steps: what is remembered in Redis while the person is at
//! the provider, and the one-time code that the front end exchanges for a session afterwards.
//!
//! Both are taken atomically, once, and both belong to the browser that began, which holds a random
//! cookie: a `state` or a code that leaks with an address is worth nothing elsewhere (RFC 9700,
//! section 4.7).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    random_token::{hash_text, random_token},
    session::cookie_in,
};
use crate::{
    config::Secret,
    kv::{Kv, KvError},
    problem::Problem,
};

/// How long the person has at the provider.
const STATE_LIFETIME: Duration = Duration::from_mins(10);

/// How long the front end has to exchange the code.
const CODE_LIFETIME: Duration = Duration::from_mins(5);

/// Longest wait for Redis. There is no way on without it.
const REDIS_BUDGET: Duration = Duration::from_secs(1);

/// Remembers sign-ins by redirection.
#[derive(Clone, Debug)]
pub struct SignIns {
    kv: Kv,
    secure: bool,
}

/// A sign-in that has begun, as the browser must learn it.
pub struct Opened {
    /// The `state` for the provider.
    pub state: String,
    /// The PKCE challenge of the verifier, method S256.
    pub challenge: String,
    /// The `Set-Cookie` that binds the browser.
    pub cookie: HeaderValue,
}

/// A sign-in whose person is at the provider.
#[derive(Serialize, Deserialize)]
pub struct Pending {
    /// The PKCE verifier.
    pub verifier: String,
    /// Where the front end goes afterwards.
    pub return_to: Option<String>,
    cookie_hash: String,
}

/// A sign-in that waits to be exchanged for a session.
#[derive(Serialize, Deserialize)]
pub struct Granted {
    /// Whose.
    pub user: Uuid,
    /// Where the front end goes now.
    pub return_to: Option<String>,
    cookie_hash: String,
}

impl SignIns {
    /// Remembers in this Redis. `secure` is whether cookies are.
    pub fn new(kv: Kv, secure: bool) -> Self {
        Self { kv, secure }
    }

    /// Begins a sign-in.
    pub async fn open(&self, return_to: Option<String>) -> Result<Opened, Problem> {
        let (state, verifier, browser) = (random_token()?, random_token()?, random_token()?);
        let challenge = hash_text(&verifier);
        let pending = Pending { verifier, return_to, cookie_hash: hash_text(&browser) };
        self.put(&format!("pkce:{state}"), &pending, STATE_LIFETIME).await?;
        let lifetime = STATE_LIFETIME + CODE_LIFETIME;
        Ok(Opened { state, challenge, cookie: self.cookie(&browser, lifetime) })
    }

    /// Takes the sign-in of a `state`, if this browser began it. It is gone then in any case.
    pub async fn take_pending(
        &self,
        state: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Pending>, KvError> {
        let Some(browser) = self.browser(headers) else { return Ok(None) };
        let pending: Option<Pending> = self.take(&format!("pkce:{state}")).await?;
        Ok(pending.filter(|pending| pending.cookie_hash == browser))
    }

    /// A one-time code with which the browser of a sign-in gets a session of this user.
    pub async fn grant(&self, pending: Pending, user: Uuid) -> Result<Secret, Problem> {
        let code = random_token()?;
        let Pending { return_to, cookie_hash, .. } = pending;
        let granted = Granted { user, return_to, cookie_hash };
        self.put(&code_key(&code), &granted, CODE_LIFETIME).await?;
        Ok(Secret::new(code))
    }

    /// Takes the sign-in of a one-time code, if it is this browser's. It is gone then in any case.
    pub async fn take_granted(
        &self,
        code: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Granted>, Problem> {
        let Some(browser) = self.browser(headers) else { return Ok(None) };
        let granted: Option<Granted> =
            self.take(&code_key(code)).await.map_err(|error| unavailable(&error))?;
        Ok(granted.filter(|granted| granted.cookie_hash == browser))
    }

    /// The `Set-Cookie` that lets go of the browser.
    pub fn clear_cookie(&self) -> HeaderValue {
        self.cookie("", Duration::ZERO)
    }

    async fn put(
        &self,
        key: &str,
        value: &impl Serialize,
        lifetime: Duration,
    ) -> Result<(), Problem> {
        let text = serde_json::to_string(value).map_err(|_| Problem::internal())?;
        let mut set = redis::cmd("SET");
        set.arg(key).arg(text).arg("EX").arg(lifetime.as_secs());
        self.kv.query(&set, REDIS_BUDGET).await.map_err(|error| unavailable(&error))
    }

    async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, KvError> {
        let text: Option<String> =
            self.kv.query(redis::cmd("GETDEL").arg(key), REDIS_BUDGET).await?;
        // What another release wrote in another form has to be begun again.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// The hash of the browser's cookie.
    fn browser(&self, headers: &HeaderMap) -> Option<String> {
        cookie_in(headers, self.cookie_name()).map(hash_text)
    }

    fn cookie(&self, value: &str, lifetime: Duration) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        // Lax: the browser comes back from another site by a navigation.
        let text = format!(
            "{}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
            self.cookie_name(),
            lifetime.as_secs()
        );
        let mut header =
            HeaderValue::try_from(text).expect("base64url and numbers are header-safe");
        header.set_sensitive(true);
        header
    }

    /// The prefix makes browsers refuse the cookie from anybody but this host (RFC 6265bis, section
    /// 4.1.3.2); it needs Secure.
    fn cookie_name(&self) -> &'static str {
        if self.secure { "__Host-oauth" } else { "oauth" }
    }
}

fn code_key(code: &str) -> String {
    format!("oauth-code:{}", hash_text(code))
}

fn unavailable(error: &KvError) -> Problem {
    tracing::warn!(%error, "sign-in not remembered");
    Problem::unavailable("sign-in-unavailable", "Signing in is not possible at the moment.", 2)
}
