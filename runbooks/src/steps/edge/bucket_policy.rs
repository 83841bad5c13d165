//! The policy of the web bucket: `CloudFront` may read for one distribution, nobody else may.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{bucket::Bucket, distribution::Distribution};
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
};

/// The bucket's policy.
pub struct BucketPolicy {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The bucket.
    pub bucket: Handle<Bucket>,
    /// Its name.
    pub bucket_name: String,
    /// The distribution that may read it.
    pub distribution: Handle<Distribution>,
}

#[async_trait]
impl Resource for BucketPolicy {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.bucket.id(), self.distribution.id()]
    }

    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        let Some(bucket) = outputs.when_observed(&self.bucket).await else { return Ok(None) };
        let get = self.aws.s3.client.get_bucket_policy().bucket(&bucket.name);
        let answer = not_found_is_none(get.send().await.map_err(failed("s3:GetBucketPolicy")))?;
        Ok(answer.and_then(|answer| answer.policy).map(|policy| Live {
            // A document that is no JSON counts as none, hence is written anew.
            properties: json!({
                "bucket": bucket.name,
                "policy": serde_json::from_str::<Value>(&policy).unwrap_or_default(),
            }),
            condition: Condition::Ready,
            output: (),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "bucket": outputs.show(&self.bucket, |bucket| bucket.name.clone()),
            "policy": self.policy(outputs),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("bucket", "a policy belongs to its bucket")]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<()>, Error> {
        self.put(outputs).await?;
        Ok(Some(()))
    }

    async fn update(&self, _: &Live<()>, _: &[Field], outputs: &Outputs) -> Result<(), Error> {
        self.put(outputs).await
    }

    async fn delete(&self, live: &Live<()>) -> Result<(), Error> {
        let bucket = live.properties["bucket"].as_str().unwrap_or_default();
        let delete = self.aws.s3.client.delete_bucket_policy().bucket(bucket);
        delete.send().await.map_err(failed("s3:DeleteBucketPolicy"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = ["s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy"];
        vec![Permission::on(actions, [format!("arn:aws:s3:::{}", self.bucket_name)])]
    }
}

impl BucketPolicy {
    async fn put(&self, outputs: &Outputs) -> Result<(), Error> {
        self.aws
            .s3
            .client
            .put_bucket_policy()
            .bucket(outputs.get(&self.bucket)?.name)
            .policy(self.policy(outputs).to_string())
            .send()
            .await
            .map_err(failed("s3:PutBucketPolicy"))?;
        Ok(())
    }

    fn policy(&self, outputs: &Outputs) -> Value {
        let bucket = outputs.show(&self.bucket, |bucket| bucket.arn.clone());
        let objects = format!("{}/*", bucket.as_str().unwrap_or_default());
        let distribution =
            outputs.show(&self.distribution, |distribution| distribution.arn.clone());
        json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "DistributionReads",
                    "Effect": "Allow",
                    "Principal": { "Service": "cloudfront.amazonaws.com" },
                    "Action": "s3:GetObject",
                    "Resource": objects,
                    "Condition": { "StringEquals": { "AWS:SourceArn": distribution } },
                },
                {
                    "Sid": "OnlyOverTls",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket, objects],
                    "Condition": { "Bool": { "aws:SecureTransport": "false" } },
                },
            ],
        })
    }
}
