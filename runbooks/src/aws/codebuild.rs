//! `CodeBuild`: its client.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_codebuild as sdk;
use sdk::types::{Project, Tag};

use super::{Calls, Label, failed};
use crate::engine::Error;

/// The client.
pub struct CodeBuild {
    /// The SDK's client.
    pub client: sdk::Client,
}

impl CodeBuild {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The project of this name. An environment has at most one: nothing is gained by a batch.
    pub async fn project(&self, name: &str) -> Result<Option<Project>, Error> {
        let get = self.client.batch_get_projects().names(name);
        let answer = get.send().await.map_err(failed("codebuild:BatchGetProjects"))?;
        Ok(answer.projects.unwrap_or_default().into_iter().next())
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The tags that `CodeBuild` answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()))).collect()
}
