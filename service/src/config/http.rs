//! Where the service runs and listens.

use std::net::SocketAddr;

use super::reader::{Reader, is_http_url};
use crate::cors;

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

/// What every serving sub-command needs.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `APP_ENV`, default production: the strict one.
    pub environment: Environment,
    /// `RELEASE_TAG`, shown by `/health`.
    pub release: String,
    /// `BIND_ADDRESS`, default `0.0.0.0:8080`.
    pub bind: SocketAddr,
    /// `TRUSTED_PROXY_HOPS`, default 0: how many entries at the right of `X-Forwarded-For` our own
    /// proxies wrote. Without a proxy the client writes all of them, so each has to be counted here.
    pub trusted_proxy_hops: usize,
    /// `PUBLIC_URL`: the origin browsers see.
    pub public_url: Option<String>,
    /// `ALLOWED_ORIGINS`, separated by commas: whose pages may call the API besides those of
    /// `PUBLIC_URL`.
    pub allowed_origins: Vec<String>,
}

impl Environment {
    /// As `APP_ENV` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Staging => "staging",
            Self::Local => "local",
        }
    }
}

impl Reader<'_> {
    pub(super) fn environment(&mut self) -> Environment {
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

    pub(super) fn bind(&mut self) -> SocketAddr {
        let default = SocketAddr::from(([0, 0, 0, 0], 8080));
        self.parsed("BIND_ADDRESS", default, "an address with a port such as 0.0.0.0:8080")
    }

    pub(super) fn http(&mut self) -> HttpConfig {
        let public_url = self.get("PUBLIC_URL");
        if public_url.as_deref().is_some_and(|url| !is_http_url(url)) {
            self.problem("PUBLIC_URL is not an http or https URL");
        }
        HttpConfig {
            environment: self.environment(),
            release: self.get("RELEASE_TAG").unwrap_or_else(|| "unreleased".to_owned()),
            bind: self.bind(),
            trusted_proxy_hops: self.parsed("TRUSTED_PROXY_HOPS", 0, "a whole number such as 1"),
            public_url,
            allowed_origins: self.allowed_origins(),
        }
    }

    fn allowed_origins(&mut self) -> Vec<String> {
        let listed = self.get("ALLOWED_ORIGINS").unwrap_or_default();
        let origins = listed.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins: Vec<_> = origins.map(str::to_owned).collect();
        if origins.iter().any(|origin| cors::origin(origin).as_ref() != Some(origin)) {
            self.problem(
                "ALLOWED_ORIGINS is not a list of origins such as https://app.example.org, \
                 without path, slash or default port",
            );
        }
        origins
    }
}
