//! The bucket `bme-state-{account}-{region}`: locks, run records, release records. None of it is
//! needed to converge; AWS itself is the state.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    operation::list_objects_v2::ListObjectsV2Output,
    primitives::{ByteStream, DateTime},
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
        DeleteMarkerEntry, ObjectVersion, PublicAccessBlockConfiguration, VersioningConfiguration,
    },
};

use crate::{
    aws::{Aws, failed, not_found_is_none},
    engine::{Class, Error, Permission, lock::Store},
};

/// The name of the lock.
pub const LOCK: &str = "lock.json";

/// What the versions of the lock tell of those who had it. The bucket keeps versions before anybody
/// takes the lock, so whoever takes it or renews it leaves a version, and whoever releases it, or takes
/// it away with `bme unlock`, a delete marker: also a run that is killed before it has written its
/// record, or that could not write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockHistory {
    /// The last sign of life of who holds it, living or dead, seconds since 1970 by S3's clock.
    beat: Option<i64>,
    /// The version id of its last release, and when that was.
    released: Option<(String, i64)>,
}

impl LockHistory {
    /// Whether nobody has had the lock since this was read, `before` ago, until it was taken by the run
    /// that has read `now`: it was free, and its last release is still the last one. Whoever takes over
    /// the lock of a dead run knows that already, and must not ask.
    ///
    /// The last release has to be `lag` older than this: what a run made last may not be visible when it
    /// is interrupted and releases the lock at once.
    pub fn goes_on_in(&self, now: &Self, before: Duration, lag: Duration) -> bool {
        let rested = |(_, at): &(String, i64)| {
            let rested = u64::try_from(now.beat.unwrap_or_default() - at).unwrap_or_default();
            Duration::from_secs(rested).saturating_sub(before) >= lag
        };
        self.beat.is_none()
            && self.released == now.released
            && now.released.as_ref().is_none_or(rested)
    }
}

/// The bucket, for one environment.
#[derive(Clone)]
pub struct State {
    aws: Aws,
    bucket: String,
    environment: String,
}

impl State {
    /// The state of `environment`.
    pub fn new(aws: &Aws, environment: &str) -> Self {
        Self {
            bucket: format!("bme-state-{}-{}", aws.account, aws.region),
            environment: environment.to_owned(),
            aws: aws.clone(),
        }
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// `{env}/{name}`.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.environment)
    }

    /// Makes the bucket if it is not there: private, versioned, encrypted by S3's default. Versioning
    /// comes last, so that a bucket that has it is finished.
    pub async fn ensure(&self) -> Result<(), Error> {
        let s3 = &self.aws.s3.client;
        let versioning = s3.get_bucket_versioning().bucket(&self.bucket).send().await;
        let versioning = versioning.map_err(failed("s3:GetBucketVersioning"));
        match not_found_is_none(versioning)? {
            Some(answer) if answer.status() == Some(&BucketVersioningStatus::Enabled) => {
                return Ok(());
            }
            Some(_) => {}
            None => self.create().await?,
        }
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .block_public_policy(true)
            .ignore_public_acls(true)
            .restrict_public_buckets(true)
            .build();
        s3.put_public_access_block()
            .bucket(&self.bucket)
            .public_access_block_configuration(block)
            .send()
            .await
            .map_err(failed("s3:PutPublicAccessBlock"))?;
        let versioning =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        s3.put_bucket_versioning()
            .bucket(&self.bucket)
            .versioning_configuration(versioning)
            .send()
            .await
            .map_err(failed("s3:PutBucketVersioning"))?;
        Ok(())
    }

