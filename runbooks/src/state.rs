//! The bucket `bme-state-{account}-{region}`: locks, run records, release records. None of it is
//! needed to converge; AWS itself is the state.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    operation::{
        list_objects_v2::ListObjectsV2Output,
        put_object::{PutObjectOutput, builders::PutObjectFluentBuilder},
    },
    primitives::{ByteStream, DateTime},
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
        DeleteMarkerEntry, Object, ObjectVersion, PublicAccessBlockConfiguration,
        VersioningConfiguration,
    },
};
use tokio::time::Instant;

use crate::{
    aws::{Aws, NO_ANSWER, failed, not_found_is_none},
    engine::{Class, Error, Fault, Permission, lock::Store},
};

/// The name of the lock.
pub const LOCK: &str = "lock.json";

/// What the names of the records of runs begin with.
pub const RECORDS: &str = "runs/";

/// Versions of the lock that are looked at. Were the beats of one run more than that, the release before
/// them would go unseen, which counts as none.
const HISTORY: i32 = 100;

/// Time that versioning takes to be in force everywhere in a bucket that has had none ("Enabling versioning
/// on buckets", Amazon S3 user guide: "we recommend that you wait for 15 minutes"). Until then a lock may
/// be released without a trace.
const VERSIONING: Duration = Duration::from_mins(15);

/// What the versions of the lock tell of those who had it. The bucket keeps versions before anybody
/// takes the lock, so whoever takes it, renews it, or takes it away with `bme unlock` leaves a version,
/// and whoever releases it a delete marker: also a run that is killed before it has written its record,
/// or that could not write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockHistory {
    /// The last sign of life of who holds it, living or dead, or when it was taken away from who did;
    /// seconds since 1970 by S3's clock.
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
        self.beat.is_none()
            && self.released == now.released
            && now.released.as_ref().is_none_or(|(_, at)| now.since(*at, before) >= lag)
    }

    /// Whether S3 had kept versions for so long when a first look was begun, `before` ago, that every
    /// release of the lock since then is in this: one of them was, long ago.
    pub fn is_whole(&self, before: Duration) -> bool {
        self.released.as_ref().is_some_and(|(_, at)| self.since(*at, before) >= VERSIONING)
    }

    /// Whether the record that was written last, if there is one, is older by `lag` than a first look that
    /// was begun `before` ago. Of two times in whole seconds each may be almost one more.
    pub fn is_after(&self, record: Option<i64>, before: Duration, lag: Duration) -> bool {
        let lag = lag + Duration::from_secs(1);
        record.is_none_or(|at| self.since(at, before) >= lag)
    }

    /// From `at` until `before` the last sign of life.
    fn since(&self, at: i64, before: Duration) -> Duration {
        let seconds = u64::try_from(self.beat.unwrap_or_default() - at).unwrap_or_default();
        Duration::from_secs(seconds).saturating_sub(before)
    }
}

/// Names of buckets are unique over all of AWS, and this one can be guessed from an account's number.
pub(crate) const TAKEN: Fault = Fault {
    code: "state-bucket-taken",
    cause: "a bucket of the name that bme keeps locks and records in belongs to another account: \
            somebody was there first, perhaps on purpose. Nothing is written to it or read from it",
    mend: "set another `aws.region`, for which the name is another one; AWS's support can have the \
           bucket taken away",
};

