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
    Stack,
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
