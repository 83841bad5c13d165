//! How to reach Postgres, and the role that the migration makes.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::{Environment, Secret, reader::Reader};

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

impl Reader<'_> {
    pub(super) fn database(&mut self, environment: Environment) -> Option<DatabaseConfig> {
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

    pub(super) fn app_role(&mut self) -> Option<(String, Secret)> {
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
    use super::*;

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
}
