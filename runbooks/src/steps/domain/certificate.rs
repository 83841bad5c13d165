//! A certificate of ACM.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_acm::types::{
    CertificateDetail, CertificateStatus, FailureReason, ResourceRecord, ValidationMethod,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::tagged;
use crate::{
    aws::{
        Aws, Label, Seen,
        acm::{Acm, REGION_OF_CLOUDFRONT, TaggedCertificate, tags},
        failed, once,
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// Who serves a certificate, which decides its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The distribution: us-east-1.
    CloudFront,
    /// The load balancer: the environment's region.
    Region,
}

impl Place {
    /// ACM of its region.
    pub fn acm(self, aws: &Aws) -> &Acm {
        match self {
            Self::CloudFront => &aws.acm_of_cloudfront,
            Self::Region => &aws.acm,
        }
    }

    /// The ARN of a certificate of its region.
    pub fn arn(self, aws: &Aws, certificate: &str) -> String {
        let region = match self {
            Self::CloudFront => REGION_OF_CLOUDFRONT,
            Self::Region => aws.region.as_str(),
        };
        format!("arn:aws:acm:{region}:{}:certificate/{certificate}", aws.account)
    }
}

/// A public certificate for one name, validated by a record in the domain, which also renews it every
/// year for as long as the record is there. It is ready, for those who make that record, when ACM has
/// told the record; it is issued when the record has been seen.
pub struct Certificate {
    /// Id and tags; a certificate has no name.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// Who serves it.
    pub place: Place,
    /// The name that it is for.
    pub domain: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct CertificateOutput {
    /// `arn:aws:acm:…:certificate/…`.
    pub arn: String,
    /// The CNAME record by which ACM sees that the domain is ours.
    pub validation: Option<ResourceRecord>,
}

#[async_trait]
impl Resource for Certificate {
    type Output = CertificateOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<CertificateOutput>>, Error> {
        let all = self.acm().certificates(since).await?;
        Ok(current(&all, &self.label, &self.domain).map(|found| Live {
            properties: json!({
                "domainName": found.certificate.domain_name(),
                "tags": found.tags,
            }),
            condition: condition(&found.certificate),
            output: CertificateOutput {
                arn: found.arn().to_owned(),
                validation: validation(&found.certificate).cloned(),
            },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({"domainName": self.domain, "tags": self.label.tags()})
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("domainName", "a certificate is for the names that it was requested for")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<CertificateOutput>, Error> {
        let tags = tags(&self.label)?;
        // ACM forgets a token after an hour (API reference, RequestCertificate); until then a
        // certificate is long seen by its tags.
        let create = async |token: String| {
            let requested = self
                .acm()
                .client
                .request_certificate()
                .domain_name(&self.domain)
                .validation_method(ValidationMethod::Dns)
                .idempotency_token(token)
                .set_tags(Some(tags.clone()))
                .send()
                .await
                .map_err(failed("acm:RequestCertificate"))?;
            Ok(requested.certificate_arn.unwrap_or_default())
        };
        let look = async |arn: String| {
            let found = self.acm().certificate(&arn).await?;
            Ok(if found.is_some() { Seen::Living } else { Seen::Nothing })
        };
        let request = json!([self.domain, self.label.tags]);
        once(&self.label, &request, self.lag, create, look).await?;
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<CertificateOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "tags") {
            self.acm()
                .client
                .add_tags_to_certificate()
                .certificate_arn(&live.output.arn)
                .set_tags(Some(tags(&self.label)?))
                .send()
                .await
                .map_err(failed("acm:AddTagsToCertificate"))?;
        }
        Ok(())
    }

    /// Refused as in use until listener or distribution is gone everywhere: the engine repeats it.
    async fn delete(&self, live: &Live<CertificateOutput>) -> Result<(), Error> {
        delete(self.acm(), &live.output.arn).await
    }

    fn permissions(&self) -> Vec<Permission> {
        let all = vec![self.place.arn(&self.aws, "*")];
        let (requested, ours) =
            (tagged(&self.label, "aws:RequestTag"), tagged(&self.label, "aws:ResourceTag"));
        let on = |actions, resources: &[String], condition: Option<Value>| Permission {
            actions,
            resources: resources.to_vec(),
            condition,
        };
        vec![
            on(vec!["acm:ListCertificates"], &["*".to_owned()], None),
            on(vec!["acm:DescribeCertificate", "acm:ListTagsForCertificate"], &all, None),
            on(vec!["acm:RequestCertificate"], &["*".to_owned()], Some(requested.clone())),
            on(vec!["acm:AddTagsToCertificate"], &all, Some(requested)),
            on(vec!["acm:DeleteCertificate"], &all, Some(ours)),
        ]
    }

    /// ACM tells the record some seconds after the request.
    fn typical(&self) -> Duration {
        Duration::from_secs(5)
    }
}

impl Certificate {
    fn acm(&self) -> &Acm {
        self.place.acm(&self.aws)
    }
}

/// The certificate of `label` for `domain` among all: an issued one before one that is still to be
/// validated. One that has run out or was revoked can't come back, so that it counts as not there.
pub(super) fn current<'a>(
    all: &'a [TaggedCertificate],
    label: &Label,
    domain: &str,
) -> Option<&'a TaggedCertificate> {
    let over = |status: &CertificateStatus| {
        use CertificateStatus::{Expired, Inactive, Revoked};
        matches!(status, Expired | Inactive | Revoked)
    };
    all.iter()
        .filter(|found| found.certificate.domain_name() == Some(domain))
        .filter(|found| !found.certificate.status().is_some_and(over))
        .filter(|found| label.matches(&found.tags))
        .min_by_key(|found| (!is_issued(&found.certificate), found.arn().to_owned()))
}

/// Whether it can be served.
pub(super) fn is_issued(certificate: &CertificateDetail) -> bool {
    certificate.status() == Some(&CertificateStatus::Issued)
}

/// The record that validates it; ACM does not tell it at once.
pub(super) fn validation(certificate: &CertificateDetail) -> Option<&ResourceRecord> {
    certificate.domain_validation_options().first()?.resource_record()
}

/// Deletes a certificate.
pub(super) async fn delete(acm: &Acm, arn: &str) -> Result<(), Error> {
    let delete = acm.client.delete_certificate().certificate_arn(arn).send().await;
    delete.map_err(failed("acm:DeleteCertificate"))?;
    Ok(())
}

fn condition(certificate: &CertificateDetail) -> Condition {
    match certificate.status() {
        Some(CertificateStatus::Failed) => {
            let why = certificate.failure_reason().map_or("no reason given", FailureReason::as_str);
            Condition::Failed(why.to_owned())
        }
        Some(CertificateStatus::ValidationTimedOut) => {
            Condition::Failed("its validation record was not seen within 72 hours".into())
        }
        Some(CertificateStatus::PendingValidation) if validation(certificate).is_none() => {
            Condition::Pending("waiting for its validation record".into())
        }
        _ => Condition::Ready,
    }
}
