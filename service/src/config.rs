//! Configuration: read once from the environment into one typed value per sub-command.
//!
//! Every problem is reported, not only the first, and never with a value that could be a secret.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Shortest accepted `JWT_SECRET` in bytes: the output length of SHA-256 (RFC 7518, section 3.2).
pub const JWT_SECRET_MIN_BYTES: usize = 32;

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

/// Where the service runs (`APP_ENV`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// JSON logs, Secure cookies, verified TLS to the database.
    Production,
    /// As production.
    Staging,
    /// Readable logs, cookies over plain HTTP, a plain local database.
    Local,
}

/// How to reach Postgres (`DATABASE_URL`, or `DATABASE_HOST` and the other parts).
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database name.
    pub name: String,
    /// Role.
    pub user: String,
    /// Password, if the server wants one.
    pub password: Option<Secret>,
    /// `DATABASE_SSL_VERIFY`: true is `verify-full`; false is `prefer`, which verifies nothing.
    pub ssl_verify: bool,
    /// `DATABASE_SSL_CA`: PEM certificates trusted in addition to the built-in roots.
    pub ssl_ca: Option<Vec<u8>>,
}

/// How to reach Redis (`REDIS_URL`, or `REDIS_HOST` and the other parts).
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Connection URL, `redis://` or `rediss://`; it may hold the AUTH token.
    pub url: Secret,
    /// `REDIS_SSL_CA`: PEM certificates trusted instead of the built-in roots.
    pub ssl_ca: Option<Vec<u8>>,
}

/// Who issues access tokens (`AUTH_MODE`).
#[derive(Clone, Debug)]
pub enum AuthConfig {
    /// This service: own accounts, HS256 tokens.
    Local {
        /// `JWT_SECRET`, at least [`JWT_SECRET_MIN_BYTES`] bytes.
        jwt_secret: Secret,
    },
    /// Amazon Cognito: the service only validates.
    Cognito {
        /// `COGNITO_ISSUER`, the user pool's https URL.
        issuer: String,
        /// `COGNITO_CLIENT_ID`.
        client_id: String,
    },
}

/// Which queue carries voice jobs (`QUEUE`).
#[derive(Clone, Debug)]
pub enum QueueConfig {
    /// Redis Streams.
    Redis,
    /// Amazon SQS.
    Sqs {
        /// `VOICE_QUEUE_URL`.
        voice_queue_url: String,
    },
}

/// What every serving sub-command needs.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `APP_ENV`, default production: the strict one.
    pub environment: Environment,
    /// `RELEASE_TAG`, shown by `/health`.
    pub release: String,
    /// `BIND_ADDRESS`, default `0.0.0.0:8080`.
    pub bind: SocketAddr,
    /// `TRUSTED_PROXY_HOPS`, default 1: how many entries at the right of `X-Forwarded-For` our own
    /// proxies wrote.
    pub trusted_proxy_hops: usize,
    /// `PUBLIC_URL`: the origin browsers see.
    pub public_url: Option<String>,
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

