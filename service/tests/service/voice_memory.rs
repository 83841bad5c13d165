//! What the voice tests stand on: a queue and a store in memory, and a model that answers from a
//! script.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use bme_service::{
    app::{App, Timings},
    blob::{BlobError, Blobs},
    config::{Secret, VoiceConfig},
    queue::{DeadLetter, Delivery, Depth, Message, Queue, QueueError},
    voice::{Voice, consumer::Consumer, gemini::Gemini},
};
use bytes::Bytes;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::harness::{Instance, World};

const LEASE: Duration = Duration::from_mins(1);
const ATTEMPTS: u32 = 3;

struct Entry {
    message: Message,
    attempt: u32,
    stalled: u32,
    ready: Instant,
    handle: Option<String>,
    enqueued_at: OffsetDateTime,
}

#[derive(Default)]
pub(crate) struct MemoryQueue {
    entries: Mutex<Vec<Entry>>,
    known: Mutex<HashSet<Uuid>>,
    dead: Mutex<Vec<(Message, DeadLetter)>>,
    /// After which times failed deliveries were to come again; here they come at once.
    pub(crate) retried: Mutex<Vec<Duration>>,
    pub(crate) down: AtomicBool,
}

impl MemoryQueue {
    fn settle(
        &self,
        delivery: &Delivery,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), QueueError> {
        if self.down.load(Ordering::Acquire) {
            return Err(QueueError::Unreachable("down".into()));
        }
        let mut entries = self.entries.lock().unwrap();
        let entry =
            entries.iter_mut().find(|entry| entry.handle.as_ref() == Some(&delivery.handle));
        entry.map(change).ok_or(QueueError::LostLease)
    }

    fn remove(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.settle(delivery, |_| {})?;
        let handle = Some(&delivery.handle);
        self.entries.lock().unwrap().retain(|entry| entry.handle.as_ref() != handle);
        Ok(())
    }

    /// As after the leases of workers that were killed.
    pub(crate) fn expire(&self) {
        for entry in self.entries.lock().unwrap().iter_mut() {
            entry.stalled += u32::from(entry.handle.is_some());
        }
        self.free();
    }

    /// The same without counting them.
    pub(crate) fn free(&self) {
        for entry in self.entries.lock().unwrap().iter_mut() {
            entry.handle = None;
            entry.ready = Instant::now();
        }
    }

    /// As after a restart without its data.
    pub(crate) fn lose(&self) {
        self.entries.lock().unwrap().clear();
        self.known.lock().unwrap().clear();
    }

    /// Delivers a message once more, as a queue that is at least once may.
    pub(crate) fn duplicate(&self, message: &Message) {
        self.push(message.clone());
    }

    fn push(&self, message: Message) {
        self.entries.lock().unwrap().push(Entry {
            message,
            attempt: 0,
            stalled: 0,
            ready: Instant::now(),
            handle: None,
            enqueued_at: OffsetDateTime::now_utc(),
        });
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.entries.lock().unwrap().iter().map(|entry| entry.message.clone()).collect()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn enqueue(&self, message: &Message) -> Result<bool, QueueError> {
        if self.down.load(Ordering::Acquire) {
            return Err(QueueError::Unreachable("down".into()));
        }
        let new = self.known.lock().unwrap().insert(message.job_id);
        if new {
            self.push(message.clone());
        }
        Ok(new)
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        let mut period = tokio::time::interval(Duration::from_millis(5));
        loop {
            period.tick().await;
            let mut found = Vec::new();
            for entry in self.entries.lock().unwrap().iter_mut() {
                if found.len() < max && entry.ready <= Instant::now() {
                    let handle = Uuid::now_v7().to_string();
                    entry.handle = Some(handle.clone());
                    entry.ready = Instant::now() + LEASE;
                    entry.attempt += 1;
                    found.push(Delivery {
                        message: entry.message.clone(),
                        attempt: entry.attempt,
                        stalled: entry.stalled,
                        enqueued_at: entry.enqueued_at,
                        handle,
                    });
                }
            }
            if !found.is_empty() || Instant::now() >= deadline {
                return Ok(found);
            }
        }
    }

    async fn extend(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.settle(delivery, |entry| entry.ready = Instant::now() + LEASE)
    }

    async fn ack(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.remove(delivery)
    }

    async fn retry(
        &self,
        delivery: &Delivery,
        after: Duration,
        why: &str,
    ) -> Result<bool, QueueError> {
        self.retried.lock().unwrap().push(after);
        if delivery.attempt >= ATTEMPTS {
            self.dead_letter(delivery, why).await?;
            return Ok(true);
        }
        self.settle(delivery, |entry| (entry.handle, entry.ready) = (None, Instant::now()))?;
        Ok(false)
    }

    async fn release(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError> {
        self.settle(delivery, |entry| {
            entry.attempt -= 1;
            entry.handle = None;
            entry.ready = Instant::now() + after.min(Duration::from_millis(100));
        })
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        self.remove(delivery)?;
        let letter = DeadLetter {
            job_id: Some(delivery.message.job_id),
            reason: reason.into(),
            first_reason: None,
            attempts: delivery.attempt,
            enqueued_at: Some(delivery.enqueued_at),
            at: OffsetDateTime::now_utc(),
        };
        self.dead.lock().unwrap().push((delivery.message.clone(), letter));
        Ok(())
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let waiting = self.entries.lock().unwrap().len() as u64;
        Ok(Depth { waiting, in_flight: 0, dead: self.dead.lock().unwrap().len() as u64 })
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(self.dead.lock().unwrap().iter().take(limit).map(|(_, letter)| letter.clone()).collect())
    }

    async fn redrive(&self, jobs: &[Uuid]) -> Result<usize, QueueError> {
        let (back, stay) =
            std::mem::take(&mut *self.dead.lock().unwrap()).into_iter().partition::<Vec<_>, _>(
                |(message, _)| jobs.is_empty() || jobs.contains(&message.job_id),
            );
        *self.dead.lock().unwrap() = stay;
        let count = back.len();
        for (message, _) in back {
            self.push(message);
        }
        Ok(count)
    }
}

#[derive(Default)]
pub(crate) struct MemoryBlobs(pub(crate) Mutex<HashMap<String, Bytes>>);

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn put(&self, key: &str, bytes: Bytes, _: Duration) -> Result<(), BlobError> {
        self.0.lock().unwrap().insert(key.into(), bytes);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }
}

/// A model that gives scripted answers first and then always the same.
pub(crate) struct Model {
    pub(crate) url: String,
    calls: Arc<AtomicUsize>,
    running: Arc<Running>,
    pub(crate) last: Arc<Mutex<Option<(HeaderMap, Value)>>>,
}

/// What the model says to one call, and after which time.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) text: String,
    pub(crate) after: Duration,
}

