//! The typed form of `environments/NAME.toml`.
//!
//! The JSON schema of these types is what editors and `bme` itself check a file against
//! (`environments/schema.json`), so every limit that AWS sets is written here once, as a schema
//! attribute. Every field has a default that is sane for a staging environment; secrets are never
//! in the file, only the names of secrets.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Days that a log group may keep its events (`CloudWatch` Logs, `PutRetentionPolicy`).
const LOG_RETENTION_DAYS: [i32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

/// One environment: everything a team decides about its stack.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Name of the environment; part of every AWS name, hence lower case and at most 40 characters.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"), length(min = 2, max = 40))]
    pub name: String,
    /// Tags put on everything, besides `bme:env` and `bme:resource`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Where the environment lives.
    pub aws: Aws,
    /// Present only for an environment that runs on this machine.
    pub sandbox: Option<Sandbox>,
    /// Timings of the engine.
    #[serde(default)]
    pub engine: Engine,
    /// Step 1.
    #[serde(default)]
    pub network: Network,
    /// Step 2.
    #[serde(default)]
    pub database: Database,
    /// Step 3.
    #[serde(default)]
    pub cache: Cache,
    /// Step 4.
    #[serde(default)]
    pub compute: Compute,
    /// Step 5.
    #[serde(default)]
    pub queue: Queue,
    /// Step 6.
    #[serde(default)]
    pub identity: Identity,
    /// Step 7.
    #[serde(default)]
    pub edge: Edge,
    /// Step 8.
    #[serde(default)]
    pub firewall: Firewall,
    /// Step 9.
    #[serde(default)]
    pub observability: Observability,
    /// Step 10.
    #[serde(default)]
    pub delivery: Delivery,
}

/// Account, region and endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Region, for instance `eu-west-1`.
    #[schemars(regex(pattern = r"^[a-z]{2}(-[a-z]+)+-[0-9]$"))]
    pub region: String,
    /// The accounts that this environment may be applied to; any other identity is refused.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[0-9]{12}$")))]
    pub accounts: Vec<String>,
    /// Endpoint of every AWS service, for an emulator; `AWS_ENDPOINT_URL` wins over it.
    pub endpoint_url: Option<String>,
}

/// The sandbox on this machine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Where its state lives, relative to the directory above the environment files.
    #[serde(default = "Sandbox::default_directory")]
    pub directory: String,
    /// Port of the load balancer on 127.0.0.1.
    #[serde(default = "Sandbox::default_port")]
    #[schemars(range(min = 1024))]
    pub port: u16,
    /// Port of the AWS endpoint on 127.0.0.1.
    #[serde(default = "Sandbox::default_gateway_port")]
    #[schemars(range(min = 1024))]
    pub gateway_port: u16,
}

impl Sandbox {
    fn default_directory() -> String {
        ".bme/sandbox".into()
    }
    fn default_port() -> u16 {
        8080
    }
    fn default_gateway_port() -> u16 {
        4566
    }
}

