//! The `CloudFront` function on viewer requests.

use async_trait::async_trait;
use aws_sdk_cloudfront::{
    primitives::Blob,
    types::{FunctionConfig, FunctionRuntime, FunctionStage},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, cloudfront::tags, failed, not_found_is_none},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// What viewer requests go through: extension-less paths outside the service become `/index.html`.
pub const VIEWER_REQUEST: &str = include_str!("viewer_request.js");

/// A function, published.
pub struct Function {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Its source, at most 10 KB.
    pub code: &'static str,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct FunctionOutput {
    /// `arn:aws:cloudfront::…:function/…`.
    pub arn: String,
}

#[async_trait]
impl Resource for Function {
    type Output = FunctionOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<FunctionOutput>>, Error> {
        let client = &self.aws.cloudfront.client;
        let describe = client.describe_function().name(&self.label.name);
        let answer = describe.stage(FunctionStage::Development).send().await;
        let answer = not_found_is_none(answer.map_err(failed("cloudfront:DescribeFunction")))?;
        let Some(summary) = answer.and_then(|answer| answer.function_summary) else {
            return Ok(None);
        };
        let arn = summary.function_metadata().map(|metadata| metadata.function_arn().to_owned());
        let arn = arn.unwrap_or_default();
        let tags = self.aws.cloudfront.tags_of(&arn).await?;
        self.label.adopt(&tags)?;
        let get = client.get_function().name(&self.label.name).stage(FunctionStage::Live);
        let live = get.send().await.map_err(failed("cloudfront:GetFunction"));
        let code = not_found_is_none(live)?.and_then(|live| live.function_code);
        Ok(Some(Live {
            properties: json!({
                "runtime": summary.function_config().map(|config| config.runtime().as_str()),
                // Of the published stage: none before the first publication.
                "liveCode": code.map(|code| fingerprint(code.as_ref())),
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: FunctionOutput { arn },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "runtime": FunctionRuntime::CloudfrontJs20.as_str(),
            "liveCode": fingerprint(self.code.as_bytes()),
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<FunctionOutput>, Error> {
        let created = self
            .aws
            .cloudfront
            .client
            .create_function()
            .name(&self.label.name)
            .function_config(self.config()?)
            .function_code(Blob::new(self.code))
            .tags(tags(&self.label)?)
            .send()
            .await
            .map_err(failed("cloudfront:CreateFunction"))?;
        // Killed before this, the next run's comparison finds no live code.
        self.publish(created.e_tag).await?;
        let metadata = created.function_summary.and_then(|summary| summary.function_metadata);
        let arn = metadata.map(|metadata| metadata.function_arn);
        Ok(Some(FunctionOutput { arn: arn.unwrap_or_default() }))
    }

    async fn update(
        &self,
        live: &Live<FunctionOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "runtime") || touches(fields, "liveCode") {
            self.aws
                .cloudfront
                .client
                .update_function()
                .name(&self.label.name)
                .set_if_match(self.e_tag().await?)
                .function_config(self.config()?)
                .function_code(Blob::new(self.code))
                .send()
                .await
                .map_err(failed("cloudfront:UpdateFunction"))?;
            // Read anew: not every endpoint answers an update with the version it made.
            self.publish(self.e_tag().await?).await?;
        }
        if touches(fields, "tags") {
            self.aws.cloudfront.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<FunctionOutput>) -> Result<(), Error> {
        let e_tag = self.e_tag().await?;
        let delete = self.aws.cloudfront.client.delete_function();
        let delete = delete.name(&self.label.name).set_if_match(e_tag);
        delete.send().await.map_err(failed("cloudfront:DeleteFunction"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "cloudfront:DeleteFunction",
            "cloudfront:DescribeFunction",
            "cloudfront:GetFunction",
            "cloudfront:ListTagsForResource",
            "cloudfront:PublishFunction",
            "cloudfront:TagResource",
            "cloudfront:UpdateFunction",
        ];
        let function = self.aws.global_arn("cloudfront", &format!("function/{}", self.label.name));
        vec![
            Permission::anywhere(["cloudfront:CreateFunction"])
                .only_if(self.label.request_tagged()),
            Permission::on(actions, [function]),
        ]
    }
}

impl Function {
    fn config(&self) -> Result<FunctionConfig, Error> {
        FunctionConfig::builder()
            .comment(&self.label.name)
            .runtime(FunctionRuntime::CloudfrontJs20)
            .build()
            .map_err(built("cloudfront:CreateFunction"))
    }

    /// The version of the development stage, which all changes start from.
    async fn e_tag(&self) -> Result<Option<String>, Error> {
        let describe = self.aws.cloudfront.client.describe_function().name(&self.label.name);
        let describe = describe.stage(FunctionStage::Development).send();
        Ok(describe.await.map_err(failed("cloudfront:DescribeFunction"))?.e_tag)
    }

    async fn publish(&self, e_tag: Option<String>) -> Result<(), Error> {
        self.aws
            .cloudfront
            .client
            .publish_function()
            .name(&self.label.name)
            .set_if_match(e_tag)
            .send()
            .await
            .map_err(failed("cloudfront:PublishFunction"))?;
        Ok(())
    }
}

/// First 16 hexadecimal digits of the SHA-256.
fn fingerprint(code: &[u8]) -> String {
    hex::encode(&Sha256::digest(code)[..8])
}
