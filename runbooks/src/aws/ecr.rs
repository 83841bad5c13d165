//! ECR: its client and what its repositories are like.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_ecr as sdk;
use sdk::types::{Repository, Tag};
use serde_json::Value;

use super::{Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// What a push of an image is to IAM.
pub(crate) const PUSH: [&str; 7] = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
];

/// The client.
pub struct Ecr {
    /// The SDK's client.
    pub client: sdk::Client,
}

impl Ecr {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The repository of that name.
    pub async fn repository(&self, name: &str) -> Result<Option<Repository>, Error> {
        let answer = self.client.describe_repositories().repository_names(name).send().await;
        let answer = not_found_is_none(answer.map_err(failed("ecr:DescribeRepositories")))?;
        Ok(answer.and_then(|answer| answer.repositories.unwrap_or_default().into_iter().next()))
    }

    /// The lifecycle policy of a repository; null without one.
    pub async fn lifecycle_policy(&self, name: &str) -> Result<Value, Error> {
        let answer = self.client.get_lifecycle_policy().repository_name(name).send().await;
        let answer = not_found_is_none(answer.map_err(failed("ecr:GetLifecyclePolicy")))?;
        let text = answer.and_then(|answer| answer.lifecycle_policy_text).unwrap_or_default();
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The tags of a repository, which `DescribeRepositories` does not tell.
    pub async fn live_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let answer = self.client.list_tags_for_resource().resource_arn(arn).send().await;
        let answer = answer.map_err(failed("ecr:ListTagsForResource"))?;
        Ok(answer.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("ecr:TagResource", |key, value| Tag::builder().key(key).value(value).build())
}
