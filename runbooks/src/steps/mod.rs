//! The ten steps of the runbook. They are views over one graph of resources: the order here is the
//! order in which handles become known, the engine's order follows from the needs alone.
//!
//! What a team sets itself stays. A resource holds the members that its desired state names; an
//! update that replaces more than those reads the rest first and writes it back. Where entries have
//! names (origins, behaviours, headers, rules of the firewall, lifecycle rules, widgets) ours are held
//! and come first, others are neither compared nor removed. Where one more entry would open a door
//! (rules of security groups, policies, callback URLs, aliases, error responses) the list is held as a
//! whole.

pub mod cache;
pub mod compute;
pub mod database;
pub mod delivery;
pub mod domain;
pub mod edge;
pub mod firewall;
pub mod identity;
pub mod network;
pub mod observability;
pub mod queue;

use std::time::Duration;

use crate::{
    aws::{Aws, Label},
    engine::{Error, Graph, Outputs, ResourceId},
    environment::{Environment, Nat, Pipeline},
    release::{self, Release},
};

/// Number, name and title of each step, in the order of the runbook.
pub const STEPS: [(u8, &str, &str); 10] = [
    (1, "network", "VPC and networking"),
    (2, "database", "RDS PostgreSQL and RDS Proxy"),
    (3, "cache", "ElastiCache"),
    (4, "compute", "ECS Fargate and load balancer"),
    (5, "queue", "SQS voice queue and alerts"),
    (6, "identity", "Cognito"),
    (7, "edge", "CloudFront and S3"),
    (8, "firewall", "WAF"),
    (9, "observability", "CloudWatch, X-Ray and Sentry"),
    (10, "delivery", "CI/CD"),
];

/// What a step is, for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What it makes.
    pub makes: &'static str,
    /// Why a stack needs that.
    pub why: &'static str,
    /// What comes first in it, and for what reason.
    pub order: &'static str,
    /// What can go wrong: how it shows, and what helps.
    pub trouble: &'static [(&'static str, &'static str)],
}

/// What the step of this name is.
pub fn about(step: &str) -> Option<&'static About> {
    Some(match step {
        "network" => &network::ABOUT,
        "database" => &database::ABOUT,
        "cache" => &cache::ABOUT,
        "compute" => &compute::ABOUT,
        "queue" => &queue::ABOUT,
        "identity" => &identity::ABOUT,
        "edge" => &edge::ABOUT,
        "firewall" => &firewall::ABOUT,
        "observability" => &observability::ABOUT,
        "delivery" => &delivery::ABOUT,
        _ => return None,
    })
}

/// What every step reads: the environment, the clients and the release that runs.
pub struct Stack {
    /// The environment file.
    pub environment: Environment,
    /// The clients.
    pub aws: Aws,
    /// The release that the ECS services run; none before the first deploy.
    pub release: Option<Release>,
    /// Certificate authorities of the sandbox, PEM, which the containers trust besides the public ones.
    pub sandbox_ca: Option<String>,
    /// With every way out of the VPC and every engine of the database at once and with former domains,
    /// see [`Stack::widest`].
    pub every_way_out: bool,
}

impl Stack {
    /// The stack of the widest file there can be, which has every resource that some file of this
    /// environment may have asked for. It is for finding and deleting, never for making.
    #[must_use]
    pub fn widest(mut self) -> Self {
        const ZONES: u8 = 3;
        const CACHE_NODES: i32 = 6;
        let Environment { network, database, cache, identity, delivery, .. } =
            &mut self.environment;
        network.zones = ZONES;
        network.nat = Nat::PerZone;
        (network.public_cidrs, network.private_cidrs) = (None, None);
        database.multi_az = true;
        cache.nodes = CACHE_NODES;
        for secret in [&mut identity.google_secret, &mut identity.facebook_secret] {
            secret.get_or_insert_with(|| "none".to_owned());
        }
        delivery.pipeline.get_or_insert_with(|| Pipeline {
            connection_arn: "none".to_owned(),
            repository: None,
            branch: "none".to_owned(),
        });
        self.every_way_out = true;
        self
    }

