//! What the containers of a release read: environment variables, and the secrets that ECS puts into
//! further ones.

use std::collections::BTreeMap;

use serde_json::json;

use super::{PORT, STEP, container::Setting, secrets::TaskSecrets, services::Wiring};
use crate::{
    aws::secretsmanager::fingerprint,
    engine::{Graph, Handle, Outputs},
    environment::Auth,
    release::Release,
    sandbox,
    steps::{
        Stack,
        database::{
            secret::{FirstValue, Secret},
            server::{DbServer, DbServerOutput},
        },
    },
};

/// Variables by name.
type Variables = BTreeMap<String, Setting>;

/// The member of the secret with the key of the Gemini API.
const GEMINI_KEY: &str = "apiKey";

/// Secrets that only what a release runs reads.
pub struct Keys {
    /// `{"apiKey"}` of the Gemini API.
    pub gemini: Handle<Secret>,
    /// `{"secret"}` that opens the Model Context Protocol endpoint.
    pub mcp: Handle<Secret>,
}

impl Keys {
    /// What of `release` does not work yet since nobody had filled in what it needs.
    pub fn missing(&self, outputs: &Outputs, release: &Release) -> Option<String> {
        let secret = outputs.get(&self.gemini).ok()?;
        // What was looked at is today's version, which is not that of every release.
        let own = release.secret_versions.get(&secret.name) == Some(&secret.version_id);
        let empty = fingerprint(&json!({ GEMINI_KEY: "" }).to_string());
        (own && secret.fingerprint == empty).then(|| {
            format!(
                "voice jobs wait until the secret {} holds a key of the Gemini API",
                secret.name
            )
        })
    }
}

/// Adds the secrets. A person fills the key of Gemini in; the sandbox's stand-in takes any.
pub(super) fn add_keys(graph: &mut Graph, stack: &Stack) -> Keys {
    let in_sandbox = stack.environment.sandbox.is_some();
    let gemini = graph.add(Secret {
        label: stack.label(STEP, "gemini-api-key", 255),
        aws: stack.aws.clone(),
        description: "Key of the Gemini API; voice jobs wait until it is filled in",
        value: if in_sandbox {
            FirstValue::Generated { key: GEMINI_KEY, with: Vec::new() }
        } else {
            FirstValue::Empty { key: GEMINI_KEY }
        },
    });
    let mcp = graph.add(Secret {
        label: stack.label(STEP, "mcp-secret", 255),
        aws: stack.aws.clone(),
        description: "Opens the MCP endpoint for the user of compute.mcp.user",
        value: FirstValue::Generated { key: "secret", with: Vec::new() },
    });
    Keys { gemini, mcp }
}

/// Variables and secrets of the API.
pub(super) fn api(
    stack: &Stack,
    wiring: &Wiring<'_>,
    read: &TaskSecrets,
) -> (Variables, Variables) {
    let release = stack.release.as_ref();
    let mut environment = served(stack, wiring, read);
    let mut secrets = stored(stack, read);
    match stack.environment.auth() {
        Auth::Local => {
            environment.extend(fixed([("AUTH_MODE", "local".into())]));
            secrets.extend(named([("JWT_SECRET", read.service.member("jwtSecret", release))]));
        }
        Auth::Cognito => environment.extend(cognito(stack, wiring)),
    }
    let mcp = &stack.environment.compute.mcp;
    // CloudFront names the load balancer, not the viewer's host, in what it passes on.
    let host = Setting::of(&wiring.platform.load_balancer, |balancer| balancer.dns_name.clone());
    environment.extend(named([("MCP_ALLOWED_HOSTS", host)]));
    if !mcp.allowed_tools.is_empty() {
        environment.extend(fixed([("MCP_ALLOWED_TOOLS", mcp.allowed_tools.join(","))]));
    }
    if let Some(user) = &mcp.user {
        environment.extend(fixed([("MCP_USER_ID", user.clone())]));
        secrets.extend(named([("MCP_SECRET", read.mcp.member("secret", release))]));
    }
    (configured(stack, environment), secrets)
}