/// Timings of the engine. The defaults suit AWS; tests shorten them here, never in code.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Calls in flight at once, over all services.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: usize,
    /// Pause between two looks at something pending, milliseconds; jittered by a third.
    #[schemars(range(min = 10, max = 60000))]
    pub poll_milliseconds: u64,
    /// Share of a resource's typical time that passes before the first look at it, percent.
    #[schemars(range(min = 0, max = 100))]
    pub first_look_percent: u32,
    /// First pause after a failed call, milliseconds; doubles with each try.
    #[schemars(range(min = 1, max = 60000))]
    pub backoff_milliseconds: u64,
    /// How long one class of transient errors is retried, seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub retry_seconds: u64,
    /// How long a pending resource may take, as a multiple of its typical time.
    #[schemars(range(min = 2, max = 100))]
    pub patience: u32,
    /// How long a deletion may take, seconds: network interfaces of load balancers and proxies
    /// linger for minutes after their owner is gone.
    #[schemars(range(min = 5, max = 7200))]
    pub deletion_seconds: u64,
    /// Lease of the lock, milliseconds.
    #[schemars(range(min = 500, max = 600_000))]
    pub lease_milliseconds: u64,
    /// Renewal of the lease, milliseconds; at most a third of the lease.
    #[schemars(range(min = 100, max = 200_000))]
    pub beat_milliseconds: u64,
    /// Read-after-write lag of AWS that is waited out after an unclean end, milliseconds.
    #[schemars(range(min = 0, max = 300_000))]
    pub lag_milliseconds: u64,
    /// How long a rollout may take before it is called failed, seconds.
    #[schemars(range(min = 5, max = 3600))]
    pub rollout_seconds: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            concurrency: 16,
            poll_milliseconds: 4000,
            first_look_percent: 80,
            backoff_milliseconds: 500,
            retry_seconds: 120,
            patience: 8,
            deletion_seconds: 1200,
            lease_milliseconds: 60_000,
            beat_milliseconds: 15_000,
            lag_milliseconds: 30_000,
            rollout_seconds: 600,
        }
    }
}

impl Environment {
    /// Who signs users in.
    pub fn auth(&self) -> Auth {
        let default = if self.sandbox.is_some() { Auth::Local } else { Auth::Cognito };
        self.identity.auth.unwrap_or(default)
    }

    /// The host name by which `CloudFront` calls the load balancer; none where it is the load
    /// balancer's own.
    pub fn origin_domain(&self) -> Option<String> {
        let made = || {
            self.edge.hosted_zone_id.as_ref()?;
            Some(format!("origin.{}", self.edge.domain.as_ref()?))
        };
        self.compute.domain.clone().or_else(made)
    }

    /// Whether the load balancer speaks HTTPS.
    pub fn load_balancer_tls(&self) -> bool {
        self.compute.certificate_arn.is_some() || self.edge.hosted_zone_id.is_some()
    }

    /// The tables of the file that forbid deletion.
    pub fn protected(&self) -> Vec<&'static str> {
        [
            ("[database]", self.database.deletion_protection),
            ("[compute]", self.compute.deletion_protection),
            ("[identity]", self.identity.deletion_protection),
        ]
        .into_iter()
        .filter_map(|(table, protected)| protected.then_some(table))
        .collect()
    }
}

/// How private subnets reach the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// One NAT gateway for all zones.
    Single,
    /// One NAT gateway in each zone.
    PerZone,
    /// None: only VPC endpoints lead out.
    None,
}

/// Step 1, `network`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Range of the VPC, /16 to /24.
    #[schemars(with = "String")]
    pub cidr: Ipv4Net,
    /// Number of availability zones.
    #[schemars(range(min = 2, max = 3))]
    pub zones: u8,
    /// Ranges of the public subnets, one for each zone; cut out of `cidr` when absent.
    #[schemars(with = "Option<Vec<String>>")]
    pub public_cidrs: Option<Vec<Ipv4Net>>,
    /// Ranges of the private subnets, one for each zone; cut out of `cidr` when absent.
    #[schemars(with = "Option<Vec<String>>")]
    pub private_cidrs: Option<Vec<Ipv4Net>>,
    /// NAT gateways.
    pub nat: Nat,
    /// Retention of the flow logs, days.
    #[schemars(extend("enum" = LOG_RETENTION_DAYS))]
    pub flow_log_retention_days: i32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            cidr: Ipv4Net::new_assert([10, 20, 0, 0].into(), 16),
            zones: 2,
            public_cidrs: None,
            private_cidrs: None,
            nat: Nat::Single,
            flow_log_retention_days: 14,
        }
    }
}

/// Engine of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseEngine {
    /// RDS for PostgreSQL: an instance with storage of its own.
    Postgres,
    /// Aurora PostgreSQL: instances over the storage of a cluster, which grows by itself.
    AuroraPostgresql,
}

