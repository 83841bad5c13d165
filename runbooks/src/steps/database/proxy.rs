//! RDS Proxy.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_rds::types::{
    AuthScheme, ClientPasswordAuthType, DbInstance, DbProxy as LiveProxy, DbProxyStatus,
    EngineFamily, IamAuthMode, UserAuthConfig,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::secret::Secret;
use crate::{
    aws::{Aws, Label, failed, rds::tags},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
    steps::{
        compute::role::Role,
        network::{security_group::SecurityGroup, subnet::Subnet},
    },
};

/// Seconds after which an idle client is let go.
const IDLE_CLIENT_TIMEOUT: i32 = 1800;

/// The member of a live proxy that its price follows from: the classes of the instances behind it. It
/// is not compared.
const CLASSES: &str = "dbInstanceClasses";

/// The connection pool in front of the database; it speaks TLS only.
pub struct DbProxy {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Where it stands.
    pub subnets: Vec<Handle<Subnet>>,
    /// Who may connect.
    pub security_group: Handle<SecurityGroup>,
    /// With which it reads the secret.
    pub role: Handle<Role>,
    /// The user as whom the application connects.
    pub secret: Handle<Secret>,
    /// Names of the instances behind it, by whose size it is paid.
    pub instances: Vec<String>,
    /// The class that they should have.
    pub instance_class: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DbProxyOutput {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Host name.
    pub endpoint: String,
}

#[async_trait]
impl Resource for DbProxy {
    type Output = DbProxyOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = vec![self.security_group.id(), self.role.id(), self.secret.id()];
        needs.extend(self.subnets.iter().map(Handle::id));
        needs
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DbProxyOutput>>, Error> {
        let proxies = self.aws.rds.proxies(since).await?;
        let Some(proxy) = proxies.iter().find(|p| p.db_proxy_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let output = output(proxy);
        let tags = self.aws.rds.tags(&output.arn).await?;
        self.label.adopt(&tags)?;
        let mut properties = properties(proxy);
        properties["tags"] = json!(tags);
        let condition = condition(proxy.status());
        if condition == Condition::Ready {
            let instances = self.aws.rds.instances(since).await?;
            let behind = instances.iter().filter(|instance| {
                let id = instance.db_instance_identifier().unwrap_or_default();
                self.instances.iter().any(|name| name == id)
            });
            properties[CLASSES] = behind.filter_map(DbInstance::db_instance_class).collect();
        }
        Ok(Some(Live { output, properties, condition }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let subnets = self.subnets.iter().map(|s| outputs.show(s, |s| s.id.clone()));
        let mut subnets: Vec<_> =
            subnets.map(|id| id.as_str().unwrap_or_default().to_owned()).collect();
        subnets.sort_unstable();
        json!({
            "engineFamily": "POSTGRESQL",
            "requireTLS": true,
            "idleClientTimeout": IDLE_CLIENT_TIMEOUT,
            "debugLogging": false,
            "roleArn": outputs.show(&self.role, |role| role.arn.clone()),
            "auth": [{
                "authScheme": "SECRETS",
                "secretArn": outputs.show(&self.secret, |secret| secret.arn.clone()),
                "iamAuth": "DISABLED",
                "clientPasswordAuthType": "POSTGRES_SCRAM_SHA_256",
            }],
            "vpcSecurityGroupIds": [outputs.show(&self.security_group, |group| group.id.clone())],
            "vpcSubnetIds": subnets,
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("engineFamily", "a proxy speaks one protocol"),
            ("vpcSubnetIds", "a proxy stays in its subnets"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DbProxyOutput>, Error> {
        let mut create = self
            .aws
            .rds
            .client
            .create_db_proxy()
            .db_proxy_name(&self.label.name)
            .engine_family(EngineFamily::Postgresql)
            .require_tls(true)
            .idle_client_timeout(IDLE_CLIENT_TIMEOUT)
            .debug_logging(false)
            .role_arn(outputs.get(&self.role)?.arn)
            .auth(self.auth(outputs)?)
            .vpc_security_group_ids(outputs.get(&self.security_group)?.id)
            .set_tags(Some(tags(&self.label)));
        for subnet in &self.subnets {
            create = create.vpc_subnet_ids(outputs.get(subnet)?.id);
        }
        let created = create.send().await.map_err(failed("rds:CreateDBProxy"))?;
        let proxy = created.db_proxy();
        let ready = proxy.filter(|proxy| proxy.status() == Some(&DbProxyStatus::Available));
        Ok(ready.map(output))
    }

    async fn update(
        &self,
        live: &Live<DbProxyOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            self.aws
                .rds
                .client
                .modify_db_proxy()
                .db_proxy_name(&self.label.name)
                .require_tls(true)
                .idle_client_timeout(IDLE_CLIENT_TIMEOUT)
                .debug_logging(false)
                .role_arn(outputs.get(&self.role)?.arn)
                .auth(self.auth(outputs)?)
                .security_groups(outputs.get(&self.security_group)?.id)
                .send()
                .await
                .map_err(failed("rds:ModifyDBProxy"))?;
        }
        if touches(fields, "tags") {
            self.aws.rds.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<DbProxyOutput>) -> Result<(), Error> {
        let delete = self.aws.rds.client.delete_db_proxy().db_proxy_name(&live.output.name);
        delete.send().await.map_err(failed("rds:DeleteDBProxy"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        // Their ids are generated.
        let proxies = self.aws.arn("rds", "db-proxy:*");
        vec![
            Permission::anywhere(["rds:DescribeDBProxies"]),
            Permission::anywhere(["rds:CreateDBProxy"]).only_if(self.label.request_tagged()),
            Permission::on(["rds:AddTagsToResource"], [proxies.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["rds:ListTagsForResource"], [proxies.clone()]),
            Permission::on(["rds:DeleteDBProxy", "rds:ModifyDBProxy"], [proxies])
                .only_if(self.label.resource_tagged()),
        ]
    }

    fn typical(&self) -> Duration {
        Duration::from_mins(4)
    }

    /// For each vCPU of the instances behind it.
    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        let live = properties[CLASSES].as_array().filter(|classes| !classes.is_empty());
        let vcpus: Option<f64> = match live {
            Some(classes) => classes.iter().map(|class| vcpus(class.as_str()?)).sum(),
            None => self.instances.iter().map(|_| vcpus(&self.instance_class)).sum(),
        };
        Some(Prices::of(&self.aws.region).monthly(Item::DbProxyVcpu)? * vcpus?)
    }
}

impl DbProxy {
    fn auth(&self, outputs: &Outputs) -> Result<UserAuthConfig, Error> {
        Ok(UserAuthConfig::builder()
            .auth_scheme(AuthScheme::Secrets)
            .secret_arn(outputs.get(&self.secret)?.arn)
            .iam_auth(IamAuthMode::Disabled)
            .client_password_auth_type(ClientPasswordAuthType::PostgresScramSha256)
            .build())
    }
}

fn output(proxy: &LiveProxy) -> DbProxyOutput {
    DbProxyOutput {
        name: proxy.db_proxy_name().unwrap_or_default().to_owned(),
        arn: proxy.db_proxy_arn().unwrap_or_default().to_owned(),
        endpoint: proxy.endpoint().unwrap_or_default().to_owned(),
    }
}

fn properties(proxy: &LiveProxy) -> Value {
    let auth = proxy.auth().iter().map(|auth| {
        json!({
            "authScheme": auth.auth_scheme().map(AuthScheme::as_str),
            "secretArn": auth.secret_arn(),
            "iamAuth": auth.iam_auth().map(IamAuthMode::as_str),
            "clientPasswordAuthType":
                auth.client_password_auth_type().map(ClientPasswordAuthType::as_str),
        })
    });
    let mut subnets = proxy.vpc_subnet_ids().to_vec();
    subnets.sort_unstable();
    let mut groups = proxy.vpc_security_group_ids().to_vec();
    groups.sort_unstable();
    json!({
        "engineFamily": proxy.engine_family(),
        "requireTLS": proxy.require_tls(),
        "idleClientTimeout": proxy.idle_client_timeout(),
        "debugLogging": proxy.debug_logging(),
        "roleArn": proxy.role_arn(),
        "auth": auth.collect::<Vec<_>>(),
        "vpcSecurityGroupIds": groups,
        "vpcSubnetIds": subnets,
    })
}

/// vCPUs of an instance class by its size ("Hardware specifications for DB instance classes", RDS user
/// guide); nothing for a size that does not tell, such as `metal`.
fn vcpus(class: &str) -> Option<f64> {
    match class.rsplit('.').next().unwrap_or_default() {
        "micro" | "small" | "medium" | "large" => Some(2.0),
        "xlarge" => Some(4.0),
        size => Some(4.0 * size.strip_suffix("xlarge")?.parse::<f64>().ok()?),
    }
}

fn condition(status: Option<&DbProxyStatus>) -> Condition {
    let word = status.map_or("unknown", DbProxyStatus::as_str);
    match status {
        Some(DbProxyStatus::Available) => Condition::Ready,
        Some(DbProxyStatus::Modifying) => Condition::Usable,
        Some(DbProxyStatus::Deleting) => Condition::Deleting(word.into()),
        Some(DbProxyStatus::IncompatibleNetwork | DbProxyStatus::InsufficientResourceLimits) => {
            Condition::Failed(word.into())
        }
        _ => Condition::Pending(word.into()),
    }
}
