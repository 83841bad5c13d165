//! Step 2: the database and the connection pool in front of it.

pub mod instance;
pub mod parameter_group;
pub mod proxy;
pub mod proxy_target;
pub mod secret;
pub mod subnet_group;

use serde_json::json;

use self::{
    instance::DbInstance,
    parameter_group::DbParameterGroup,
    proxy::DbProxy,
    proxy_target::DbProxyTarget,
    secret::{FirstValue, Secret},
    subnet_group::DbSubnetGroup,
};
use super::{
    About, Stack,
    compute::role::{Role, trusts},
    network::Network,
};
use crate::engine::{Graph, Handle};

/// The database user as whom the services connect.
pub const APPLICATION_USER: &str = "bme_app";

/// What other steps use of the database.
pub struct Database {
    /// The instance; the migration task connects to it, as the master user.
    pub instance: Handle<DbInstance>,
    /// The pool; the services connect to it, as the application's user.
    pub proxy: Handle<DbProxy>,
    /// What makes the pool lead to the instance.
    pub proxy_target: Handle<DbProxyTarget>,
    /// `{"username", "password"}` of the application's user.
    pub application_secret: Handle<Secret>,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A PostgreSQL instance with its subnet and parameter group, encrypted and with TLS \
            enforced, a secret for the application's user, and RDS Proxy with its role in front \
            of the instance.",
    why: "The service keeps its data here. The proxy pools connections, so that many small tasks \
          don't use up the few that the database has; RDS itself makes and rotates the master \
          password.",
    order: "The instance is among the longest to make, so it begins as soon as its groups are \
            there. The proxy is made beside it, and is led to it when both are usable.",
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
    let parameter_group = graph.add(DbParameterGroup {
        label: stack.label("database", "parameter-group", 63),
        aws: stack.aws.clone(),
        major: settings.postgres_version.clone(),
    });
    let instance = graph.add(DbInstance {
        label: stack.label("database", "instance", 63),
        aws: stack.aws.clone(),
        settings: settings.clone(),
        subnet_group,
        parameter_group,
        security_group: network.groups.database.clone(),
        final_snapshot: settings.final_snapshot && stack.environment.sandbox.is_none(),
    });
    let application_secret = graph.add(Secret {
        label: stack.label("database", "application-secret", 512),
        aws: stack.aws.clone(),
        description: "Database user of the services",
        value: FirstValue::Generated {
            key: "password",
            with: vec![("username", APPLICATION_USER.into())],
        },
    });
    let proxy = add_proxy(graph, stack, network, &application_secret);
    let proxy_target = graph.add(DbProxyTarget {
        label: stack.label("database", "proxy-target", 63),
        aws: stack.aws.clone(),
        proxy: proxy.clone(),
        instance: instance.clone(),
    });
    Database { instance, proxy, proxy_target, application_secret }
}

fn add_proxy(
    graph: &mut Graph,
    stack: &Stack,
    network: &Network,
    secret: &Handle<Secret>,
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
        database: stack.label("database", "instance", 63).name,
        database_class: stack.environment.database.instance_class.clone(),
    })
}
