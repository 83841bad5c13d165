//! Postgres: connection options and the pool.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use tokio::time::timeout;

use crate::config::{DatabaseConfig, Secret};

/// Connections per task. Small, because RDS Proxy multiplexes and many tasks share the instance.
pub const MAX_CONNECTIONS: u32 = 10;

/// Longest wait for a free connection before the request answers 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection is replaced after this time, below RDS Proxy's idle client timeout (30 min, AWS
/// documentation of `IdleClientTimeout`).
const MAX_LIFETIME: Duration = Duration::from_mins(20);

/// How long a [`Suspicion`] lasts.
const SUSPICION: Duration = Duration::from_mins(5);

/// Longest wait for a suspected connection to answer before it is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// An idle connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// Connection options. No `options` start-up parameter and no `extra_float_digits`: RDS Proxy
/// refuses the first and would pin the session for the second.
pub fn options(config: &DatabaseConfig) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .database(&config.name)
        .username(&config.user)
        .application_name("bme-service")
        .extra_float_digits(None);
    if let Some(password) = config.password.as_ref().map(Secret::expose) {
        options = options.password(password);
    }
    options = if config.ssl_verify {
        options.ssl_mode(PgSslMode::VerifyFull)
    } else {
        tracing::warn!("DATABASE_SSL_VERIFY is false: the database's certificate is not checked");
        options.ssl_mode(PgSslMode::Prefer)
    };
    match &config.ssl_ca {
        Some(pem) => options.ssl_root_cert_from_pem(pem.clone()),
        None => options,
    }
}

/// Raised when a call on the pool was given up. A connection dropped in the middle of a call to a
/// peer that is silently dead is never given back: sqlx pings it without a bound and holds its place
/// in the pool until the kernel gives the socket up. While the suspicion lasts, the pool pings with a
/// bound first.
#[derive(Clone, Debug)]
pub struct Suspicion {
    origin: Instant,
    /// Milliseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { origin: Instant::now(), until: Arc::default() }
    }
}

impl Suspicion {
    /// Call it before the future that was given up is dropped.
    pub fn raise(&self) {
        let until = self.origin.elapsed() + SUSPICION;
        self.until.fetch_max(millis(until), Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        millis(self.origin.elapsed()) < self.until.load(Ordering::Acquire)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The pool. It connects at first use, so that the service starts while the database is down.
pub fn pool(config: &DatabaseConfig, suspicion: Suspicion) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        // A ping per acquire is a round trip per request; a dead connection answers 503 once instead.
        .test_before_acquire(false)
        .after_release(move |connection, _| {
            let raised = suspicion.is_raised();
            Box::pin(async move {
                if raised {
                    let answer = timeout(RELEASE_TIMEOUT, connection.ping()).await;
                    answer.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into()))??;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options(config))
}
