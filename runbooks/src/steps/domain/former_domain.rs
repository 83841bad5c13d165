//! What a file with another domain has left.

use async_trait::async_trait;
use aws_sdk_route53::types::{ChangeAction, HostedZone, HostedZoneConfig, ResourceRecordSet};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    certificate::{Place, current, delete},
    record_set::{owned_names, owner, sets_of},
    tagged,
};
use crate::{
    aws::{Aws, Label, acm::TaggedCertificate, route53::is_at_or_below},
    engine::{Condition, Error, Live, Outputs, Permission, Resource, ResourceId, diff::Field},
};

/// Certificates with our tags that the file no longer leads to, and our records of their domains. The
/// domain is in no file any more, but in the certificate: it is deleted last. It is for finding and
/// deleting, never for making.
pub struct FormerDomain {
    /// Its id.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Where the certificates are.
    pub place: Place,
    /// The label of the certificates.
    pub certificate: Label,
    /// The labels of the records.
    pub records: [Label; 2],
    /// The domain whose certificate and records stay.
    pub domain: Option<String>,
}

/// One certificate and the records of its domain.
#[derive(Debug, Clone)]
pub struct FormerDomainOutput {
    arn: String,
    /// Ids of zones, each with what is to be deleted there.
    records: Vec<(String, Vec<ResourceRecordSet>)>,
}

#[async_trait]
impl Resource for FormerDomain {
    type Output = FormerDomainOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<FormerDomainOutput>>, Error> {
        let all = self.place.acm(&self.aws).certificates(since).await?;
        let domain = self.domain.as_deref();
        let stays = domain.and_then(|domain| current(&all, &self.certificate, domain));
        let stays = stays.map(TaggedCertificate::arn);
        let former = all
            .iter()
            .filter(|found| self.certificate.matches(&found.tags) && Some(found.arn()) != stays)
            .min_by(|one, other| one.arn().cmp(other.arn()));
        let Some(former) = former else { return Ok(None) };
        let name = former.certificate.domain_name().unwrap_or_default();
        // A certificate that has run out has the records of the one that took its place.
        let records =
            if domain == Some(name) { Vec::new() } else { self.records_of(name, since).await? };
        Ok(Some(Live {
            properties: json!({"domainName": name, "tags": former.tags}),
            condition: Condition::Ready,
            output: FormerDomainOutput { arn: former.arn().to_owned(), records },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }

    async fn create(&self, _: &Outputs) -> Result<Option<FormerDomainOutput>, Error> {
        let message = format!("{} is only ever deleted", self.label.id);
        Err(Error::fatal("engine", "never-made", message))
    }

    async fn update(
        &self,
        _: &Live<FormerDomainOutput>,
        _: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// First the records, then the certificate: one step a call, and one certificate after the other.
    /// A certificate is refused as in use until the distribution is without it everywhere; the engine
    /// repeats that.
    async fn delete(&self, live: &Live<FormerDomainOutput>) -> Result<(), Error> {
        for (zone, sets) in &live.output.records {
            let changes = sets.iter().cloned().map(|set| (ChangeAction::Delete, set)).collect();
            self.aws.route53.change(zone, changes).await?;
        }
        delete(self.place.acm(&self.aws), &live.output.arn).await
    }

    /// In any zone, since no file names it any more; only to delete.
    fn permissions(&self) -> Vec<Permission> {
        let certificates = vec![self.place.arn(&self.aws, "*")];
        let zones = vec!["arn:aws:route53:::hostedzone/*".to_owned()];
        let on = |actions, resources: &[String], condition| Permission {
            actions,
            resources: resources.to_vec(),
            condition,
        };
        let deletes = json!({"ForAllValues:StringEquals": {
            "route53:ChangeResourceRecordSetsActions": ["DELETE"],
        }});
        let ours = tagged(&self.certificate, "aws:ResourceTag");
        vec![
            on(vec!["acm:ListCertificates", "route53:ListHostedZones"], &["*".to_owned()], None),
            on(vec!["acm:DescribeCertificate", "acm:ListTagsForCertificate"], &certificates, None),
            on(vec!["acm:DeleteCertificate"], &certificates, Some(ours)),
            on(vec!["route53:ListResourceRecordSets"], &zones, None),
            on(vec!["route53:ChangeResourceRecordSets"], &zones, Some(deletes)),
        ]
    }
}

impl FormerDomain {
    /// Our records at and below a domain, in whichever zones of the account it may be.
    async fn records_of(
        &self,
        domain: &str,
        since: Instant,
    ) -> Result<Vec<(String, Vec<ResourceRecordSet>)>, Error> {
        let zones = self.aws.route53.hosted_zones(since).await?;
        let zones: Vec<_> = zones.iter().filter(|zone| holds(zone, domain)).collect();
        let mut found = Vec::new();
        for zone in zones {
            let id = zone.id().trim_start_matches("/hostedzone/");
            let all = self.aws.route53.records(id, domain, since).await?;
            let names = self.records.iter().flat_map(|label| owned_names(&all, &owner(label)));
            let sets: Vec<_> = names.flat_map(|name| sets_of(&all, &name)).collect();
            if !sets.is_empty() {
                found.push((id.to_owned(), sets));
            }
        }
        Ok(found)
    }
}

/// Whether a domain's public records may be in a zone.
fn holds(zone: &HostedZone, domain: &str) -> bool {
    let is_private = zone.config().is_some_and(HostedZoneConfig::private_zone);
    !is_private && is_at_or_below(domain, zone.name())
}
