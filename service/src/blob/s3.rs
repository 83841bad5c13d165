//! Blobs in a bucket of Amazon S3.
//!
//! S3 has no lifetime for one object: a lifecycle rule of the bucket ends what was not deleted. The
//! role must be allowed to list the bucket, else S3 says "denied" instead of "not there".

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client, config::Builder, operation::get_object::GetObjectError, primitives::ByteStream,
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{BlobError, Blobs};
use crate::aws;

/// Longest wait for the whole of a body, which the SDK's limits do not cover.
const BODY: Duration = Duration::from_secs(8);

/// Blobs in a bucket.
#[derive(Clone, Debug)]
pub struct S3Blobs {
    client: Client,
    bucket: String,
}

impl S3Blobs {
    /// The blobs of this bucket.
    pub fn new(sdk: &SdkConfig, bucket: &str) -> Self {
        // An endpoint of one's own (an emulator) has no host name for each bucket.
        let settings = Builder::from(sdk).force_path_style(sdk.endpoint_url().is_some());
        Self { client: Client::from_conf(settings.build()), bucket: bucket.to_owned() }
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn put(&self, key: &str, bytes: Bytes, _: Duration) -> Result<(), BlobError> {
        let call = self.client.put_object().bucket(&self.bucket).key(key);
        call.body(ByteStream::from(bytes)).send().await.map_err(unreachable)?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => {
                return Ok(None);
            }
            Err(error) => return Err(unreachable(error)),
        };
        match timeout(BODY, object.body.collect()).await {
            Ok(body) => Ok(Some(body.map_err(unreachable)?.into_bytes())),
            Err(_) => Err(BlobError::Unreachable(format!("no whole body within {BODY:?}"))),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let call = self.client.delete_object().bucket(&self.bucket).key(key);
        call.send().await.map_err(unreachable)?;
        Ok(())
    }
}

fn unreachable(error: impl Error) -> BlobError {
    BlobError::Unreachable(aws::describe(&error))
}
