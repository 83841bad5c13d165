//! Postgres: connection options, and a pool that loses no connection and outlives every outage.

use std::{
    fmt, io, mem,
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{
    TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{
        PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgSslMode, PgStatement,
        PgTransactionManager, PgTypeInfo,
    },
};
use sqlx_core::transaction::TransactionManager as _;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::config::{DatabaseConfig, Secret};

/// Connections per task. Small, because RDS Proxy multiplexes and many tasks share the instance.
pub const MAX_CONNECTIONS: u32 = 10;

/// Longest wait for a free connection before the request answers 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection is replaced after this time, below RDS Proxy's idle client timeout (30 min, AWS
/// documentation of `IdleClientTimeout`).
const MAX_LIFETIME: Duration = Duration::from_mins(20);

/// Longest wait for a connection on its way back to the pool to answer before it is closed.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest run of a single statement. The role's own `statement_timeout`, 15 s, ends it first, unless
/// the server fell silent.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(16);

/// How often the keeper asks whether the server answers.
const KEEPER_PERIOD: Duration = Duration::from_millis(500);

/// Longest wait of the keeper for an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The keeper's answer is the truth for this long: until its next one, at the latest.
const FRESH: Duration = Duration::from_secs(2);

/// A statement and not only a protocol message, which RDS Proxy would answer by itself; without a
/// preparation, which would pin its session.
const QUESTION: &str = "SELECT 1";

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

/// A handle to the pool. Cheap to clone, and used like a pool of sqlx, which it is built on and
/// differs from in two ways.
///
/// A connection on its way back must answer in [`RETURN_TIMEOUT`], or it is closed: sqlx waits
/// without a bound, so that a peer that fell silent keeps the connection's place in the pool until the
/// kernel gives the socket up.
///
/// When the server answers again after it did not answer [`Database::ping`], which the keeper asks all
/// the time, the pool is replaced by an empty one: its connections may be as dead as the one that was
/// asked. Single statements on them fail at once, for a black hole never answers; transactions end by
/// the time limit of their request, and requests that begin after the outage wait for none of them.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    pool: RwLock<Pool>,
    probe: Mutex<Probe>,
    /// When the keeper asked last, and whether there was an answer.
    kept: watch::Sender<Option<(Instant, bool)>>,
}

/// Connections from one outage to the next.
#[derive(Clone)]
struct Pool {
    connections: PgPool,
    replaced: CancellationToken,
}

/// What [`Database::ping`] asks.
enum Probe {
    /// Nobody yet.
    Unasked,
    /// A connection that has answered.
    Kept(PgConnection),
    /// The last one gave no answer.
    Failed,
}

/// It connects at first use, so that the service starts while the database is down.
fn pool(options: PgConnectOptions) -> Pool {
    let connections = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        // A ping per acquire is a round trip per request; a dead connection answers 503 once instead.
        .test_before_acquire(false)
        .connect_lazy_with(options);
    Pool { connections, replaced: CancellationToken::new() }
}

impl Database {
    /// Connects to nothing yet; needs a Tokio runtime.
    pub fn new(config: &DatabaseConfig) -> Self {
        let options = options(config);
        let pool = RwLock::new(pool(options.clone()));
        let (probe, kept) = (Mutex::new(Probe::Unasked), watch::Sender::new(None));
        Self(Arc::new(Inner { options, pool, probe, kept }))
    }

    fn pool(&self) -> Pool {
        // The lock guards one assignment, which cannot be half done.
        self.0.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections of the present pool: all, and those of them that are idle.
    pub fn connections(&self) -> (u32, usize) {
        let pool = self.pool().connections;
        (pool.size(), pool.num_idle())
    }

    /// Waits for a connection for at most 2 s.
    pub async fn acquire(&self) -> Result<Loan, sqlx::Error> {
        let pool = self.pool();
        let connection = pool.connections.acquire().await?;
        Ok(Loan { connection, replaced: pool.replaced, doubtful: false })
    }

    /// One statement on a connection of its own, given up after its time, and when the pool is replaced
    /// meanwhile.
    async fn alone<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut loan = self.acquire().await?;
        let replaced = loan.replaced.clone();
        let answer = replaced.run_until_cancelled(statement(&mut loan));
        match timeout(STATEMENT_TIMEOUT, answer).await {
            Ok(Some(answer)) => answer,
            given_up => {
                loan.doubtful = true;
                let kind = match given_up {
                    Ok(_) => io::ErrorKind::ConnectionAborted,
                    Err(_) => io::ErrorKind::TimedOut,
                };
                Err(sqlx::Error::Io(kind.into()))
            }
        }
    }