/// The bucket, for one environment. Every call names the owner that it expects, so that S3 refuses it
/// on a bucket of the same name that is somebody else's.
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
    ///
    /// The end of the destroy of another environment takes a bucket that nothing is in yet: when it goes
    /// under our hands, it is made again, once.
    pub async fn ensure(&self) -> Result<(), Error> {
        match self.finish().await {
            Err(error) if error.class == Class::NotFound => self.finish().await,
            finished => finished,
        }
    }

    async fn finish(&self) -> Result<(), Error> {
        let s3 = &self.aws.s3.client;
        let get = s3.get_bucket_versioning().bucket(&self.bucket);
        let versioning = get.expected_bucket_owner(&self.aws.account).send().await;
        let versioning = versioning.map_err(failed("s3:GetBucketVersioning"));
        match not_found_is_none(self.ours(versioning).await)? {
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
            .expected_bucket_owner(&self.aws.account)
            .public_access_block_configuration(block)
            .send()
            .await
            .map_err(failed("s3:PutPublicAccessBlock"))?;
        let versioning =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        s3.put_bucket_versioning()
            .bucket(&self.bucket)
            .expected_bucket_owner(&self.aws.account)
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
            // `BucketAlreadyOwnedByYou` is another run's doing, or our own whose answer was lost.
            Err(error) if error.code == "BucketAlreadyExists" => Err(self.taken(error)),
            Err(error) if error.class != Class::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// A refusal is either a right that the identity lacks or a bucket of somebody else's: S3 says
    /// both with one code, and sends on to another region if it is there. The list of the account's own
    /// buckets tells them apart, for whoever may read it.
    async fn ours<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        let refusals = ["AccessDenied", "http-403", "PermanentRedirect", "http-301"];
        let error = match answer {
            Err(error) if refusals.contains(&error.code.as_str()) => error,
            answer => return answer,
        };
        match self.aws.s3.buckets(Instant::now()).await {
            // It is there, or S3 had answered that it is not.
            Ok(own) if !own.contains(&self.bucket) => Err(self.taken(error)),
            _ => Err(error),
        }
    }

    fn taken(&self, refused: Error) -> Error {
        let what = format!("the bucket `{}` belongs to another account", self.bucket);
        let request_id = refused.request_id;
        Error { request_id, ..TAKEN.error(refused.operation, what) }
    }

    /// Reads `{env}/{name}`; `None` when it, or the bucket, is not there.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(Store::get(self, &self.key(name)).await?.map(|(_, body)| body))
    }

    /// Writes `{env}/{name}`.
    pub async fn write(&self, name: &str, body: Vec<u8>) -> Result<(), Error> {
        let put = self.put(&self.key(name)).body(ByteStream::from(body)).send().await;
        self.ours(put.map_err(failed("s3:PutObject"))).await?;
        Ok(())
    }

    /// What the newest versions of the lock tell. One call, and S3 lists what was written before it.
    pub async fn lock_history(&self) -> Result<LockHistory, Error> {
        let key = self.key(LOCK);
        // The newest come first: a lock that was just taken, the beats since if that is some time ago, and
        // the release before.
        let list = self.aws.s3.client.list_object_versions().bucket(&self.bucket).prefix(&key);
        let list = list.expected_bucket_owner(&self.aws.account);
        let answer = list.max_keys(HISTORY).send().await.map_err(failed("s3:ListBucketVersions"));
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

    fn put(&self, key: &str) -> PutObjectFluentBuilder {
        let put = self.aws.s3.client.put_object().bucket(&self.bucket).key(key);
        put.expected_bucket_owner(&self.aws.account)
    }

    /// The names below `{env}/{prefix}`, without the environment.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let pages = self.pages(prefix).await?;
        let start = self.environment.len() + 1;
        Ok(pages
            .iter()
            .flat_map(ListObjectsV2Output::contents)
            .filter_map(|object| object.key()?.get(start..).map(ToOwned::to_owned))
            .collect())
    }

    /// When the last of the records of runs was written that are there; seconds since 1970 by S3's clock.
    pub async fn last_record(&self) -> Result<Option<i64>, Error> {
        let pages = self.pages(RECORDS).await?;
        let records = pages.iter().flat_map(ListObjectsV2Output::contents);
        Ok(records.filter_map(Object::last_modified).map(DateTime::secs).max())
    }

    async fn pages(&self, prefix: &str) -> Result<Vec<ListObjectsV2Output>, Error> {
        let pages = self.aws.s3.client.list_objects_v2().bucket(&self.bucket);
        let pages = pages.prefix(self.key(prefix)).expected_bucket_owner(&self.aws.account);
        let pages = pages.into_paginator().send().collect::<Result<Vec<_>, _>>().await;
        let pages = self.ours(pages.map_err(failed("s3:ListObjectsV2"))).await;
        Ok(not_found_is_none(pages)?.unwrap_or_default())
    }

    /// Deletes everything of the environment, all versions, but the lock itself: whoever calls holds it.
    pub async fn empty(&self) -> Result<(), Error> {
        let (lock, owner) = (self.key(LOCK), &self.aws.account);
        self.aws.s3.delete_versions_but(&self.bucket, owner, &self.key(""), Some(&lock)).await
    }

    /// Deletes what a released lock has left behind, and the bucket when it is empty then. Another run
    /// may have the lock by now: its object stays, and with it the bucket.
    pub async fn remove(&self) -> Result<(), Error> {
        let (lock, owner) = (self.key(LOCK), &self.aws.account);
        self.aws.s3.delete_versions_but(&self.bucket, owner, &lock, Some(&lock)).await?;
        let delete = self.aws.s3.client.delete_bucket().bucket(&self.bucket);
        let delete = delete.expected_bucket_owner(owner).send().await;
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
        let get = self.aws.s3.client.get_object().bucket(&self.bucket).key(key);
        let get = get.expected_bucket_owner(&self.aws.account).send().await;
        let get = self.ours(get.map_err(failed("s3:GetObject"))).await;
        let Some(object) = not_found_is_none(get)? else {
            return Ok(None);
        };
        let version = object.e_tag().unwrap_or_default().to_owned();
        let body = object.body.collect().await.map_err(|error| {
            let cut = NO_ANSWER.error("s3:GetObject", error.to_string());
            Error { class: Class::Unknown, ..cut }
        })?;
        Ok(Some((version, body.into_bytes().to_vec())))
    }

    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        let put = self.put(key).if_none_match("*");
        conditional(put.body(ByteStream::from(body)).send().await.map_err(failed("s3:PutObject")))
    }

    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let put = self.put(key).if_match(version);
        conditional(put.body(ByteStream::from(body)).send().await.map_err(failed("s3:PutObject")))
    }

    async fn delete(&self, key: &str, version: &str) -> Result<(), Error> {
        let delete = self.aws.s3.client.delete_object().bucket(&self.bucket).key(key);
        let delete = delete.expected_bucket_owner(&self.aws.account).if_match(version);
        delete.send().await.map_err(failed("s3:DeleteObject"))?;
        Ok(())
    }
}