struct Reader<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    fn check(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError(self.problems)) }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn required(&mut self, name: &str, why: &str) -> Option<String> {
        let value = self.get(name);
        if value.is_none() {
            self.problem(format!("{name} is not set: {why}"));
        }
        value
    }

    fn parsed<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        match self.get(name).map(|value| value.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.problem(format!("{name} is not {expected}"));
                default
            }
        }
    }

    fn environment(&mut self) -> Environment {
        match self.get("APP_ENV").as_deref() {
            None | Some("production") => Environment::Production,
            Some("staging") => Environment::Staging,
            Some("local") => Environment::Local,
            Some(_) => {
                self.problem("APP_ENV is not one of production, staging, local");
                Environment::Production
            }
        }
    }

    fn bind(&mut self) -> SocketAddr {
        let default = SocketAddr::from(([0, 0, 0, 0], 8080));
        self.parsed("BIND_ADDRESS", default, "an address with a port such as 0.0.0.0:8080")
    }

    fn http(&mut self) -> HttpConfig {
        let public_url = self.get("PUBLIC_URL");
        if public_url.as_deref().is_some_and(|url| !is_http_url(url)) {
            self.problem("PUBLIC_URL is not an http or https URL");
        }
        HttpConfig {
            environment: self.environment(),
            release: self.get("RELEASE_TAG").unwrap_or_else(|| "unreleased".to_owned()),
            bind: self.bind(),
            trusted_proxy_hops: self.parsed("TRUSTED_PROXY_HOPS", 1, "a whole number such as 1"),
            public_url,
        }
    }

    fn database(&mut self, environment: Environment) -> Option<DatabaseConfig> {
        let ssl_verify =
            self.parsed("DATABASE_SSL_VERIFY", environment != Environment::Local, "true or false");
        let ssl_ca = self.pem("DATABASE_SSL_CA");
        let endpoint = match self.get("DATABASE_URL") {
            Some(url) => {
                let parsed = DatabaseUrl::parse(&url);
                if parsed.is_none() {
                    self.problem(
                        "DATABASE_URL is not of the form postgres://USER:PASSWORD@HOST:PORT/NAME",
                    );
                }
                parsed
            }
            None => self.database_parts(),
        }?;
        Some(DatabaseConfig {
            host: endpoint.host,
            port: endpoint.port,
            name: endpoint.name,
            user: endpoint.user,
            password: endpoint.password,
            ssl_verify,
            ssl_ca,
        })
    }

    fn database_parts(&mut self) -> Option<DatabaseUrl> {
        let why = "set it, or DATABASE_URL";
        let port = self.parsed("DATABASE_PORT", 5432, "a port number");
        let host = self.required("DATABASE_HOST", why);
        let name = self.required("DATABASE_NAME", why);
        let user = self.required("DATABASE_USER", why);
        let password = self.get("DATABASE_PASSWORD").map(Secret::new);
        Some(DatabaseUrl { host: host?, port, name: name?, user: user?, password })
    }

    fn redis(&mut self) -> Option<RedisConfig> {
        let ssl_ca = self.pem("REDIS_SSL_CA");
        let url = match self.get("REDIS_URL") {
            Some(url) => {
                let known = url.starts_with("redis://") || url.starts_with("rediss://");
                if !known || redis::parse_redis_url(&url).is_none() {
                    self.problem("REDIS_URL is not a redis:// or rediss:// URL");
                }
                url
            }
            None => self.redis_parts()?,
        };
        Some(RedisConfig { url: Secret::new(url), ssl_ca })
    }

    fn redis_parts(&mut self) -> Option<String> {
        let port: u16 = self.parsed("REDIS_PORT", 6379, "a port number");
        let tls = self.parsed("REDIS_TLS", false, "true or false");
        let token = self.get("REDIS_AUTH_TOKEN");
        let host = self.required("REDIS_HOST", "set it, or REDIS_URL")?;
        let scheme = if tls { "rediss" } else { "redis" };
        let auth = token.map_or_else(String::new, |token| {
            let token =
                percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC);
            format!(":{token}@")
        });
        Some(format!("{scheme}://{auth}{host}:{port}"))
    }

    fn auth(&mut self) -> Option<AuthConfig> {
        match self.get("AUTH_MODE").as_deref() {
            None | Some("local") => {
                let secret = self.required("JWT_SECRET", "it signs the access tokens")?;
                if secret.len() < JWT_SECRET_MIN_BYTES {
                    self.problem(format!(
                        "JWT_SECRET has {} bytes; at least {JWT_SECRET_MIN_BYTES} are needed",
                        secret.len()
                    ));
                }
                Some(AuthConfig::Local { jwt_secret: Secret::new(secret) })
            }
            Some("cognito") => {
                let issuer = self.required("COGNITO_ISSUER", "AUTH_MODE is cognito");
                let client_id = self.required("COGNITO_CLIENT_ID", "AUTH_MODE is cognito");
                if issuer.as_deref().is_some_and(|issuer| !is_http_url(issuer)) {
                    self.problem("COGNITO_ISSUER is not an http or https URL");
                }
                Some(AuthConfig::Cognito { issuer: issuer?, client_id: client_id? })
            }
            Some(_) => {
                self.problem("AUTH_MODE is not one of local, cognito");
                None
            }
        }
    }

    fn queue(&mut self) -> Option<QueueConfig> {
        match self.get("QUEUE").as_deref() {
            None | Some("redis") => Some(QueueConfig::Redis),
            Some("sqs") => {
                let voice_queue_url = self.required("VOICE_QUEUE_URL", "QUEUE is sqs")?;
                if !is_http_url(&voice_queue_url) {
                    self.problem("VOICE_QUEUE_URL is not an http or https URL");
                }
                Some(QueueConfig::Sqs { voice_queue_url })
            }
            Some(_) => {
                self.problem("QUEUE is not one of redis, sqs");
                None
            }
        }
    }

    fn app_role(&mut self) -> Option<(String, Secret)> {
        match (self.get("APP_DATABASE_USER"), self.get("APP_DATABASE_PASSWORD")) {
            (None, None) => None,
            (Some(user), Some(password)) => {
                // SCRAM prepares non-ASCII passwords by SASLprep (RFC 5802); ASCII needs none.
                if !password.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
                    self.problem("APP_DATABASE_PASSWORD has characters outside printable ASCII");
                }
                Some((user, Secret::new(password)))
            }
            (Some(_), None) => {
                self.problem("APP_DATABASE_PASSWORD is not set: APP_DATABASE_USER is");
                None
            }
            (None, Some(_)) => {
                self.problem("APP_DATABASE_USER is not set: APP_DATABASE_PASSWORD is");
                None
            }
        }
    }

    /// PEM certificates given in place, or in a file named by the variable.
    fn pem(&mut self, name: &str) -> Option<Vec<u8>> {
        let value = self.get(name)?;
        let pem = if value.contains("-----BEGIN") {
            value.into_bytes()
        } else {
            match fs::read(&value) {
                Ok(pem) => pem,
                Err(error) => {
                    self.problem(format!(
                        "{name} names a file that cannot be read: {}",
                        error.kind()
                    ));
                    return None;
                }
            }
        };
        let readable = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        if readable.is_ok_and(|certificates| !certificates.is_empty()) {
            Some(pem)
        } else {
            self.problem(format!("{name} holds no PEM certificate"));
            None
        }
    }
}

