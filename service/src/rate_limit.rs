//! Rate limits: the generic cell rate algorithm in Redis, so that all instances count together.
//!
//! Without Redis requests pass, except the login bucket, which each instance then counts for itself.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::Script;
use tracing::Instrument as _;

use crate::{
    app::App,
    auth::{Holder, bearer_token},
    config::LimitsConfig,
    edge::{Peer, client_ip, network},
    kv::{Kv, KvError},
    mcp, metrics,
    problem::Problem,
    request_id::RequestId,
};

/// The three headers of draft-ietf-httpapi-ratelimit-headers-03: limit, remaining, and the seconds
/// until the whole limit is there again.
pub const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

/// Limits are per minute, in microseconds.
const MINUTE: u64 = 60_000_000;

/// Refusals of one caller that are recorded are this far apart, in seconds.
const RECORDED_EVERY: u64 = 60;

/// Most callers counted without Redis.
const LOCAL_CAPACITY: usize = 10_000;

/// [`decide`] in Redis, on the clock of Redis. `%.0f`, because Lua writes large numbers rounded.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local window = tonumber(ARGV[2])
local before = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local after = before + interval
if after > now + window then
  return {0, before - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, after - now}
";

/// What one request may do, and what is left after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    allowed: bool,
    /// Microseconds until the whole limit is there again.
    debt: u64,
}

/// Time between two requests at the full rate, in microseconds. Rounded up: never a request too
/// many.
fn interval(limit: NonZeroU32) -> u64 {
    MINUTE.div_ceil(u64::from(limit.get()))
}

/// The time that a whole burst takes to come back, in microseconds: exactly `limit` intervals, so
/// that a limit that does not divide the minute still lets its whole burst through.
fn window(limit: NonZeroU32) -> u64 {
    u64::from(limit.get()) * interval(limit)
}

/// The algorithm: `arrival` is the theoretical arrival time, which each allowed request moves by
/// one interval and which may be at most one window ahead of `now`.
fn decide(arrival: &mut u64, now: u64, limit: NonZeroU32) -> Decision {
    let before = (*arrival).max(now);
    let after = before + interval(limit);
    if after > now + window(limit) {
        return Decision { allowed: false, debt: before - now };
    }
    *arrival = after;
    Decision { allowed: true, debt: after - now }
}

impl Decision {
    fn headers(self, limit: NonZeroU32) -> [(HeaderName, HeaderValue); 3] {
        let remaining = window(limit).saturating_sub(self.debt) / interval(limit);
        let values = [u64::from(limit.get()), remaining, self.debt.div_ceil(1_000_000)];
        let mut values = values.map(HeaderValue::from).into_iter();
        HEADERS.map(|name| (name, values.next().expect("one value for each header")))
    }

    fn problem(self, limit: NonZeroU32) -> Problem {
        let wait = (self.debt + interval(limit)).saturating_sub(window(limit)).div_ceil(1_000_000);
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limited",
            "Too many requests; Retry-After tells when the next is possible.",
        )
        .retry_after(wait.max(1));
        self.headers(limit)
            .into_iter()
            .fold(problem, |problem, (name, value)| problem.with_header(name, value))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Login,
    Voice,
    Rest,
}

impl Bucket {
    /// None where nothing is limited.
    fn of(method: &Method, route: &str) -> Option<Self> {
        let below = route.strip_prefix("/api/v1").or_else(|| route.strip_prefix("/api"));
        match below {
            _ if matches!(route, "/health" | "/ready" | "/openapi.json" | "/metrics") => None,
            Some(path) if method == Method::POST && path.starts_with("/auth/") => Some(Self::Login),
            Some("/voice/understand") if method == Method::POST => Some(Self::Voice),
            _ => Some(Self::Rest),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Voice => "voice",
            Self::Rest => "rest",
        }
    }
}

/// Counts requests per caller.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    kv: Kv,
    limits: LimitsConfig,
    budget: Duration,
    started: Instant,
    /// Whether the last decision came from Redis, so that only a change is logged.
    shared: Arc<AtomicBool>,
    local: Arc<Mutex<HashMap<String, u64>>>,
}

impl RateLimiter {
    /// A limiter shared through Redis, which gets `budget` for each answer.
    pub fn new(kv: Kv, limits: LimitsConfig, budget: Duration) -> Self {
        Self {
            kv,
            limits,
            budget,
            started: Instant::now(),
            shared: Arc::new(AtomicBool::new(true)),
            local: Arc::default(),
        }
    }

    fn limit(&self, bucket: Bucket) -> NonZeroU32 {
        match bucket {
            Bucket::Login => self.limits.login,
            Bucket::Voice => self.limits.voice,
            Bucket::Rest => self.limits.rest,
        }
    }

