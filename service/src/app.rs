//! What every request can reach.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use axum::extract::FromRef;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{
    auth::{
        self, Authority, Cognito, IdProvider, KeySet, Lockout, Mailer, Passwords, SignIns, Twitter,
    },
    config::{ApiConfig, AuthConfig, Environment, HttpConfig, McpConfig},
    database::Database,
    idempotency::Idempotency,
    kv::Kv,
    problem::Problem,
    rate_limit::RateLimiter,
    voice::Voice,
};

/// Time limits of one request. One value, so that their order can be checked in one place and tests
/// can change them.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// The whole request, edge to edge.
    pub request: Duration,
    /// Reading the body.
    pub body: Duration,
    /// What a request writes, in one transaction or statement.
    pub execution: Duration,
    /// One Redis call on the idempotency path.
    pub idempotency_redis: Duration,
    /// One Redis call of the rate limit.
    pub rate_limit_redis: Duration,
    /// The in-flight lock of an idempotent request in Redis.
    pub lease: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(25),
            body: Duration::from_secs(8),
            execution: Duration::from_secs(15),
            idempotency_redis: Duration::from_millis(50),
            rate_limit_redis: Duration::from_millis(50),
            lease: Duration::from_secs(30),
        }
    }
}

impl Timings {
    /// Gives an effect up after [`Timings::execution`]: whatever it waits for, its connection is
    /// needed by others.
    pub async fn limit<T>(
        &self,
        effect: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        timeout(self.execution, effect).await.unwrap_or_else(|_| {
            tracing::error!("transaction timed out");
            Err(Problem::unavailable("timeout", "The request took too long.", 5))
        })
    }

    /// Whether a lock outlives the request that holds it: a lease shorter than that lets a second
    /// attempt start while the first still runs.
    pub fn are_consistent(&self) -> bool {
        self.lease >= self.request + Duration::from_secs(5)
            && self.request
                >= self.rate_limit_redis + self.body + self.execution + 2 * self.idempotency_redis
    }
}

/// Whether this process wants traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepting, and telling everybody to come again.
    Starting,
    /// Accepting.
    Serving,
    /// Finishing what is in flight.
    Draining,
}

/// The phase, the tasks in flight and the release: what a process tells its surroundings.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Arc<AtomicU8>,
    /// Requests in flight, also those whose client has gone.
    pub tasks: TaskTracker,
    /// `RELEASE_TAG`.
    pub release: Arc<str>,
}