/// Step 2, `database`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// RDS for PostgreSQL or Aurora PostgreSQL. Another engine is another database, without the data.
    pub engine: DatabaseEngine,
    /// Major version of PostgreSQL.
    #[schemars(regex(pattern = r"^1[4-8]$"))]
    pub postgres_version: String,
    /// Instance class.
    #[schemars(regex(pattern = r"^db\.[a-z0-9]+\.[a-z0-9]+$"))]
    pub instance_class: String,
    /// Storage, GiB; Aurora's grows by itself.
    #[schemars(range(min = 20, max = 65536))]
    pub storage_gib: i32,
    /// Name of the database.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]{0,62}$"))]
    pub name: String,
    /// A standby in another zone; of Aurora a second instance, which can be read from.
    pub multi_az: bool,
    /// Retention of automatic backups, days; of Aurora at least 1.
    #[schemars(range(min = 0, max = 35))]
    pub backup_retention_days: i32,
    /// Refuse deletion until it is switched off.
    pub deletion_protection: bool,
    /// Take a last snapshot when the database is deleted. The sandbox never does.
    pub final_snapshot: bool,
    /// Days between two rotations of the master password.
    #[schemars(range(min = 1, max = 1000))]
    pub rotation_days: i64,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            engine: DatabaseEngine::Postgres,
            postgres_version: "15".into(),
            instance_class: "db.t4g.micro".into(),
            storage_gib: 20,
            name: "bme".into(),
            multi_az: false,
            backup_retention_days: 7,
            deletion_protection: false,
            final_snapshot: true,
            rotation_days: 30,
        }
    }
}

/// Engine of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheEngine {
    /// Redis OSS 7.
    Redis,
    /// Valkey 8.
    Valkey,
}

/// Step 3, `cache`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Redis OSS or Valkey.
    pub engine: CacheEngine,
    /// Node type.
    #[schemars(regex(pattern = r"^cache\.[a-z0-9]+\.[a-z0-9]+$"))]
    pub node_type: String,
    /// Nodes; two or more turn on fail-over over two zones.
    #[schemars(range(min = 1, max = 6))]
    pub nodes: i32,
    /// Days that snapshots are kept; 0 for none.
    #[schemars(range(min = 0, max = 35))]
    pub snapshot_retention_days: i32,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            engine: CacheEngine::Redis,
            node_type: "cache.t4g.micro".into(),
            nodes: 1,
            snapshot_retention_days: 0,
        }
    }
}

/// One ECS service: size and number of tasks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tasks {
    /// CPU units; 256 is a quarter of a vCPU.
    #[schemars(range(min = 256, max = 16384))]
    pub cpu: i32,
    /// Memory, MiB.
    #[schemars(range(min = 512, max = 122_880))]
    pub memory: i32,
    /// Tasks that always run.
    #[schemars(range(min = 1, max = 100))]
    pub minimum: i32,
    /// Tasks that auto scaling may go up to.
    #[schemars(range(min = 1, max = 500))]
    pub maximum: i32,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { cpu: 256, memory: 512, minimum: 1, maximum: 4 }
    }
}

/// Step 4, `compute`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compute {
    /// The API service.
    pub api: Tasks,
    /// The voice-worker service.
    pub worker: Tasks,
    /// ECS Container Insights.
    pub container_insights: bool,
    /// Host name by which `CloudFront` calls the load balancer over HTTPS. With `hosted_zone_id` of
    /// `[edge]` it gets a certificate and a record, and is `origin.` and the domain when absent; with
    /// `certificate_arn` its record is yours to make.
    #[schemars(regex(pattern = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$"))]
    pub domain: Option<String>,
    /// ARN of an ACM certificate in this region: the listener speaks HTTPS with it. Without one, and
    /// without `hosted_zone_id` of `[edge]`, it speaks HTTP that only `CloudFront` reaches.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:acm:"))]
    pub certificate_arn: Option<String>,
    /// Refuse deletion of the load balancer until it is switched off.
    pub deletion_protection: bool,
    /// Images kept in the repository.
    #[schemars(range(min = 2, max = 1000))]
    pub images_kept: i32,
    /// The language model of voice jobs.
    pub gemini: Gemini,
    /// The Model Context Protocol endpoint.
    pub mcp: Mcp,
    /// Further environment variables of the containers.
    pub environment: BTreeMap<String, String>,
}