impl From<(u16, String)> for Answer {
    /// Status 0 is no answer.
    fn from((status, text): (u16, String)) -> Self {
        let after = if status == 0 { Duration::from_hours(1) } else { Duration::ZERO };
        Self { status: status.max(200), headers: Vec::new(), text, after }
    }
}

#[derive(Default)]
struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Counts a call as long as it runs, also when the caller goes away.
struct Call(Arc<Running>);

impl Call {
    fn begin(running: &Arc<Running>) -> Self {
        let now = running.now.fetch_add(1, Ordering::SeqCst) + 1;
        running.most.fetch_max(now, Ordering::SeqCst);
        Self(running.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model {
    pub(crate) async fn start(script: Vec<(u16, String)>, then: (u16, String)) -> Self {
        let script = Mutex::new(VecDeque::from(script));
        Self::answering(move |_| {
            script.lock().unwrap().pop_front().unwrap_or_else(|| then.clone()).into()
        })
        .await
    }

    pub(crate) async fn answering(
        answer: impl Fn(&Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, running) = (Arc::<AtomicUsize>::default(), Arc::<Running>::default());
        let last = Arc::new(Mutex::new(None));
        let (counted, began, seen) = (Arc::clone(&calls), Arc::clone(&running), Arc::clone(&last));
        let answer = Arc::new(answer);
        let answer = move |headers: HeaderMap, body: Bytes| {
            counted.fetch_add(1, Ordering::SeqCst);
            let call = Call::begin(&began);
            let request: Value = serde_json::from_slice(&body).unwrap();
            let answer = answer(&request);
            *seen.lock().unwrap() = Some((headers, request));
            async move {
                let _ = tokio::time::timeout(answer.after, std::future::pending::<()>()).await;
                drop(call);
                let mut response = answer.text.into_response();
                *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
                for (name, value) in answer.headers {
                    response.headers_mut().insert(name, value.parse().unwrap());
                }
                response
            }
        };
        let path = "/v1beta/models/test-model:generateContent";
        let router = Router::new()
            .route(path, post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls, running, last }
    }

    /// How a client is to ask it.
    pub(crate) fn config(&self) -> VoiceConfig {
        VoiceConfig {
            concurrency: 4,
            api_key: Secret::new("canary-key"),
            base_url: self.url.clone(),
            model: "test-model".into(),
            attempt: Duration::from_millis(500),
            deadline: Duration::from_secs(10),
        }
    }

    /// Calls that are not answered yet.
    pub(crate) fn running(&self) -> usize {
        self.running.now.load(Ordering::SeqCst)
    }

    /// The most calls that were not answered at the same time.
    pub(crate) fn most_running(&self) -> usize {
        self.running.most.load(Ordering::SeqCst)
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// The model's answer with these function calls.
pub(crate) fn calls(calls: &[(&str, Value)]) -> (u16, String) {
    let parts: Vec<_> = calls
        .iter()
        .map(|(name, args)| json!({ "functionCall": { "name": name, "args": args } }))
        .collect();
    (200, json!({ "candidates": [{ "content": { "parts": parts } }] }).to_string())
}

pub(crate) fn gemini(config: &VoiceConfig) -> Gemini {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Gemini::new(config).unwrap()
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) instance: Instance,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) blobs: Arc<MemoryBlobs>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let (queue, blobs) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryBlobs::default()));
        let voice = Voice { queue: queue.clone(), blobs: blobs.clone() };
        let timings = Timings {
            idempotency_redis: Duration::from_secs(1),
            body: Duration::from_secs(7),
            ..Timings::default()
        };
        let app = App::with_voice(world.config.clone(), timings, Some(voice)).unwrap();
        Self { world, instance: Instance::of(app).await, queue, blobs }
    }

    /// The next delivery.
    pub(crate) async fn delivery(&self) -> Delivery {
        let mut deliveries = self.queue.receive(1, Duration::from_secs(5)).await.unwrap();
        deliveries.pop().expect("a job waits")
    }

    pub(crate) fn consumer(&self, model: &Model) -> Arc<Consumer> {
        Arc::new(self.consumer_with(model, self.queue.clone(), LEASE))
    }

    pub(crate) fn consumer_with(
        &self,
        model: &Model,
        queue: Arc<dyn Queue>,
        lease: Duration,
    ) -> Consumer {
        Consumer {
            database: self.world.pool.clone(),
            voice: Voice { queue, blobs: self.blobs.clone() },
            gemini: gemini(&model.config()),
            concurrency: 4,
            attempts: ATTEMPTS,
            lease,
        }
    }
}
