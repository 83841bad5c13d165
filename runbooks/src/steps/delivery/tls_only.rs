//! The policy of a bucket that is reached over TLS only.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::edge::bucket::Bucket,
};

/// The policy. It lets nobody in; it keeps out, whatever their rights, those without TLS.
pub struct TlsOnly {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The bucket.
    pub bucket: Handle<Bucket>,
    /// Its name.
    pub bucket_name: String,
}

#[async_trait]
impl Resource for TlsOnly {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.bucket.id()]
    }

    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        if outputs.when_observed(&self.bucket).await.is_none() {
            return Ok(None);
        }
        let get = self.aws.s3.client.get_bucket_policy().bucket(&self.bucket_name);
        let answer = not_found_is_none(get.send().await.map_err(failed("s3:GetBucketPolicy")))?;
        Ok(answer.and_then(|answer| answer.policy).map(|policy| Live {
            // A document that is no JSON counts as none, hence is written anew.
            properties: json!({
                "policy": serde_json::from_str::<Value>(&policy).unwrap_or_default(),
            }),
            condition: Condition::Ready,
            output: (),
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({ "policy": self.policy() })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        self.put().await?;
        Ok(Some(()))
    }

    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        self.put().await
    }

    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        let delete = self.aws.s3.client.delete_bucket_policy().bucket(&self.bucket_name);
        delete.send().await.map_err(failed("s3:DeleteBucketPolicy"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = ["s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy"];
        vec![Permission::on(actions, [self.arn()])]
    }
}

impl TlsOnly {
    fn arn(&self) -> String {
        format!("arn:aws:s3:::{}", self.bucket_name)
    }

    fn policy(&self) -> Value {
        let bucket = self.arn();
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Sid": "OnlyOverTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket, format!("{bucket}/*")],
                "Condition": { "Bool": { "aws:SecureTransport": "false" } },
            }],
        })
    }

    async fn put(&self) -> Result<(), Error> {
        self.aws
            .s3
            .client
            .put_bucket_policy()
            .bucket(&self.bucket_name)
            .policy(self.policy().to_string())
            .send()
            .await
            .map_err(failed("s3:PutBucketPolicy"))?;
        Ok(())
    }
}
