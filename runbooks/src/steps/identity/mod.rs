//! Step 6: Cognito.

pub mod identity_provider;
pub mod resource_server;
pub mod user_pool;
pub mod user_pool_client;
pub mod user_pool_domain;

use identity_provider::{IdentityProvider, Provider};
use resource_server::ResourceServer;
use user_pool::UserPool;
use user_pool_client::UserPoolClient;
use user_pool_domain::UserPoolDomain;

use super::{About, Stack, edge::Edge};
use crate::{
    engine::{Graph, Handle},
    environment,
};

/// What other steps need of this one.
pub struct Identity {
    /// The pool.
    pub pool: Handle<UserPool>,
    /// The public client.
    pub client: Handle<UserPoolClient>,
    /// Where users sign in.
    pub domain: Handle<UserPoolDomain>,
}

/// What a client may ask for at the service's MCP endpoint.
const MCP_SCOPES: [(&str, &str); 2] =
    [("read", "Read through the MCP endpoint"), ("write", "Change through the MCP endpoint")];

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A Cognito user pool with its domain, a public client with PKCE, the scopes of the MCP \
            endpoint, and Google and Facebook when the environment file names their secrets.",
    why: "It signs users in, and the service only checks its tokens.",
    order: "The pool comes first. The client waits for the scopes, for the identity providers, \
            and for the host name of the distribution that it sends users back to.",
    trouble: &[
        (
            "malformed-secret: `clientId` or `clientSecret` is missing",
            "put the secret that `identity.google_secret` or `identity.facebook_secret` names \
             right",
        ),
        (
            "a change of what is fixed, such as how users sign in, replaces the pool and loses \
             its users",
            "`bme plan` says LOSES DATA before",
        ),
        ("the domain's prefix is taken by another account", "give the environment another `name`"),
    ],
};

/// Adds the step's resources.
pub fn add(graph: &mut Graph, stack: &Stack, edge: &Edge) -> Identity {
    let settings = &stack.environment.identity;
    // 128 is the limit of a pool's and a client's name (Cognito API reference).
    let label = |name: &str| stack.label("identity", name, 128);
    let pool = graph.add(UserPool {
        label: label("user-pool"),
        aws: stack.aws.clone(),
        password_length: settings.password_length,
        optional_mfa: settings.optional_mfa,
        deletion_protection: settings.deletion_protection,
    });
    let domain = graph.add(UserPoolDomain {
        label: label("user-pool-domain"),
        aws: stack.aws.clone(),
        pool: pool.clone(),
        prefix: format!("bme-{}-{}", stack.environment.name, stack.aws.account),
    });
    let resource_server = graph.add(ResourceServer {
        label: label("resource-server"),
        aws: stack.aws.clone(),
        pool: pool.clone(),
        identifier: "mcp",
        scopes: &MCP_SCOPES,
    });
    let identity_providers = providers(settings)
        .map(|(provider, secret)| {
            graph.add(IdentityProvider {
                label: label(&format!("identity-provider-{}", provider.name().to_lowercase())),
                aws: stack.aws.clone(),
                pool: pool.clone(),
                provider,
                secret: secret.clone(),
            })
        })
        .collect();
    let client = graph.add(UserPoolClient {
        label: label("user-pool-client"),
        aws: stack.aws.clone(),
        pool: pool.clone(),
        resource_server,
        identity_providers,
        distribution: edge.distribution.clone(),
        domain: stack.environment.edge.domain.clone(),
        callback_urls: settings.callback_urls.clone(),
    });
    Identity { pool, client, domain }
}

/// The providers whose secret the environment names.
fn providers(settings: &environment::Identity) -> impl Iterator<Item = (Provider, &String)> {
    [(Provider::Google, &settings.google_secret), (Provider::Facebook, &settings.facebook_secret)]
        .into_iter()
        .filter_map(|(provider, secret)| Some((provider, secret.as_ref()?)))
}
