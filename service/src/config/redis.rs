//! How to reach Redis.

use super::{Secret, reader::Reader};

/// How to reach Redis (`REDIS_URL`, or `REDIS_HOST` and the other parts).
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Connection URL, `redis://` or `rediss://`; it may hold the AUTH token.
    pub url: Secret,
    /// `REDIS_SSL_CA`: PEM certificates trusted instead of the built-in roots.
    pub ssl_ca: Option<Vec<u8>>,
}

impl Reader<'_> {
    pub(super) fn redis(&mut self) -> Option<RedisConfig> {
        let ssl_ca = self.pem("REDIS_SSL_CA");
        let url = match self.get("REDIS_URL") {
            Some(url) => {
                let known = url.starts_with("redis://") || url.starts_with("rediss://");
                if !known || ::redis::parse_redis_url(&url).is_none() {
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
}
