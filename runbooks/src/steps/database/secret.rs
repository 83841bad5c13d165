//! A secret in Secrets Manager, used by several steps.

use async_trait::async_trait;
use aws_smithy_types::DateTime;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label, failed,
        secretsmanager::{live_tags, tags},
    },
    engine::{
        Class, Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
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
    /// When it was made, seconds since 1970; one that was deleted for good and made anew has none of the
    /// versions that its namesake had.
    pub created: i64,
    /// First 16 hexadecimal digits of the SHA-256 of the value; empty when it may not be read.
    pub fingerprint: String,
}

/// Characters of a generated value: letters and digits only, since Redis AUTH, connection strings
/// and HTTP headers each forbid some punctuation. 64 of them carry 381 bits.
const CHARACTERS: usize = 64;

/// What a generated value is made of.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The code, among others, of creating a secret whose name waits to be deleted ("scheduled for
/// deletion").
const WAITS_FOR_DELETION: &str = "InvalidRequestException";

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
                created: secret.created_date().map(DateTime::secs).unwrap_or_default(),
                fingerprint: version.map(|v| v.fingerprint).unwrap_or_default(),
                arn,
            },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({ "description": self.description, "tags": self.label.tags() })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<SecretOutput>, Error> {
        let value = self.first_value()?;
        let created = self
            .aws
            .secretsmanager
            .client
            .create_secret()
            .name(&self.label.name)
            .description(self.description)
            .set_tags(Some(tags(&self.label)))
            .secret_string(&value)
            .send()
            .await
            .map_err(failed("secretsmanager:CreateSecret"));
        let created = match created {
            Ok(created) => created,
            // The name is taken. So it is, too, when an earlier try was carried out and its answer lost.
            // The SDK draws another token for each call: a former one would be taken for the same call, and
            // that of a secret which waits to be deleted would seem to have made it.
            Err(error)
                if error.class == Class::AlreadyExists || error.code == WAITS_FOR_DELETION =>
            {
                return self.take_back(outputs, error).await;
            }
            Err(error) => return Err(error),
        };
        Ok(Some(SecretOutput {
            arn: created.arn().unwrap_or_default().to_owned(),
            name: self.label.name.clone(),
            version_id: created.version_id().unwrap_or_default().to_owned(),
            created: Timestamp::now().as_second(),
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
        vec![
            // Described by name, which is no ARN before the secret is there: it would be refused,
            // where "not found" is the answer.
            Permission::anywhere(["secretsmanager:DescribeSecret"]),
            Permission::anywhere([
                "secretsmanager:BatchGetSecretValue",
                "secretsmanager:ListSecrets",
            ]),
            Permission::on(actions, [self.aws.secret_arn(&self.label.name)]),
        ]
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn monthly_cost(&self, _: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).monthly(Item::Secret)
    }
}

impl Secret {
    /// A name stays taken while its secret waits to be deleted: takes that one back, value and all. One
    /// that lives is left to the engine, which looks for it and whose it is, as after every `refused`
    /// creation of what exists.
    async fn take_back(
        &self,
        outputs: &Outputs,
        refused: Error,
    ) -> Result<Option<SecretOutput>, Error> {
        let found = self.aws.secretsmanager.secret(&self.label.name).await?;
        let Some(waiting) = found.filter(|secret| secret.deleted_date().is_some()) else {
            return Err(refused);
        };
        self.label.adopt(&live_tags(waiting.tags()))?;
        let restore = self.aws.secretsmanager.client.restore_secret().secret_id(&self.label.name);
        restore.send().await.map_err(failed("secretsmanager:RestoreSecret"))?;
        let Some(live) = self.find(outputs, Instant::now()).await? else { return Ok(None) };
        // It comes back with the description and the tags that it was deleted with.
        if let Difference::Update(fields) = diff(&self.desired(outputs), &live.properties, &[]) {
            self.update(&live, &fields, outputs).await?;
        }
        Ok(Some(live.output))
    }

    fn first_value(&self) -> Result<String, Error> {
        let mut members = Map::new();
        match &self.value {
            FirstValue::Empty { key } => {
                members.insert((*key).into(), "".into());
            }
            FirstValue::Generated { key, with } => {
                for (name, value) in with {
                    members.insert((*name).into(), value.as_str().into());
                }
                members.insert((*key).into(), random()?.into());
            }
        }
        Ok(Value::Object(members).to_string())
    }
}

/// Characters drawn by the operating system, each as likely as any other.
fn random() -> Result<String, Error> {
    // The largest multiple of 62 that a byte holds: from there on the first ones would be likelier.
    const EVEN: u8 = 248;
    let mut text = String::with_capacity(CHARACTERS);
    while text.len() < CHARACTERS {
        let mut bytes = [0_u8; CHARACTERS];
        getrandom::fill(&mut bytes).map_err(|error| {
            let message = format!("the operating system gives no random bytes: {error}");
            Error::fatal("bme", "no-random-bytes", message)
                .with_hint("nothing was made; see that /dev/urandom is there, then run it again")
        })?;
        let missing = CHARACTERS - text.len();
        let drawn = bytes.iter().filter(|byte| **byte < EVEN).take(missing);
        text.extend(drawn.map(|byte| char::from(ALPHABET[usize::from(*byte % 62)])));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_values_are_long_enough_and_differ() {
        let values: Vec<_> = (0..100).map(|_| random().unwrap()).collect();
        for value in &values {
            assert_eq!(value.len(), CHARACTERS);
            assert!(value.bytes().all(|byte| ALPHABET.contains(&byte)), "{value}");
        }
        assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len());
        let used: BTreeSet<_> = values.iter().flat_map(|value| value.bytes()).collect();
        assert_eq!(used.len(), ALPHABET.len(), "6400 draws leave no character out");
    }
}