    /// How long something that was made may not be seen yet.
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.environment.engine.lag_milliseconds)
    }

    /// The label of `step/name`, whose AWS name is `bme-{env}-{name}` within `limit` characters.
    pub fn label(&self, step: &str, name: &str, limit: usize) -> Label {
        let Environment { name: environment, tags, .. } = &self.environment;
        Label::new(environment, tags, ResourceId::new(step, name), name, limit)
    }
}

/// The graph of everything that the environment asks for.
pub fn graph(stack: &Stack) -> Graph {
    steps(stack).graph
}

/// The ten steps in one graph, with the handles that a release reads.
pub struct Steps {
    /// Everything.
    pub graph: Graph,
    /// Step 1.
    pub network: network::Network,
    /// Step 2.
    pub database: database::Database,
    /// Step 3.
    pub cache: cache::Cache,
    /// What step 4 has before the first release.
    pub platform: compute::Platform,
    /// What a release runs.
    pub services: compute::Services,
    /// Step 7.
    pub edge: edge::Edge,
}

/// Adds the ten steps.
pub fn steps(stack: &Stack) -> Steps {
    let mut graph = Graph::default();
    let g = &mut graph;
    let logs = observability::add_log_groups(g, stack);
    let network = network::add(g, stack);
    let database = database::add(g, stack, &network);
    let cache = cache::add(g, stack, &network);
    let queue = queue::add(g, stack);
    let edge_secret = edge::add_origin_secret(g, stack);
    let platform = compute::add(g, stack, &network, &edge_secret);
    let edge = edge::add(g, stack, &platform, &edge_secret);
    let identity = identity::add(g, stack, &edge);
    let secrets = observability::add_secrets(g, stack);
    if stack.every_way_out {
        domain::add_former(g, stack);
    }
    let services = compute::add_services(
        g,
        stack,
        &compute::Wiring {
            network: &network,
            database: &database,
            cache: &cache,
            queue: &queue,
            platform: &platform,
            identity: &identity,
            edge: &edge,
            logs: &logs,
            observability: &secrets,
        },
    );
    firewall::add(g, stack, &platform);
    observability::add(g, stack, &platform, &services, &database, &cache, &queue);
    delivery::add(g, stack, &platform, &edge);
    Steps { graph, network, database, cache, platform, services, edge }
}

impl Steps {
    /// What a release needs of the graph's outputs.
    ///
    /// # Errors
    /// A step is not provisioned yet.
    pub fn platform(
        &self,
        stack: &Stack,
        outputs: &Outputs,
        url: String,
    ) -> Result<release::Platform, Error> {
        let name = |name: &str| stack.label("compute", name, 255).name;
        let subnets = self.network.private_subnets.iter();
        let secret = |secret: &compute::TaskSecret| -> Result<release::Secret, Error> {
            Ok(release::Secret {
                name: secret.name.clone(),
                arn: outputs.get(&secret.handle)?.arn,
                of_release: secret.version == compute::Version::OfRelease,
            })
        };
        Ok(release::Platform {
            cluster: outputs.get(&self.platform.cluster)?.name,
            repository: outputs.get(&self.platform.repository)?.uri,
            migrate_family: name("migrate"),
            subnets: subnets
                .map(|subnet| Ok(outputs.get(subnet)?.id))
                .collect::<Result<_, Error>>()?,
            security_groups: vec![outputs.get(&self.network.groups.api)?.id],
            services: vec![
                release::Service {
                    name: name("api"),
                    target_group: Some(outputs.get(&self.platform.target_group)?.arn),
                },
                release::Service { name: name("worker"), target_group: None },
            ],
            secrets: self
                .services
                .secrets
                .all()
                .into_iter()
                .map(secret)
                .collect::<Result<_, Error>>()?,
            web_bucket: outputs.get(&self.edge.bucket)?.name,
            url,
        })
    }
}
