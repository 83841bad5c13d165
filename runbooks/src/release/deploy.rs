//! Deploy and rollback: two ways to a release, one way to run it.

use std::{path::Path, time::SystemTime};

use aws_smithy_types::DateTime;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Error, File, Image, Platform, Progress, Registry, Release, Tag, Tell,
    build::{self, build},
    migrate::migrate,
    records,
    rollout::Rollout,
    secrets::{self, Restored},
    web,
};
use crate::{
    aws::Aws,
    engine::{Interrupt, Timings, lock::Fence},
    environment::Environment,
    state::State,
};

/// What a deploy or a rollback works with. The caller holds the lock.
#[derive(Clone, Copy)]
pub struct Deploy<'a> {
    /// The clients.
    pub aws: &'a Aws,
    /// The environment file.
    pub environment: &'a Environment,
    /// Where the records are.
    pub state: &'a State,
    /// What the graph put out.
    pub platform: &'a Platform,
    /// Timings.
    pub timings: &'a Timings,
    /// Endpoint override of all services, hence of the registry.
    pub endpoint_url: Option<&'a str>,
    /// Whether the lock is still held.
    pub fence: &'a Fence,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Who is told how far it is.
    pub tell: Tell<'a>,
}

/// Where the image comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Directory of the project.
    pub root: &'a Path,
    /// Digest of an image that is in the repository already; none to build one.
    pub image: Option<&'a str>,
}

/// What is left when a deploy is interrupted before anything was pushed.
const NOTHING_SHIPPED: &str = "nothing was shipped, the services run what they ran before";
/// What is left when it is interrupted before the services are changed.
const SERVICES_UNCHANGED: &str =
    "the services run what they ran before; what was pushed, and a migration that has run, stays";
/// What is left when it is interrupted while they are changed.
const BETWEEN: &str = "the services are between two releases";

/// Which part of the graph is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// None yet: whether all is there that the services stand on. What is missing is told while they
    /// still run what they ran before, not by a rollout that can't succeed and is then rolled back.
    Ground,
    /// The migrate task definition.
    Migration,
    /// Task definitions, services and scaling.
    Services,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The release runs.
    Done(Release),
    /// It ran before, and nothing was changed.
    Unchanged(Release),
}