    async fn create(&self) -> Result<(), Error> {
        // us-east-1 is the one region that must not be named as a constraint.
        let location = (self.aws.region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(self.aws.region.as_str()))
                .build()
        });
        let create = self
            .aws
            .s3
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .set_create_bucket_configuration(location);
        match create.send().await.map_err(failed("s3:CreateBucket")) {
            Err(error) if error.class != Class::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads `{env}/{name}`; `None` when it, or the bucket, is not there.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(Store::get(self, &self.key(name)).await?.map(|(_, body)| body))
    }

    /// Writes `{env}/{name}`.
    pub async fn write(&self, name: &str, body: Vec<u8>) -> Result<(), Error> {
        let put = self.aws.s3.client.put_object().bucket(&self.bucket).key(self.key(name));
        put.body(ByteStream::from(body)).send().await.map_err(failed("s3:PutObject"))?;
        Ok(())
    }

    /// What the newest versions of the lock tell. One call, and S3 lists what was written before it.
    pub async fn lock_history(&self) -> Result<LockHistory, Error> {
        let key = self.key(LOCK);
        // The newest come first: a lock that was just taken, and the release before.
        let list = self.aws.s3.client.list_object_versions().bucket(&self.bucket).prefix(&key);
        let answer = list.max_keys(2).send().await.map_err(failed("s3:ListBucketVersions"));
        let Some(answer) = not_found_is_none(answer)? else { return Ok(LockHistory::default()) };
        let holds = |version: &&ObjectVersion| {
            version.key() == Some(&*key) && version.is_latest() == Some(true)
        };
        let ends = |marker: &&DeleteMarkerEntry| marker.key() == Some(&*key);
        let seconds = |at: Option<&DateTime>| at.map(DateTime::secs).unwrap_or_default();
        Ok(LockHistory {
            beat: answer.versions().iter().find(holds).map(|held| seconds(held.last_modified())),
            released: answer.delete_markers().iter().find(ends).map(|marker| {
                let version = marker.version_id().unwrap_or_default().to_owned();
                (version, seconds(marker.last_modified()))
            }),
        })
    }

    /// The names below `{env}/{prefix}`, without the environment.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let pages =
            self.aws.s3.client.list_objects_v2().bucket(&self.bucket).prefix(self.key(prefix));
        let pages = pages.into_paginator().send().collect::<Result<Vec<_>, _>>().await;
        let pages =
            not_found_is_none(pages.map_err(failed("s3:ListObjectsV2")))?.unwrap_or_default();
        let start = self.environment.len() + 1;
        Ok(pages
            .iter()
            .flat_map(ListObjectsV2Output::contents)
            .filter_map(|object| object.key()?.get(start..).map(ToOwned::to_owned))
            .collect())
    }

    /// Deletes everything of the environment, all versions, but the lock itself: whoever calls holds it.
    pub async fn empty(&self) -> Result<(), Error> {
        let lock = self.key(LOCK);
        self.aws.s3.delete_versions_but(&self.bucket, &self.key(""), Some(&lock)).await
    }

    /// Deletes what a released lock has left behind, and the bucket when it is empty then. Another run
    /// may have the lock by now: its object stays, and with it the bucket.
    pub async fn remove(&self) -> Result<(), Error> {
        let lock = self.key(LOCK);
        self.aws.s3.delete_versions_but(&self.bucket, &lock, Some(&lock)).await?;
        let delete = self.aws.s3.client.delete_bucket().bucket(&self.bucket).send().await;
        match delete.map_err(failed("s3:DeleteBucket")) {
            // Other environments keep their history in it.
            Err(error) if !matches!(error.class, Class::InUse | Class::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    /// What keeping it calls. Listing is not tied to the environment's prefix: without the right to
    /// list, S3 answers 403, not 404, for an object that is not there (S3 API reference, `GetObject`).
    pub fn permissions(&self) -> Vec<Permission> {
        let bucket = format!("arn:aws:s3:::{}", self.bucket);
        let objects = format!("{bucket}/{}", self.key("*"));
        let of_bucket = [
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:GetBucketVersioning",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketVersioning",
        ];
        let of_objects =
            ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject"];
        vec![Permission::on(of_bucket, [bucket]), Permission::on(of_objects, [objects])]
    }

    /// This as the store of the lock.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Store for State {
    async fn get(&self, key: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
        let get = self.aws.s3.client.get_object().bucket(&self.bucket).key(key).send().await;
        let Some(object) = not_found_is_none(get.map_err(failed("s3:GetObject")))? else {
            return Ok(None);
        };
        let version = object.e_tag().unwrap_or_default().to_owned();
        let body = object.body.collect().await.map_err(|error| {
            let mut cut = Error::fatal("s3:GetObject", "no-answer", error.to_string());
            cut.class = Class::Unknown;
            cut
        })?;
        Ok(Some((version, body.into_bytes().to_vec())))
    }

    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        let put = self.aws.s3.client.put_object().bucket(&self.bucket).key(key).if_none_match("*");
        conditional(put.body(ByteStream::from(body)).send().await.map_err(failed("s3:PutObject")))
    }

    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let put = self.aws.s3.client.put_object().bucket(&self.bucket).key(key).if_match(version);
        conditional(put.body(ByteStream::from(body)).send().await.map_err(failed("s3:PutObject")))
    }

    async fn delete(&self, key: &str, version: &str) -> Result<(), Error> {
        let delete =
            self.aws.s3.client.delete_object().bucket(&self.bucket).key(key).if_match(version);
        delete.send().await.map_err(failed("s3:DeleteObject"))?;
        Ok(())
    }
}

/// A failed condition is an answer, not an error; two writers at once (409) is worth another try.
fn conditional(
    put: Result<aws_sdk_s3::operation::put_object::PutObjectOutput, Error>,
) -> Result<Option<String>, Error> {
    match put {
        Ok(put) => Ok(Some(put.e_tag().unwrap_or_default().to_owned())),
        Err(error)
            if error.code == "PreconditionFailed"
                || error.class == Class::NotFound && error.code == "NoSuchKey" =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(30);

    fn history(beat: Option<i64>, released: Option<(&str, i64)>) -> LockHistory {
        LockHistory { beat, released: released.map(|(version, at)| (version.to_owned(), at)) }
    }

    fn goes_on(before: &LockHistory, now: &LockHistory) -> bool {
        before.goes_on_in(now, Duration::from_secs(2), LAG)
    }

    #[test]
    fn what_was_seen_without_the_lock_holds_only_while_nobody_has_had_it() {
        let (never, taken) = (history(None, None), history(Some(1000), None));
        assert!(goes_on(&never, &taken), "the first run of all");
        let free = history(None, Some(("a", 900)));
        assert!(goes_on(&free, &history(Some(1000), Some(("a", 900)))));
        // Another run came and went, whatever it wrote or did not write.
        assert!(!goes_on(&free, &history(Some(1000), Some(("b", 999)))));
        assert!(!goes_on(&never, &history(Some(1000), Some(("b", 999)))));
        // Another run, or the stack itself, went with everything that the bucket had.
        assert!(!goes_on(&free, &taken));
        // Held, by the living or the dead.
        let held = history(Some(950), Some(("a", 900)));
        assert!(!goes_on(&held, &history(Some(1000), Some(("a", 900)))));
        assert!(!goes_on(&taken, &history(Some(1000), Some(("b", 999)))));
    }

    #[test]
    fn what_was_seen_within_the_lag_of_the_run_before_does_not_hold() {
        for (released, holds) in [(967, true), (969, false), (1000, false), (1001, false)] {
            let free = history(None, Some(("a", released)));
            let now = history(Some(1000), Some(("a", released)));
            assert_eq!(goes_on(&free, &now), holds, "{released}");
            assert!(free.goes_on_in(&now, Duration::from_secs(2), Duration::ZERO));
        }
    }
}