impl Default for Compute {
    fn default() -> Self {
        Self {
            api: Tasks::default(),
            worker: Tasks::default(),
            container_insights: true,
            domain: None,
            certificate_arn: None,
            deletion_protection: false,
            images_kept: 30,
            gemini: Gemini::default(),
            mcp: Mcp::default(),
            environment: BTreeMap::new(),
        }
    }
}

/// The language model of voice jobs. Its key is in the secret `bme-{env}-gemini-api-key`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gemini {
    /// Name of the model.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub model: String,
    /// Where it answers; Google's own address when absent, in a sandbox the sandbox's stand-in.
    #[schemars(regex(pattern = r"^https?://[^/]"))]
    pub base_url: Option<String>,
}

impl Default for Gemini {
    fn default() -> Self {
        Self { model: "gemini-2.5-flash".into(), base_url: None }
    }
}

/// The Model Context Protocol endpoint, `/mcp`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Id of the one user whose data the secret `bme-{env}-mcp-secret` opens; without it the secret
    /// opens nothing. For `auth = "local"` only: with Cognito each user comes with an own token.
    #[schemars(regex(pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub user: Option<String>,
    /// Tools that change something and are allowed: `add_goal`, `add_schedule_item`,
    /// `add_transaction`. Those that only read always are.
    #[schemars(inner(regex(pattern = r"^add_(goal|schedule_item|transaction)$")))]
    pub allowed_tools: Vec<String>,
}

/// Step 5, `queue`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Longest run of one voice job, seconds; the visibility timeout is six times that.
    #[schemars(range(min = 5, max = 7200))]
    pub job_timeout_seconds: i32,
    /// Receives before a message goes to the dead-letter queue.
    #[schemars(range(min = 1, max = 1000))]
    pub max_receives: i32,
    /// Who is told of alarms, by e-mail.
    pub alert_emails: Vec<String>,
    /// Age of the oldest message that raises an alarm, seconds.
    #[schemars(range(min = 30, max = 86400))]
    pub oldest_message_alarm_seconds: i32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            job_timeout_seconds: 60,
            max_receives: 8,
            alert_emails: Vec::new(),
            oldest_message_alarm_seconds: 300,
        }
    }
}

/// Who signs users in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// The service itself: own accounts and social sign-in.
    Local,
    /// Cognito; the service only checks its tokens, and has no accounts of its own.
    Cognito,
}

/// Step 6, `identity`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Who signs users in; Cognito when absent, in a sandbox the service itself.
    pub auth: Option<Auth>,
    /// Shortest password.
    #[schemars(range(min = 8, max = 99))]
    pub password_length: i32,
    /// Offer a second factor (TOTP).
    pub optional_mfa: bool,
    /// Refuse deletion of the user pool until it is switched off.
    pub deletion_protection: bool,
    /// Further callback URLs, besides the distribution's.
    pub callback_urls: Vec<String>,
    /// Name of the secret `{clientId, clientSecret}` of the Google client.
    pub google_secret: Option<String>,
    /// Name of the secret `{clientId, clientSecret}` of the Facebook app.
    pub facebook_secret: Option<String>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            auth: None,
            password_length: 12,
            optional_mfa: true,
            deletion_protection: false,
            callback_urls: Vec::new(),
            google_secret: None,
            facebook_secret: None,
        }
    }
}

/// Price class of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PriceClass {
    /// North America and Europe.
    #[serde(rename = "PriceClass_100")]
    Class100,
    /// Most regions.
    #[serde(rename = "PriceClass_200")]
    Class200,
    /// All edge locations.
    #[serde(rename = "PriceClass_All")]
    All,
}

