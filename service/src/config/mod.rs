//! Configuration: read once from the environment into one typed value per sub-command.
//!
//! Every problem is reported, not only the first, and never with a value that could be a secret.
//! One file for each part; [`reader`] is what they share.

mod auth;
mod database;
mod http;
mod queue;
mod reader;
mod redis;

use std::{fmt, net::SocketAddr};

pub use auth::{AuthConfig, JWT_SECRET_MIN_BYTES};
pub use database::DatabaseConfig;
pub use http::{Environment, HttpConfig};
pub use queue::{QueueBackend, QueueConfig};
pub use redis::RedisConfig;

use reader::Reader;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Configuration of `api`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The listener and its surroundings.
    pub http: HttpConfig,
    /// Postgres.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Access tokens.
    pub auth: AuthConfig,
    /// Voice jobs.
    pub queue: QueueConfig,
}

/// Configuration of `worker`.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The listener of the health check.
    pub http: HttpConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Voice jobs.
    pub queue: QueueConfig,
}

/// Configuration of `migrate`.
#[derive(Clone, Debug)]
pub struct MigrateConfig {
    /// `APP_ENV`.
    pub environment: Environment,
    /// The master role at the instance's own endpoint.
    pub database: DatabaseConfig,
    /// `APP_DATABASE_USER` and `APP_DATABASE_PASSWORD`: the role the service connects as.
    pub app_role: Option<(String, Secret)>,
}

/// Everything that is wrong with the environment.
#[derive(Debug, thiserror::Error)]
#[error("the environment is not usable:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// A look-up of one variable; an empty value counts as absent.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl ApiConfig {
    /// Reads the environment of `api`.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut env = Reader::new(lookup);
        let http = env.http();
        let parts = (env.database(http.environment), env.redis(), env.auth(), env.queue());
        env.check()?;
        let (Some(database), Some(redis), Some(auth), Some(queue)) = parts else {
            unreachable!("a part is absent only together with a reported problem");
        };
        Ok(Self { http, database, redis, auth, queue })
    }
}

impl WorkerConfig {
    /// Reads the environment of `worker`.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut env = Reader::new(lookup);
        let http = env.http();
        let parts = (env.redis(), env.queue());
        env.check()?;
        let (Some(redis), Some(queue)) = parts else {
            unreachable!("a part is absent only together with a reported problem");
        };
        Ok(Self { http, redis, queue })
    }
}

impl MigrateConfig {
    /// Reads the environment of `migrate`.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut env = Reader::new(lookup);
        let environment = env.environment();
        let database = env.database(environment);
        let app_role = env.app_role();
        env.check()?;
        let Some(database) = database else {
            unreachable!("a part is absent only together with a reported problem");
        };
        Ok(Self { environment, database, app_role })
    }
}

/// The address `api` and `worker` listen on, for `healthcheck`.
pub fn bind_address(lookup: Lookup<'_>) -> Result<SocketAddr, ConfigError> {
    let mut env = Reader::new(lookup);
    let bind = env.bind();
    env.check()?;
    Ok(bind)
}

/// `APP_ENV` alone, for the log format before the rest is read. An unreadable value is production.
pub fn environment(lookup: Lookup<'_>) -> Environment {
    Reader::new(lookup).environment()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn lookup<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        let map: HashMap<_, _> = pairs.iter().copied().collect();
        move |name| map.get(name).map(|value| (*value).to_owned())
    }

    #[test]
    fn reports_every_problem_and_no_secret() {
        let env = lookup(&[
            ("APP_ENV", "prod"),
            ("BIND_ADDRESS", "everywhere"),
            ("DATABASE_URL", "mysql://u:hunter2hunter2@h/n"),
            ("REDIS_URL", "http://:hunter3hunter3@h"),
            ("JWT_SECRET", "hunter4"),
            ("QUEUE", "sqs"),
            ("DATABASE_SSL_VERIFY", "yes"),
            ("TRUSTED_PROXY_HOPS", "-1"),
            ("DATABASE_SSL_CA", "/does/not/exist"),
        ]);
        let text = ApiConfig::read(&env).unwrap_err().to_string();
        for name in [
            "APP_ENV",
            "BIND_ADDRESS",
            "DATABASE_URL",
            "REDIS_URL",
            "JWT_SECRET",
            "VOICE_QUEUE_URL",
            "DATABASE_SSL_VERIFY",
            "TRUSTED_PROXY_HOPS",
            "DATABASE_SSL_CA",
        ] {
            assert!(text.contains(name), "{name} missing in {text}");
        }
        assert!(!text.contains("hunter"), "{text}");
    }

    #[test]
    fn reads_the_parts_that_ecs_injects() {
        let env = lookup(&[
            ("DATABASE_HOST", "db.internal"),
            ("DATABASE_NAME", "bme"),
            ("DATABASE_USER", "app"),
            ("DATABASE_PASSWORD", "p@ss/word"),
            ("REDIS_HOST", "cache.internal"),
            ("REDIS_AUTH_TOKEN", "t/o:k@n"),
            ("REDIS_TLS", "true"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ]);
        let config = ApiConfig::read(&env).unwrap();
        assert_eq!(config.http.environment, Environment::Production);
        assert!(config.database.ssl_verify);
        assert_eq!(config.database.port, 5432);
        assert_eq!(config.database.password.as_ref().map(Secret::expose), Some("p@ss/word"));
        assert_eq!(config.redis.url.expose(), "rediss://:t%2Fo%3Ak%40n@cache.internal:6379");
        let printed = format!("{config:?}");
        assert!(!printed.contains("p@ss") && !printed.contains("t%2Fo"), "{printed}");
    }

    #[test]
    fn half_an_app_role_is_a_problem() {
        let base = [("DATABASE_URL", "postgres://u@h/n"), ("APP_DATABASE_USER", "app")];
        let text = MigrateConfig::read(&lookup(&base)).unwrap_err().to_string();
        assert!(text.contains("APP_DATABASE_PASSWORD"), "{text}");
    }
}
