//! The ECR repository of the service's image.

use async_trait::async_trait;
use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, ecr::tags, failed},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// A repository whose tags can't be moved and whose images are scanned when they are pushed.
pub struct Repository {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Images kept; older ones expire.
    pub images_kept: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct RepositoryOutput {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Its URI, to which `@sha256:…` is added.
    pub uri: String,
}

#[async_trait]
impl Resource for Repository {
    type Output = RepositoryOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<RepositoryOutput>>, Error> {
        let ecr = &self.aws.ecr;
        let Some(repository) = ecr.repository(&self.label.name).await? else {
            return Ok(None);
        };
        let arn = repository.repository_arn().unwrap_or_default();
        let (tags, lifecycle_policy) =
            futures::try_join!(ecr.live_tags(arn), ecr.lifecycle_policy(&self.label.name))?;
        self.label.adopt(&tags)?;
        let encryption = repository.encryption_configuration();
        Ok(Some(Live {
            properties: json!({
                "imageTagMutability": repository.image_tag_mutability().map(ImageTagMutability::as_str),
                "scanOnPush": repository.image_scanning_configuration().map(ImageScanningConfiguration::scan_on_push),
                "encryptionType": encryption.map(|encryption| encryption.encryption_type().as_str()),
                "lifecyclePolicy": lifecycle_policy,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: RepositoryOutput {
                arn: arn.to_owned(),
                name: self.label.name.clone(),
                uri: repository.repository_uri().unwrap_or_default().to_owned(),
            },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "imageTagMutability": "IMMUTABLE",
            "scanOnPush": true,
            "encryptionType": "AES256",
            "lifecyclePolicy": self.lifecycle_policy(),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("encryptionType", "the encryption of a repository is fixed at its creation")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<RepositoryOutput>, Error> {
        let encryption = EncryptionConfiguration::builder()
            .encryption_type(EncryptionType::Aes256)
            .build()
            .map_err(built("ecr:CreateRepository"))?;
        let created = self
            .aws
            .ecr
            .client
            .create_repository()
            .repository_name(&self.label.name)
            .image_tag_mutability(ImageTagMutability::Immutable)
            .image_scanning_configuration(scan_on_push())
            .encryption_configuration(encryption)
            .set_tags(Some(tags(&self.label)?))
            .send()
            .await
            .map_err(failed("ecr:CreateRepository"))?;
        // Killed before this, the next run's comparison finds the policy missing.
        self.put_lifecycle_policy().await?;
        Ok(created.repository().map(|repository| RepositoryOutput {
            arn: repository.repository_arn().unwrap_or_default().to_owned(),
            name: self.label.name.clone(),
            uri: repository.repository_uri().unwrap_or_default().to_owned(),
        }))
    }

    async fn update(
        &self,
        live: &Live<RepositoryOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let client = &self.aws.ecr.client;
        if touches(fields, "imageTagMutability") {
            let put = client.put_image_tag_mutability().repository_name(&self.label.name);
            let put = put.image_tag_mutability(ImageTagMutability::Immutable);
            put.send().await.map_err(failed("ecr:PutImageTagMutability"))?;
        }
        if touches(fields, "scanOnPush") {
            let put = client.put_image_scanning_configuration().repository_name(&self.label.name);
            let put = put.image_scanning_configuration(scan_on_push());
            put.send().await.map_err(failed("ecr:PutImageScanningConfiguration"))?;
        }
        if touches(fields, "lifecyclePolicy") {
            self.put_lifecycle_policy().await?;
        }
        if touches(fields, "tags") {
            let tag = client.tag_resource().resource_arn(&live.output.arn);
            let tag = tag.set_tags(Some(tags(&self.label)?));
            tag.send().await.map_err(failed("ecr:TagResource"))?;
        }
        Ok(())
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn delete(&self, _: &Live<RepositoryOutput>) -> Result<(), Error> {
        // With its images: each can be built again from its git tag, byte for byte.
        let delete = self.aws.ecr.client.delete_repository().repository_name(&self.label.name);
        delete.force(true).send().await.map_err(failed("ecr:DeleteRepository"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "ecr:CreateRepository",
            "ecr:DeleteRepository",
            "ecr:DescribeRepositories",
            "ecr:GetLifecyclePolicy",
            "ecr:ListTagsForResource",
            "ecr:PutImageScanningConfiguration",
            "ecr:PutImageTagMutability",
            "ecr:PutLifecyclePolicy",
            "ecr:TagResource",
        ];
        let repository = format!("repository/{}", self.label.name);
        vec![Permission::on(actions, [self.aws.arn("ecr", &repository)])]
    }
}

impl Repository {
    fn lifecycle_policy(&self) -> Value {
        json!({"rules": [{
            "rulePriority": 1,
            "description": "keep what can be rolled back to",
            "selection": {
                "tagStatus": "any",
                "countType": "imageCountMoreThan",
                "countNumber": self.images_kept,
            },
            "action": {"type": "expire"},
        }]})
    }

    async fn put_lifecycle_policy(&self) -> Result<(), Error> {
        let put = self.aws.ecr.client.put_lifecycle_policy().repository_name(&self.label.name);
        let put = put.lifecycle_policy_text(self.lifecycle_policy().to_string());
        put.send().await.map_err(failed("ecr:PutLifecyclePolicy"))?;
        Ok(())
    }
}

fn scan_on_push() -> ImageScanningConfiguration {
    ImageScanningConfiguration::builder().scan_on_push(true).build()
}
