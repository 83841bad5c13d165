//! IAM: its client and its batched answer: one call tells trust, policies and tags of all roles.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_iam as sdk;
use sdk::types::{EntityType, RoleDetail, Tag};
use serde_json::Value;
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct Iam {
    /// The SDK's client.
    pub client: sdk::Client,
    roles: Batch<Vec<RoleDetail>>,
}

impl Iam {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), roles: Batch::default() }
    }

    /// All roles of the account with their trust, inline and attached policies and tags.
    pub async fn roles(&self, since: Instant) -> Result<Arc<Vec<RoleDetail>>, Error> {
        self.roles
            .get(since, async {
                let mut pages = self
                    .client
                    .get_account_authorization_details()
                    .filter(EntityType::Role)
                    .into_paginator()
                    .send();
                let mut roles = Vec::new();
                while let Some(page) = pages.next().await {
                    let page = page.map_err(failed("iam:GetAccountAuthorizationDetails"))?;
                    roles.extend(page.role_detail_list.unwrap_or_default());
                }
                Ok(roles)
            })
            .await
    }
}

/// The label's tags for a create call.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("iam:TagRole", |key, value| Tag::builder().key(key).value(value).build())
}

/// The tags that IAM answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// A policy document as IAM answers with it: JSON, percent-encoded as RFC 3986 says. What is no JSON
/// comes back as text, so that it shows as a difference.
pub fn document(encoded: &str) -> Value {
    let decoded = percent_decoded(encoded);
    serde_json::from_str(&decoded).unwrap_or(Value::String(decoded))
}

fn percent_decoded(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        if let Some(byte) = escaped {
            bytes.extend(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_percent_encoded_document_is_read() {
        assert_eq!(
            document("%7B%22Resource%22%3A%20%22a%2Fb%25%22%7D"),
            json!({"Resource": "a/b%"})
        );
        assert_eq!(document("{\"Plain\": true}"), json!({"Plain": true}));
        assert_eq!(document("100%"), json!("100%"));
    }
}
