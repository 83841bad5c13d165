//! An IAM role: whom it trusts, AWS's policies that it carries, and one inline policy of ours.

use async_trait::async_trait;
use aws_sdk_iam::types::RoleDetail;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label, failed,
        iam::{document, live_tags, tags},
        not_found_is_none,
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// Name of the one inline policy of every role.
const POLICY: &str = "bme";

/// A role. Something that assumes it may be refused for 5 to 15 s after its creation; that refusal is
/// what the engine repeats for a minute (trap 6).
pub struct Role {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The trust policy: [`trusts`] for a service.
    pub trust: Value,
    /// ARNs of managed policies.
    pub managed_policies: Vec<String>,
    /// The inline policy; `json!({…}).into()` for one whose ARNs are known beforehand.
    pub policy: Policy,
}

/// The inline policy of a role.
pub enum Policy {
    /// None.
    None,
    /// A document that names what it allows by names that we choose.
    Fixed(Value),
    /// A document that names ids which AWS chooses.
    From {
        /// What the document reads.
        needs: Vec<ResourceId>,
        /// The document.
        document: Box<dyn Fn(&Outputs) -> Value + Send + Sync>,
    },
}

impl From<Value> for Policy {
    fn from(document: Value) -> Self {
        Self::Fixed(document)
    }
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct RoleOutput {
    /// `arn:aws:iam::…:role/…`.
    pub arn: String,
    /// Its name.
    pub name: String,
}

/// The trust policy for an AWS service, for instance `ecs-tasks.amazonaws.com`, acting for this
/// account only: a service that acts for somebody else's account can't be talked into using the role
/// ("confused deputy" in the IAM user guide).
pub fn trusts(service: &str, account: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }],
    })
}