impl Deploy<'_> {
    /// Builds the source, ships it as `tag` and runs it. `apply` makes a part of the graph what the
    /// release asks for.
    ///
    /// # Errors
    /// [`Error::RolledBack`] when the release did not come up and the one before runs again. Errors
    /// before that leave the services as they were.
    pub async fn deploy<A>(&self, tag: &Tag, source: Source<'_>, apply: A) -> Result<Outcome, Error>
    where
        A: AsyncFn(&Release, Phase) -> Result<(), Error>,
    {
        let tag: &str = tag.as_ref();
        let current = self.current().await?;
        let registry = self.registry().await?;
        let (digest, web, schema) = match source.image {
            Some(digest) => {
                self.proceed("the image", NOTHING_SHIPPED)?;
                registry.tag(digest, tag).await?;
                (digest.to_owned(), build::web(source.root)?, build::schema(source.root)?)
            }
            None => self.ship(tag, source.root, &registry).await?,
        };
        let release = Release {
            tag: tag.to_owned(),
            image: format!("{}@{digest}", self.platform.repository),
            digest,
            deployed_at: now(),
            configuration: self.environment.compute.environment.clone(),
            secret_versions: secrets::current(self.aws, self.timings, &self.platform.secrets)
                .await?,
            web: format!("releases/{tag}/"),
            schema,
        };
        if self.runs(&release, current.as_ref()).await? {
            return Ok(Outcome::Unchanged(release));
        }
        self.proceed("the web assets", SERVICES_UNCHANGED)?;
        // Nothing refers to them yet, so they go first: an upload that fails changes nothing.
        let uploaded =
            web::upload(self.aws, self.timings, &self.platform.web_bucket, &release.web, &web)
                .await?;
        (self.tell)(Progress::Web { uploaded, existed: web.len() - uploaded });
        self.proceed("the migration", SERVICES_UNCHANGED)?;
        apply(&release, Phase::Migration).await?;
        // Made once, outside every retry: a repeated call finds the task of the first.
        let attempt = format!("bme-{}", Uuid::new_v4().simple());
        migrate(self.aws, self.timings, self.platform, &release, &attempt, self.tell).await?;
        self.replace(release, current, apply).await
    }

    /// Runs an older release again: `to`, or the one before the one that runs. Nothing is built,
    /// pushed or migrated.
    ///
    /// # Errors
    /// As for [`Deploy::deploy`]; also when there is no such release, or its image or a version of a secret
    /// that it ran with is gone.
    pub async fn rollback<A>(&self, to: Option<&str>, apply: A) -> Result<Outcome, Error>
    where
        A: AsyncFn(&Release, Phase) -> Result<(), Error>,
    {
        let current = self.current().await?;
        let earlier = self.earlier(to, current.as_ref()).await?;
        if self.registry().await?.digest(&earlier.digest).await?.is_none() {
            return Err(Error::ImageGone { digest: earlier.digest });
        }
        let secrets = &self.platform.secrets;
        let Restored { versions, former } =
            secrets::restored(self.aws, self.timings, secrets, &earlier).await?;
        let earlier = Release { secret_versions: versions, ..earlier };
        if self.runs(&earlier, current.as_ref()).await? {
            return Ok(Outcome::Unchanged(earlier));
        }
        if !former.is_empty() {
            (self.tell)(Progress::FormerSecrets { tag: earlier.tag.clone(), secrets: former });
        }
        let release = Release { deployed_at: now(), ..earlier };
        self.replace(release, current, apply).await
    }

    async fn current(&self) -> Result<Option<Release>, Error> {
        Ok(self.timings.repeat(|| records::current(self.state)).await?)
    }

    async fn registry(&self) -> Result<Registry<'_>, Error> {
        let uri = &self.platform.repository;
        Ok(Registry::connect(self.aws, uri, self.endpoint_url, self.timings).await?)
    }

    /// Builds and pushes; digest, web assets, schema.
    async fn ship(
        &self,
        tag: &str,
        root: &Path,
        registry: &Registry<'_>,
    ) -> Result<(String, Vec<File>, i64), Error> {
        let mut interrupt = self.interrupt.clone();
        let built = tokio::select! {
            built = build(root, self.tell) => built?,
            // Nothing that was begun has to be finished: cargo goes on where it stopped.
            () = interrupt.set() => {
                return Err(Error::Interrupted {
                    before: "the image",
                    left: NOTHING_SHIPPED,
                });
            }
        };
        let binary = Bytes::from(built.binary);
        let files = built.web.clone();
        // Compression keeps a core busy for seconds; the lock's renewal must go on meanwhile.
        let image = tokio::task::spawn_blocking(move || Image::new(binary, &files))
            .await
            .map_err(|error| not_made(&error))?
            .map_err(|error| not_made(&error))?;
        let digest = image.manifest.digest.clone();
        (self.tell)(Progress::Image { digest: digest.clone(), bytes: image.size() });
        self.proceed("the push", NOTHING_SHIPPED)?;
        registry.push(&image, tag, self.tell).await?;
        Ok((digest, built.web, built.schema))
    }

    /// Runs `release`; puts `previous` back through the very same calls if it does not come up.
    async fn replace<A>(
        &self,
        release: Release,
        previous: Option<Release>,
        apply: A,
    ) -> Result<Outcome, Error>
    where
        A: AsyncFn(&Release, Phase) -> Result<(), Error>,
    {
        self.proceed("the services", SERVICES_UNCHANGED)?;
        apply(&release, Phase::Ground).await?;
        let Err(cause) = self.run(&release, &apply).await else {
            self.timings.repeat(|| records::write(self.state, &release)).await?;
            return Ok(Outcome::Done(release));
        };
        // Whoever pressed Ctrl-C or lost the lock does not want more changes.
        self.proceed("the end of the rollout", BETWEEN)?;
        let Release { tag, .. } = release;
        let cause = Box::new(cause);
        let Some(previous) = previous else {
            return Err(Error::FirstFailed { tag, cause });
        };
        (self.tell)(Progress::Restoring { tag: previous.tag.clone(), cause: cause.to_string() });
        match self.run(&previous, &apply).await {
            Ok(()) => Err(Error::RolledBack { tag, restored: previous.tag, cause }),
            Err(restore) => Err(Error::NotRestored {
                tag,
                previous: previous.tag,
                cause,
                restore: Box::new(restore),
            }),
        }
    }

    /// The one way to run a release: services, wait until they serve, then the page.
    async fn run<A>(&self, release: &Release, apply: &A) -> Result<(), Error>
    where
        A: AsyncFn(&Release, Phase) -> Result<(), Error>,
    {
        (self.tell)(Progress::Applying { tag: release.tag.clone() });
        let since = DateTime::from(SystemTime::now());
        let mut rollout = Rollout::new(self.aws, self.timings, self.platform, release, since)?;
        match apply(release, Phase::Services).await {
            Ok(()) => {}
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            // The engine says which resource failed; a task that stopped says why, with its log.
            Err(error) => return Err(rollout.explain().await.unwrap_or(error)),
        }
        rollout.watch(self.tell).await?;
        web::publish(self.aws, self.timings, &self.platform.web_bucket, &release.web).await
    }

    /// Whether `release` is what runs, and serves.
    async fn runs(&self, release: &Release, current: Option<&Release>) -> Result<bool, Error> {
        if !current.is_some_and(|current| current.same_as(release)) {
            return Ok(false);
        }
        let since = DateTime::from(SystemTime::now());
        Rollout::new(self.aws, self.timings, self.platform, release, since)?.is_up().await
    }

    async fn earlier(&self, to: Option<&str>, current: Option<&Release>) -> Result<Release, Error> {
        if let Some(tag) = to
            && let Some(release) = self.timings.repeat(|| records::get(self.state, tag)).await?
        {
            return Ok(release);
        }
        let history = self.timings.repeat(|| records::list(self.state)).await?;
        let Some(tag) = to else {
            let mut history = history.into_iter();
            return history
                .find(|release| current.is_none_or(|current| release.tag != current.tag))
                .ok_or(Error::NothingBefore);
        };
        let mut known: Vec<String> = Vec::new();
        for release in history {
            if !known.contains(&release.tag) {
                known.push(release.tag);
            }
        }
        Err(Error::NoSuchRelease { tag: tag.to_owned(), known })
    }

    /// Whether to go on with what `before` names; `left` is how everything is when not.
    fn proceed(&self, before: &'static str, left: &'static str) -> Result<(), Error> {
        if self.interrupt.is_set() {
            return Err(Error::Interrupted { before, left });
        }
        Ok(self.fence.check()?)
    }
}

/// RFC 3339 with milliseconds, so that the text sorts as the time does.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

fn not_made(error: &impl std::fmt::Display) -> Error {
    Error::Build {
        what: "the image",
        reason: error.to_string(),
        hint: "shorten the path that it names, or run the command again".into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_sort_as_text() {
        let time = |text: &str| format!("{:.3}", text.parse::<jiff::Timestamp>().unwrap());
        assert_eq!(time("2026-11-23T20:00:00Z"), "2026-11-23T20:00:00.000Z");
        assert!(time("2026-11-23T20:00:00.5Z") < time("2026-11-23T20:00:00.51Z"));
    }
}