    /// Begins a transaction on a connection of its own.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut loan = self.acquire().await?;
        // What is given up before the server has answered may have begun all the same, and sqlx rolls
        // back only what it knows of. Such a connection in the pool would swallow others' writes.
        loan.doubtful = true;
        PgTransactionManager::begin(&mut loan, None).await?;
        loan.doubtful = false;
        Ok(Transaction { loan, open: true })
    }

    /// Whether the server answers, by the keeper's last question or, where no keeper runs, by one of its
    /// own within `budget`. However many ask, the server is not asked more often for it.
    pub async fn is_reachable(&self, budget: Duration) -> bool {
        let kept = *self.0.kept.borrow();
        match kept {
            Some((asked, reachable)) if asked.elapsed() < FRESH => reachable,
            _ => self.ping(budget).await.is_ok(),
        }
    }

    /// Whether the server answers within `budget`, on a connection beside the pool: however busy the
    /// pool is, the question does not wait for it.
    pub async fn ping(&self, budget: Duration) -> Result<(), sqlx::Error> {
        let deadline = Instant::now() + budget;
        let late = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
        let mut probe = timeout_at(deadline, self.0.probe.lock()).await.map_err(late)?;
        timeout_at(deadline, self.ask(&mut probe)).await.map_err(late).flatten()
    }

    async fn ask(&self, probe: &mut Probe) -> Result<(), sqlx::Error> {
        // Until it has answered, it has failed: this future may be dropped at any time.
        let before = mem::replace(probe, Probe::Failed);
        let lost = match before {
            Probe::Unasked => false,
            Probe::Kept(mut kept) => {
                if kept.execute(QUESTION).await.is_ok() {
                    *probe = Probe::Kept(kept);
                    return Ok(());
                }
                true
            }
            Probe::Failed => true,
        };
        let mut fresh = PgConnection::connect_with(&self.0.options).await?;
        fresh.execute(QUESTION).await?;
        if lost {
            let fresh = pool(self.0.options.clone());
            let mut present = self.0.pool.write().unwrap_or_else(PoisonError::into_inner);
            mem::replace(&mut *present, fresh).replaced.cancel();
        }
        *probe = Probe::Kept(fresh);
        Ok(())
    }

    /// Pings for ever, and logs each change between reachable and not. Run it in a task.
    pub async fn keep(self) {
        let mut reachable = None;
        let mut period = interval(KEEPER_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let now = self.ping(PING_TIMEOUT).await;
            self.0.kept.send_replace(Some((Instant::now(), now.is_ok())));
            if reachable != Some(now.is_ok()) {
                match &now {
                    Ok(()) => tracing::info!("database is reachable"),
                    Err(error) => tracing::warn!(%error, "database is not reachable"),
                }
                reachable = Some(now.is_ok());
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold the password.
        f.debug_struct("Database").field("pool", &self.pool().connections).finish_non_exhaustive()
    }
}

/// Every statement on a connection of its own. The rows are all read before the first is handed out.
impl<'p> Executor<'p> for &Database {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let database = self.clone();
        let steps = async move {
            let read = async |connection: &mut PgConnection| {
                connection.fetch_many(query).try_collect::<Vec<_>>().await
            };
            let steps = database.alone(read).await?;
            Ok(stream::iter(steps.into_iter().map(Ok)))
        };
        Box::pin(steps.try_flatten_stream())
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let database = self.clone();
        Box::pin(async move {
            database.alone(async |connection| connection.fetch_optional(query).await).await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let database = self.clone();
        Box::pin(async move {
            database.alone(async |connection| connection.prepare_with(sql, parameters).await).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        let database = self.clone();
        Box::pin(
            async move { database.alone(async |connection| connection.describe(sql).await).await },
        )
    }
}

/// A connection out of the pool. Dropped, it goes back if it answers in time.
#[derive(Debug)]
pub struct Loan {
    connection: PoolConnection<Postgres>,
    /// Cancelled when its pool is replaced.
    replaced: CancellationToken,
    /// Closed instead.
    doubtful: bool,
}

impl Deref for Loan {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.doubtful {
            self.connection.close_on_drop();
            return;
        }
        // What sqlx would run without a bound. Given up, it closes the connection and frees its place.
        let back = self.connection.return_to_pool();
        tokio::spawn(async move {
            if timeout(RETURN_TIMEOUT, back).await.is_err() {
                tracing::warn!("a connection to the database did not answer and is closed");
            }
        });
    }
}

/// A transaction with its connection. Dropped without a commit, it is rolled back.
#[derive(Debug)]
pub struct Transaction {
    loan: Loan,
    open: bool,
}

impl Transaction {
    /// Makes it durable. An error that is not the server's own leaves open whether it is.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::commit(&mut self.loan).await?;
        self.open = false;
        Ok(())
    }

    /// Undoes it.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::rollback(&mut self.loan).await?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.loan
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.loan
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            // Queued; the connection's way back sends it.
            PgTransactionManager::start_rollback(&mut self.loan);
        }
    }
}