impl Lifecycle {
    /// A process that is starting.
    pub fn new(release: &str) -> Self {
        Self {
            phase: Arc::new(AtomicU8::new(Phase::Starting as u8)),
            tasks: TaskTracker::new(),
            release: release.into(),
        }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Moves to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

/// The state of the router.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// The parts of [`App`].
pub struct Inner {
    /// Bind address, release, proxies.
    pub http: HttpConfig,
    /// Phase and tasks in flight.
    pub lifecycle: Lifecycle,
    /// Time limits.
    pub timings: Timings,
    /// Postgres.
    pub database: Database,
    /// Redis.
    pub kv: Kv,
    /// Issues and checks access tokens. None in cognito mode.
    pub authority: Option<Authority>,
    /// Checks access tokens in cognito mode.
    pub cognito: Option<Cognito>,
    /// Signing in with Google.
    pub google: Option<IdProvider>,
    /// Signing in with Facebook.
    pub facebook: Option<IdProvider>,
    /// Signing in with X.
    pub twitter: Option<Twitter>,
    /// Sign-ins by redirection that have begun.
    pub sign_ins: SignIns,
    /// Password hashing, bounded.
    pub passwords: Passwords,
    /// Failed logins per account and IP.
    pub lockout: Lockout,
    /// Requests for a new password per account and IP.
    pub resets: Lockout,
    /// Sends the links for a new password.
    pub mailer: Option<Mailer>,
    /// Requests per caller.
    pub rate_limiter: RateLimiter,
    /// Repeated requests.
    pub idempotency: Idempotency,
    /// The Model Context Protocol.
    pub mcp: McpConfig,
    /// Queue and audio of voice jobs. Without it the voice routes answer 503.
    pub voice: Option<Voice>,
}

/// Why the state cannot be built from a valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The Redis URL or certificate is not usable.
    #[error("REDIS_URL or REDIS_SSL_CA is not usable: {0}")]
    Redis(#[from] redis::RedisError),
    /// TLS to the identity providers cannot be set up.
    #[error("no client for the identity providers: {0}")]
    ProviderClient(#[from] reqwest::Error),
    /// The mail server's URL is not usable.
    #[error("SMTP_URL is not usable")]
    Mail,
    /// The operating system gives no random bytes, or hashing is broken.
    #[error("passwords cannot be hashed here")]
    Passwords,
    /// The time limits contradict each other.
    #[error("the idempotency lease must outlive the longest request by 5 s: {0:?}")]
    Timings(Timings),
}

impl App {
    /// Builds the state. Connects to nothing yet; needs a Tokio runtime.
    pub fn new(config: ApiConfig, timings: Timings) -> Result<Self, AppError> {
        Self::with_voice(config, timings, None)
    }

    /// As [`App::new`], with the queue and the audio store that the configuration names, in a process
    /// that has begun before.
    pub async fn connect(
        config: ApiConfig,
        timings: Timings,
        lifecycle: Lifecycle,
    ) -> Result<Self, AppError> {
        let kv = Kv::new(&config.redis)?;
        let voice = Voice::connect(&config.queue, &kv).await;
        Self::build(config, timings, lifecycle, kv, Some(voice))
    }

    /// As [`App::new`], with a queue and an audio store.
    pub fn with_voice(
        config: ApiConfig,
        timings: Timings,
        voice: Option<Voice>,
    ) -> Result<Self, AppError> {
        let kv = Kv::new(&config.redis)?;
        let lifecycle = Lifecycle::new(&config.http.release);
        Self::build(config, timings, lifecycle, kv, voice)
    }

    fn build(
        config: ApiConfig,
        timings: Timings,
        lifecycle: Lifecycle,
        kv: Kv,
        voice: Option<Voice>,
    ) -> Result<Self, AppError> {
        if !timings.are_consistent() {
            return Err(AppError::Timings(timings));
        }
        let database = Database::new(&config.database);
        let authority = match &config.auth {
            AuthConfig::Local { jwt_secret } => Some(Authority::new(jwt_secret)),
            AuthConfig::Cognito(_) => None,
        };
        let client = auth::provider_client()?;
        let cognito = match &config.auth {
            AuthConfig::Local { .. } => None,
            AuthConfig::Cognito(pool) => Some(Cognito::new(client.clone(), pool)),
        };
        let mailer = config.mail.as_ref().map(Mailer::new).transpose();
        let mailer = mailer.map_err(|_| AppError::Mail)?;
        if mailer.is_none() && authority.is_some() {
            tracing::info!("SMTP_URL is not set: passwords cannot be reset");
        }
        let google = config.social.google.as_ref();
        let facebook = config.social.facebook.as_ref();
        let twitter = config.social.twitter.as_ref();
        let secure_cookies = config.http.environment != Environment::Local;
        Ok(Self(Arc::new(Inner {
            http: config.http,
            lifecycle,
            mcp: config.mcp,
            timings,
            idempotency: Idempotency::new(database.clone(), kv.clone(), timings),
            voice,
            authority,
            cognito,
            google: google.map(|config| IdProvider::google(client.clone(), config)),
            facebook: facebook.map(|config| IdProvider::facebook(client.clone(), config)),
            twitter: twitter.map(|config| Twitter::new(client, config)),
            sign_ins: SignIns::new(kv.clone(), secure_cookies),
            passwords: Passwords::new().ok_or(AppError::Passwords)?,
            lockout: Lockout::new(kv.clone()),
            resets: Lockout::of("password-reset", kv.clone()),
            mailer,
            rate_limiter: RateLimiter::new(kv.clone(), config.limits, timings.rate_limit_redis),
            database,
            kv,
        })))
    }

    /// Refreshes the keys of every identity provider for ever. Run it in a task.
    pub async fn keep_keys(self) {
        let cognito = self.cognito.iter().map(|cognito| &cognito.keys);
        let social = self.google.iter().chain(&self.facebook).map(|provider| &provider.keys);
        let sets = cognito.chain(social).cloned().map(KeySet::keep);
        futures_util::future::join_all(sets).await;
    }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<App> for Lifecycle {
    fn from_ref(app: &App) -> Self {
        app.lifecycle.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lease_outlives_the_longest_request() {
        assert!(Timings::default().are_consistent());
        let short = Timings { lease: Duration::from_secs(29), ..Timings::default() };
        assert!(!short.are_consistent());
        let slow = Timings { rate_limit_redis: Duration::from_secs(2), ..Timings::default() };
        assert!(!slow.are_consistent());
    }
}