fn is_http_url(value: &str) -> bool {
    value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"))
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// The parts of `postgres://user:password@host:port/name`. A query string is refused: TLS is set by
/// `DATABASE_SSL_*` only, and start-up options are refused by RDS Proxy.
struct DatabaseUrl {
    host: String,
    port: u16,
    name: String,
    user: String,
    password: Option<Secret>,
}

impl DatabaseUrl {
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let (credentials, rest) = rest.rsplit_once('@')?;
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        let (endpoint, name) = rest.split_once('/')?;
        let (host, port) = match endpoint.rsplit_once(':') {
            // The last colon of a bracketed IPv6 address without a port is not a separator.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (endpoint, 5432),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || name.is_empty() || user.is_empty() || name.contains(['/', '?', '#']) {
            return None;
        }
        if host.contains(':') && host.parse::<IpAddr>().is_err() {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port,
            name: decode(name)?,
            user: decode(user)?,
            password: password
                .map(decode)
                .map_or(Some(None), |decoded| decoded.map(Some))?
                .map(Secret::new),
        })
    }
}

fn decode(part: &str) -> Option<String> {
    percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned)
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
    fn decodes_the_parts_of_a_database_url() {
        let url = DatabaseUrl::parse("postgres://us%65r:p%40ss%3A@[::1]:6543/bme").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.name.as_str()), ("::1", 6543, "bme"));
        assert_eq!(url.user, "user");
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p@ss:"));
        for bad in [
            "postgres://h/n",
            "postgres://u@/n",
            "postgres://u@h",
            "postgres://u@h/n?sslmode=disable",
        ] {
            assert!(DatabaseUrl::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn half_an_app_role_is_a_problem() {
        let base = [("DATABASE_URL", "postgres://u@h/n"), ("APP_DATABASE_USER", "app")];
        let text = MigrateConfig::read(&lookup(&base)).unwrap_err().to_string();
        assert!(text.contains("APP_DATABASE_PASSWORD"), "{text}");
    }
}
