//! ACM: its client and its batched answers. A certificate has no name: all are listed with their tags,
//! those that carry ours are read whole.

use std::{collections::BTreeMap, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_acm as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use sdk::types::{CertificateDetail, Tag};
use tokio::time::Instant;

use super::{Batch, Calls, Label, failed, not_found_is_none};
use crate::engine::Error;

/// Details asked for at once; ACM takes ten such calls a second (ACM user guide, "Quotas").
const ABREAST: usize = 4;

/// The one region whose certificates `CloudFront` takes (`CloudFront` developer guide, "Requirements
/// for using SSL/TLS certificates").
pub const REGION_OF_CLOUDFRONT: &str = "us-east-1";

/// A certificate with its tags.
pub struct TaggedCertificate {
    /// As `DescribeCertificate` answers.
    pub certificate: CertificateDetail,
    /// As `ListTagsForCertificate` answers.
    pub tags: BTreeMap<String, String>,
}

impl TaggedCertificate {
    /// Its ARN.
    pub fn arn(&self) -> &str {
        self.certificate.certificate_arn().unwrap_or_default()
    }
}

/// The client of one region and what it has answered.
pub struct Acm {
    /// The SDK's client.
    pub client: sdk::Client,
    certificates: Batch<Vec<TaggedCertificate>>,
}

impl Acm {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        Self::with(sdk::config::Builder::from(config), calls)
    }

    pub(super) fn of_cloudfront(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let region = sdk::config::Region::new(REGION_OF_CLOUDFRONT);
        Self::with(sdk::config::Builder::from(config).region(region), calls)
    }

    fn with(config: sdk::config::Builder, calls: &Arc<Calls>) -> Self {
        let config = config.interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), certificates: Batch::default() }
    }

    /// All certificates that carry one of our tags.
    pub async fn certificates(&self, since: Instant) -> Result<Arc<Vec<TaggedCertificate>>, Error> {
        self.certificates
            .get(since, async {
                let pages = self.client.list_certificates().into_paginator().items().send();
                let listed = pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("acm:ListCertificates"))?;
                stream::iter(listed.into_iter().filter_map(|summary| summary.certificate_arn))
                    .map(|arn| self.tagged(arn))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |tagged| Ok(tagged))
                    .try_collect()
                    .await
            })
            .await
    }

    async fn tagged(&self, arn: String) -> Result<Option<TaggedCertificate>, Error> {
        let list = self.client.list_tags_for_certificate().certificate_arn(&arn).send().await;
        let answer = not_found_is_none(list.map_err(failed("acm:ListTagsForCertificate")))?;
        let Some(answer) = answer else { return Ok(None) };
        let tags: BTreeMap<_, _> = answer
            .tags()
            .iter()
            .map(|tag| (tag.key().to_owned(), tag.value().unwrap_or_default().to_owned()))
            .collect();
        let ours = |(key, value): (&String, &String)| {
            key.starts_with("bme:") || key == "Name" && value.starts_with("bme-")
        };
        if !tags.iter().any(ours) {
            return Ok(None);
        }
        let certificate = self.certificate(&arn).await?;
        Ok(certificate.map(|certificate| TaggedCertificate { certificate, tags }))
    }

    /// One certificate by its ARN, if it is there.
    pub async fn certificate(&self, arn: &str) -> Result<Option<CertificateDetail>, Error> {
        let answer = self.client.describe_certificate().certificate_arn(arn).send().await;
        let answer = not_found_is_none(answer.map_err(failed("acm:DescribeCertificate")))?;
        Ok(answer.and_then(|answer| answer.certificate))
    }
}

/// The label's tags.
pub fn tags(label: &Label) -> Result<Vec<Tag>, Error> {
    label.build_tags("acm:AddTagsToCertificate", |key, value| {
        Tag::builder().key(key).value(value).build()
    })
}
