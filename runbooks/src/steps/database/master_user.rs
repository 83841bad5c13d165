//! The master user, whose password RDS makes, keeps in a secret and rotates: it is never seen here.

use aws_sdk_secretsmanager::types::RotationRulesType;
use serde_json::json;

use super::parameter_group::Of;
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

/// Days between two rotations of the password, from the secret's own description.
pub(super) async fn rotation_days(aws: &Aws, secret: &str) -> Result<Option<i64>, Error> {
    if secret.is_empty() {
        return Ok(None);
    }
    let describe = aws.secretsmanager.client.describe_secret().secret_id(secret);
    let described = describe.send().await.map_err(failed("secretsmanager:DescribeSecret"));
    let rules = not_found_is_none(described)?.and_then(|secret| secret.rotation_rules);
    Ok(rules.and_then(|rules| rules.automatically_after_days))
}

/// Sets the schedule; RDS does the rotating itself, without a function of ours (RDS user guide,
/// "Password management with Secrets Manager").
pub(super) async fn rotate(aws: &Aws, label: &Label, secret: &str, days: i64) -> Result<(), Error> {
    let rules = RotationRulesType::builder().automatically_after_days(days).build();
    aws.secretsmanager
        .client
        .rotate_secret()
        .secret_id(secret)
        .client_request_token(label.token(secret))
        .rotation_rules(rules)
        .rotate_immediately(false)
        .send()
        .await
        .map_err(failed("secretsmanager:RotateSecret"))?;
    Ok(())
}
