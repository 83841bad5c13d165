//! Redis: one multiplexed connection that reconnects by itself, and a time budget on every call.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    Arg, AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError,
    ScriptInvocation, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::Instrument as _;

use crate::{config::RedisConfig, telemetry};

/// Longest wait for the server's TCP and TLS handshakes, for the keeper's answer, and for one answer
/// in the background. What an outage leaves behind is given up this long after its end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the keeper asks whether the connection lives: it is what makes a reconnect progress
/// while no request comes in.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);

/// How often a server that became reachable is asked for its version, should it give no answer.
const VERSION_QUESTIONS: u32 = 5;

/// Commands in flight before callers wait; it bounds what piles up during an outage.
const CONCURRENCY_LIMIT: usize = 4096;

/// Why Redis gave no answer. Callers must have a way on without it.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// No answer within the budget; the command may or may not have run.
    #[error("no answer from Redis within {0:?}")]
    Timeout(Duration),
    /// Redis, or the way to it, refused.
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
}

/// A handle to Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kv {
    client: Client,
    manager: Arc<RwLock<ConnectionManager>>,
    before_7: Arc<AtomicBool>,
}

impl Kv {
    /// Prepares the connection without waiting for the server, so that the service starts while
    /// Redis is down. Fails on a malformed URL or certificate only. Needs a Tokio runtime.
    pub fn new(config: &RedisConfig) -> Result<Self, RedisError> {
        let client = match &config.ssl_ca {
            Some(pem) => Client::build_with_tls(
                config.url.expose(),
                TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) },
            )?,
            None => Client::open(config.url.expose())?,
        };
        let manager = manager(&client)?;
        let manager = Arc::new(RwLock::new(manager));
        Ok(Self { client, manager, before_7: Arc::default() })
    }

    /// Pings for ever, logs each change between reachable and not, and replaces a connection that
    /// gave no answer: the manager itself reconnects only when it sees the connection end, which
    /// for a host that vanished can take the kernel a quarter of an hour. Run it in a task.
    pub async fn keep(self) {
        let (mut reachable, mut questions) = (None, 0);
        let mut period = interval(KEEPER_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let now = self.ping(CONNECT_TIMEOUT).await;
            if reachable != Some(now.is_ok()) {
                match &now {
                    Ok(()) => {
                        tracing::info!("redis is reachable");
                        questions = VERSION_QUESTIONS;
                    }
                    Err(error) => tracing::warn!(%error, "redis is not reachable"),
                }
                reachable = Some(now.is_ok());
            }
            if now.is_ok() && questions > 0 {
                questions = if self.look_at_version().await { 0 } else { questions - 1 };
            }
            if now.is_err() {
                match manager(&self.client) {
                    Ok(fresh) => {
                        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                    }
                    Err(error) => tracing::error!(%error, "redis connection not replaced"),
                }
            }
        }
    }

    fn manager(&self) -> ConnectionManager {
        // The lock guards one assignment, which cannot be half done.
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the server was seen to lack what came with Redis 7.0.
    pub fn is_before_7(&self) -> bool {
        self.before_7.load(Ordering::Relaxed)
    }

    /// Another server may answer after an outage, so the keeper looks whenever one became reachable.
    /// Whether it answered.
    async fn look_at_version(&self) -> bool {
        let info: String = match self.query(redis::cmd("INFO").arg("server"), CONNECT_TIMEOUT).await
        {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(%error, "the version of redis is not known");
                return false;
            }
        };
        let Some(version) = version(&info) else { return true };
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        let before_7 = major.is_some_and(|major| major < 7);
        self.before_7.store(before_7, Ordering::Relaxed);
        if before_7 {
            tracing::warn!(version, "redis is older than 7.0: idempotency locks take a script");
        }
        true
    }

    /// Whether Redis answers within `budget`.
    pub async fn ping(&self, budget: Duration) -> Result<(), KvError> {
        self.query(&redis::cmd("PING"), budget).await
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
        budget: Duration,
    ) -> Result<T, KvError> {
        let mut manager = self.manager();
        let span = span(command.args_iter().next().as_ref());
        within(budget, command.query_async(&mut manager)).instrument(span).await
    }

    /// Runs a pipeline.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        budget: Duration,
    ) -> Result<T, KvError> {
        let mut manager = self.manager();
        let span = span(Some(&Arg::Simple(b"PIPELINE")));
        within(budget, pipeline.query_async(&mut manager)).instrument(span).await
    }

    /// Runs a script, loading it first where the server does not know it.
    pub async fn script<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
        budget: Duration,
    ) -> Result<T, KvError> {
        let mut manager = self.manager();
        let span = span(Some(&Arg::Simple(b"EVALSHA")));
        within(budget, invocation.invoke_async(&mut manager)).instrument(span).await
    }

    /// A connection for a command that blocks, which on the shared one would hold everybody up. An
    /// answer that takes longer than `response` is an error.
    pub async fn dedicated(&self, response: Duration) -> Result<MultiplexedConnection, KvError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&settings);
        // The time limit above ends with the TCP connection; the handshake can be silent too.
        within(2 * CONNECT_TIMEOUT, connecting).await
    }
}

fn manager(client: &Client) -> Result<ConnectionManager, RedisError> {
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT))
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500))
        .set_number_of_retries(1)
        .set_concurrency_limit(CONCURRENCY_LIMIT);
    ConnectionManager::new_lazy_with_config(client.clone(), settings)
}

/// The version in the answer to `INFO server`. Valkey tells the one of Redis that it speaks for.
fn version(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("redis_version:"))
}

/// The span of one call, with the name of the command and none of its arguments. What happens outside
/// of a trace (the keeper's pings, a worker that looks for jobs) has none.
fn span(command: Option<&Arg<&[u8]>>) -> tracing::Span {
    if tracing::Span::current().is_none() {
        return tracing::Span::none();
    }
    let name = match command {
        Some(Arg::Simple(name)) => str::from_utf8(name).unwrap_or_default(),
        _ => "",
    };
    tracing::debug_span!(
        target: telemetry::TARGET,
        "redis",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        db.system.name = "redis",
        db.operation.name = name,
    )
}

async fn within<T>(
    budget: Duration,
    call: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, KvError> {
    let answer = match timeout(budget, call).await {
        Ok(answer) => answer.map_err(KvError::from),
        Err(_) => Err(KvError::Timeout(budget)),
    };
    if answer.is_err() {
        tracing::Span::current().record("otel.status_code", "ERROR");
    }
    answer
}
