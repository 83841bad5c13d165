//! Certificates and records of the environment's own domain, which the steps `edge` and `compute` share.
//!
//! Records carry no tags. Beside each of ours, and in the same change, which Route 53 carries out as a
//! whole or not at all, goes a TXT record `bme-owner.NAME` that names environment and resource, as
//! external-dns does it. Records without it are somebody else's and left alone; but an alias that points
//! to our own distribution or load balancer is ours with or without.

pub mod certificate;
pub mod former_domain;
pub mod record_set;

use serde_json::{Value, json};

use certificate::{Certificate, Place};
use former_domain::FormerDomain;
use record_set::{RecordSet, Target};

use super::{Stack, compute::load_balancer::LoadBalancer, edge::distribution::Distribution};
use crate::{
    aws::{Label, route53::is_at_or_below},
    engine::{Error, Graph, Handle, Outputs, ResourceId},
};

/// The resources of a step that has a domain.
const CERTIFICATE: &str = "certificate";
const VALIDATION: &str = "certificate-record";
const RECORD: &str = "record";

/// What is served over TLS.
pub enum Served {
    /// A certificate of the team's own, by its ARN.
    Given(String),
    /// One of ours.
    Made {
        /// The certificate.
        certificate: Handle<Certificate>,
        /// Its validation record, which is ready when the certificate is issued.
        validation: Handle<RecordSet>,
    },
}

impl Served {
    /// What has to be usable before it can be served.
    pub fn needs(&self) -> Vec<ResourceId> {
        match self {
            Self::Given(_) => Vec::new(),
            Self::Made { certificate, validation } => vec![certificate.id(), validation.id()],
        }
    }

    /// Its ARN, or a placeholder for the plan.
    pub fn show(&self, outputs: &Outputs) -> Value {
        match self {
            Self::Given(arn) => arn.as_str().into(),
            Self::Made { certificate, .. } => {
                outputs.show(certificate, |certificate| certificate.arn.clone())
            }
        }
    }

    /// Its ARN.
    pub fn arn(&self, outputs: &Outputs) -> Result<String, Error> {
        match self {
            Self::Given(arn) => Ok(arn.clone()),
            Self::Made { certificate, .. } => Ok(outputs.get(certificate)?.arn),
        }
    }
}

/// Adds the load balancer's certificate, with the record that validates it.
pub fn add_load_balancer_certificate(graph: &mut Graph, stack: &Stack) -> Option<Served> {
    let given = stack.environment.compute.certificate_arn.clone().map(Served::Given);
    given.or_else(|| {
        let domain = stack.environment.origin_domain()?;
        add_certificate(graph, stack, "compute", Place::Region, &domain)
    })
}

/// Adds the distribution's certificate, with the record that validates it. One that is given is of no
/// use without a domain.
pub fn add_distribution_certificate(graph: &mut Graph, stack: &Stack) -> Option<Served> {
    let edge = &stack.environment.edge;
    let domain = edge.domain.as_deref()?;
    let given = edge.certificate_arn.clone().map(Served::Given);
    given.or_else(|| add_certificate(graph, stack, "edge", Place::CloudFront, domain))
}

fn add_certificate(
    graph: &mut Graph,
    stack: &Stack,
    step: &str,
    place: Place,
    domain: &str,
) -> Option<Served> {
    let zone = stack.environment.edge.hosted_zone_id.clone()?;
    let certificate = graph.add(Certificate {
        label: stack.label(step, CERTIFICATE, 255),
        aws: stack.aws.clone(),
        lag: stack.lag(),
        place,
        domain: domain.to_owned(),
    });
    let validation = graph.add(RecordSet {
        label: stack.label(step, VALIDATION, 255),
        aws: stack.aws.clone(),
        zone,
        listed_below: listed_below(stack, domain),
        target: Target::Validation { place, certificate: certificate.clone() },
    });
    Some(Served::Made { certificate, validation })
}

/// Adds the record by which `CloudFront` finds the load balancer.
pub fn add_load_balancer_record(
    graph: &mut Graph,
    stack: &Stack,
    load_balancer: &Handle<LoadBalancer>,
) {
    if let Some(name) = stack.environment.origin_domain() {
        let load_balancer = load_balancer.clone();
        let target = Target::LoadBalancer { name: name.clone(), load_balancer };
        add_record(graph, stack, "compute", &name, target);
    }
}

/// Adds the records by which users find the distribution.
pub fn add_distribution_record(
    graph: &mut Graph,
    stack: &Stack,
    distribution: &Handle<Distribution>,
) {
    if let Some(name) = stack.environment.edge.domain.clone() {
        let distribution = distribution.clone();
        let target = Target::Distribution { name: name.clone(), distribution };
        add_record(graph, stack, "edge", &name, target);
    }
}

fn add_record(graph: &mut Graph, stack: &Stack, step: &str, name: &str, target: Target) {
    let Some(zone) = stack.environment.edge.hosted_zone_id.clone() else { return };
    graph.add(RecordSet {
        label: stack.label(step, RECORD, 255),
        aws: stack.aws.clone(),
        zone,
        listed_below: listed_below(stack, name),
        target,
    });
}

/// Adds what files with another domain, or with one at all, have left.
pub fn add_former(graph: &mut Graph, stack: &Stack) {
    let made = stack.environment.edge.hosted_zone_id.is_some();
    let domains = [
        ("edge", Place::CloudFront, stack.environment.edge.domain.clone()),
        ("compute", Place::Region, stack.environment.origin_domain()),
    ];
    for (step, place, domain) in domains {
        graph.add(FormerDomain {
            label: stack.label(step, "former-domain", 255),
            aws: stack.aws.clone(),
            place,
            certificate: stack.label(step, CERTIFICATE, 255),
            records: [RECORD, VALIDATION].map(|name| stack.label(step, name, 255)),
            domain: domain.filter(|_| made),
        });
    }
}

/// The condition that a tag of the request or of the resource names the environment.
fn tagged(label: &Label, key: &str) -> Value {
    json!({"StringEquals": {(format!("{key}/bme:env")): label.tags.get("bme:env")}})
}

/// The domain at and below which the records about `name` are listed: the environment's, so that one
/// call is for all of them, unless the load balancer's name is elsewhere.
fn listed_below(stack: &Stack, name: &str) -> String {
    let domain = stack.environment.edge.domain.as_deref();
    let above = domain.filter(|domain| is_at_or_below(name, domain));
    above.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests;