/// A failed condition is an answer, not an error; two writers at once (409) is worth another try.
fn conditional(put: Result<PutObjectOutput, Error>) -> Result<Option<String>, Error> {
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
    use std::sync::{Mutex, PoisonError};

    use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
    use aws_sdk_sts::config::{Credentials, SharedCredentialsProvider};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const ACCOUNT: &str = "123456789012";

    /// The state of an account at an S3 that answers every call with `status` and the list of buckets
    /// with none, and the heads of the requests that it has had.
    async fn answered(status: &'static str) -> (State, Arc<Mutex<Vec<String>>>) {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let (end, length) = loop {
                    let mut part = [0; 4096];
                    let read = stream.read(&mut part).await.unwrap_or_default();
                    request.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&request).to_lowercase();
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        let mut lines = head.lines();
                        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
                        let length = length.map_or(0, |it| it.parse::<usize>().unwrap());
                        break (head.len() + 4, length);
                    }
                    assert!(read > 0, "the request has a head: {text}");
                };
                while request.len() < end + length {
                    let mut part = [0; 4096];
                    let read = stream.read(&mut part).await.unwrap_or_default();
                    assert!(read > 0, "the request has a body");
                    request.extend_from_slice(&part[..read]);
                }
                let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                let lists = head.starts_with("get /?") || head.starts_with("get / ");
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                let (status, body) = if lists {
                    ("200 OK", "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
                } else {
                    (status, "")
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let credentials = Credentials::new("key", "secret", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(url)
            .build();
        let aws = Aws::new(&config, ACCOUNT.to_owned(), Arc::default());
        (State::new(&aws, "demo"), heads)
    }

    #[tokio::test]
    async fn every_call_names_the_owner_that_it_expects() {
        let (state, heads) = answered("404 Not Found").await;
        let _ = state.ensure().await;
        let _ = state.read("lock.json").await;
        let _ = state.write("runs/x.jsonl", b"{}".to_vec()).await;
        let _ = state.list("releases/").await;
        let _ = state.put_new("demo/lock.json", b"{}".to_vec()).await;
        let _ = state.replace("demo/lock.json", "1", b"{}".to_vec()).await;
        let _ = state.delete("demo/lock.json", "1").await;
        let _ = state.remove().await;
        let heads = heads.lock().unwrap();
        assert!(heads.len() >= 10, "{heads:#?}");
        let create = format!("put /bme-state-{ACCOUNT}-eu-west-1");
        for head in heads.iter() {
            let line = head.lines().next().unwrap_or_default();
            let path = line.split([' ', '?']).take(2).collect::<Vec<_>>().join(" ");
            let creates = path.trim_end_matches('/') == create;
            let names = head.contains(&format!("x-amz-expected-bucket-owner: {ACCOUNT}"));
            assert!(creates != names, "{head}");
        }
    }

    #[tokio::test]
    async fn a_bucket_of_another_account_is_told_and_not_used() {
        let (state, _) = answered("403 Forbidden").await;
        for error in [
            state.ensure().await.unwrap_err(),
            state.read("lock.json").await.unwrap_err(),
            state.write("runs/x.jsonl", b"{}".to_vec()).await.unwrap_err(),
            state.list("releases/").await.unwrap_err(),
        ] {
            assert_eq!((error.code.as_str(), error.class), (TAKEN.code, Class::Fatal), "{error}");
            assert_eq!(error.hint.as_deref(), Some(TAKEN.mend));
        }
        let refused = Error::fatal("s3:CreateBucket", "BucketAlreadyExists", "");
        assert_eq!(state.taken(refused).operation, "s3:CreateBucket");
    }

    #[tokio::test]
    async fn a_bucket_that_goes_while_it_is_made_is_made_again_once() {
        let (state, heads) = answered("404 Not Found").await;
        let error = state.ensure().await.unwrap_err();
        assert_eq!(error.class, Class::NotFound, "{error}");
        let heads = heads.lock().unwrap();
        let looked = heads.iter().filter(|head| head.starts_with("get "));
        assert_eq!(looked.count(), 2, "{heads:#?}");
    }

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
    fn while_versions_may_be_missing_the_records_of_runs_tell_who_was_there() {
        let before = Duration::from_secs(2);
        let quarter = 15 * 60;
        let whole = |now: LockHistory| now.is_whole(before);
        assert!(!whole(history(Some(10_000), None)), "nobody knows since when versions are kept");
        assert!(!whole(history(Some(10_000), Some(("a", 10_000 - quarter)))));
        assert!(whole(history(Some(10_000), Some(("a", 10_000 - quarter - 2)))));

        let now = history(Some(1000), None);
        assert!(now.is_after(None, before, LAG), "the first run of all");
        for (record, holds) in [(900, true), (967, true), (969, false), (1000, false)] {
            assert_eq!(now.is_after(Some(record), before, LAG), holds, "{record}");
        }
        assert!(!now.is_after(Some(999), before, Duration::ZERO), "it ended after the first look");
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