    /// None when nobody counts: Redis is away and the bucket fails open.
    async fn decide(&self, bucket: Bucket, caller: &str) -> Option<Decision> {
        let key = key(bucket, caller);
        let limit = self.limit(bucket);
        match self.decide_in_redis(&key, limit).await {
            Ok(decision) => {
                if !self.shared.swap(true, Ordering::Relaxed) {
                    tracing::info!("rate limits are shared again");
                }
                Some(decision)
            }
            Err(error) => {
                if self.shared.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%error, "rate limits are not shared");
                }
                let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX / 2);
                (bucket == Bucket::Login).then(|| self.decide_locally(key, now, limit))
            }
        }
    }

    async fn decide_in_redis(&self, key: &str, limit: NonZeroU32) -> Result<Decision, KvError> {
        let script = Script::new(SCRIPT);
        let mut call = script.key(key);
        call.arg(interval(limit)).arg(window(limit));
        let (allowed, debt): (bool, u64) = self.kv.script(&call, self.budget).await?;
        Ok(Decision { allowed, debt })
    }

    /// Whether a refusal is the one of its caller and minute that is recorded, over all instances. Where
    /// Redis does not say, it is not: without Redis nobody is refused for long, and what is done about
    /// a flood must not be a flood.
    async fn is_to_be_recorded(&self, bucket: Bucket, caller: &str) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:recorded", key(bucket, caller)))
            .arg(1)
            .arg("NX")
            .arg("EX")
            .arg(RECORDED_EVERY);
        let set: Result<Option<String>, KvError> = self.kv.query(&set, self.budget).await;
        matches!(set, Ok(Some(_)))
    }

    fn decide_locally(&self, key: String, now: u64, limit: NonZeroU32) -> Decision {
        // A number is whole at every point, so a panic elsewhere leaves nothing half done.
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if local.len() >= LOCAL_CAPACITY {
            local.retain(|_, arrival| *arrival > now);
        }
        if local.len() >= LOCAL_CAPACITY && !local.contains_key(&key) {
            return Decision { allowed: false, debt: window(limit) };
        }
        decide(local.entry(key).or_insert(0), now, limit)
    }
}

/// Neither the address nor the user reaches Redis in clear.
fn key(bucket: Bucket, caller: &str) -> String {
    let hash = digest::digest(&digest::SHA256, caller.as_bytes());
    format!("rate:{}:{}", bucket.name(), URL_SAFE_NO_PAD.encode(hash))
}

/// Who is signed in, whatever the token was granted for: an assistant shares its address with the
/// assistants of others.
async fn holder(parts: &mut Parts, is_mcp: bool, app: &App) -> Option<Holder> {
    let token = bearer_token(&parts.headers)?;
    if is_mcp && let Some(user) = mcp::holder_of_secret(&app.mcp.access, token) {
        return Some(Holder::User(user));
    }
    Holder::of_request(parts, app).await.ok().flatten()
}

/// The middleware, outside of every handler: it runs before a body is read and before Postgres is
/// asked. A token that is not valid counts for its IP address, so that it buys nothing.
pub async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(bucket) = Bucket::of(&parts.method, route) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let is_mcp = route == mcp::PATH;
    // A token says nothing about who tries passwords, so logins count per address only.
    let holder = match bucket {
        Bucket::Login => None,
        Bucket::Voice | Bucket::Rest => holder(&mut parts, is_mcp, &app).await,
    };
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    let caller = match (&holder, peer) {
        (Some(holder), _) => holder.caller(),
        (None, Some(peer)) => network(client_ip(&parts.headers, peer, app.http.trusted_proxy_hops)),
        (None, None) => String::new(),
    };
    let limit = app.rate_limiter.limit(bucket);
    let decision = app.rate_limiter.decide(bucket, &caller).await;
    metrics::rate_limit(bucket.name(), decision.map(|decision| decision.allowed));
    if let Some(refused) = decision.filter(|decision| !decision.allowed) {
        if is_mcp && app.rate_limiter.is_to_be_recorded(bucket, &caller).await {
            let id = parts.extensions.get::<RequestId>().cloned();
            let id = id.unwrap_or_else(|| RequestId::of(&parts.headers));
            // Tracked, so that a drain waits for it. The answer does not: it costs Postgres nothing.
            let recording = mcp::record_refusal(app.clone(), id, holder).in_current_span();
            app.lifecycle.tasks.spawn(recording);
        }
        return refused.problem(limit).into_response();
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(decision) = decision {
        response.headers_mut().extend(decision.headers(limit));
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever is refused has used exactly the burst and the rate, and nobody gets more.
        #[test]
        fn exactly_the_burst_and_the_rate(
            limit in 1_u32..2_000,
            gaps in prop::collection::vec(0_u64..3_000_000, 1..600),
        ) {
            let limit = NonZeroU32::new(limit).unwrap();
            let (mut arrival, mut now, mut allowed) = (0, MINUTE, 0_u64);
            let mut spared = 0;
            for gap in gaps {
                now += gap;
                // Time in which the whole burst was there already buys nothing.
                spared += now.saturating_sub(arrival.max(now - gap));
                let possible = u64::from(limit.get()) + (now - MINUTE - spared) / interval(limit);
                let decision = decide(&mut arrival, now, limit);
                prop_assert_eq!(decision.allowed, allowed < possible);
                allowed += u64::from(decision.allowed);
                prop_assert!(allowed <= u64::from(limit.get()) * (now - MINUTE) / MINUTE + u64::from(limit.get()));
            }
        }

        #[test]
        fn the_whole_burst_is_there_and_the_header_counts_it_down(limit in 1_u32..2_000) {
            let limit = NonZeroU32::new(limit).unwrap();
            let mut arrival = 0;
            for left in (0..limit.get()).rev() {
                let decision = decide(&mut arrival, MINUTE, limit);
                prop_assert!(decision.allowed);
                let [(_, all), (_, remaining), _] = decision.headers(limit);
                prop_assert_eq!(all, HeaderValue::from(limit.get()));
                prop_assert_eq!(remaining, HeaderValue::from(left));
            }
            prop_assert!(!decide(&mut arrival, MINUTE, limit).allowed);
        }
    }
}