/// Variables and secrets of the worker.
pub(super) fn worker(
    stack: &Stack,
    wiring: &Wiring<'_>,
    read: &TaskSecrets,
) -> (Variables, Variables) {
    let mut environment = served(stack, wiring, read);
    let gemini = &stack.environment.compute.gemini;
    environment.extend(fixed([("GEMINI_MODEL", gemini.model.clone())]));
    let stand_in = || {
        let sandbox = stack.environment.sandbox.as_ref();
        sandbox.map(|sandbox| sandbox::gemini_url(sandbox.gateway_port))
    };
    if let Some(url) = gemini.base_url.clone().or_else(stand_in) {
        environment.extend(fixed([("GEMINI_BASE_URL", url)]));
    }
    let mut secrets = stored(stack, read);
    let key = read.gemini.member(GEMINI_KEY, stack.release.as_ref());
    secrets.extend(named([("GEMINI_API_KEY", key)]));
    (configured(stack, environment), secrets)
}

/// Variables and secrets of the migration. It talks to the database itself, of a cluster to its writer,
/// as its master, since the proxy lets in the application's user only, and that user is what it makes.
pub(super) fn migration(
    stack: &Stack,
    wiring: &Wiring<'_>,
    read: &TaskSecrets,
) -> (Variables, Variables) {
    let (database, release) = (wiring.database, stack.release.as_ref());
    let mut environment = common(stack, read);
    environment.extend(named([
        ("DATABASE_HOST", of_server(&database.server, |server| server.endpoint.clone())),
        ("DATABASE_PORT", of_server(&database.server, |server| server.port.to_string())),
    ]));
    let master = |key: &'static str| {
        of_server(&database.server, move |server| format!("{}:{key}::", server.master_secret_arn))
    };
    let secrets = named([
        ("DATABASE_USER", master("username")),
        ("DATABASE_PASSWORD", master("password")),
        ("APP_DATABASE_USER", read.database.member("username", release)),
        ("APP_DATABASE_PASSWORD", read.database.member("password", release)),
    ]);
    (configured(stack, environment), secrets.collect())
}

/// Variables of both API and worker.
fn served(stack: &Stack, wiring: &Wiring<'_>, read: &TaskSecrets) -> Variables {
    let mut environment = common(stack, read);
    environment.extend(fixed([
        ("BIND_ADDRESS", format!("0.0.0.0:{PORT}")),
        ("REDIS_TLS", "true".into()),
        ("QUEUE", "sqs".into()),
        // Fargate sets it too; said here, nothing depends on where the container runs.
        ("AWS_REGION", stack.aws.region.clone()),
        // CloudFront and the load balancer each add an address; the sandbox has one proxy.
        ("TRUSTED_PROXY_HOPS", if stack.environment.sandbox.is_some() { "1" } else { "2" }.into()),
    ]));
    environment.extend(named([
        ("DATABASE_HOST", Setting::of(&wiring.database.proxy, |proxy| proxy.endpoint.clone())),
        ("DATABASE_PORT", Setting::fixed("5432")),
        ("REDIS_HOST", Setting::of(&wiring.cache.group, |group| group.endpoint.clone())),
        ("REDIS_PORT", Setting::of(&wiring.cache.group, |group| group.port.to_string())),
        ("VOICE_QUEUE_URL", Setting::of(&wiring.queue.voice, |queue| queue.url.clone())),
        (
            "VOICE_DEAD_LETTER_QUEUE_URL",
            Setting::of(&wiring.queue.dead_letter, |queue| queue.url.clone()),
        ),
        ("AUDIO_BUCKET", Setting::of(&wiring.queue.audio, |bucket| bucket.name.clone())),
        ("PUBLIC_URL", public_url(stack, wiring)),
    ]));
    if let Some(ca) = &stack.sandbox_ca {
        environment.insert("REDIS_SSL_CA".into(), Setting::fixed(ca));
    }
    environment
}

