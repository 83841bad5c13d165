//! The lockout: failed logins per account and IP. It counts for addresses without an account too,
//! so it does not tell which exist. Without Redis each instance counts for itself.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::Script;

use crate::{
    edge::network,
    kv::{Kv, KvError},
};

/// Attempts before the pair is locked out.
const ATTEMPTS: u32 = 5;

/// How long attempts are counted, and so the longest lockout.
const WINDOW: Duration = Duration::from_mins(15);

/// Longest wait for Redis.
const REDIS_BUDGET: Duration = Duration::from_millis(250);

/// Most pairs counted without Redis.
const LOCAL_CAPACITY: usize = 10_000;

/// Takes one from a count that is there; the end of its window stays.
static WITHDRAW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if tonumber(redis.call('GET', KEYS[1]) or 0) <= 0 then return 0 end
         return redis.call('DECR', KEYS[1]) + 1",
    )
});

type Pair = [u8; 32];

/// Too many attempts; the next is possible after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedOut(pub Duration);

/// Counts login attempts.
#[derive(Clone, Debug)]
pub struct Lockout {
    kv: Kv,
    /// Prefix of the keys in Redis: what is counted.
    purpose: &'static str,
    local: Arc<Mutex<HashMap<Pair, (u32, Instant)>>>,
}

impl Lockout {
    /// A lockout of logins shared through Redis.
    pub fn new(kv: Kv) -> Self {
        Self::of("login", kv)
    }

    /// A lockout of something else, counted by itself.
    pub fn of(purpose: &'static str, kv: Kv) -> Self {
        Self { kv, purpose, local: Arc::default() }
    }

    /// Counts an attempt before the password is looked at: parallel guesses each take one.
    pub async fn attempt(&self, email: &str, ip: IpAddr) -> Result<(), LockedOut> {
        let pair = pair(email, ip);
        match self.count_in_redis(&pair).await {
            Ok((count, left)) => decide(count, left),
            Err(error) => {
                tracing::warn!(%error, "login attempts are counted per instance");
                self.count_locally(pair, Instant::now())
            }
        }
    }

    /// Takes an attempt back whose password nobody could look at, so that an outage locks nobody out.
    pub async fn withdraw(&self, email: &str, ip: IpAddr) {
        let pair = pair(email, ip);
        if self.withdraw_locally(&pair) {
            return;
        }
        let invocation = WITHDRAW.key(self.key(&pair));
        let withdrawn: Result<i64, KvError> = self.kv.script(&invocation, REDIS_BUDGET).await;
        if let Err(error) = withdrawn {
            tracing::warn!(%error, "login attempt not withdrawn");
        }
    }

    /// Whether there was one to take back.
    fn withdraw_locally(&self, pair: &Pair) -> bool {
        let mut local = self.local();
        let counted =
            local.get_mut(pair).filter(|(count, end)| *count > 0 && *end > Instant::now());
        counted.map(|(count, _)| *count -= 1).is_some()
    }

    /// Forgets the attempts of a pair that proved its password.
    pub async fn forgive(&self, email: &str, ip: IpAddr) {
        let pair = pair(email, ip);
        self.local().remove(&pair);
        let forgotten: Result<(), KvError> =
            self.kv.query(redis::cmd("DEL").arg(self.key(&pair)), REDIS_BUDGET).await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "login attempts not forgotten");
        }
    }

    async fn count_in_redis(&self, pair: &Pair) -> Result<(u32, Duration), KvError> {
        let key = self.key(pair);
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .cmd("SET")
            .arg(&key)
            .arg(0)
            .arg("EX")
            .arg(WINDOW.as_secs())
            .arg("NX")
            .ignore()
            .cmd("INCR")
            .arg(&key)
            .cmd("PTTL")
            .arg(&key);
        let (count, left): (u32, i64) = self.kv.pipeline(&pipeline, REDIS_BUDGET).await?;
        Ok((count, Duration::from_millis(u64::try_from(left).unwrap_or(0))))
    }

    fn count_locally(&self, pair: Pair, now: Instant) -> Result<(), LockedOut> {
        let mut local = self.local();
        if local.len() >= LOCAL_CAPACITY {
            local.retain(|_, (_, end)| *end > now);
        }
        if local.len() >= LOCAL_CAPACITY && !local.contains_key(&pair) {
            return Err(LockedOut(WINDOW));
        }
        let (count, end) = local.entry(pair).or_insert((0, now + WINDOW));
        if *end <= now {
            (*count, *end) = (0, now + WINDOW);
        }
        *count = count.saturating_add(1);
        decide(*count, *end - now)
    }

    fn key(&self, pair: &Pair) -> String {
        format!("{}:{}", self.purpose, URL_SAFE_NO_PAD.encode(pair))
    }

    fn local(&self) -> std::sync::MutexGuard<'_, HashMap<Pair, (u32, Instant)>> {
        // A count is whole at every point, so a panic elsewhere leaves nothing half done.
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decide(count: u32, left: Duration) -> Result<(), LockedOut> {
    if count > ATTEMPTS { Err(LockedOut(left)) } else { Ok(()) }
}

/// Neither the address nor the IP reaches Redis in clear.
fn pair(email: &str, ip: IpAddr) -> Pair {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(network(ip).as_bytes());
    context.update(b"|");
    context.update(email.as_bytes());
    let mut pair = [0; 32];
    pair.copy_from_slice(context.finish().as_ref());
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RedisConfig, Secret};

    #[tokio::test]
    async fn counts_alone_when_redis_is_away() {
        let config = RedisConfig { url: Secret::new("redis://127.0.0.1:1"), ssl_ca: None };
        let lockout = Lockout::new(Kv::new(&config).unwrap());
        let now = Instant::now();
        let ours = pair("a@example.org", [127, 0, 0, 1].into());
        for _ in 0..ATTEMPTS {
            assert_eq!(lockout.count_locally(ours, now), Ok(()));
        }
        assert_eq!(lockout.count_locally(ours, now), Err(LockedOut(WINDOW)));
        assert!(lockout.withdraw_locally(&ours) && lockout.withdraw_locally(&ours));
        assert_eq!(lockout.count_locally(ours, now), Ok(()));
        assert_eq!(lockout.count_locally(ours, now), Err(LockedOut(WINDOW)));
        let other_ip = pair("a@example.org", [127, 0, 0, 2].into());
        assert_eq!(lockout.count_locally(other_ip, now), Ok(()));
        assert_eq!(lockout.count_locally(ours, now + WINDOW), Ok(()));
    }

    #[test]
    fn who_owns_a_network_does_not_begin_anew_with_each_of_its_addresses() {
        let of = |ip: &str| pair("a@example.org", ip.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
