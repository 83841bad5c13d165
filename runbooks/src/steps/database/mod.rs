//! Step 2: the database and the connection pool in front of it.

pub mod cluster;
pub mod cluster_instance;
mod cluster_members;
pub mod instance;
mod instance_members;
pub mod master_user;
pub mod parameter_group;
pub mod proxy;
pub mod proxy_target;
pub mod secret;
pub mod server;
pub mod subnet_group;

use serde_json::json;

use self::{
    cluster::DbCluster,
    cluster_instance::DbClusterInstance,
    instance::DbInstance,
    parameter_group::{DbParameterGroup, Of},
    proxy::DbProxy,
    proxy_target::DbProxyTarget,
    secret::{FirstValue, Secret},
    server::{CLUSTER, DbServer, INSTANCE},
    subnet_group::DbSubnetGroup,
};
use super::{
    About, Stack,
    compute::role::{Role, trusts},
    network::Network,
};
use crate::{
    engine::{Graph, Handle, ResourceId},
    environment::DatabaseEngine,
};

/// The database user as whom the services connect.
pub const APPLICATION_USER: &str = "bme_app";

/// What other steps use of the database.
pub struct Database {
    /// The instance or cluster; the migration task connects to it, as the master user.
    pub server: DbServer,
    /// The instances that serve the database.
    pub instances: Vec<Serving>,
    /// The pool; the services connect to it, as the application's user.
    pub proxy: Handle<DbProxy>,
    /// What makes the pool lead to the server.
    pub proxy_target: Handle<DbProxyTarget>,
    /// `{"username", "password"}` of the application's user.
    pub application_secret: Handle<Secret>,
}

/// An instance that serves the database.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Its id.
    pub id: ResourceId,
    /// Its identifier in AWS.
    pub name: String,
    /// Its number among those of the cluster; none outside of one.
    pub number: Option<usize>,
}

impl Serving {
    /// Its metric of storage that is left, bytes. The storage of a cluster grows by itself; what an
    /// instance of one has is for temporary files and logs ("Amazon CloudWatch metrics for Amazon
    /// Aurora", Aurora user guide).
    pub fn free_storage(&self) -> &'static str {
        if self.number.is_some() { "FreeLocalStorage" } else { "FreeStorageSpace" }
    }
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A PostgreSQL instance, or a cluster of Aurora PostgreSQL with one or two instances, with \
            its subnet and parameter group, encrypted and with TLS enforced, a secret for the \
            application's user, and RDS Proxy with its role in front of it.",
    why: "The service keeps its data here. The proxy pools connections, so that many small tasks \
          don't use up the few that the database has; RDS itself makes and rotates the master \
          password.",
    order: "The instance is among the longest to make, so it begins as soon as its groups, and of \
            Aurora the cluster, are there. The proxy is made beside it, and is led to it when both \
            are usable. A cluster is deleted after its instances.",
    trouble: &[
        ("InsufficientDBInstanceCapacity", "wait, or set another `database.instance_class`"),
        (
            "InvalidParameterCombination: the class is not there for this version or region",
            "change `database.instance_class` or `database.postgres_version`",
        ),
        (
            "database-broken: RDS says that it can't run",
            "its events in the RDS console say why; it is left alone, since it may hold data",
        ),
        (
            "a change of class or version interrupts service for minutes",
            "`bme plan` says so before; with `database.multi_az` it is shorter",
        ),
        (
            "another `database.engine` is another database, and the old one goes with its data",
            "`bme plan` says so before, and `--allow-data-loss` allows it; dump the data first, and load \
             it after the next deploy",
        ),
    ],
};

/// Adds the step.
pub fn add(graph: &mut Graph, stack: &Stack, network: &Network) -> Database {
    let settings = &stack.environment.database;
    let subnet_group = graph.add(DbSubnetGroup {
        label: stack.label("database", "subnet-group", 63),
        aws: stack.aws.clone(),
        subnets: network.private_subnets.clone(),
    });
    let engine = settings.engine;
    let (server, mut instances) = add_server(graph, stack, network, &subnet_group, engine);
    let application_secret = graph.add(Secret {
        label: stack.label("database", "application-secret", 512),
        aws: stack.aws.clone(),
        description: "Database user of the services",
        value: FirstValue::Generated {
            key: "password",
            with: vec![("username", APPLICATION_USER.into())],
        },
    });
    let proxy = add_proxy(graph, stack, network, &application_secret, &instances);
    let mut behind: Vec<_> = instances.iter().map(|instance| instance.id.clone()).collect();
    if stack.every_way_out {
        let other = match engine {
            DatabaseEngine::Postgres => DatabaseEngine::AuroraPostgresql,
            DatabaseEngine::AuroraPostgresql => DatabaseEngine::Postgres,
        };
        let (former, others) = add_server(graph, stack, network, &subnet_group, other);
        behind.push(former.id());
        behind.extend(others.iter().map(|instance| instance.id.clone()));
        instances.extend(others);
    }
    let proxy_target = graph.add(DbProxyTarget {
        label: stack.label("database", "proxy-target", 63),
        aws: stack.aws.clone(),
        proxy: proxy.clone(),
        server: server.clone(),
        behind,
    });
    Database { server, instances, proxy, proxy_target, application_secret }
}