#[async_trait]
impl Resource for Role {
    type Output = RoleOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        match &self.policy {
            Policy::None | Policy::Fixed(_) => Vec::new(),
            Policy::From { needs, .. } => needs.clone(),
        }
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<RoleOutput>>, Error> {
        let roles = self.aws.iam.roles(since).await?;
        let Some(role) = roles.iter().find(|role| role.role_name() == Some(&self.label.name))
        else {
            return Ok(None);
        };
        let live = live_tags(role.tags());
        self.label.adopt(&live)?;
        Ok(Some(Live {
            properties: json!({
                "assumeRolePolicyDocument": document(role.assume_role_policy_document().unwrap_or_default()),
                "managedPolicies": attached(role),
                "policy": inline(role),
                "tags": live,
            }),
            condition: Condition::Ready,
            output: self.output(role.arn().unwrap_or_default()),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let attached: Map<_, _> =
            self.managed_policies.iter().map(|arn| (arn.clone(), Value::Bool(true))).collect();
        json!({
            "assumeRolePolicyDocument": self.trust,
            "managedPolicies": attached,
            "policy": self.document(outputs),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<RoleOutput>, Error> {
        let created = self
            .aws
            .iam
            .client
            .create_role()
            .role_name(&self.label.name)
            .assume_role_policy_document(self.trust.to_string())
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed("iam:CreateRole"))?;
        // Killed between these, the next run's comparison finds the missing policy.
        self.put_policy(outputs).await?;
        for arn in &self.managed_policies {
            self.attach(arn).await?;
        }
        Ok(Some(self.output(created.role().map_or("", aws_sdk_iam::types::Role::arn))))
    }

    async fn update(
        &self,
        live: &Live<RoleOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "assumeRolePolicyDocument") {
            let update =
                self.aws.iam.client.update_assume_role_policy().role_name(&self.label.name);
            let update = update.policy_document(self.trust.to_string());
            update.send().await.map_err(failed("iam:UpdateAssumeRolePolicy"))?;
        }
        if touches(fields, "policy") {
            self.put_policy(outputs).await?;
        }
        if touches(fields, "managedPolicies") {
            let attached = live.properties["managedPolicies"].as_object();
            for arn in attached.into_iter().flat_map(Map::keys) {
                if !self.managed_policies.contains(arn) {
                    self.detach(arn).await?;
                }
            }
            for arn in &self.managed_policies {
                self.attach(arn).await?;
            }
        }
        if touches(fields, "tags") {
            let tag = self.aws.iam.client.tag_role().role_name(&self.label.name);
            tag.set_tags(Some(tags(&self.label)?)).send().await.map_err(failed("iam:TagRole"))?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<RoleOutput>) -> Result<(), Error> {
        // A role goes only when nothing is attached to it any more.
        let attached = live.properties["managedPolicies"].as_object();
        for arn in attached.into_iter().flat_map(Map::keys) {
            not_found_is_none(self.detach(arn).await)?;
        }
        not_found_is_none(self.delete_policy().await)?;
        let delete = self.aws.iam.client.delete_role().role_name(&self.label.name);
        delete.send().await.map_err(failed("iam:DeleteRole"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "iam:CreateRole",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:DetachRolePolicy",
            "iam:PutRolePolicy",
            "iam:TagRole",
            "iam:UpdateAssumeRolePolicy",
        ];
        let role = self.aws.global_arn("iam", &format!("role/{}", self.label.name));
        let mut permissions = vec![
            Permission::anywhere(["iam:GetAccountAuthorizationDetails"]),
            Permission::on(actions, [role.clone()]),
        ];
        if !self.managed_policies.is_empty() {
            let these = json!({ "ArnEquals": { "iam:PolicyARN": self.managed_policies } });
            let attach = Permission::on(["iam:AttachRolePolicy"], [role.clone()]);
            permissions.push(attach.only_if(these));
        }
        // Whoever makes what works with the role hands it over.
        if let Some(service) = self.trust["Statement"][0]["Principal"]["Service"].as_str() {
            let service = json!({ "StringEquals": { "iam:PassedToService": service } });
            permissions.push(Permission::on(["iam:PassRole"], [role]).only_if(service));
        }
        permissions
    }
}

impl Role {
    fn output(&self, arn: &str) -> RoleOutput {
        RoleOutput { arn: arn.to_owned(), name: self.label.name.clone() }
    }

    fn document(&self, outputs: &Outputs) -> Value {
        match &self.policy {
            Policy::None => Value::Null,
            Policy::Fixed(document) => document.clone(),
            Policy::From { document, .. } => document(outputs),
        }
    }

    async fn put_policy(&self, outputs: &Outputs) -> Result<(), Error> {
        let document = self.document(outputs);
        if document.is_null() {
            not_found_is_none(self.delete_policy().await)?;
            return Ok(());
        }
        self.aws
            .iam
            .client
            .put_role_policy()
            .role_name(&self.label.name)
            .policy_name(POLICY)
            .policy_document(document.to_string())
            .send()
            .await
            .map_err(failed("iam:PutRolePolicy"))?;
        Ok(())
    }

    async fn delete_policy(&self) -> Result<(), Error> {
        let delete = self.aws.iam.client.delete_role_policy().role_name(&self.label.name);
        delete.policy_name(POLICY).send().await.map_err(failed("iam:DeleteRolePolicy"))?;
        Ok(())
    }

    async fn attach(&self, arn: &str) -> Result<(), Error> {
        let attach = self.aws.iam.client.attach_role_policy().role_name(&self.label.name);
        attach.policy_arn(arn).send().await.map_err(failed("iam:AttachRolePolicy"))?;
        Ok(())
    }

    async fn detach(&self, arn: &str) -> Result<(), Error> {
        let detach = self.aws.iam.client.detach_role_policy().role_name(&self.label.name);
        detach.policy_arn(arn).send().await.map_err(failed("iam:DetachRolePolicy"))?;
        Ok(())
    }
}

fn attached(role: &RoleDetail) -> Map<String, Value> {
    role.attached_managed_policies()
        .iter()
        .filter_map(|policy| Some((policy.policy_arn()?.to_owned(), Value::Bool(true))))
        .collect()
}

fn inline(role: &RoleDetail) -> Value {
    role.role_policy_list()
        .iter()
        .find(|policy| policy.policy_name() == Some(POLICY))
        .map_or(Value::Null, |policy| document(policy.policy_document().unwrap_or_default()))
}