/// Step 7, `edge`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    /// Price class of the distribution.
    pub price_class: PriceClass,
    /// Own domain of the distribution; needs `hosted_zone_id` or `certificate_arn`.
    #[schemars(regex(pattern = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$"))]
    pub domain: Option<String>,
    /// Id of the public Route 53 zone that `domain` is in: certificates for distribution and load
    /// balancer and all their records are made there.
    #[schemars(regex(pattern = r"^Z[A-Z0-9]{1,31}$"))]
    pub hosted_zone_id: Option<String>,
    /// ARN of an ACM certificate in us-east-1 for `domain`, instead of `hosted_zone_id`; the record
    /// is yours to make.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:acm:us-east-1:"))]
    pub certificate_arn: Option<String>,
    /// HSTS max-age, seconds.
    #[schemars(range(min = 0, max = 63_072_000))]
    pub hsts_seconds: i32,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            price_class: PriceClass::Class100,
            domain: None,
            hosted_zone_id: None,
            certificate_arn: None,
            hsts_seconds: 31_536_000,
        }
    }
}

/// Step 8, `firewall`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Firewall {
    /// Requests per address in five minutes before it is blocked.
    #[schemars(range(min = 10, max = 2_000_000_000))]
    pub rate_limit: i64,
    /// Largest body of `/api/voice/understand`, bytes.
    #[schemars(range(min = 8192, max = 10_485_760))]
    pub voice_body_bytes: u32,
    /// Retention of the firewall's log, days.
    #[schemars(extend("enum" = LOG_RETENTION_DAYS))]
    pub log_retention_days: i32,
}

impl Default for Firewall {
    fn default() -> Self {
        Self { rate_limit: 2000, voice_body_bytes: 2_097_152, log_retention_days: 14 }
    }
}

/// Step 9, `observability`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Observability {
    /// Retention of the services' logs, days.
    #[schemars(extend("enum" = LOG_RETENTION_DAYS))]
    pub log_retention_days: i32,
    /// Share of requests that are traced, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub trace_sampling: f64,
    /// p99 latency that raises an alarm, milliseconds.
    #[schemars(range(min = 10, max = 60000))]
    pub p99_alarm_milliseconds: i32,
    /// CPU or memory use that raises an alarm, percent.
    #[schemars(range(min = 10, max = 100))]
    pub utilization_alarm_percent: i32,
    /// Run the OpenTelemetry collector as a side-car of every task.
    pub collector: bool,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            log_retention_days: 30,
            trace_sampling: 0.05,
            p99_alarm_milliseconds: 1000,
            utilization_alarm_percent: 85,
            collector: true,
        }
    }
}

/// Step 10, `delivery`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// GitHub repository, `owner/name`, whose workflows may deploy.
    #[schemars(regex(pattern = r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$"))]
    pub repository: String,
    /// Git ref whose workflow may deploy: `refs/heads/main` or `refs/tags/v*`.
    #[schemars(regex(pattern = r"^refs/(heads|tags)/.+$"))]
    pub git_ref: String,
    /// An AWS `CodePipeline` that deploys, in place of the GitHub workflow.
    pub pipeline: Option<Pipeline>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { repository: "example/bme".into(), git_ref: "refs/heads/main".into(), pipeline: None }
    }
}

/// An AWS `CodePipeline` that deploys each push to a branch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// ARN of the connection by which AWS reads the repository. It is made, and confirmed at the
    /// repository's host, in the console: Developer Tools, Settings, Connections.
    #[schemars(regex(
        pattern = r"^arn:aws:(codeconnections|codestar-connections):[a-z0-9-]+:[0-9]{12}:connection/[A-Za-z0-9-]+$"
    ))]
    pub connection_arn: String,
    /// Repository as its host names it, `owner/name`; that of `[delivery]` when absent.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$"))]
    pub repository: Option<String>,
    /// Branch of which each push is deployed.
    #[serde(default = "Pipeline::default_branch")]
    #[schemars(regex(pattern = r"^[^/\s][^\s]*$"))]
    pub branch: String,
}

impl Pipeline {
    fn default_branch() -> String {
        "main".into()
    }
}
