//! The secrets of ours that tasks read, and which version of each they get.

use super::{container::Setting, services::Wiring, variables::Keys};
use crate::{
    engine::Handle,
    release::Release,
    steps::{Stack, database::secret::Secret},
};

/// Which version of a secret the tasks of a release get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that the record of the release names: a deploy takes today's, and until the next one all
    /// tasks have that, also those that auto scaling starts. A rollback brings it back.
    OfRelease,
    /// Today's, whatever the record says: a server takes no other.
    OfServer,
}

/// One secret that tasks read.
pub struct TaskSecret {
    /// The secret.
    pub handle: Handle<Secret>,
    /// Its name, by which the record of a release has its version.
    pub name: String,
    /// Which version they get.
    pub version: Version,
}

/// All of them. What is not here is read by no task of ours, or made by somebody else: the origin secret
/// goes into the distribution and the listener's rule, those of Google and Facebook into Cognito, all by
/// `provision`; the master's password is made and rotated by RDS, and the migration reads today's.
pub struct TaskSecrets {
    /// `{"username", "password"}` of the services' database user.
    pub database: TaskSecret,
    /// `{"authToken"}` of the cache.
    pub cache: TaskSecret,
    /// `{"jwtSecret"}`.
    pub service: TaskSecret,
    /// `{"secret"}` of the Model Context Protocol endpoint.
    pub mcp: TaskSecret,
    /// `{"apiKey"}` of the Gemini API.
    pub gemini: TaskSecret,
    /// `{"dsn"}` of Sentry.
    pub sentry: TaskSecret,
}

impl TaskSecrets {
    /// Decides which version of each, for all that is made of it: task definitions, records, rollbacks.
    ///
    /// * `database`, `cache`: of the server. There is one user with one password, and once the migration
    ///   has set another, PostgreSQL and RDS Proxy refuse the former; ElastiCache refuses a former token
    ///   after `SET`. A former value would bring nothing back but tasks that can't connect.
    /// * `service`: of the release. Only the service itself signs and checks with it. With another one,
    ///   access tokens of 15 minutes are refused once; refresh tokens are in the database.
    /// * `mcp`: of the release. Only the service itself compares it with what its clients hold.
    /// * `gemini`, `sentry`: of the release. A person got them from Google and Sentry, where several are
    ///   valid side by side for as long as that person wants.
    pub(super) fn of(stack: &Stack, wiring: &Wiring<'_>, keys: &Keys) -> Self {
        let secret = |handle: &Handle<Secret>, version| {
            let id = handle.id();
            // 512 is the limit of a secret's name (Secrets Manager API reference, `CreateSecret`).
            let name = stack.label(id.step(), id.name(), 512).name;
            TaskSecret { handle: handle.clone(), name, version }
        };
        Self {
            database: secret(&wiring.database.application_secret, Version::OfServer),
            cache: secret(&wiring.cache.auth_token, Version::OfServer),
            service: secret(&wiring.platform.service_secret, Version::OfRelease),
            mcp: secret(&keys.mcp, Version::OfRelease),
            gemini: secret(&keys.gemini, Version::OfRelease),
            sentry: secret(&wiring.observability.sentry_dsn, Version::OfRelease),
        }
    }

    /// Each of them.
    pub fn all(&self) -> [&TaskSecret; 6] {
        [&self.database, &self.cache, &self.service, &self.mcp, &self.gemini, &self.sentry]
    }

    /// A hash of the ids of those versions that the servers' secrets had at the deploy. Their `valueFrom`
    /// stays the same, and tasks read them when they start: with this among their variables the task
    /// definition is another one, so that a deploy replaces the tasks under the same tag too. Ids of
    /// versions are no secrets (trap 11). Empty before the first release.
    pub(super) fn of_servers(&self, release: Option<&Release>) -> String {
        let secrets = self.all().into_iter().filter(|it| it.version == Version::OfServer);
        let names = secrets.map(|secret| secret.name.as_str());
        release.map(|release| release.versions_mark(names)).unwrap_or_default()
    }
}

impl TaskSecret {
    /// A member of it, as ECS takes it.
    pub(super) fn member(&self, key: &'static str, release: Option<&Release>) -> Setting {
        let version = self.named(release).unwrap_or_default().to_owned();
        let deployed = release.and_then(Release::deployed);
        Setting::of(&self.handle, move |secret| {
            let version = if is_younger(secret.created, deployed) { "" } else { version.as_str() };
            value_from(&secret.arn, key, version)
        })
    }

    /// The version to be named to ECS. None is today's: also of a secret that the record of the release
    /// does not have, since no task read it then.
    fn named<'a>(&self, release: Option<&'a Release>) -> Option<&'a str> {
        match self.version {
            Version::OfServer => None,
            Version::OfRelease => release?.secret_versions.get(&self.name).map(String::as_str),
        }
    }
}

