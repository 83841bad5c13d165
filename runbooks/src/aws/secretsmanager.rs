//! Secrets Manager: its client and its batched answers. Values are hashed as they arrive; nothing
//! here keeps one.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_secretsmanager as sdk;
use sdk::operation::describe_secret::DescribeSecretOutput;
use sdk::types::{Filter, FilterNameStringType, Tag};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::{Error, Fault};

pub(super) const BAD_SECRET: Fault = Fault {
    code: "bad-secret",
    cause: "somebody has given a secret of bme's a value of another form",
    mend: "put it back: its value is a JSON object, with the member that the message names",
};

/// The client and what it has answered.
pub struct SecretsManager {
    /// The SDK's client.
    pub client: sdk::Client,
    versions: Batch<BTreeMap<String, Version>>,
}

/// What may be known of a secret's value.
#[derive(Debug, Clone)]
pub struct Version {
    /// Id of the version that is current.
    pub id: String,
    /// First 16 hexadecimal digits of the SHA-256 of the value.
    pub fingerprint: String,
}

impl SecretsManager {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), versions: Batch::default() }
    }

    /// The secret of that name, also one that is scheduled for deletion. By its name and not from
    /// `ListSecrets`, which shows a new secret only after minutes.
    pub async fn secret(&self, name: &str) -> Result<Option<DescribeSecretOutput>, Error> {
        let describe = self.client.describe_secret().secret_id(name).send().await;
        not_found_is_none(describe.map_err(failed("secretsmanager:DescribeSecret")))
    }

    /// The current version of each secret of `environment`, by ARN.
    pub async fn versions(
        &self,
        environment: &str,
        since: Instant,
    ) -> Result<Arc<BTreeMap<String, Version>>, Error> {
        self.versions
            .get(since, async {
                let mut versions = BTreeMap::new();
                let mut pages = self
                    .client
                    .batch_get_secret_value()
                    .filters(of(environment))
                    .into_paginator()
                    .send();
                while let Some(page) = pages.next().await {
                    let page = page.map_err(failed("secretsmanager:BatchGetSecretValue"))?;
                    for value in page.secret_values() {
                        let version = Version {
                            id: value.version_id().unwrap_or_default().to_owned(),
                            fingerprint: fingerprint(value.secret_string().unwrap_or_default()),
                        };
                        versions.insert(value.arn().unwrap_or_default().to_owned(), version);
                    }
                }
                Ok(versions)
            })
            .await
    }

    /// The member `key` of a secret's value, for a call that has to carry it; never for anything
    /// that is shown or kept.
    pub async fn value(&self, arn: &str, key: &str) -> Result<String, Error> {
        const OPERATION: &str = "secretsmanager:GetSecretValue";
        let answer = self
            .client
            .get_secret_value()
            .secret_id(arn)
            .send()
            .await
            .map_err(failed(OPERATION))?;
        serde_json::from_str::<serde_json::Value>(answer.secret_string().unwrap_or_default())
            .ok()
            .and_then(|value| Some(value.get(key)?.as_str()?.to_owned()))
            .ok_or_else(|| {
                BAD_SECRET
                    .error(OPERATION, format!("{arn} has no text member `{key}`"))
                    .with_hint(format!("put it back: its value is a JSON object with `{key}`"))
            })
    }

    /// Writes the label's tags on an existing secret.
    pub async fn tag(&self, arn: &str, label: &Label) -> Result<(), Error> {
        self.client
            .tag_resource()
            .secret_id(arn)
            .set_tags(Some(tags(label)))
            .send()
            .await
            .map_err(failed("secretsmanager:TagResource"))?;
        Ok(())
    }
}

/// First 16 hexadecimal digits of the SHA-256 of a value: enough to see that it changed, too little
/// to find it.
pub fn fingerprint(value: &str) -> String {
    hex::encode(&Sha256::digest(value)[..8])
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Vec<Tag> {
    label.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The tags that Secrets Manager answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

/// Names start with `bme-{env}-`; the filter matches prefixes.
fn of(environment: &str) -> Filter {
    let prefix = format!("bme-{environment}-");
    Filter::builder().key(FilterNameStringType::Name).values(prefix).build()
}
