//! Where the audio of a voice job lies until the job is done.

mod redis;
mod s3;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    aws,
    config::{QueueBackend, QueueConfig},
    kv::Kv,
};

pub use redis::RedisBlobs;
pub use s3::S3Blobs;

/// The store that goes with the configured queue. Does not wait for it, so that the service starts
/// while it is down.
pub async fn connect(config: &QueueConfig, kv: &Kv) -> Arc<dyn Blobs> {
    match &config.backend {
        QueueBackend::Redis => Arc::new(RedisBlobs::new(kv.clone())),
        QueueBackend::Sqs { audio_bucket, .. } => {
            Arc::new(S3Blobs::new(aws::config().await, audio_bucket))
        }
    }
}

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
