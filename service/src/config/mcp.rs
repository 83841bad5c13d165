//! Who may use the Model Context Protocol endpoint, from where, and for what.

use uuid::Uuid;

use super::{AuthConfig, Environment, HttpConfig, Secret, reader::Reader};
use crate::mcp;

/// Shortest accepted `MCP_SECRET` in bytes: it is the only thing between a caller and a user's data.
pub const MCP_SECRET_MIN_BYTES: usize = 32;

/// The endpoint `/mcp`.
#[derive(Clone, Debug, Default)]
pub struct McpConfig {
    /// Who is let in.
    pub access: McpAccess,
    /// `MCP_ALLOWED_TOOLS`, names separated by commas: the writing tools that are switched on.
    pub allowed_tools: Vec<String>,
    /// Values of `Host` that are accepted: that of `PUBLIC_URL` and those of `MCP_ALLOWED_HOSTS`.
    /// None accepts every value, where the service runs locally.
    pub allowed_hosts: Option<Vec<String>>,
    /// Values of `Origin` that are accepted from browsers: that of `PUBLIC_URL`.
    pub allowed_origins: Vec<String>,
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub enum McpAccess {
    /// Nobody: the endpoint does not exist.
    #[default]
    Off,
    /// Who knows the secret, as one user.
    Secret {
        /// `MCP_SECRET`, at least [`MCP_SECRET_MIN_BYTES`] bytes.
        secret: Secret,
        /// `MCP_USER_ID`.
        user: Uuid,
    },
    /// Who has an access token with a scope.
    Scopes {
        /// The address of the endpoint as clients see it, from `PUBLIC_URL`.
        resource: String,
        /// Who issues the tokens, `COGNITO_ISSUER`.
        issuer: String,
    },
}

impl Reader<'_> {
    pub(super) fn mcp(&mut self, http: &HttpConfig, auth: Option<&AuthConfig>) -> McpConfig {
        let origin = http.public_url.as_deref().and_then(origin);
        let mut hosts = self.list("MCP_ALLOWED_HOSTS");
        hosts.extend(origin.and_then(|origin| origin.split_once("://")).map(|(_, it)| it.into()));
        if hosts.is_empty() {
            // An empty list would mean every host to the protocol's library.
            hosts = vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into()];
        }
        let allowed_tools = self.list("MCP_ALLOWED_TOOLS");
        for tool in &allowed_tools {
            if !mcp::TOOLS.iter().any(|known| known.name == tool) {
                let known: Vec<_> = mcp::TOOLS.iter().map(|tool| tool.name).collect();
                self.problem(format!("MCP_ALLOWED_TOOLS names none of {}", known.join(", ")));
            }
        }
        McpConfig {
            access: self.mcp_access(origin, auth),
            allowed_tools,
            allowed_hosts: (http.environment != Environment::Local).then_some(hosts),
            allowed_origins: origin.map(with_port).into_iter().collect(),
        }
    }

    fn mcp_access(&mut self, origin: Option<&str>, auth: Option<&AuthConfig>) -> McpAccess {
        let secret = self.get("MCP_SECRET");
        let user = self.get("MCP_USER_ID");
        if let Some(AuthConfig::Cognito(pool)) = auth {
            if secret.is_some() || user.is_some() {
                self.problem("MCP_SECRET and MCP_USER_ID are for AUTH_MODE=local only");
            }
            // Tokens are for an address; without one there is nothing they could be for.
            return origin.map_or(McpAccess::Off, |origin| McpAccess::Scopes {
                resource: format!("{origin}/mcp"),
                issuer: pool.issuer.clone(),
            });
        }
        match (secret, user) {
            (None, None) => McpAccess::Off,
            (Some(secret), Some(user)) => {
                if secret.len() < MCP_SECRET_MIN_BYTES {
                    self.problem(format!(
                        "MCP_SECRET has {} bytes; at least {MCP_SECRET_MIN_BYTES} are needed",
                        secret.len()
                    ));
                }
                let Ok(user) = user.parse() else {
                    self.problem("MCP_USER_ID is not the id of a user");
                    return McpAccess::Off;
                };
                McpAccess::Secret { secret: Secret::new(secret), user }
            }
            _ => {
                self.problem("MCP_SECRET and MCP_USER_ID belong together; one of them is not set");
                McpAccess::Off
            }
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        let value = self.get(name).unwrap_or_default();
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::to_owned).collect()
    }
}

