//! The queue of worker processes: a Redis of the test's own, or two queues of the emulator.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_config::SdkConfig;
use aws_sdk_sqs::config::ProvideCredentials as _;
use bme_service::{
    config::{RedisConfig, Secret},
    kv::Kv,
    queue::{Queue, RedisQueue, SqsQueue},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::harness::{Redis, emulator, redis_connection, shared};

/// A lease that no call of a test outlives.
const LEASE: Duration = Duration::from_mins(1);

/// Where jobs of one test wait.
pub(crate) trait Backend {
    async fn new(attempts: u32) -> Self;

    /// The variables that choose it.
    fn environment(&self) -> Vec<(String, String)>;

    fn redis_url(&self) -> String;

    /// The queue as the test sees it.
    fn queue(&self) -> Arc<dyn Queue>;

    /// Puts something into it that this service did not write.
    async fn poison(&self, text: &str);

    /// Polls until `condition` holds; fails after a minute.
    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut period = interval(Duration::from_millis(50));
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !condition().await {
            assert!(Instant::now() < deadline, "waited a minute for {what}");
            period.tick().await;
        }
    }
}

/// Its queue has the name that every process has, so the server is its own.
pub(crate) struct OnRedis {
    server: Redis,
    queue: Arc<RedisQueue>,
}

impl Backend for OnRedis {
    async fn new(attempts: u32) -> Self {
        let server = Redis::start();
        let queue = RedisQueue::new(kv(&server.url()), "voice", LEASE, attempts);
        Self { server, queue: Arc::new(queue) }
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![("QUEUE".into(), "redis".into())]
    }

    fn redis_url(&self) -> String {
        self.server.url()
    }

    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }

    async fn poison(&self, text: &str) {
        let mut connection = redis_connection(&self.server.url()).await;
        let mut command = redis::cmd("XADD");
        command.arg("{q:voice}:s").arg("*").arg("message").arg(text);
        command.query_async::<()>(&mut connection).await.unwrap();
    }
}

pub(crate) struct OnSqs {
    sdk: SdkConfig,
    client: aws_sdk_sqs::Client,
    urls: [String; 2],
    access_key: String,
    attempts: u32,
}

impl Backend for OnSqs {
    async fn new(attempts: u32) -> Self {
        let sdk = tokio::task::spawn_blocking(emulator).await.unwrap().account().await;
        let client = aws_sdk_sqs::Client::new(&sdk);
        let mut urls = [String::new(), String::new()];
        for (url, name) in urls.iter_mut().zip(["voice", "voice-dead"]) {
            let created = client.create_queue().queue_name(name).send().await.unwrap();
            *url = created.queue_url.unwrap();
        }
        let provider = sdk.credentials_provider().unwrap();
        let access_key = provider.provide_credentials().await.unwrap().access_key_id().to_owned();
        Self { sdk, client, urls, access_key, attempts }
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("QUEUE", "sqs"),
            ("VOICE_QUEUE_URL", &self.urls[0]),
            ("VOICE_DEAD_LETTER_QUEUE_URL", &self.urls[1]),
            ("AUDIO_BUCKET", "audio"),
            ("AWS_ENDPOINT_URL", self.sdk.endpoint_url().unwrap()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn redis_url(&self) -> String {
        shared().redis_url()
    }

    fn queue(&self) -> Arc<dyn Queue> {
        let urls = (self.urls[0].as_str(), self.urls[1].as_str());
        Arc::new(SqsQueue::new(&self.sdk, urls, kv(&self.redis_url()), LEASE, self.attempts))
    }

    async fn poison(&self, text: &str) {
        let call = self.client.send_message().queue_url(&self.urls[0]).message_body(text);
        call.send().await.unwrap();
    }
}

fn kv(url: &str) -> Kv {
    Kv::new(&RedisConfig { url: Secret::new(url), ssl_ca: None }).unwrap()
}
