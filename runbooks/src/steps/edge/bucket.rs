//! A private S3 bucket.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketLocationConstraint, BucketVersioningStatus,
    CreateBucketConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration, PublicAccessBlockConfiguration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule, Tagging, VersioningConfiguration,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label, built, failed, not_found_is_none,
        s3::{live_tags, tags},
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::Stack,
};

/// The lifecycle rule that deletes what is old.
const EXPIRE: &str = "expire";

/// A bucket that nothing public can reach, with versions and encryption at rest. Its name is the
/// label's and holds account and region, since bucket
/// names are unique over all accounts.
pub struct Bucket {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Days after which an object is deleted; none for what has to stay.
    pub expire_after_days: Option<i32>,
}

/// The label of the bucket for `what`: its name holds account and region besides.
pub fn label(stack: &Stack, id: ResourceId, what: &str) -> Label {
    let name = format!("{what}-{}-{}", stack.aws.account, stack.aws.region);
    let mut label = stack.label(id.step(), &name, 63);
    label.tags.insert("bme:resource".into(), id.to_string());
    label.id = id;
    label
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct BucketOutput {
    /// Its name.
    pub name: String,
    /// `arn:aws:s3:::…`.
    pub arn: String,
    /// `{name}.s3.{region}.amazonaws.com`, the only host name that signed origin requests may use.
    pub regional_domain_name: String,
}

#[async_trait]
impl Resource for Bucket {
    type Output = BucketOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, since: Instant) -> Result<Option<Live<BucketOutput>>, Error> {
        if !self.aws.s3.buckets(since).await?.contains(&self.label.name) {
            return Ok(None);
        }
        let (tags, versioning, encryption, public_access_block, expire_after_days) = futures::try_join!(
            self.tags(),
            self.versioning(),
            self.encryption(),
            self.public_access_block(),
            self.expiration()
        )?;
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "versioning": versioning,
                "encryption": encryption,
                "publicAccessBlock": public_access_block,
                "expireAfterDays": expire_after_days,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: self.output(),
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "versioning": "Enabled",
            "encryption": "AES256",
            "publicAccessBlock": {
                "blockPublicAcls": true,
                "ignorePublicAcls": true,
                "blockPublicPolicy": true,
                "restrictPublicBuckets": true,
            },
            "expireAfterDays": self.expire_after_days,
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<BucketOutput>, Error> {
        // us-east-1 is the one region that may not be named.
        let region = (self.aws.region != "us-east-1")
            .then(|| BucketLocationConstraint::from(self.aws.region.as_str()));
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(region)
            .set_tags(Some(tags(&self.label)?))
            .build();
        self.aws
            .s3
            .client
            .create_bucket()
            .bucket(&self.label.name)
            .create_bucket_configuration(configuration)
            .send()
            .await
            .map_err(failed("s3:CreateBucket"))?;
        // Killed between these, the next run's comparison finds the rest missing. A new bucket is
        // private and encrypted from its first moment (AWS default since April 2023).
        self.put_public_access_block().await?;
        self.put_versioning().await?;
        self.put_encryption().await?;
        self.put_expiration().await?;
        Ok(Some(self.output()))
    }

    async fn update(
        &self,
        live: &Live<BucketOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "publicAccessBlock") {
            self.put_public_access_block().await?;
        }
        if touches(fields, "versioning") {
            self.put_versioning().await?;
        }
        if touches(fields, "encryption") {
            self.put_encryption().await?;
        }
        if touches(fields, "expireAfterDays") {
            self.put_expiration().await?;
        }
        if touches(fields, "tags") {
            self.put_tags(&live.properties["tags"]).await?;
        }
        Ok(())
    }

    /// Empties the bucket of all versions first: S3 deletes empty buckets only (trap 8).
    async fn delete(&self, _: &Live<BucketOutput>) -> Result<(), Error> {
        self.aws.s3.delete_versions(&self.label.name, &self.aws.account, "").await?;
        let delete = self.aws.s3.client.delete_bucket().bucket(&self.label.name);
        delete.send().await.map_err(failed("s3:DeleteBucket"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:GetBucketPublicAccessBlock",
            "s3:GetBucketTagging",
            "s3:GetBucketVersioning",
            "s3:GetEncryptionConfiguration",
            "s3:ListBucketVersions",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:PutBucketVersioning",
            "s3:PutEncryptionConfiguration",
            // Of tags in the creation.
            "s3:TagResource",
        ];
        let bucket = self.output().arn;
        let mut permissions = vec![
            Permission::anywhere(["s3:ListAllMyBuckets"]),
            Permission::on(actions, [bucket.clone()]),
            Permission::on(["s3:DeleteObjectVersion"], [format!("{bucket}/*")]),
        ];
        if self.expire_after_days.is_some() {
            permissions.push(Permission::on(
                ["s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"],
                [bucket],
            ));
        }
        permissions
    }

    fn holds_data(&self) -> bool {
        self.expire_after_days.is_none()
    }
}

impl Bucket {
    fn output(&self) -> BucketOutput {
        let name = &self.label.name;
        BucketOutput {
            arn: format!("arn:aws:s3:::{name}"),
            regional_domain_name: format!("{name}.s3.{}.amazonaws.com", self.aws.region),
            name: name.clone(),
        }
    }

    async fn tags(&self) -> Result<BTreeMap<String, String>, Error> {
        let get = self.aws.s3.client.get_bucket_tagging().bucket(&self.label.name);
        let answer = not_found_is_none(get.send().await.map_err(failed("s3:GetBucketTagging")))?;
        Ok(answer.map(|answer| live_tags(answer.tag_set())).unwrap_or_default())
    }

    async fn versioning(&self) -> Result<Option<String>, Error> {
        let get = self.aws.s3.client.get_bucket_versioning().bucket(&self.label.name);
        let answer = get.send().await.map_err(failed("s3:GetBucketVersioning"))?;
        Ok(answer.status().map(|status| status.as_str().to_owned()))
    }

    async fn encryption(&self) -> Result<Option<String>, Error> {
        let get = self.aws.s3.client.get_bucket_encryption().bucket(&self.label.name);
        let answer = get.send().await.map_err(failed("s3:GetEncryptionConfiguration"));
        let configuration = not_found_is_none(answer)?
            .and_then(|answer| answer.server_side_encryption_configuration);
        Ok(configuration
            .as_ref()
            .and_then(|configuration| configuration.rules().first())
            .and_then(ServerSideEncryptionRule::apply_server_side_encryption_by_default)
            .map(|default| default.sse_algorithm().as_str().to_owned()))
    }

    async fn public_access_block(&self) -> Result<Value, Error> {
        let get = self.aws.s3.client.get_public_access_block().bucket(&self.label.name);
        let answer = get.send().await.map_err(failed("s3:GetBucketPublicAccessBlock"));
        let block =
            not_found_is_none(answer)?.and_then(|answer| answer.public_access_block_configuration);
        Ok(block.map_or(Value::Null, |block| {
            json!({
                "blockPublicAcls": block.block_public_acls(),
                "ignorePublicAcls": block.ignore_public_acls(),
                "blockPublicPolicy": block.block_public_policy(),
                "restrictPublicBuckets": block.restrict_public_buckets(),
            })
        }))
    }

    async fn lifecycle_rules(&self) -> Result<Vec<LifecycleRule>, Error> {
        let get = self.aws.s3.client.get_bucket_lifecycle_configuration().bucket(&self.label.name);
        let answer = get.send().await.map_err(failed("s3:GetLifecycleConfiguration"));
        Ok(not_found_is_none(answer)?.and_then(|answer| answer.rules).unwrap_or_default())
    }

    async fn expiration(&self) -> Result<Option<i32>, Error> {
        if self.expire_after_days.is_none() {
            return Ok(None);
        }
        let rules = self.lifecycle_rules().await?;
        let rule = rules.iter().find(|rule| rule.id() == Some(EXPIRE));
        Ok(rule.and_then(LifecycleRule::expiration).and_then(LifecycleExpiration::days))
    }

    /// A bucket with versions needs both: the first hides an object, the second deletes it. The put
    /// replaces all rules, hence takes along those that are not ours (trap 5).
    async fn put_expiration(&self) -> Result<(), Error> {
        let operation = "s3:PutLifecycleConfiguration";
        let Some(days) = self.expire_after_days else { return Ok(()) };
        let mut rules = self.lifecycle_rules().await?;
        rules.retain(|rule| rule.id() != Some(EXPIRE));
        let rule = LifecycleRule::builder()
            .id(EXPIRE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .noncurrent_version_expiration(
                NoncurrentVersionExpiration::builder().noncurrent_days(days).build(),
            )
            .build()
            .map_err(built(operation))?;
        rules.push(rule);
        let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        self.aws
            .s3
            .client
            .put_bucket_lifecycle_configuration()
            .bucket(&self.label.name)
            .lifecycle_configuration(configuration.map_err(built(operation))?)
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(())
    }

    async fn put_public_access_block(&self) -> Result<(), Error> {
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        self.aws
            .s3
            .client
            .put_public_access_block()
            .bucket(&self.label.name)
            .public_access_block_configuration(block)
            .send()
            .await
            .map_err(failed("s3:PutBucketPublicAccessBlock"))?;
        Ok(())
    }

    async fn put_versioning(&self) -> Result<(), Error> {
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
        self.aws
            .s3
            .client
            .put_bucket_versioning()
            .bucket(&self.label.name)
            .versioning_configuration(enabled.build())
            .send()
            .await
            .map_err(failed("s3:PutBucketVersioning"))?;
        Ok(())
    }

    async fn put_encryption(&self) -> Result<(), Error> {
        let operation = "s3:PutEncryptionConfiguration";
        let default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(ServerSideEncryption::Aes256)
            .build()
            .map_err(built(operation))?;
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(default)
            .build();
        let configuration = ServerSideEncryptionConfiguration::builder()
            .rules(rule)
            .build()
            .map_err(built(operation))?;
        self.aws
            .s3
            .client
            .put_bucket_encryption()
            .bucket(&self.label.name)
            .server_side_encryption_configuration(configuration)
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(())
    }

    /// `PutBucketTagging` replaces all tags, hence takes along those that are not ours (trap 5).
    async fn put_tags(&self, live: &Value) -> Result<(), Error> {
        let mut label = self.label.clone();
        for (key, value) in live.as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            label.tags.entry(key.clone()).or_insert_with(|| value.to_owned());
        }
        let tagging = Tagging::builder().set_tag_set(Some(tags(&label)?));
        self.aws
            .s3
            .client
            .put_bucket_tagging()
            .bucket(&self.label.name)
            .tagging(tagging.build().map_err(built("s3:PutBucketTagging"))?)
            .send()
            .await
            .map_err(failed("s3:PutBucketTagging"))?;
        Ok(())
    }
}
