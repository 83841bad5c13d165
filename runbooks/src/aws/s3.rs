//! S3: its client and its batched answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aws_config::SdkConfig;
use aws_sdk_s3 as sdk;
use sdk::types::{Delete, ObjectIdentifier, Tag};
use tokio::time::Instant;

use super::{Batch, Calls, Label, built, error::refused, failed, not_found_is_none};
use crate::engine::{Class, Error};

/// The client and what it has answered.
pub struct S3 {
    /// The SDK's client.
    pub client: sdk::Client,
    buckets: Batch<BTreeSet<String>>,
}

impl S3 {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), buckets: Batch::default() }
    }

    /// The names of all buckets of the account.
    pub async fn buckets(&self, since: Instant) -> Result<Arc<BTreeSet<String>>, Error> {
        self.buckets
            .get(since, async {
                let pages = self.client.list_buckets().into_paginator().send();
                let pages = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("s3:ListAllMyBuckets"))?;
                Ok(pages
                    .into_iter()
                    .flat_map(|page| page.buckets.unwrap_or_default())
                    .filter_map(|bucket| bucket.name)
                    .collect())
            })
            .await
    }

    /// Deletes all versions and delete markers of what begins with `prefix`; none when the bucket is
    /// not there. S3 refuses it when the bucket is not of the account `owner`.
    pub async fn delete_versions(
        &self,
        bucket: &str,
        owner: &str,
        prefix: &str,
    ) -> Result<(), Error> {
        self.delete_versions_but(bucket, owner, prefix, None).await
    }

    /// As [`S3::delete_versions`], but an object with the key `spared` stays as it is now.
    pub async fn delete_versions_but(
        &self,
        bucket: &str,
        owner: &str,
        prefix: &str,
        spared: Option<&str>,
    ) -> Result<(), Error> {
        let operation = "s3:DeleteObjectVersion";
        loop {
            let page = self.client.list_object_versions().bucket(bucket).prefix(prefix);
            let page = page.expected_bucket_owner(owner).send().await;
            let page = page.map_err(failed("s3:ListBucketVersions"));
            let Some(page) = not_found_is_none(page)? else { return Ok(()) };
            let versions = page
                .versions()
                .iter()
                .filter(|it| {
                    spared.is_none() || it.key() != spared || it.is_latest() == Some(false)
                })
                .map(|it| (it.key(), it.version_id()));
            let markers = page.delete_markers().iter().map(|it| (it.key(), it.version_id()));
            let objects = versions
                .chain(markers)
                .map(|(key, version)| {
                    let object = ObjectIdentifier::builder().key(key.unwrap_or_default());
                    object.set_version_id(version.map(ToOwned::to_owned)).build()
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(built(operation))?;
            if objects.is_empty() {
                return Ok(());
            }
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let delete = delete.map_err(built(operation))?;
            let answer = self.client.delete_objects().bucket(bucket).delete(delete);
            let answer = answer.expected_bucket_owner(owner).send().await;
            let answer = answer.map_err(failed(operation))?;
            // A version that stays would have this loop run for ever.
            if let Some(error) = not_deleted(operation, bucket, answer.errors()) {
                return Err(error);
            }
        }
    }
}

/// What is told of the versions that an otherwise successful deletion has left, each with a code of its
/// own: the first that a person has to mend, or else the first, which calling again gets rid of.
fn not_deleted(operation: &str, bucket: &str, left: &[sdk::types::Error]) -> Option<Error> {
    let errors = left.iter().map(|object| {
        let (key, why) = (object.key().unwrap_or_default(), object.message().unwrap_or_default());
        let code = object.code().unwrap_or("unknown");
        refused(operation, code, &format!("{key} of {bucket}: {why}"))
    });
    errors.min_by_key(|error| error.class != Class::Fatal)
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("s3:PutBucketTagging", |key, value| {
        Tag::builder().key(key).value(value).build()
    })
}

/// The tags that S3 answered with.
pub fn live_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_a_while_is_deleted_again_and_what_is_refused_is_told() {
        let left = |key: &str, code: &str| {
            sdk::types::Error::builder().key(key).code(code).message("words").build()
        };
        let told = |left: &[sdk::types::Error]| {
            not_deleted("s3:DeleteObjectVersion", "web", left).map(|error| (error.class, error))
        };
        assert!(told(&[]).is_none());
        for (code, class) in [("SlowDown", Class::Throttled), ("InternalError", Class::Unknown)] {
            assert_eq!(told(&[left("a", code)]).unwrap().0, class, "{code}");
        }
        let (class, error) =
            told(&[left("a", "SlowDown"), left("b", "AccessDenied")]).expect("two are left");
        assert_eq!((class, error.code.as_str()), (Class::Fatal, "AccessDenied"));
        assert_eq!(error.message, "b of web: words");
    }
}
