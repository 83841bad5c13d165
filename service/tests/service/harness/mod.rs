//! Everything a test stands on: the servers (one pair for the test binary), a database of its own,
//! instances of the service, users, and requests.

mod emulator;
mod identity_provider;
mod independent_receiver;
mod instance;
pub(crate) mod mcp_client;
mod proxy;
mod python;
mod receiver;
mod servers;
mod smtp;

use std::{
    fmt,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use bme_service::{
    auth::{self, Authority},
    config::{
        ApiConfig, AuthConfig, DatabaseConfig, Environment, HttpConfig, LimitsConfig, McpConfig,
        QueueConfig, RedisConfig, Secret, SocialConfig, TelemetryConfig,
    },
    database::{Database, Transaction},
};
use bytes::Bytes;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use uuid::Uuid;

pub(crate) use emulator::emulator;
pub(crate) use identity_provider::{IdentityProvider, SigningKey, X_CLIENT};
pub(crate) use independent_receiver::IndependentReceiver;
pub(crate) use instance::{Instance, Process, command, timings};
pub(crate) use proxy::{Proxy, Rule, Side};
pub(crate) use python::python;
pub(crate) use receiver::{Receiver, attribute};
pub(crate) use servers::{Redis, TlsServers, shared};
pub(crate) use smtp::Mailbox;

/// Signs the tokens of every instance under test.
pub(crate) const JWT_SECRET: &str = "a test secret of more than thirty-two bytes";

/// Requests per minute that no test reaches.
const PLENTY: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

/// A database of its own on the shared servers.
pub(crate) struct World {
    pub(crate) config: ApiConfig,
    pub(crate) pool: Database,
}

/// A signed-in user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) token: String,
}

/// What the service answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl World {
    pub(crate) async fn new() -> Self {
        let servers = shared();
        let database = servers.new_database().await;
        let config = ApiConfig {
            http: HttpConfig {
                environment: Environment::Local,
                release: "v0.0.0-test".into(),
                bind: ([127, 0, 0, 1], 0).into(),
                trusted_proxy_hops: 1,
                public_url: None,
                allowed_origins: Vec::new(),
            },
            database,
            redis: RedisConfig { url: Secret::new(servers.redis_url()), ssl_ca: None },
            auth: AuthConfig::Local { jwt_secret: Secret::new(JWT_SECRET) },
            social: SocialConfig::default(),
            mail: None,
            queue: QueueConfig::default(),
            mcp: McpConfig::default(),
            limits: LimitsConfig { login: PLENTY, voice: PLENTY, rest: PLENTY },
            telemetry: TelemetryConfig::default(),
        };
        let pool = Database::new(&config.database);
        Self { config, pool }
    }

    /// An account without going through registration, whose hash takes a while in a debug build.
    pub(crate) async fn user(&self) -> User {
        let email = unique_email();
        let account = auth::insert(&self.pool, &email, "Test", "$argon2id$unused")
            .await
            .unwrap()
            .unwrap_or_else(|_| panic!("{email} is unique"));
        User { id: account.id, token: token_for(account.id) }
    }

    /// A voice job without going through the queue.
    pub(crate) async fn job_of(&self, user: &User) -> String {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO voice_jobs (id, user_id, transcript, today, timezone, execute, request_id)
             VALUES ($1, $2, 'lunch', '2026-11-23', 'Etc/UTC', true, 'test')",
        )
        .bind(id)
        .bind(user.id)
        .execute(&self.pool)
        .await
        .unwrap();
        id.to_string()
    }

    pub(crate) async fn count_transactions(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM transactions").fetch_one(&self.pool).await.unwrap()
    }

    /// Until the returned transaction ends, no statement writes to `transactions`.
    pub(crate) async fn block_transactions(&self) -> Transaction {
        self.block("LOCK TABLE transactions IN EXCLUSIVE MODE").await
    }

    /// Holds a lock until the returned transaction ends.
    pub(crate) async fn block(&self, lock: &'static str) -> Transaction {
        let mut tx = self.pool.begin().await.unwrap();
        sqlx::query(lock).execute(&mut *tx).await.unwrap();
        tx
    }

    /// Waits until `count` statements wait for a lock in this database.
    pub(crate) async fn wait_for_blocked(&self, count: i64) {
        eventually("a blocked statement", async || {
            let blocked: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            blocked >= count
        })
        .await;
    }

    /// Waits until no other connection to this database works on a statement or a transaction.
    pub(crate) async fn wait_for_idle(&self) {
        eventually("an idle database", async || {
            let busy: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            busy == 0
        })
        .await;
    }

    pub(crate) fn with_redis(&self, url: &str) -> ApiConfig {
        ApiConfig {
            redis: RedisConfig { url: Secret::new(url), ssl_ca: None },
            ..self.config.clone()
        }
    }

    pub(crate) fn with_database_port(&self, port: u16) -> ApiConfig {
        let database = DatabaseConfig { port, ..self.config.database.clone() };
        ApiConfig { database, ..self.config.clone() }
    }
}

