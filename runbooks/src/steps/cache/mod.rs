//! Step 3: Redis or Valkey.

pub mod parameter_group;
pub mod replication_group;
pub mod subnet_group;

use self::{
    parameter_group::CacheParameterGroup,
    replication_group::{AUTH_TOKEN, ReplicationGroup},
    subnet_group::CacheSubnetGroup,
};
use super::{
    About, Stack,
    database::secret::{FirstValue, Secret},
    network::Network,
};
use crate::{
    engine::{Graph, Handle},
    environment::CacheEngine,
};

/// What other steps use of the cache.
pub struct Cache {
    /// The replication group.
    pub group: Handle<ReplicationGroup>,
    /// `{"authToken"}`, the token of Redis' AUTH.
    pub auth_token: Handle<Secret>,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A replication group of Redis or Valkey with its subnet and parameter group, TLS, \
            encryption at rest, and an AUTH token in Secrets Manager.",
    why: "Idempotency keys, rate limits and short-lived state live here. It evicts nothing, since a key that goes missing would be a request done twice.",
    order: "The replication group takes longest of all that is made, hence it begins as soon as \
            its groups and the token are there, and what needs it comes last.",
    trouble: &[
        ("InsufficientCacheClusterCapacity", "wait, or set another `cache.node_type`"),
        ("the alarm on memory rings: full, it refuses writes", "take a larger `cache.node_type`"),
        (
            "from Valkey back to Redis is a replacement, which loses what it holds",
            "stay with Valkey, or drain the queue first",
        ),
    ],
};

/// Adds the step.
pub fn add(graph: &mut Graph, stack: &Stack, network: &Network) -> Cache {
    let settings = &stack.environment.cache;
    let subnet_group = graph.add(CacheSubnetGroup {
        label: stack.label("cache", "cache-subnet-group", 63),
        aws: stack.aws.clone(),
        subnets: network.private_subnets.clone(),
    });
    let parameter_group = graph.add(CacheParameterGroup {
        label: stack.label("cache", "cache-parameter-group", 63),
        aws: stack.aws.clone(),
        family: match settings.engine {
            CacheEngine::Redis => "redis7",
            CacheEngine::Valkey => "valkey8",
        },
    });
    let auth_token = graph.add(Secret {
        label: stack.label("cache", "auth-token", 512),
        aws: stack.aws.clone(),
        description: "AUTH token of the cache",
        value: FirstValue::Generated { key: AUTH_TOKEN, with: Vec::new() },
    });
    let group = graph.add(ReplicationGroup {
        label: stack.label("cache", "replication-group", 40),
        aws: stack.aws.clone(),
        settings: settings.clone(),
        subnet_group,
        parameter_group,
        security_group: network.groups.cache.clone(),
        auth_token: auth_token.clone(),
    });
    Cache { group, auth_token }
}
