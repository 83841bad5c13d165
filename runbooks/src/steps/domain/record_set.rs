//! The records of one name in Route 53.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_acm::types::{
    CertificateDetail, CertificateStatus, ResourceRecord as ValidationRecord,
};
use aws_sdk_route53::types::{
    AliasTarget, ChangeAction, ResourceRecord, ResourceRecordSet, RrType,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::certificate::{Certificate, Place};
use crate::{
    aws::{Aws, Label, built},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::{compute::load_balancer::LoadBalancer, edge::distribution::Distribution},
};

/// Route 53's own zone of all distributions (Route 53 API reference, `AliasTarget`).
const ZONE_OF_CLOUDFRONT: &str = "Z2FDTNDATAQYW2";

/// Seconds that resolvers may keep what is no alias; an alias has the time of its target.
const TTL: i64 = 300;

/// What the TXT record that tells the owner of `NAME` is called: `bme-owner.NAME`.
const OWNER: &str = "bme-owner.";

/// The records of one name, with the TXT record that says that they are ours.
pub struct RecordSet {
    /// Id; records take no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Id of the zone.
    pub zone: String,
    /// The domain at and below which records are listed.
    pub listed_below: String,
    /// What the records point to.
    pub target: Target,
}

/// What records point to.
pub enum Target {
    /// The distribution, by IPv4 and IPv6.
    Distribution {
        /// The name.
        name: String,
        /// The distribution.
        distribution: Handle<Distribution>,
    },
    /// The load balancer.
    LoadBalancer {
        /// The name.
        name: String,
        /// The load balancer.
        load_balancer: Handle<LoadBalancer>,
    },
    /// What ACM wants to see. Ready when the certificate is issued.
    Validation {
        /// Where the certificate is.
        place: Place,
        /// The certificate.
        certificate: Handle<Certificate>,
    },
}

/// The record sets as they are, which a deletion has to repeat word by word.
#[derive(Debug, Clone)]
pub struct RecordSetOutput {
    sets: Vec<ResourceRecordSet>,
}

#[async_trait]
impl Resource for RecordSet {
    type Output = RecordSetOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![match &self.target {
            Target::Distribution { distribution, .. } => distribution.id(),
            Target::LoadBalancer { load_balancer, .. } => load_balancer.id(),
            Target::Validation { certificate, .. } => certificate.id(),
        }]
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<RecordSetOutput>>, Error> {
        let wanted = self.when_observed(outputs).await?;
        let all = self.aws.route53.records(&self.zone, &self.listed_below, since).await?;
        let own = owner(&self.label);
        // The name of a validation record is the certificate's to tell; without one it is that of
        // the record that says that it is ours.
        let Some(name) = self.name(&wanted).or_else(|| owned_names(&all, &own).pop()) else {
            return Ok(None);
        };
        let sets = sets_of(&all, &name);
        if sets.is_empty() {
            return Ok(None);
        }
        let (records, told) = shown(&sets);
        let right = records == shown(&wanted).0;
        let is_alias = !matches!(self.target, Target::Validation { .. });
        let ours = told.as_ref() == Some(&own) || told.is_none() && right && is_alias;
        if !ours {
            return Err(self.label.not_ours(
                &format!("a record of the name {name}"),
                &format!("by the TXT record {OWNER}{name} of the value {own}"),
            ));
        }
        let settled = told.is_some() && right && !wanted.is_empty();
        Ok(Some(Live {
            properties: json!({
                "zone": self.zone,
                "name": name,
                "records": records,
                "owner": told,
            }),
            // What is not right yet is not waited for: it is to be changed.
            condition: if settled { self.condition(outputs).await? } else { Condition::Ready },
            output: RecordSetOutput { sets },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let (name, records) = match &self.target {
            Target::Distribution { name, distribution } => {
                let alias = outputs.show(distribution, |distribution| {
                    shown_alias(&distribution.domain_name, ZONE_OF_CLOUDFRONT)
                });
                (Value::from(name.as_str()), json!({"A": alias, "AAAA": alias}))
            }
            Target::LoadBalancer { name, load_balancer } => {
                let alias = outputs.show(load_balancer, |balancer| {
                    shown_alias(&balancer.dns_name, &balancer.zone_id)
                });
                (Value::from(name.as_str()), json!({"A": alias}))
            }
            Target::Validation { certificate, .. } => {
                let member = |of: fn(&ValidationRecord) -> &str| {
                    outputs.show(certificate, |certificate| {
                        let record = certificate.validation.as_ref();
                        record.map(|record| undotted(of(record)).to_owned())
                    })
                };
                let value = member(ValidationRecord::value);
                (member(ValidationRecord::name), json!({"CNAME": value}))
            }
        };
        json!({
            "zone": self.zone,
            "name": name,
            "records": records,
            "owner": owner(&self.label),
        })
    }

    /// By `CREATE`, which refuses what is there, all or nothing: between the look and this nobody
    /// else's record is overwritten.
    async fn create(&self, outputs: &Outputs) -> Result<Option<RecordSetOutput>, Error> {
        let sets = self.wanted(outputs)?.into_iter();
        let changes = sets.map(|set| (ChangeAction::Create, set)).collect();
        self.aws.route53.change(&self.zone, changes).await?;
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<RecordSetOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let wanted = self.wanted(outputs)?;
        let stays = |set: &ResourceRecordSet| wanted.iter().any(|wanted| key(wanted) == key(set));
        let foreign = live.output.sets.iter().filter(|set| !stays(set)).cloned();
        let mut changes: Vec<_> = foreign.map(|set| (ChangeAction::Delete, set)).collect();
        changes.extend(wanted.iter().cloned().map(|set| (ChangeAction::Upsert, set)));
        self.aws.route53.change(&self.zone, changes).await
    }

    async fn delete(&self, live: &Live<RecordSetOutput>) -> Result<(), Error> {
        let sets = live.output.sets.iter().cloned();
        let changes = sets.map(|set| (ChangeAction::Delete, set)).collect();
        self.aws.route53.change(&self.zone, changes).await
    }

    /// Only the names that are ours to write (Route 53 developer guide, "Using IAM policy conditions for
    /// fine-grained access control").
    fn permissions(&self) -> Vec<Permission> {
        let zone = vec![format!("arn:aws:route53:::hostedzone/{}", self.zone)];
        let name = match &self.target {
            Target::Distribution { name, .. } | Target::LoadBalancer { name, .. } => name.clone(),
            // ACM begins it with an underscore; the rest is known with the certificate only.
            Target::Validation { .. } => format!("_*.{}", self.listed_below),
        };
        let names = json!({"ForAllValues:StringLike": {
            "route53:ChangeResourceRecordSetsNormalizedRecordNames":
                [name, format!("{OWNER}{name}")],
        }});
        let mut permissions = vec![
            Permission {
                actions: vec!["route53:ListResourceRecordSets"],
                resources: zone.clone(),
                condition: None,
            },
            Permission {
                actions: vec!["route53:ChangeResourceRecordSets"],
                resources: zone,
                condition: Some(names),
            },
        ];
        if let Target::Validation { place, .. } = &self.target {
            permissions.push(Permission {
                actions: vec!["acm:DescribeCertificate"],
                resources: vec![place.arn(&self.aws, "*")],
                condition: None,
            });
        }
        permissions
    }

    /// ACM issues some minutes after the record is there, at times an hour (terraform-provider-aws,
    /// issue 9338); not measured.
    fn typical(&self) -> Duration {
        match self.target {
            Target::Validation { .. } => Duration::from_mins(2),
            Target::Distribution { .. } | Target::LoadBalancer { .. } => Duration::from_secs(1),
        }
    }
}

impl RecordSet {
    /// The record sets as they should be, as far as what they point to is there; for `find`.
    async fn when_observed(&self, outputs: &Outputs) -> Result<Vec<ResourceRecordSet>, Error> {
        let there = match &self.target {
            Target::Distribution { distribution, .. } => {
                outputs.when_observed(distribution).await.is_some()
            }
            Target::LoadBalancer { load_balancer, .. } => {
                outputs.when_observed(load_balancer).await.is_some()
            }
            Target::Validation { certificate, .. } => {
                let certificate = outputs.when_observed(certificate).await;
                certificate.is_some_and(|certificate| certificate.validation.is_some())
            }
        };
        if there { self.wanted(outputs) } else { Ok(Vec::new()) }
    }

    /// The record sets as they should be, the owner's last.
    fn wanted(&self, outputs: &Outputs) -> Result<Vec<ResourceRecordSet>, Error> {
        let (name, mut sets) = match &self.target {
            Target::Distribution { name, distribution } => {
                let domain = outputs.get(distribution)?.domain_name;
                let sets = [RrType::A, RrType::Aaaa]
                    .into_iter()
                    .map(|kind| alias(name, kind, &domain, ZONE_OF_CLOUDFRONT))
                    .collect::<Result<Vec<_>, _>>()?;
                (name.clone(), sets)
            }
            Target::LoadBalancer { name, load_balancer } => {
                let balancer = outputs.get(load_balancer)?;
                let set = alias(name, RrType::A, &balancer.dns_name, &balancer.zone_id)?;
                (name.clone(), vec![set])
            }
            Target::Validation { certificate, .. } => {
                let record = outputs.get(certificate)?.validation.ok_or_else(|| {
                    let message = format!("ACM has not told the record of {}", certificate.id());
                    Error::fatal("acm:DescribeCertificate", "empty-answer", message)
                        .with_hint("run the command again")
                })?;
                let name = undotted(record.name()).to_owned();
                let set = plain(&name, RrType::Cname, record.value())?;
                (name, vec![set])
            }
        };
        sets.push(plain(&format!("{OWNER}{name}"), RrType::Txt, &owner(&self.label))?);
        Ok(sets)
    }

    /// The name, where it is known.
    fn name(&self, wanted: &[ResourceRecordSet]) -> Option<String> {
        match &self.target {
            Target::Distribution { name, .. } | Target::LoadBalancer { name, .. } => {
                Some(name.clone())
            }
            Target::Validation { .. } => wanted.first().map(|set| undotted(set.name()).to_owned()),
        }
    }

    async fn condition(&self, outputs: &Outputs) -> Result<Condition, Error> {
        let Target::Validation { place, certificate } = &self.target else {
            return Ok(Condition::Ready);
        };
        let arn = outputs.get(certificate)?.arn;
        let found = place.acm(&self.aws).certificate(&arn).await?;
        Ok(match found.as_ref().and_then(CertificateDetail::status) {
            Some(CertificateStatus::PendingValidation) => {
                Condition::Pending("ACM validates the domain".into())
            }
            _ => Condition::Ready,
        })
    }
}

/// The value of the TXT record of what is ours, in the quotes that are part of it.
pub(super) fn owner(label: &Label) -> String {
    let environment = label.tags.get("bme:env").map_or("", String::as_str);
    format!("\"bme:env={environment},bme:resource={}\"", label.id)
}

/// The names whose owner is told to be `own`.
pub(super) fn owned_names(all: &[ResourceRecordSet], own: &str) -> Vec<String> {
    all.iter()
        .filter(|set| *set.r#type() == RrType::Txt && values(set).eq([own]))
        .filter_map(|set| undotted(set.name()).strip_prefix(OWNER))
        .map(ToOwned::to_owned)
        .collect()
}

/// What leads from `name` to an address, and the record that tells its owner.
pub(super) fn sets_of(all: &[ResourceRecordSet], name: &str) -> Vec<ResourceRecordSet> {
    let owner = format!("{OWNER}{name}");
    all.iter()
        .filter(|set| match set.r#type() {
            RrType::A | RrType::Aaaa | RrType::Cname => undotted(set.name()) == name,
            RrType::Txt => undotted(set.name()) == owner,
            _ => false,
        })
        .cloned()
        .collect()
}

/// Record sets as the members of a desired state name them: by type, and the owner that is told.
fn shown(sets: &[ResourceRecordSet]) -> (BTreeMap<String, String>, Option<String>) {
    let mut records = BTreeMap::new();
    let mut owner = None;
    for set in sets {
        let mut values: Vec<&str> = values(set).collect();
        values.sort_unstable();
        let text = match set.alias_target() {
            Some(target) => shown_alias(target.dns_name(), target.hosted_zone_id()),
            None => values.join(", "),
        };
        if *set.r#type() == RrType::Txt {
            owner = Some(text);
        } else {
            records.insert(key(set), undotted(&text).to_owned());
        }
    }
    (records, owner)
}

fn shown_alias(domain: &str, zone: &str) -> String {
    // Route 53 answers the load balancer's name in lower case.
    format!("alias of {} in {zone}", undotted(domain).to_lowercase())
}

fn values(set: &ResourceRecordSet) -> impl Iterator<Item = &str> {
    set.resource_records().iter().map(ResourceRecord::value)
}

/// Type, and what sets one of several with the same name apart.
fn key(set: &ResourceRecordSet) -> String {
    match set.set_identifier() {
        Some(identifier) => format!("{} {identifier}", set.r#type().as_str()),
        None => set.r#type().as_str().to_owned(),
    }
}

fn undotted(name: &str) -> &str {
    name.trim_end_matches('.')
}

fn alias(name: &str, kind: RrType, domain: &str, zone: &str) -> Result<ResourceRecordSet, Error> {
    let target = AliasTarget::builder()
        .hosted_zone_id(zone)
        .dns_name(domain)
        .evaluate_target_health(false)
        .build()
        .map_err(built("route53:ChangeResourceRecordSets"))?;
    ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .alias_target(target)
        .build()
        .map_err(built("route53:ChangeResourceRecordSets"))
}

fn plain(name: &str, kind: RrType, value: &str) -> Result<ResourceRecordSet, Error> {
    let record = ResourceRecord::builder().value(value).build();
    ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .ttl(TTL)
        .resource_records(record.map_err(built("route53:ChangeResourceRecordSets"))?)
        .build()
        .map_err(built("route53:ChangeResourceRecordSets"))
}