/// Variables of all three.
fn common(stack: &Stack, read: &TaskSecrets) -> Variables {
    let environment = &stack.environment;
    let mode = match environment.name.as_str() {
        _ if environment.sandbox.is_some() => "local",
        "production" => "production",
        _ => "staging",
    };
    let release = stack.release.as_ref();
    let tag = release.map(|release| release.tag.clone()).unwrap_or_default();
    let mut common: Variables = fixed([
        ("APP_ENV", mode.to_owned()),
        ("RELEASE_TAG", tag),
        ("SECRET_VERSIONS", read.of_servers(release)),
        ("DATABASE_NAME", environment.database.name.clone()),
        ("DATABASE_SSL_VERIFY", "true".into()),
    ])
    .collect();
    // RDS signs instances with its own authority, which is in the image but in no public bundle.
    let ca = stack.sandbox_ca.as_deref().unwrap_or("/etc/ssl/certs/rds-ca.pem");
    common.insert("DATABASE_SSL_CA".into(), Setting::fixed(ca));
    common
}

/// Cognito signs users in: whose tokens are valid, for which client, and where their holders are
/// looked up. The sandbox's tokens have the same issuer, but its keys are at the gateway.
fn cognito(stack: &Stack, wiring: &Wiring<'_>) -> Variables {
    let (identity, region) = (wiring.identity, stack.aws.region.clone());
    let issuer = Setting::of(&identity.pool, move |pool| {
        format!("https://cognito-idp.{region}.amazonaws.com/{}", pool.id)
    });
    let domain = Setting::of(&identity.domain, |domain| format!("https://{}", domain.host));
    let mut environment: Variables = named([
        ("AUTH_MODE", Setting::fixed("cognito")),
        ("COGNITO_ISSUER", issuer),
        ("COGNITO_CLIENT_ID", Setting::of(&identity.client, |client| client.id.clone())),
        ("COGNITO_DOMAIN", domain),
    ])
    .collect();
    if let Some(sandbox) = &stack.environment.sandbox {
        let gateway = sandbox::gateway_url(sandbox.gateway_port);
        let at = gateway.clone();
        environment.extend(named([
            ("COGNITO_DOMAIN", Setting::fixed(gateway)),
            (
                "COGNITO_JWKS_URL",
                Setting::of(&identity.pool, move |pool| {
                    format!("{at}/{}/.well-known/jwks.json", pool.id)
                }),
            ),
        ]));
    }
    environment
}

/// Secrets of both API and worker.
fn stored(stack: &Stack, read: &TaskSecrets) -> Variables {
    let release = stack.release.as_ref();
    named([
        ("DATABASE_USER", read.database.member("username", release)),
        ("DATABASE_PASSWORD", read.database.member("password", release)),
        ("REDIS_AUTH_TOKEN", read.cache.member("authToken", release)),
        ("SENTRY_DSN", read.sentry.member("dsn", release)),
    ])
    .collect()
}

/// A value that the database's server puts out.
fn of_server(
    server: &DbServer,
    member: impl Fn(&DbServerOutput) -> String + Send + Sync + 'static,
) -> Setting {
    match server {
        DbServer::Instance(instance) => Setting::of(instance, member),
        DbServer::Cluster(cluster) => Setting::of(cluster, member),
    }
}

fn public_url(stack: &Stack, wiring: &Wiring<'_>) -> Setting {
    let environment = &stack.environment;
    match (&environment.sandbox, &environment.edge.domain) {
        (Some(sandbox), _) => Setting::fixed(format!("http://127.0.0.1:{}", sandbox.port)),
        (None, Some(domain)) => Setting::fixed(format!("https://{domain}")),
        (None, None) => Setting::of(&wiring.edge.distribution, |distribution| {
            format!("https://{}", distribution.domain_name)
        }),
    }
}

/// The release's own variables on top: those that it was deployed with, so that a rollback brings
/// back the former ones.
fn configured(stack: &Stack, mut environment: Variables) -> Variables {
    let configuration = stack.release.iter().flat_map(|release| &release.configuration);
    environment.extend(configuration.map(|(name, value)| (name.clone(), Setting::fixed(value))));
    environment
}

/// Variables whose values are known.
pub(super) fn fixed<const N: usize>(
    variables: [(&'static str, String); N],
) -> impl Iterator<Item = (String, Setting)> {
    variables.into_iter().map(|(name, value)| (name.to_owned(), Setting::fixed(value)))
}

fn named<const N: usize>(
    variables: [(&'static str, Setting); N],
) -> impl Iterator<Item = (String, Setting)> {
    variables.into_iter().map(|(name, value)| (name.to_owned(), value))
}

#[cfg(test)]
mod tests;
