//! `CodePipeline`: its client.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_codepipeline as sdk;
use sdk::types::{PipelineDeclaration, Tag};

use super::{Calls, Label, failed};
use crate::engine::Error;

/// The client.
pub struct CodePipeline {
    /// The SDK's client.
    pub client: sdk::Client,
}

impl CodePipeline {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The pipeline of this name; none that is there is an error of the class "not found".
    pub async fn pipeline(&self, name: &str) -> Result<Option<PipelineDeclaration>, Error> {
        let get = self.client.get_pipeline().name(name);
        Ok(get.send().await.map_err(failed("codepipeline:GetPipeline"))?.pipeline)
    }

    /// The tags of a pipeline.
    pub async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let list = self.client.list_tags_for_resource().resource_arn(arn);
        let answer = list.send().await.map_err(failed("codepipeline:ListTagsForResource"))?;
        Ok(answer.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect())
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("codepipeline:TagResource", |key, value| {
        Tag::builder().key(key).value(value).build()
    })
}
