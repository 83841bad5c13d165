//! What is the same in the permissions of many resources: ARNs, conditions on our tags, tagging, and
//! the roles that services make for themselves.

use serde_json::{Value, json};

use super::{Aws, Label};
use crate::engine::Permission;

impl Aws {
    /// The ARN of what `rest` names in this account and region.
    pub fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.account)
    }

    /// The ARN of what `rest` names in this account, of a service or a thing that has no region.
    pub fn global_arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}::{}:{rest}", self.account)
    }

    /// The ARN of the secret `name`; six characters that Secrets Manager chooses end it.
    pub fn secret_arn(&self, name: &str) -> String {
        self.arn("secretsmanager", &format!("secret:{name}-??????"))
    }
}

impl Label {
    /// Of a call that makes something: it tags it as this environment's.
    pub fn request_tagged(&self) -> Value {
        json!({ "StringEquals": { "aws:RequestTag/bme:env": self.environment() } })
    }

    /// Of a call on something that is there: it is tagged as this environment's. What lost that tag
    /// can only be mended by somebody with wider rights.
    pub fn resource_tagged(&self) -> Value {
        json!({ "StringEquals": { "aws:ResourceTag/bme:env": self.environment() } })
    }
}

/// What tagging EC2 resources of `kind` takes: in the call that makes them ("Grant permission to tag
/// Amazon EC2 resources during creation", Amazon EC2 user guide), and later while they are ours.
pub fn tagging(aws: &Aws, label: &Label, kind: &str) -> [Permission; 2] {
    let tags = |kind: &str| Permission::on(["ec2:CreateTags"], [aws.arn("ec2", kind)]);
    [
        // What may be made is said by the permission to make it.
        tags("*/*").only_if(json!({
            "StringEquals": { "aws:RequestTag/bme:env": label.environment() },
            // There is such a key only while something is made.
            "StringLike": { "ec2:CreateAction": "*" },
        })),
        tags(&format!("{kind}/*")).only_if(label.resource_tagged()),
    ]
}

/// The first resource of a service in an account makes the role that the service works with, in the
/// name of whoever makes the resource ("Create a service-linked role", IAM user guide). The role's
/// path names the service, so that no condition has to.
pub fn service_linked_role(aws: &Aws, service: &str) -> Permission {
    let role = aws.global_arn("iam", &format!("role/aws-service-role/{service}/*"));
    Permission::on(["iam:CreateServiceLinkedRole"], [role])
}
