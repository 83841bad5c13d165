//! Blobs in Redis, which forgets them by itself.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlobError, Blobs};
use crate::kv::{Kv, KvError};

/// Longest wait for one answer: 2 MB over a busy network.
const BUDGET: Duration = Duration::from_secs(2);

/// Blobs in Redis.
#[derive(Clone, Debug)]
pub struct RedisBlobs {
    kv: Kv,
}

impl RedisBlobs {
    /// The blobs of this Redis.
    pub fn new(kv: Kv) -> Self {
        Self { kv }
    }
}

#[async_trait]
impl Blobs for RedisBlobs {
    async fn put(&self, key: &str, bytes: Bytes, lifetime: Duration) -> Result<(), BlobError> {
        let mut command = redis::cmd("SET");
        command.arg(name(key)).arg(&bytes[..]).arg("PX");
        // Redis refuses a lifetime of 0.
        command.arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1));
        Ok(self.kv.query(&command, BUDGET).await?)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError> {
        let command = redis::cmd("GET").arg(name(key)).to_owned();
        let bytes: Option<Vec<u8>> = self.kv.query(&command, BUDGET).await?;
        Ok(bytes.map(Bytes::from))
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let command = redis::cmd("UNLINK").arg(name(key)).to_owned();
        Ok(self.kv.query(&command, BUDGET).await?)
    }
}

impl From<KvError> for BlobError {
    fn from(error: KvError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

fn name(key: &str) -> String {
    format!("blob:{key}")
}
