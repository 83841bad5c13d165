//! Release records in the state bucket: what runs, what ran, and every deploy that there was.
//!
//! `{env}/current.json` is the release that runs, `{env}/releases/{tag}.json` the last good deploy of
//! each tag, `{env}/deploys/{time}-{tag}.json` one entry for each deploy and rollback.

use futures::{StreamExt, TryStreamExt, stream};

use super::Release;
use crate::{
    engine::{Error, Fault},
    state::State,
};

pub(super) const INVALID_RECORD: Fault = Fault {
    code: "invalid-record",
    cause: "a release record in the state bucket was changed by hand, or by another version of bme",
    mend: "restore an earlier version of the object: the bucket keeps them all",
};

/// Reads in flight at once.
const READS: usize = 16;
/// Deploys that are listed.
const LISTED: usize = 100;

/// The release that runs; none before the first deploy, nor before the bucket exists.
///
/// # Errors
/// S3 did not answer, or the record is none.
pub async fn current(state: &State) -> Result<Option<Release>, Error> {
    read(state, "current.json").await
}

/// The last good deploy of `tag`.
///
/// # Errors
/// S3 did not answer, or the record is none.
pub async fn get(state: &State, tag: &str) -> Result<Option<Release>, Error> {
    read(state, &format!("releases/{tag}.json")).await
}

/// The last 100 deploys and rollbacks, newest first; a tag is listed as often as it was deployed.
///
/// # Errors
/// S3 did not answer, or a record is none.
pub async fn list(state: &State) -> Result<Vec<Release>, Error> {
    let mut names = state.list("deploys/").await?;
    // The names begin with the time.
    names.sort_unstable_by(|one, other| other.cmp(one));
    names.truncate(LISTED);
    let releases = stream::iter(&names).map(|name| read(state, name)).buffered(READS);
    Ok(releases.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// Records that `release` runs now. The pointer is written last: killed before, the next deploy
/// finds that something else should run and does it again.
///
/// # Errors
/// S3 did not answer. Repeating it writes the same.
pub(super) async fn write(state: &State, release: &Release) -> Result<(), Error> {
    let record = serde_json::to_vec_pretty(release)
        .map_err(|error| Error::fatal("s3:PutObject", "invalid-input", error.to_string()))?;
    let Release { tag, deployed_at, .. } = release;
    let time: String = deployed_at.chars().filter(|one| !matches!(one, ':' | '-')).collect();
    state.write(&format!("deploys/{time}-{tag}.json"), record.clone()).await?;
    state.write(&format!("releases/{tag}.json"), record.clone()).await?;
    state.write("current.json", record).await
}

async fn read(state: &State, name: &str) -> Result<Option<Release>, Error> {
    let record = state.read(name).await?.map(|body| serde_json::from_slice(&body));
    record.transpose().map_err(|error| {
        INVALID_RECORD.error("s3:GetObject", format!("`{}`: {error}", state.key(name)))
    })
}