/// Scheme, host and port of an http or https URL.
fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    url.get(..scheme.len() + 3 + host.len())
}

/// An origin with its port, without which the protocol's library accepts every port.
fn with_port(origin: &str) -> String {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    match (has_port, origin.starts_with("https:")) {
        (true, _) => origin.to_owned(),
        (false, true) => format!("{origin}:443"),
        (false, false) => format!("{origin}:80"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CognitoConfig;

    fn read(pairs: &[(&str, &str)], cognito: bool) -> Result<McpConfig, String> {
        let pairs: std::collections::HashMap<_, _> = pairs.iter().copied().collect();
        let lookup = |name: &str| pairs.get(name).map(|value| (*value).to_owned());
        let mut env = Reader::new(&lookup);
        let http = env.http();
        let auth = cognito.then(|| {
            AuthConfig::Cognito(CognitoConfig::new("https://issuer.example/pool", "client"))
        });
        let config = env.mcp(&http, auth.as_ref());
        env.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    const SECRET: &str = "a secret of at least thirty-two bytes";
    const USER: &str = "0190b5b2-7f6e-7cc0-8000-0123456789ab";

    #[test]
    fn hosts_and_origins_come_from_the_public_url() {
        let config = read(
            &[("PUBLIC_URL", "https://bme.example/app/"), ("MCP_ALLOWED_HOSTS", "a.example, b:81")],
            false,
        );
        let config = config.unwrap();
        let hosts = config.allowed_hosts.unwrap();
        assert_eq!(hosts, ["a.example", "b:81", "bme.example"]);
        assert_eq!(config.allowed_origins, ["https://bme.example:443"]);
        assert!(matches!(config.access, McpAccess::Off));
        assert!(!read(&[], false).unwrap().allowed_hosts.unwrap().is_empty());
        assert_eq!(read(&[("APP_ENV", "local")], false).unwrap().allowed_hosts, None);
        assert_eq!(with_port("http://localhost:5173"), "http://localhost:5173");
        assert_eq!(with_port("http://[::1]"), "http://[::1]:80");
    }

    #[test]
    fn a_secret_needs_its_user() {
        let secret = ("MCP_SECRET", SECRET);
        let user = ("MCP_USER_ID", USER);
        let config = read(&[secret, user, ("MCP_ALLOWED_TOOLS", "add_goal")], false).unwrap();
        assert!(matches!(config.access, McpAccess::Secret { .. }));
        assert!(!format!("{config:?}").contains(SECRET));
        for bad in [
            &[secret][..],
            &[user],
            &[("MCP_SECRET", "short"), user],
            &[secret, ("MCP_USER_ID", "me")],
            &[("MCP_ALLOWED_TOOLS", "add_goal,drop_table")],
        ] {
            let text = read(bad, false).unwrap_err();
            assert!(text.contains("MCP_"), "{text}");
            assert!(!text.contains("short") && !text.contains(SECRET), "{text}");
        }
    }

    #[test]
    fn cognito_refuses_the_secret() {
        let url = ("PUBLIC_URL", "https://bme.example");
        let McpAccess::Scopes { resource, issuer } = read(&[url], true).unwrap().access else {
            panic!("scopes expected");
        };
        assert_eq!(resource, "https://bme.example/mcp");
        assert_eq!(issuer, "https://issuer.example/pool");
        assert!(read(&[url, ("MCP_SECRET", SECRET), ("MCP_USER_ID", USER)], true).is_err());
        assert!(matches!(read(&[], true).unwrap().access, McpAccess::Off));
    }
}
