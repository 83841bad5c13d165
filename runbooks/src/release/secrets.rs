//! The versions of the secrets that the containers of a release read. No value is kept or shown.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::ContainerDefinition;

use super::{Error, Release, Secret};
use crate::{
    aws::{Aws, failed, not_found_is_none},
    engine::{self, Timings},
};

/// Ids of the versions that are current, by the name of the secret.
pub(super) async fn current(
    aws: &Aws,
    timings: &Timings,
    secrets: &[Secret],
) -> Result<BTreeMap<String, String>, engine::Error> {
    let mut versions = BTreeMap::new();
    for secret in secrets {
        let described = timings
            .repeat(|| async {
                let describe = aws.secretsmanager.client.describe_secret().secret_id(&secret.arn);
                describe.send().await.map_err(failed("secretsmanager:DescribeSecret"))
            })
            .await?;
        let stages = described.version_ids_to_stages().into_iter().flatten();
        let mut current = stages.filter(|(_, stages)| stages.iter().any(|one| one == "AWSCURRENT"));
        if let Some((version, _)) = current.next() {
            versions.insert(secret.name.clone(), version.clone());
        }
    }
    Ok(versions)
}

/// What the containers of an earlier release read when it runs again.
pub(super) struct Restored {
    /// Ids of the versions, by the name of the secret.
    pub(super) versions: BTreeMap<String, String>,
    /// Names of the secrets of which that is not today's.
    pub(super) former: Vec<String>,
}

/// The release's own versions of the secrets that belong to it, today's of all others. Of a secret that
/// its record does not have, today's too.
///
/// # Errors
/// [`Error::SecretsGone`] when Secrets Manager has deleted one of its own: ECS would start no task.
pub(super) async fn restored(
    aws: &Aws,
    timings: &Timings,
    secrets: &[Secret],
    release: &Release,
) -> Result<Restored, Error> {
    let mut versions = current(aws, timings, secrets).await?;
    let mut gone = Vec::new();
    let mut names = Vec::new();
    for (secret, version) in former(secrets, release, &versions) {
        if !timings.repeat(|| is_there(aws, secret, version)).await? {
            gone.push(format!("version {version} of {}", secret.name));
        }
        names.push((secret.name.clone(), version.clone()));
    }
    if !gone.is_empty() {
        return Err(Error::SecretsGone {
            tag: release.tag.clone(),
            digest: release.digest.clone(),
            versions: gone,
        });
    }
    let former = names.iter().map(|(name, _)| name.clone()).collect();
    versions.extend(names);
    Ok(Restored { versions, former })
}

/// The secrets that belong to `release` and of which its version is not today's, each with its version.
fn former<'a>(
    secrets: &'a [Secret],
    release: &'a Release,
    today: &BTreeMap<String, String>,
) -> Vec<(&'a Secret, &'a String)> {
    let of_release = secrets.iter().filter(|secret| secret.of_release);
    of_release
        .filter_map(|secret| Some((secret, release.secret_versions.get(&secret.name)?)))
        .filter(|(secret, version)| today.get(&secret.name) != Some(*version))
        .collect()
}

/// Whether of each secret that belongs to `release` the container reads the release's version.
pub(super) fn are_own(
    container: &ContainerDefinition,
    secrets: &[Secret],
    release: &Release,
) -> bool {
    container.secrets().iter().all(|read| {
        // ECS is told `arn:json-key:version-stage:version-id`.
        let secret = secrets.iter().find(|secret| {
            let arn = format!("{}:", secret.arn);
            secret.of_release && read.value_from().starts_with(&arn)
        });
        let version = secret.and_then(|secret| release.secret_versions.get(&secret.name));
        version.is_none_or(|version| read.value_from().ends_with(&format!(":{version}")))
    })
}

/// Whether Secrets Manager still has this version, asked as ECS will ask: `DescribeSecret` tells only of
/// versions with a staging label, which a former one lacks from the second change on. Those it may delete,
/// but only "when there are more than 100", and none "created less than 24 hours ago" ("AWS Secrets Manager
/// quotas", AWS Secrets Manager user guide).
async fn is_there(aws: &Aws, secret: &Secret, version: &str) -> Result<bool, engine::Error> {
    let get = aws.secretsmanager.client.get_secret_value();
    let get = get.secret_id(&secret.arn).version_id(version).send().await;
    let found = not_found_is_none(get.map_err(failed("secretsmanager:GetSecretValue")))?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, of_release: bool) -> Secret {
        Secret { name: name.into(), arn: format!("arn:{name}"), of_release }
    }

    fn versions(versions: &[(&str, &str)]) -> BTreeMap<String, String> {
        versions.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
    }

    fn release(own: &[(&str, &str)]) -> Release {
        Release {
            tag: "v1.0.0".into(),
            digest: "sha256:0".into(),
            image: "repository@sha256:0".into(),
            deployed_at: String::new(),
            configuration: BTreeMap::new(),
            secret_versions: versions(own),
            web: String::new(),
            schema: 1,
        }
    }

    #[test]
    fn a_container_with_another_version_is_another_releases() {
        let reads = |from: &str| {
            let secret = aws_sdk_ecs::types::Secret::builder().name("KEY").value_from(from);
            ContainerDefinition::builder().secrets(secret.build().unwrap()).build()
        };
        let secrets = [secret("key", true), secret("key-two", true), secret("password", false)];
        let release = release(&[("key", "one"), ("password", "one")]);
        for (from, own) in [
            ("arn:key:apiKey::one", true),
            ("arn:key:apiKey::two", false),
            ("arn:key:apiKey::", false),
            ("arn:key-two:apiKey::", true),
            ("arn:password:password::", true),
            ("arn:master:password::", true),
        ] {
            assert_eq!(are_own(&reads(from), &secrets, &release), own, "{from}");
        }
    }

    #[test]
    fn former_is_what_belongs_to_the_release_and_has_changed_since() {
        let secrets = [
            secret("changed", true),
            secret("same", true),
            secret("new", true),
            secret("password", false),
        ];
        let release = release(&[
            ("changed", "one"),
            ("same", "one"),
            ("password", "one"),
            ("read no more", "one"),
        ]);
        let today =
            versions(&[("changed", "two"), ("same", "one"), ("new", "two"), ("password", "two")]);
        let former = former(&secrets, &release, &today);
        let former: Vec<_> =
            former.iter().map(|(secret, version)| (&*secret.name, version.as_str())).collect();
        assert_eq!(former, [("changed", "one")]);
    }

    #[test]
    fn a_version_that_is_gone_is_told_with_the_way_around() {
        let error = Error::SecretsGone {
            tag: "v1.0.0".into(),
            digest: "sha256:0".into(),
            versions: vec!["version one of bme-staging-mcp-secret".into()],
        };
        let told = error.to_string();
        assert!(told.contains("`v1.0.0` ran with version one of bme-staging-mcp-secret"), "{told}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("bme deploy --tag v1.0.0 --image sha256:0"), "{hint}");
    }
}
