//! The backends under test.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use bme_service::{
    config::{RedisConfig, Secret},
    kv::Kv,
    queue::{MemoryQueue, Queue, RedisQueue, SqsQueue},
};
use uuid::Uuid;

use super::ATTEMPTS;
use crate::harness::{emulator, redis_connection, shared};

/// A queue of a test's own.
pub(super) trait Backend {
    async fn new(lease: Duration) -> Self;

    /// The queue as one more process has it.
    fn worker(&self) -> Arc<dyn Queue>;

    /// Puts something into it that this service did not write.
    async fn poison(&self, text: &str);
}

pub(super) struct Memory(Arc<MemoryQueue>);

impl Backend for Memory {
    async fn new(lease: Duration) -> Self {
        Self(Arc::new(MemoryQueue::new(lease, ATTEMPTS)))
    }

    fn worker(&self) -> Arc<dyn Queue> {
        self.0.clone()
    }

    async fn poison(&self, text: &str) {
        self.0.push_raw(text);
    }
}

pub(super) struct Redis {
    pub(super) name: String,
    lease: Duration,
}

impl Redis {
    pub(super) fn worker_on(&self, url: &str) -> RedisQueue {
        RedisQueue::new(kv(url), &self.name, self.lease, ATTEMPTS)
    }

    pub(super) async fn add(&self, fields: &[(&[u8], &[u8])]) {
        let mut command = redis::cmd("XADD");
        command.arg(format!("{{q:{}}}:s", self.name)).arg("*");
        for (name, value) in fields {
            command.arg(*name).arg(*value);
        }
        let mut connection = redis_connection(&shared().redis_url()).await;
        command.query_async::<()>(&mut connection).await.unwrap();
    }
}

impl Backend for Redis {
    async fn new(lease: Duration) -> Self {
        Self { name: Uuid::now_v7().to_string(), lease }
    }

    fn worker(&self) -> Arc<dyn Queue> {
        Arc::new(self.worker_on(&shared().redis_url()))
    }

    async fn poison(&self, text: &str) {
        let text = text.as_bytes();
        self.add(&[
            (b"message", text),
            (b"attempt", b"1"),
            (b"enqueued", b"1"),
            (b"stalled", b"0"),
        ])
        .await;
    }
}

pub(super) fn kv(url: &str) -> Kv {
    Kv::new(&RedisConfig { url: Secret::new(url), ssl_ca: None }).unwrap()
}

pub(super) struct Sqs {
    sdk: SdkConfig,
    pub(super) client: aws_sdk_sqs::Client,
    pub(super) url: String,
    pub(super) dead_url: String,
    lease: Duration,
}

impl Sqs {
    pub(super) fn worker_with(&self, redis_url: &str) -> SqsQueue {
        let urls = (self.url.as_str(), self.dead_url.as_str());
        SqsQueue::new(&self.sdk, urls, kv(redis_url), self.lease, ATTEMPTS)
    }

    pub(super) async fn send(&self, url: &str, text: &str) {
        self.client.send_message().queue_url(url).message_body(text).send().await.unwrap();
    }
}

impl Backend for Sqs {
    async fn new(lease: Duration) -> Self {
        let sdk = tokio::task::spawn_blocking(emulator).await.unwrap().account().await;
        let client = aws_sdk_sqs::Client::new(&sdk);
        let mut urls = HashMap::new();
        for name in ["voice", "voice-dead"] {
            let created = client.create_queue().queue_name(name).send().await.unwrap();
            urls.insert(name, created.queue_url.unwrap());
        }
        let (url, dead_url) = (urls["voice"].clone(), urls["voice-dead"].clone());
        Self { sdk, client, url, dead_url, lease }
    }

    fn worker(&self) -> Arc<dyn Queue> {
        Arc::new(self.worker_with(&shared().redis_url()))
    }

    async fn poison(&self, text: &str) {
        self.send(&self.url, text).await;
    }
}