/// Seconds that the clock of a machine that deploys may be behind AWS's: "in most cases, a request must
/// reach AWS within five minutes of the time stamp in the request" ("AWS Signature Version 4", IAM user
/// guide). Otherwise a deploy right after the secret's creation would look older than that.
const SKEW: i64 = 5 * 60;

/// Whether a secret was made after its release was recorded: it was deleted for good and made anew since,
/// and cannot have the version that the record names. With that no task would start.
fn is_younger(created: i64, deployed: Option<i64>) -> bool {
    deployed.is_some_and(|deployed| created > deployed + SKEW)
}

/// `arn:json-key:version-stage:version-id`, of which the latter two exclude each other; without both it
/// is the current version ("Pass Secrets Manager secrets through Amazon ECS environment variables",
/// Amazon ECS developer guide). To get any version takes `GetSecretValue` on the ARN, no more.
fn value_from(arn: &str, key: &str, version: &str) -> String {
    format!("{arn}:{key}::{version}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        aws::Aws,
        environment::{self, Target},
        steps,
    };

    fn release(versions: &[(&str, &str)]) -> Release {
        let own = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        Release {
            tag: "v1.0.0".into(),
            digest: "sha256:0".into(),
            image: "repository@sha256:0".into(),
            deployed_at: String::new(),
            configuration: [].into(),
            secret_versions: versions.iter().map(own).collect(),
            web: String::new(),
            schema: 1,
        }
    }

    fn secrets() -> TaskSecrets {
        let text =
            "name = \"staging\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";
        let environment = environment::parse(Path::new("staging.toml"), text, Target::Aws).unwrap();
        let aws = Aws::unconnected("123456789012", "eu-west-1");
        let stack =
            Stack { environment, aws, release: None, sandbox_ca: None, every_way_out: false };
        steps::steps(&stack).services.secrets
    }

    #[test]
    fn a_release_keeps_what_no_server_has_to_take() {
        let secrets = secrets();
        let name = |secret: &&TaskSecret| secret.name.clone();
        let (of_release, of_server): (Vec<_>, Vec<_>) =
            secrets.all().into_iter().partition(|secret| secret.version == Version::OfRelease);
        assert_eq!(
            of_server.iter().map(name).collect::<Vec<_>>(),
            ["bme-staging-application-secret", "bme-staging-auth-token"]
        );
        assert_eq!(
            of_release.iter().map(name).collect::<Vec<_>>(),
            [
                "bme-staging-service-secret",
                "bme-staging-mcp-secret",
                "bme-staging-gemini-api-key",
                "bme-staging-sentry-dsn",
            ]
        );
    }

    #[test]
    fn ecs_is_told_the_version_that_the_record_names() {
        let secrets = secrets();
        let release = release(&[
            ("bme-staging-gemini-api-key", "0190b5b2-7f6e-7cc0-8000-000000000001"),
            ("bme-staging-auth-token", "0190b5b2-7f6e-7cc0-8000-000000000002"),
        ]);
        let named = |secret: &TaskSecret| secret.named(Some(&release)).map(ToOwned::to_owned);
        let version = named(&secrets.gemini);
        assert_eq!(version.as_deref(), Some("0190b5b2-7f6e-7cc0-8000-000000000001"));
        assert_eq!(named(&secrets.cache), None, "the cache takes today's");
        assert_eq!(named(&secrets.sentry), None, "the record does not have it");
        assert_eq!(secrets.gemini.named(None), None);
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:one-AbCdEf";
        assert_eq!(value_from(arn, "apiKey", "v"), format!("{arn}:apiKey::v"));
        assert_eq!(value_from(arn, "apiKey", ""), format!("{arn}:apiKey::"));
    }

    #[test]
    fn a_secret_that_was_made_anew_has_no_version_of_the_release() {
        let mut release = release(&[]);
        assert!(!is_younger(i64::MAX, release.deployed()), "nobody knows when that was");
        release.deployed_at = "2026-11-23T19:54:39.123Z".into();
        let deployed = release.deployed().unwrap();
        assert_eq!(deployed, 1_795_463_679);
        assert!(!is_younger(deployed - 60, Some(deployed)));
        assert!(!is_younger(deployed + 60, Some(deployed)), "a clock may be behind");
        assert!(is_younger(deployed + 3600, Some(deployed)));
    }

    #[test]
    fn the_hash_is_of_the_servers_secrets_alone() {
        let secrets = secrets();
        let of = |name: &str, version: &str| secrets.of_servers(Some(&release(&[(name, version)])));
        for name in ["bme-staging-application-secret", "bme-staging-auth-token"] {
            assert_eq!(of(name, "one"), of(name, "one"));
            assert_ne!(of(name, "one"), of(name, "two"));
        }
        for name in ["bme-staging-service-secret", "bme-staging-sentry-dsn"] {
            assert_eq!(of(name, "one"), of(name, "two"), "{name} is named to ECS itself");
        }
    }
}
