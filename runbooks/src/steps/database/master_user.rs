//! The master user, whose password RDS makes, keeps in a secret and rotates: it is never seen here.

use aws_sdk_secretsmanager::{primitives::DateTime, types::RotationRulesType};
use serde_json::json;

use super::{parameter_group::Of, server::DbServerOutput};
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{Error, Permission},
};

/// Its name.
pub(super) const MASTER_USERNAME: &str = "bme";

/// The secrets of master passwords of this kind of server. RDS names each itself, and says in a tag
/// whose it is ("Password management with Secrets Manager", RDS and Aurora user guides).
#[derive(Debug, Clone, Copy)]
pub struct MasterSecret {
    /// How the names begin.
    pub name: &'static str,
    /// Key of the tag that holds the ARN of its server.
    pub owner: &'static str,
    /// What the ARN of its server names before its identifier.
    pub server: &'static str,
}

impl MasterSecret {
    /// Those of this kind.
    pub fn of(of: Of) -> Self {
        match of {
            Of::Instance => {
                Self { name: "rds!db-", owner: "aws:rds:primaryDBInstanceArn", server: "db" }
            }
            Of::Cluster => Self {
                name: "rds!cluster-",
                owner: "aws:rds:primaryDBClusterArn",
                server: "cluster",
            },
        }
    }

    /// The key of a policy's condition on the server.
    pub fn condition_key(self) -> String {
        format!("secretsmanager:ResourceTag/{}", self.owner)
    }

    /// What making the secret of the server of this ARN, and setting its rotation, asks for.
    pub(super) fn permissions(self, aws: &Aws, server: &str) -> [Permission; 3] {
        let secret = aws.arn("secretsmanager", &format!("secret:{}*", self.name));
        let key = self.condition_key();
        [
            // RDS makes the secret in the caller's name ("Permissions required for Secrets Manager
            // integration", RDS user guide); the id of Secrets Manager's own key is not known.
            Permission::on(
                ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
                [secret.clone()],
            ),
            Permission::on(["kms:DescribeKey"], [aws.arn("kms", "key/*")]),
            Permission::on(
                ["secretsmanager:DescribeSecret", "secretsmanager:RotateSecret"],
                [secret],
            )
            .only_if(json!({ "StringEquals": { (key): server } })),
        ]
    }
}

/// The rotation of the master password; nothing while there is no secret.
#[derive(Default)]
pub(super) struct Rotation {
    /// Days between two of them.
    pub days: Option<i64>,
    /// When the secret was changed last, its rotation included, seconds since 1970.
    pub changed: i64,
}

/// The rotation of the password, from the secret's own description.
pub(super) async fn rotation(aws: &Aws, secret: &str) -> Result<Rotation, Error> {
    if secret.is_empty() {
        return Ok(Rotation::default());
    }
    let describe = aws.secretsmanager.client.describe_secret().secret_id(secret);
    let described = describe.send().await.map_err(failed("secretsmanager:DescribeSecret"));
    let Some(secret) = not_found_is_none(described)? else { return Ok(Rotation::default()) };
    Ok(Rotation {
        days: secret.rotation_rules().and_then(RotationRulesType::automatically_after_days),
        changed: secret.last_changed_date().map_or(0, DateTime::secs),
    })
}

/// Sets the schedule; RDS does the rotating itself, without a function of ours (RDS user guide,
/// "Password management with Secrets Manager").
pub(super) async fn rotate(
    aws: &Aws,
    label: &Label,
    server: &DbServerOutput,
    days: i64,
) -> Result<(), Error> {
    let rules = RotationRulesType::builder().automatically_after_days(days).build();
    aws.secretsmanager
        .client
        .rotate_secret()
        .secret_id(&server.master_secret_arn)
        .client_request_token(rotation_token(label, server, days))
        .rotation_rules(rules)
        .rotate_immediately(false)
        .send()
        .await
        .map_err(failed("secretsmanager:RotateSecret"))?;
    Ok(())
}

/// The same when the call is repeated, another one for another schedule, and for one that comes back:
/// with a token that it has seen, Secrets Manager takes a call for one that it has carried out.
fn rotation_token(label: &Label, server: &DbServerOutput, days: i64) -> String {
    label.token(&format!("{} {} {days}", server.master_secret_arn, server.secret_changed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::ResourceId;

    #[test]
    fn another_schedule_has_another_token_and_the_same_call_the_same() {
        let id = ResourceId::new("database", "instance");
        let label = Label::new("demo", &BTreeMap::new(), id, "instance", 63);
        let mut server = DbServerOutput {
            id: "bme-demo-instance".into(),
            arn: String::new(),
            endpoint: String::new(),
            port: 5432,
            master_secret_arn: "arn:aws:secretsmanager:eu-west-1:1:secret:rds!db-x".into(),
            deletion_protection: false,
            created: 0,
            storage_gib: 20,
            secret_changed: 1,
        };
        let first = rotation_token(&label, &server, 30);
        assert_eq!(rotation_token(&label, &server, 30), first);
        assert_ne!(rotation_token(&label, &server, 7), first);
        // Set to 7 in between.
        server.secret_changed = 2;
        assert_ne!(rotation_token(&label, &server, 30), first);
    }
}
