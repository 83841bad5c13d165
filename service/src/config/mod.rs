//! Configuration: read once from the environment into one typed value per sub-command.
//!
//! Every problem is reported, not only the first, and never with a value that could be a secret.
//! One file for each part; [`reader`] is what they share.

mod auth;
mod database;
mod http;
mod limits;
mod mail;
mod mcp;
mod queue;
mod reader;
mod redis;
mod telemetry;
mod voice;

use std::{fmt, net::SocketAddr};

pub use auth::{
    AuthConfig, CognitoConfig, IdProviderConfig, JWT_SECRET_MIN_BYTES, SocialConfig, TwitterConfig,
};
pub use database::DatabaseConfig;
pub use http::{Environment, HttpConfig};
pub use limits::LimitsConfig;
pub use mail::MailConfig;
pub use mcp::{MCP_SECRET_MIN_BYTES, McpAccess, McpConfig};
pub use queue::{QueueBackend, QueueConfig};
pub use redis::RedisConfig;
pub use telemetry::{OtlpConfig, TelemetryConfig};
pub use voice::VoiceConfig;

use reader::Reader;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
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
    /// Social logins.
    pub social: SocialConfig,
    /// Mail of password resets.
    pub mail: Option<MailConfig>,
    /// Voice jobs.
    pub queue: QueueConfig,
    /// The Model Context Protocol.
    pub mcp: McpConfig,
    /// Requests per minute.
    pub limits: LimitsConfig,
    /// Traces and metrics.
    pub telemetry: TelemetryConfig,
}

/// Configuration of `worker`.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The listener of the health check.
    pub http: HttpConfig,
    /// Postgres.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Voice jobs.
    pub queue: QueueConfig,
    /// Traces and metrics.
    pub telemetry: TelemetryConfig,
    /// How voice jobs are worked on; none without `GEMINI_API_KEY`.
    pub voice: Option<VoiceConfig>,
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
        let social = env.social();
        let mail = env.mail(http.environment);
        let parts = (env.database(http.environment), env.redis(), env.auth(), env.queue());
        let mcp = env.mcp(&http, parts.2.as_ref());
        let limits = env.limits();
        let telemetry = env.telemetry("bme-api");
        env.check()?;
        let (Some(database), Some(redis), Some(auth), Some(queue)) = parts else {
            unreachable!("a part is absent only together with a reported problem");
        };
        Ok(Self { http, database, redis, auth, social, mail, queue, mcp, limits, telemetry })
    }
}

impl WorkerConfig {
    /// Reads the environment of `worker`.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut env = Reader::new(lookup);
        let http = env.http();
        let parts = (env.database(http.environment), env.redis(), env.queue());
        let voice = env.voice();
        let telemetry = env.telemetry("bme-worker");
        env.check()?;
        let (Some(database), Some(redis), Some(queue)) = parts else {
            unreachable!("a part is absent only together with a reported problem");
        };
        Ok(Self { http, database, redis, queue, telemetry, voice })
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
            ("ALLOWED_ORIGINS", "https://app.example.org, *"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("METRICS_ADDRESS", "9090"),
            ("SENTRY_DSN", "https://hunter5.example"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
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
            "ALLOWED_ORIGINS",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "METRICS_ADDRESS",
            "SENTRY_DSN",
            "OTEL_TRACES_SAMPLER is",
            "OTEL_TRACES_SAMPLER_ARG",
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
        assert_eq!(config.http.trusted_proxy_hops, 0, "what a client writes is believed");
        assert!(config.database.ssl_verify);
        assert_eq!(config.database.port, 5432);
        assert_eq!(config.database.password.as_ref().map(Secret::expose), Some("p@ss/word"));
        assert_eq!(config.redis.url.expose(), "rediss://:t%2Fo%3Ak%40n@cache.internal:6379");
        let printed = format!("{config:?}");
        assert!(!printed.contains("p@ss") && !printed.contains("t%2Fo"), "{printed}");
    }

    const SOUND: [(&str, &str); 4] = [
        ("DATABASE_URL", "postgres://u:p@h/n"),
        ("REDIS_URL", "redis://h"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("PUBLIC_URL", "https://app.example/"),
    ];

    #[test]
    fn mail_leaves_over_tls_only_except_locally() {
        let read = |url, environment| {
            let more = [("SMTP_URL", url), ("MAIL_FROM", "a@b.example"), ("APP_ENV", environment)];
            let env = [SOUND.as_slice(), &more].concat();
            ApiConfig::read(&lookup(&env)).map_err(|error| error.to_string())
        };
        for url in ["smtps://u:hunter2@h", "smtp://u:hunter2@h:587?tls=required"] {
            let mail = read(url, "production").unwrap().mail.unwrap();
            assert_eq!(mail.public_url, "https://app.example");
        }
        for url in [
            "smtp://u:hunter2@h",
            "smtp://u:hunter2@h?tls=opportunistic",
            "smtp://u:hunter2@h?tls=opportunistic&tls=required",
            "smtp://u:hunter2@h#?tls=required",
        ] {
            for environment in ["production", "staging"] {
                let error = read(url, environment).unwrap_err();
                assert!(error.contains("SMTP_URL") && !error.contains("hunter"), "{error}");
            }
            assert!(read(url, "local").is_ok(), "{url}");
        }
    }

    #[test]
    fn x_is_configured_as_a_whole() {
        let read = |more: &[(&'static str, &'static str)]| {
            let env = [SOUND.as_slice(), more].concat();
            ApiConfig::read(&lookup(&env)).map_err(|error| error.to_string())
        };
        assert!(read(&[]).unwrap().social.twitter.is_none());
        let pair = [("TWITTER_CLIENT_ID", "id"), ("TWITTER_CLIENT_SECRET", "hunter2")];
        let config = read(&pair).unwrap();
        assert!(!format!("{config:?}").contains("hunter"));
        let twitter = config.social.twitter.unwrap();
        assert_eq!(twitter.authorize_url.as_str(), "https://x.com/i/oauth2/authorize");
        assert_eq!(twitter.token_url.as_str(), "https://api.x.com/2/oauth2/token");
        assert_eq!(twitter.user_url.as_str(), "https://api.x.com/2/users/me");
        assert!(read(&pair[..1]).unwrap_err().contains("TWITTER_CLIENT_SECRET"));
        assert!(read(&pair[1..]).unwrap_err().contains("TWITTER_CLIENT_ID"));
        let wrong = [pair.as_slice(), &[("TWITTER_TOKEN_URL", "api.x.com"), ("PUBLIC_URL", "")]];
        let error = read(&wrong.concat()).unwrap_err();
        assert!(error.contains("TWITTER_TOKEN_URL") && error.contains("PUBLIC_URL"), "{error}");
    }

    #[test]
    fn half_an_app_role_is_a_problem() {
        let base = [("DATABASE_URL", "postgres://u@h/n"), ("APP_DATABASE_USER", "app")];
        let text = MigrateConfig::read(&lookup(&base)).unwrap_err().to_string();
        assert!(text.contains("APP_DATABASE_PASSWORD"), "{text}");
    }
}