/// Adds the server of `engine`, and the instances that it has.
fn add_server(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    subnet_group: &Handle<DbSubnetGroup>,
    engine: DatabaseEngine,
) -> (DbServer, Vec<Serving>) {
    match engine {
        DatabaseEngine::Postgres => {
            let instance = add_instance(graph, stack, network, subnet_group);
            let name = stack.label("database", INSTANCE, 63).name;
            let serving = Serving { id: instance.id(), name, number: None };
            (DbServer::Instance(instance), vec![serving])
        }
        DatabaseEngine::AuroraPostgresql => {
            let cluster = add_cluster(graph, stack, network, subnet_group);
            let instances = add_cluster_instances(graph, stack, network, &cluster);
            (DbServer::Cluster(cluster), instances)
        }
    }
}

fn add_instance(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    subnet_group: &Handle<DbSubnetGroup>,
) -> Handle<DbInstance> {
    let settings = &stack.environment.database;
    let parameter_group = graph.add(DbParameterGroup {
        label: stack.label("database", "parameter-group", 63),
        aws: stack.aws.clone(),
        of: Of::Instance,
        major: settings.postgres_version.clone(),
    });
    graph.add(DbInstance {
        label: stack.label("database", INSTANCE, 63),
        aws: stack.aws.clone(),
        settings: settings.clone(),
        subnet_group: subnet_group.clone(),
        parameter_group,
        security_group: network.groups.database.clone(),
        final_snapshot: settings.final_snapshot && stack.environment.sandbox.is_none(),
    })
}

fn add_cluster(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    subnet_group: &Handle<DbSubnetGroup>,
) -> Handle<DbCluster> {
    let settings = &stack.environment.database;
    let parameter_group = graph.add(DbParameterGroup {
        label: stack.label("database", "cluster-parameter-group", 63),
        aws: stack.aws.clone(),
        of: Of::Cluster,
        major: settings.postgres_version.clone(),
    });
    graph.add(DbCluster {
        label: stack.label("database", CLUSTER, 63),
        aws: stack.aws.clone(),
        settings: settings.clone(),
        subnet_group: subnet_group.clone(),
        parameter_group,
        security_group: network.groups.database.clone(),
        final_snapshot: settings.final_snapshot && stack.environment.sandbox.is_none(),
    })
}

/// One instance, or two in different zones, of which either takes over from the other.
fn add_cluster_instances(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    cluster: &Handle<DbCluster>,
) -> Vec<Serving> {
    let settings = &stack.environment.database;
    let count = if settings.multi_az { 2 } else { 1 };
    let subnets = network.private_subnets.iter().take(count).zip(1..);
    subnets
        .map(|(subnet, number)| {
            let label = stack.label("database", &format!("cluster-instance-{number}"), 63);
            let name = label.name.clone();
            let instance = graph.add(DbClusterInstance {
                label,
                aws: stack.aws.clone(),
                cluster: cluster.clone(),
                subnet: subnet.clone(),
                instance_class: settings.instance_class.clone(),
            });
            Serving { id: instance.id(), name, number: Some(number) }
        })
        .collect()
}

fn add_proxy(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    secret: &Handle<Secret>,
    instances: &[Serving],
) -> Handle<DbProxy> {
    let (region, account) = (&stack.aws.region, &stack.aws.account);
    let name = stack.label("database", "application-secret", 512).name;
    let role = graph.add(Role {
        label: stack.label("database", "proxy-role", 64),
        aws: stack.aws.clone(),
        trust: trusts("rds.amazonaws.com", account),
        managed_policies: Vec::new(),
        // Six characters that Secrets Manager chooses end an ARN. The secret is encrypted with its
        // own AWS-managed key, whose policy lets in who may read the secret.
        policy: json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Action": ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
                "Resource": format!("arn:aws:secretsmanager:{region}:{account}:secret:{name}-??????"),
            }],
        })
        .into(),
    });
    graph.add(DbProxy {
        label: stack.label("database", "proxy", 63),
        aws: stack.aws.clone(),
        subnets: network.private_subnets.clone(),
        security_group: network.groups.proxy.clone(),
        role,
        secret: secret.clone(),
        instances: instances.iter().map(|instance| instance.name.clone()).collect(),
        instance_class: stack.environment.database.instance_class.clone(),
    })
}

#[cfg(test)]
mod tests;