/// Another access token for a user: as after a refresh.
pub(crate) fn token_for(user: Uuid) -> String {
    Authority::new(&Secret::new(JWT_SECRET)).issue(user, Uuid::now_v7()).unwrap()
}

pub(crate) fn unique_email() -> String {
    format!("{}@example.org", Uuid::now_v7().simple())
}

pub(crate) fn unique_key() -> String {
    Uuid::now_v7().to_string()
}

/// A connection to a Redis for looking behind the scenes.
pub(crate) async fn redis_connection(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Polls until `condition` holds; fails after 20 s.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut period = tokio::time::interval(Duration::from_millis(20));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        period.tick().await;
    }
}

/// A client for many requests of one test.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(Duration::from_mins(1))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Bytes>,
}

impl Call {
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// With a JSON body, as text: tests need its exact bytes.
    pub(crate) fn post(path: &str, json: &str) -> Self {
        Self::new(Method::POST, path).json(json)
    }

    pub(crate) fn json(self, json: &str) -> Self {
        self.header("content-type", "application/json").body(json.to_owned())
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn by(self, user: &User) -> Self {
        self.header("authorization", &format!("Bearer {}", user.token))
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-idempotency-key", key)
    }

    /// Sends it; an error is a connection that gave no answer.
    pub(crate) async fn try_send(self, base: &str) -> Result<Reply, reqwest::Error> {
        // A client per request: nothing is shared with other tests' runtimes.
        self.send_by(&client(), base).await
    }

    /// As [`Call::try_send`], by a client that keeps connections.
    pub(crate) async fn send_by(
        self,
        client: &reqwest::Client,
        base: &str,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = client.request(self.method, format!("{base}{}", self.path));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let response = request.send().await?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        })
    }

    pub(crate) async fn send(self, instance: &Instance) -> Reply {
        self.try_send(&instance.url).await.unwrap()
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts that this is a complete problem document, and gives its code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let document = self.json();
        let text = |name: &str| {
            document[name].as_str().unwrap_or_else(|| panic!("no {name} in {self}")).to_owned()
        };
        assert_eq!(document["status"], status, "{self}");
        assert_eq!(text("type"), format!("urn:bme:problem:{}", text("code")));
        assert_eq!(text("error"), text("detail"));
        assert!(!text("title").is_empty());
        assert_eq!(text("instance"), format!("urn:bme:request:{}", text("requestId")));
        if self.header("idempotent-replayed").is_none() {
            assert_eq!(Some(text("requestId").as_str()), self.header("x-request-id"));
        }
        text("code")
    }

    /// The fields of `errors[]`.
    pub(crate) fn fields(&self) -> Vec<String> {
        let document = self.json();
        let errors = document["errors"].as_array().unwrap_or_else(|| panic!("no errors in {self}"));
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}
