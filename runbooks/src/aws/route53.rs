//! Route 53: its client and its batched answers. A zone may have ten thousand records, and five calls a
//! second is all that an account gets (Route 53 developer guide, "Quotas"): only the records at and
//! below one domain are listed, once for all who ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::SdkConfig;
use aws_sdk_route53 as sdk;
use sdk::types::{Change, ChangeAction, ChangeBatch, HostedZone, ResourceRecordSet};
use tokio::time::Instant;

use super::{Batch, Calls, built, failed, not_found_is_none};
use crate::engine::Error;

/// The records of one zone at and below one domain.
type Records = Arc<Batch<Vec<ResourceRecordSet>>>;

/// The client and what it has answered.
pub struct Route53 {
    /// The SDK's client.
    pub client: sdk::Client,
    hosted_zones: Batch<Vec<HostedZone>>,
    records: Mutex<HashMap<(String, String), Records>>,
}

impl Route53 {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            hosted_zones: Batch::default(),
            records: Mutex::default(),
        }
    }

    /// All zones of the account.
    pub async fn hosted_zones(&self, since: Instant) -> Result<Arc<Vec<HostedZone>>, Error> {
        self.hosted_zones
            .get(since, async {
                let pages = self.client.list_hosted_zones().into_paginator().items().send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("route53:ListHostedZones"))
            })
            .await
    }

    /// The record sets of a zone at and below `domain`; none of a zone that is gone.
    pub async fn records(
        &self,
        zone: &str,
        domain: &str,
        since: Instant,
    ) -> Result<Arc<Vec<ResourceRecordSet>>, Error> {
        let batch = {
            let mut batches = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(batches.entry((zone.to_owned(), domain.to_owned())).or_default())
        };
        batch
            .get(since, async {
                Ok(not_found_is_none(self.list(zone, domain).await)?.unwrap_or_default())
            })
            .await
    }

    /// Route 53 sorts by the labels from the last to the first (API reference,
    /// `ListResourceRecordSets`), hence what is below a domain follows it at once.
    async fn list(&self, zone: &str, domain: &str) -> Result<Vec<ResourceRecordSet>, Error> {
        let mut found = Vec::new();
        let list = || self.client.list_resource_record_sets().hosted_zone_id(zone);
        let mut next = list().start_record_name(domain);
        loop {
            let answer = next.send().await.map_err(failed("route53:ListResourceRecordSets"))?;
            let listed = answer.resource_record_sets.len();
            let sets = answer.resource_record_sets.into_iter();
            let before = found.len();
            found.extend(sets.filter(|set| is_at_or_below(&set.name, domain)));
            if !answer.is_truncated || found.len() - before < listed {
                return Ok(found);
            }
            next = list()
                .set_start_record_name(answer.next_record_name)
                .set_start_record_type(answer.next_record_type)
                .set_start_record_identifier(answer.next_record_identifier);
        }
    }

    /// Carries out changes, all or none of them.
    pub async fn change(
        &self,
        zone: &str,
        changes: Vec<(ChangeAction, ResourceRecordSet)>,
    ) -> Result<(), Error> {
        let operation = "route53:ChangeResourceRecordSets";
        let changes = changes
            .into_iter()
            .map(|(action, set)| Change::builder().action(action).resource_record_set(set).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(built(operation))?;
        let batch = ChangeBatch::builder().set_changes(Some(changes)).build();
        self.client
            .change_resource_record_sets()
            .hosted_zone_id(zone)
            .change_batch(batch.map_err(built(operation))?)
            .send()
            .await
            .map_err(failed(operation))?;
        Ok(())
    }
}

/// Whether a name, as Route 53 answers it or without the last dot, is `domain` or below it.
pub fn is_at_or_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.trim_end_matches('.'), domain.trim_end_matches('.'));
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_domain_has_its_whole_labels() {
        assert!(is_at_or_below("app.example.org.", "app.example.org"));
        assert!(is_at_or_below("bme-owner._x.app.example.org.", "app.example.org."));
        assert!(!is_at_or_below("myapp.example.org.", "app.example.org"));
        assert!(!is_at_or_below("example.org.", "app.example.org"));
    }
}
