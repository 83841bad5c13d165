//! Names that somebody else has: what is found under a name of ours without our tags, the sign-in
//! domain of another pool, a secret that waits to be deleted. Buckets are in a file of their own.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::{operation::list_secrets::ListSecretsOutput, types::SecretListEntry};

use super::{Check, Patient, State, buckets};
use crate::{
    aws::{failed, secretsmanager::live_tags},
    engine::{
        Error, ResourceId,
        plan::{Action, Looked, Plan},
    },
    steps::Stack,
};

/// All names.
pub(super) async fn checks(
    patient: &Patient<'_>,
    stack: &Stack,
    looked: &Looked,
    plan: &Plan,
) -> Vec<Check> {
    let (buckets, secrets) =
        tokio::join!(buckets::checks(patient, stack, looked.observed.since), secrets(patient));
    let mut checks = not_found(&looked.failed);
    checks.extend(buckets);
    checks.extend(secrets);
    checks.extend(domain(plan));
    let unseen = looked.failed.iter().any(|(_, error)| error.code != NOT_OURS);
    if !unseen && checks.iter().all(|check| check.state != State::Fail) {
        checks.insert(0, Check::ok("names", "nothing of another owner has a name of ours"));
    }
    checks
}

/// The code of [`Label::adopt`](crate::aws::Label::adopt)'s refusal.
const NOT_OURS: &str = "not-ours";

/// What a look refused to take for ours fails; what could not be looked at is told once for each
/// reason.
fn not_found(failed: &[(ResourceId, Error)]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut unseen: BTreeMap<(&str, &str), (&Error, Vec<&str>)> = BTreeMap::new();
    for (id, error) in failed {
        if error.code == NOT_OURS {
            let check = Check::fail(format!("name/{id}"), error.message.clone());
            checks.push(Check { hint: error.hint.clone(), ..check });
        } else {
            let reason = (error.operation.as_str(), error.code.as_str());
            unseen.entry(reason).or_insert_with(|| (error, Vec::new())).1.push(id.as_str());
        }
    }
    checks.extend(unseen.into_values().map(|(error, ids)| {
        let check = Check::not_made("names", error);
        Check { message: format!("{} ({})", check.message, ids.join(", ")), ..check }
    }));
    checks
}

/// A domain under our prefix that belongs to another pool: it can't be moved, only made anew.
fn domain(plan: &Plan) -> Option<Check> {
    let change = plan.changes.iter().find(|change| {
        change.id.as_str() == "identity/user-pool-domain" && change.action == Action::Replace
    })?;
    let taken = change.fields.iter().any(|field| field.path == "userPoolId");
    taken.then(|| {
        Check::fail(
            format!("name/{}", change.id),
            "the sign-in domain belongs to another user pool; provision would replace it",
        )
        .with_hint("delete that pool's domain, or give this environment another name")
    })
}

/// Secrets under our names that wait to be deleted: nothing else can have the name meanwhile.
async fn secrets(patient: &Patient<'_>) -> Vec<Check> {
    let environment = patient.environment.name.as_str();
    let list = patient.aws.secretsmanager.client.list_secrets().include_planned_deletion(true);
    let pages = list.into_paginator().send().collect::<Result<Vec<_>, _>>().await;
    match pages.map_err(failed("secretsmanager:ListSecrets")) {
        Ok(pages) => {
            let listed = pages.iter().flat_map(ListSecretsOutput::secret_list);
            listed.filter_map(|secret| waiting(secret, environment)).collect()
        }
        Err(error) => vec![Check::not_made("names", &error)],
    }
}

fn waiting(secret: &SecretListEntry, environment: &str) -> Option<Check> {
    let name = secret.name()?.strip_prefix(&format!("bme-{environment}-"))?;
    secret.deleted_date()?;
    let tags = live_tags(secret.tags());
    let whose = tags.get("bme:env").map(String::as_str);
    let check = format!("name/secret-{name}");
    let found = format!("secret `bme-{environment}-{name}` is scheduled for deletion");
    let anew = "aws secretsmanager delete-secret --force-delete-without-recovery --secret-id";
    match whose {
        Some(whose) if whose == environment => Some(
            Check::warn(check, format!("{found}; provision takes it back with its old value"))
                .with_hint(format!("for a new value: `{anew} bme-{environment}-{name}`")),
        ),
        // `bme-prod-` is also how the names of an environment `prod-eu` begin.
        Some(_) => None,
        None => Some(
            Check::warn(check, format!("{found} and carries no tag of ours"))
                .with_hint(format!("if the name is needed: `{anew} bme-{environment}-{name}`")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_secretsmanager::types::Tag;
    use aws_smithy_types::DateTime;

    use super::*;

    #[test]
    fn a_clash_fails_and_a_refusal_is_told_once() {
        let id = |name| ResourceId::new("network", name);
        let refused = Error::fatal("ec2:DescribeSubnets", "UnauthorizedOperation", "no");
        let clash = Error::fatal("bme", "not-ours", "taken").with_hint("rename it");
        let checks = not_found(&[
            (id("subnet-public-1"), refused.clone()),
            (id("log-group"), clash),
            (id("subnet-public-2"), refused),
        ]);
        assert_eq!(checks.len(), 2, "{checks:#?}");
        assert_eq!(checks[0].state, State::Fail);
        assert_eq!(checks[0].name, "name/network/log-group");
        assert_eq!(checks[0].hint.as_deref(), Some("rename it"));
        assert_eq!(checks[1].state, State::Warn);
        assert!(checks[1].message.contains("subnet-public-1, network/subnet-public-2"));
    }

    #[test]
    fn a_secret_that_waits_to_be_deleted_is_told_unless_it_is_another_environments() {
        let secret = |name: &str, tag: Option<&str>| {
            let tag = tag.map(|env| Tag::builder().key("bme:env").value(env).build());
            SecretListEntry::builder()
                .name(name)
                .deleted_date(DateTime::from_secs(0))
                .set_tags(tag.map(|tag| vec![tag]))
                .build()
        };
        assert!(waiting(&secret("bme-prod-auth-token", Some("prod")), "prod").is_some());
        assert!(waiting(&secret("bme-prod-auth-token", None), "prod").is_some());
        assert!(waiting(&secret("bme-prod-eu-auth-token", Some("prod-eu")), "prod").is_none());
        assert!(waiting(&secret("other", None), "prod").is_none());
        let living = SecretListEntry::builder().name("bme-prod-auth-token").build();
        assert!(waiting(&living, "prod").is_none());
    }
}
