//! Where the audio of a voice job lies until the job is done.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Why a blob was not had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store did not answer in time, or refused.
    #[error("the blob store is not reachable: {0}")]
    Unreachable(String),
}

/// A store of blobs with an end. Every call is bounded in time and safe to drop.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Writes a blob that may vanish after `lifetime`.
    async fn put(&self, key: &str, bytes: Bytes, lifetime: Duration) -> Result<(), BlobError>;

    /// Reads it; `None` when it is not there any more.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError>;

    /// Deletes it; nothing happens when it is not there.
    async fn delete(&self, key: &str) -> Result<(), BlobError>;
}
