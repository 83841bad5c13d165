//! The blob stores.

use std::time::Duration;

use bme_service::blob::{BlobError, Blobs, RedisBlobs, S3Blobs};
use bytes::Bytes;
use uuid::Uuid;

use super::backend::kv;
use crate::harness::{Redis, emulator, eventually, shared};

const LIFETIME: Duration = Duration::from_mins(1);

/// What every store does. The largest audio has less than 2 MB.
async fn is_a_store(blobs: &dyn Blobs) {
    let key = format!("{}/{}", Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(blobs.get(&key).await.unwrap(), None);
    blobs.delete(&key).await.unwrap();
    let bytes = Bytes::from((0..2_000_000_u32).map(|at| at.to_le_bytes()[0]).collect::<Vec<_>>());
    blobs.put(&key, bytes.clone(), LIFETIME).await.unwrap();
    assert!(blobs.get(&key).await.unwrap() == Some(bytes));
    blobs.put(&key, Bytes::from_static(b"other"), LIFETIME).await.unwrap();
    assert_eq!(blobs.get(&key).await.unwrap(), Some(Bytes::from_static(b"other")));
    blobs.delete(&key).await.unwrap();
    assert_eq!(blobs.get(&key).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_a_store_that_forgets() {
    let blobs = RedisBlobs::new(kv(&shared().redis_url()));
    is_a_store(&blobs).await;
    let key = Uuid::now_v7().to_string();
    blobs.put(&key, Bytes::from_static(b"x"), Duration::from_millis(200)).await.unwrap();
    eventually("the end of a blob", async || blobs.get(&key).await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_a_store() {
    let sdk = tokio::task::spawn_blocking(emulator).await.unwrap().account().await;
    let blobs = S3Blobs::new(&sdk, "audio");
    let missing = blobs.get("key").await;
    assert!(matches!(missing, Err(BlobError::Unreachable(_))), "no bucket: {missing:?}");
    let settings = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build();
    let client = aws_sdk_s3::Client::from_conf(settings);
    client.create_bucket().bucket("audio").send().await.unwrap();
    is_a_store(&blobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_store_says_so() {
    let mut redis = Redis::start();
    let blobs = RedisBlobs::new(kv(&redis.url()));
    blobs.put("key", Bytes::from_static(b"x"), LIFETIME).await.unwrap();
    redis.stop();
    let answer = blobs.get("key").await;
    assert!(matches!(answer, Err(BlobError::Unreachable(_))), "{answer:?}");
}
