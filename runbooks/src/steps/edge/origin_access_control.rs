//! Origin access control: `CloudFront` signs what it asks the bucket.

use async_trait::async_trait;
use aws_sdk_cloudfront::types::{
    OriginAccessControlConfig, OriginAccessControlOriginTypes, OriginAccessControlSigningBehaviors,
    OriginAccessControlSigningProtocols,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, failed},
    engine::{Condition, Error, Live, Outputs, Permission, Resource, ResourceId, diff::Field},
};

/// The origin access control. It takes no tags; its name is unique in the account.
pub struct OriginAccessControl {
    /// Id and name.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct OriginAccessControlOutput {
    /// `E…`.
    pub id: String,
}

#[async_trait]
impl Resource for OriginAccessControl {
    type Output = OriginAccessControlOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<OriginAccessControlOutput>>, Error> {
        let controls = self.aws.cloudfront.origin_access_controls(since).await?;
        Ok(controls.iter().find(|control| control.name() == self.label.name).map(|control| Live {
            properties: json!({
                "description": control.description(),
                "originType": control.origin_access_control_origin_type().as_str(),
                "signingBehavior": control.signing_behavior().as_str(),
                "signingProtocol": control.signing_protocol().as_str(),
            }),
            condition: Condition::Ready,
            output: OriginAccessControlOutput { id: control.id().to_owned() },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "description": self.description(),
            "originType": "s3",
            "signingBehavior": "always",
            "signingProtocol": "sigv4",
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<OriginAccessControlOutput>, Error> {
        let created = self
            .aws
            .cloudfront
            .client
            .create_origin_access_control()
            .origin_access_control_config(self.config()?)
            .send()
            .await
            .map_err(failed("cloudfront:CreateOriginAccessControl"))?;
        let id = created.origin_access_control().map(|control| control.id().to_owned());
        Ok(Some(OriginAccessControlOutput { id: id.unwrap_or_default() }))
    }

    async fn update(
        &self,
        live: &Live<OriginAccessControlOutput>,
        _: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let e_tag = self.e_tag(&live.output.id).await?;
        self.aws
            .cloudfront
            .client
            .update_origin_access_control()
            .id(&live.output.id)
            .set_if_match(e_tag)
            .origin_access_control_config(self.config()?)
            .send()
            .await
            .map_err(failed("cloudfront:UpdateOriginAccessControl"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<OriginAccessControlOutput>) -> Result<(), Error> {
        let e_tag = self.e_tag(&live.output.id).await?;
        let delete = self.aws.cloudfront.client.delete_origin_access_control();
        let delete = delete.id(&live.output.id).set_if_match(e_tag);
        delete.send().await.map_err(failed("cloudfront:DeleteOriginAccessControl"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "cloudfront:DeleteOriginAccessControl",
            "cloudfront:GetOriginAccessControl",
            "cloudfront:UpdateOriginAccessControl",
        ];
        vec![
            Permission::anywhere([
                "cloudfront:CreateOriginAccessControl",
                "cloudfront:ListOriginAccessControls",
            ]),
            // Their ids are generated.
            Permission::on(actions, [self.aws.global_arn("cloudfront", "origin-access-control/*")]),
        ]
    }
}

impl OriginAccessControl {
    fn description(&self) -> String {
        format!("{} reads its bucket", self.label.name)
    }

    fn config(&self) -> Result<OriginAccessControlConfig, Error> {
        OriginAccessControlConfig::builder()
            .name(&self.label.name)
            .description(self.description())
            .origin_access_control_origin_type(OriginAccessControlOriginTypes::S3)
            .signing_behavior(OriginAccessControlSigningBehaviors::Always)
            .signing_protocol(OriginAccessControlSigningProtocols::Sigv4)
            .build()
            .map_err(built("cloudfront:CreateOriginAccessControl"))
    }

    async fn e_tag(&self, id: &str) -> Result<Option<String>, Error> {
        let get = self.aws.cloudfront.client.get_origin_access_control().id(id);
        let answer = get.send().await.map_err(failed("cloudfront:GetOriginAccessControl"))?;
        Ok(answer.e_tag)
    }
}
