//! A secret in Secrets Manager, used by several steps.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label, failed,
        secretsmanager::{live_tags, tags},
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Difference, Field, diff, touches},
    },
    prices::{Item, Prices},
};

/// A secret whose value is made once, at its creation, and from then on belongs to whoever rotates
/// it: it is never compared, never made anew, and never part of a plan (trap 11).
pub struct Secret {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What it is for.
    pub description: &'static str,
    /// Its first value.
    pub value: FirstValue,
}

/// The value a secret is created with: always a JSON object, of which ECS can pick members.
pub enum FirstValue {
    /// `{"key": "64 random letters and digits"}` and the members that are no secret.
    Generated {
        /// The member that is random.
        key: &'static str,
        /// Members besides it.
        with: Vec<(&'static str, String)>,
    },
    /// `{"key": ""}`, which a person fills in.
    Empty {
        /// The member to fill in.
        key: &'static str,
    },
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct SecretOutput {
    /// ARN, with the six characters that AWS adds to the name.
    pub arn: String,
    /// Name.
    pub name: String,
    /// Id of the current version.
    pub version_id: String,
    /// First 16 hexadecimal digits of the SHA-256 of the value; empty when it may not be read.
    pub fingerprint: String,
}

/// Characters of a generated value: letters and digits only, since Redis AUTH, connection strings
/// and HTTP headers each forbid some punctuation. 64 of them carry 381 bits.
const CHARACTERS: i64 = 64;

/// Days in which a deleted secret can be restored, the least that AWS allows.
const RECOVERY_DAYS: i64 = 7;

#[async_trait]
impl Resource for Secret {
    type Output = SecretOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<SecretOutput>>, Error> {
        let service = &self.aws.secretsmanager;
        let found = service.secret(&self.label.name).await?;
        let Some(secret) = found.filter(|secret| secret.deleted_date().is_none()) else {
            return Ok(None);
        };
        self.label.adopt(&live_tags(secret.tags()))?;
        let arn = secret.arn().unwrap_or_default().to_owned();
        let version =
            service.versions(&self.label.tags["bme:env"], since).await?.get(&arn).cloned();
        Ok(Some(Live {
            properties: json!({
                "description": secret.description(),
                "tags": live_tags(secret.tags()),
            }),
            condition: Condition::Ready,
            output: SecretOutput {
                name: self.label.name.clone(),
                version_id: version.as_ref().map(|v| v.id.clone()).unwrap_or_default(),
                fingerprint: version.map(|v| v.fingerprint).unwrap_or_default(),
                arn,
            },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({ "description": self.description, "tags": self.label.tags() })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SecretOutput>, Error> {
        // A name stays taken while its secret waits to be deleted: take that one back, value and all.
        let found = self.aws.secretsmanager.secret(&self.label.name).await?;
        if let Some(waiting) = found.filter(|secret| secret.deleted_date().is_some()) {
            self.label.adopt(&live_tags(waiting.tags()))?;
            let restore =
                self.aws.secretsmanager.client.restore_secret().secret_id(&self.label.name);
            restore.send().await.map_err(failed("secretsmanager:RestoreSecret"))?;
            let Some(live) = self.find(outputs, Instant::now()).await? else { return Ok(None) };
            // It comes back with the description and the tags that it was deleted with.
            if let Difference::Update(fields) = diff(&self.desired(outputs), &live.properties, &[])
            {
                self.update(&live, &fields, outputs).await?;
            }
            return Ok(Some(live.output));
        }
        let value = self.first_value().await?;
        let created = self
            .aws
            .secretsmanager
            .client
            .create_secret()
            .name(&self.label.name)
            .description(self.description)
            .client_request_token(self.label.token("1"))
            .set_tags(Some(tags(&self.label)))
            .secret_string(&value)
            .send()
            .await
            .map_err(failed("secretsmanager:CreateSecret"))?;
        Ok(Some(SecretOutput {
            arn: created.arn().unwrap_or_default().to_owned(),
            name: self.label.name.clone(),
            version_id: created.version_id().unwrap_or_default().to_owned(),
            fingerprint: crate::aws::secretsmanager::fingerprint(&value),
        }))
    }

    async fn update(
        &self,
        live: &Live<SecretOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let service = &self.aws.secretsmanager;
        if touches(fields, "description") {
            let update = service.client.update_secret().secret_id(&live.output.arn);
            update
                .description(self.description)
                .send()
                .await
                .map_err(failed("secretsmanager:UpdateSecret"))?;
        }
        if touches(fields, "tags") {
            service.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<SecretOutput>) -> Result<(), Error> {
        let delete = self.aws.secretsmanager.client.delete_secret().secret_id(&live.output.arn);
        delete
            .recovery_window_in_days(RECOVERY_DAYS)
            .send()
            .await
            .map_err(failed("secretsmanager:DeleteSecret"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "secretsmanager:CreateSecret",
            "secretsmanager:DeleteSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:RestoreSecret",
            "secretsmanager:TagResource",
            "secretsmanager:UpdateSecret",
        ];
        let mut permissions = vec![
            // Described by name, which is no ARN before the secret is there: it would be refused,
            // where "not found" is the answer.
            Permission::anywhere(["secretsmanager:DescribeSecret"]),
            Permission::anywhere([
                "secretsmanager:BatchGetSecretValue",
                "secretsmanager:ListSecrets",
            ]),
            Permission::on(actions, [self.aws.secret_arn(&self.label.name)]),
        ];
        if let FirstValue::Generated { .. } = self.value {
            permissions.push(Permission::anywhere(["secretsmanager:GetRandomPassword"]));
        }
        permissions
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn monthly_cost(&self, _: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).monthly(Item::Secret)
    }
}

impl Secret {
    async fn first_value(&self) -> Result<String, Error> {
        let mut members = Map::new();
        match &self.value {
            FirstValue::Empty { key } => {
                members.insert((*key).into(), "".into());
            }
            FirstValue::Generated { key, with } => {
                for (name, value) in with {
                    members.insert((*name).into(), value.as_str().into());
                }
                let random = self
                    .aws
                    .secretsmanager
                    .client
                    .get_random_password()
                    .password_length(CHARACTERS)
                    .exclude_punctuation(true)
                    .send()
                    .await
                    .map_err(failed("secretsmanager:GetRandomPassword"))?;
                let random = random.random_password().filter(|value| !value.is_empty());
                let random = random.ok_or_else(|| {
                    Error::fatal(
                        "secretsmanager:GetRandomPassword",
                        "no-password",
                        "no password came back",
                    )
                })?;
                members.insert((*key).into(), random.into());
            }
        }
        Ok(Value::Object(members).to_string())
    }
}
