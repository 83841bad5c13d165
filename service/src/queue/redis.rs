//! The queue in Redis: a stream with a consumer group, a sorted set for what is delayed, and a
//! stream of dead letters.
//!
//! A delivery is known by its entry's id. Whoever takes an entry away from a silent holder adds it
//! again under a new id, so an old id is proof of a lost lease, in this process too.

mod acks;

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{FromRedisValue, Script, ScriptInvocation, aio::MultiplexedConnection};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{DeadLetter, Delivery, Depth, MARKER_LIFETIME, Message, Queue, QueueError, UNREADABLE};
use crate::{
    kv::{Kv, KvError},
    telemetry,
};
use acks::Acks;

/// See the script for its operations.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/queue.lua")));

/// The consumer group.
const GROUP: &str = "workers";

/// Longest wait for one answer of the script.
const BUDGET: Duration = Duration::from_secs(2);

/// Longest time in one blocking read: what another worker delays is seen this much later.
const BLOCK: Duration = Duration::from_secs(2);

/// How often lost leases are looked for, on average.
const RECLAIM: Duration = Duration::from_secs(5);

/// A consumer that holds nothing and was idle for this long is of a process that has ended.
const FORGET: Duration = Duration::from_hours(1);

/// The queue in Redis.
#[derive(Debug)]
pub struct RedisQueue {
    kv: Kv,
    name: String,
    keys: Keys,
    consumer: String,
    lease: Duration,
    attempts: u32,
    reader: tokio::sync::Mutex<Reader>,
    acks: Acks,
    unreadable: AtomicUsize,
    /// Ids of the entries in this process's hands.
    held: Mutex<HashSet<String>>,
}

/// All with one hash tag, so that a cluster keeps them together.
#[derive(Clone, Debug)]
struct Keys {
    stream: String,
    delayed: String,
    dead: String,
}

impl Keys {
    fn new(name: &str) -> Self {
        Self {
            stream: format!("{{q:{name}}}:s"),
            delayed: format!("{{q:{name}}}:z"),
            dead: format!("{{q:{name}}}:d"),
        }
    }

    fn operation(&self, name: &str) -> ScriptInvocation<'static> {
        let mut invocation = SCRIPT.prepare_invoke();
        invocation.key(&self.stream).key(&self.delayed).key(&self.dead).arg(name);
        invocation
    }
}

/// The key that says that a job was enqueued.
pub(super) fn marker(name: &str, job: Uuid) -> String {
    format!("{{q:{name}}}:h:{job}")
}

/// An entry of a stream as Redis gives it: its id and its fields. Bytes, because a foreign entry need
/// not be text and must not make an answer unreadable.
type Entry = (String, HashMap<Vec<u8>, Vec<u8>>);

/// What one receive at a time has.
#[derive(Debug)]
struct Reader {
    connection: Option<MultiplexedConnection>,
    reclaim_at: Instant,
    cursor: String,
}

impl RedisQueue {
    /// The queue with this name. Who uses one name shares a queue.
    pub fn new(kv: Kv, name: &str, lease: Duration, attempts: u32) -> Self {
        let reader =
            Reader { connection: None, reclaim_at: Instant::now(), cursor: "0-0".to_owned() };
        let (keys, consumer) = (Keys::new(name), Uuid::now_v7().to_string());
        Self {
            acks: Acks::new(kv.clone(), keys.clone(), consumer.clone()),
            kv,
            name: name.to_owned(),
            keys,
            consumer,
            lease,
            attempts,
            reader: tokio::sync::Mutex::new(reader),
            unreadable: AtomicUsize::new(0),
            held: Mutex::default(),
        }
    }

    fn operation(&self, name: &str) -> ScriptInvocation<'static> {
        self.keys.operation(name)
    }

    async fn run<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        Ok(self.kv.script(invocation, BUDGET).await?)
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        // Each change is one call, which cannot be half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation on a delivery: what the script answered, which is never 0.
    async fn on(
        &self,
        delivery: &Delivery,
        name: &str,
        more: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<i64, QueueError> {
        let mut invocation = self.operation(name);
        invocation.arg(&self.consumer).arg(&delivery.handle);
        more(&mut invocation);
        let answer = self.run(&invocation).await?;
        if name != "extend" || answer == 0 {
            self.held().remove(&delivery.handle);
        }
        if answer == 0 { Err(QueueError::LostLease) } else { Ok(answer) }
    }

    /// Takes the leases of silent holders, now and then.
    async fn reclaim(&self, reader: &mut Reader) -> Result<(), QueueError> {
        if Instant::now() < reader.reclaim_at {
            return Ok(());
        }
        let mut invocation = self.operation("reclaim");
        invocation.arg(&self.consumer).arg(millis(self.lease)).arg(&reader.cursor);
        invocation.arg(millis(FORGET));
        let (cursor, count): (String, u64) = self.run(&invocation).await?;
        if count > 0 {
            tracing::warn!(count, "leases of voice jobs ended without a word");
        }
        reader.cursor = cursor;
        // From half to one and a half periods: workers that started together do not stay so.
        let period = RECLAIM.min(self.lease / 3);
        reader.reclaim_at = Instant::now() + period / 2 + period.mul_f64(fraction());
        Ok(())
    }

    /// Makes the stream ready to be read: the entries that were assigned to this process and did
    /// not arrive, and the time until a delayed one is due.
    async fn prepare(&self, max: usize) -> Result<(Vec<Entry>, Option<Duration>), QueueError> {
        let mut invocation = self.operation("prepare");
        invocation.arg(&self.consumer).arg(max);
        for id in self.held().iter() {
            invocation.arg(id);
        }
        let (due, ids, orphans): (i64, HashSet<String>, Vec<Entry>) = self.run(&invocation).await?;
        self.held().retain(|id| ids.contains(id));
        Ok((orphans, u64::try_from(due).ok().map(Duration::from_millis)))
    }

    async fn read(
        &self,
        reader: &mut Reader,
        max: usize,
        block: Duration,
    ) -> Result<Vec<Entry>, QueueError> {
        // Taken out: when this call is dropped or fails, the connection ends with it, and the server
        // assigns nothing to a reader that has gone.
        let mut connection = match reader.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(max);
        // 0 would be for ever.
        if millis(block) > 0 {
            command.arg("BLOCK").arg(millis(block));
        }
        command.arg("STREAMS").arg(&self.keys.stream).arg(">");
        let streams: Option<Vec<(String, Vec<Entry>)>> =
            command.query_async(&mut connection).await.map_err(KvError::from)?;
        reader.connection = Some(connection);
        Ok(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, QueueError> {
        let mut connection = self.kv.dedicated(BLOCK + BUDGET).await?;
        let memory: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut connection)
            .await
            .map_err(KvError::from)?;
        let policy = memory.lines().find_map(|line| line.trim().strip_prefix("maxmemory_policy:"));
        if let Some(policy) = policy
            && policy != "noeviction"
        {
            tracing::error!(
                policy,
                "Redis may evict the queue: maxmemory-policy must be noeviction"
            );
        }
        Ok(connection)
    }

    /// Deliveries of what can be read; the rest goes to the dead letters.
    async fn accept(&self, entries: Vec<Entry>) -> Vec<Delivery> {
        let (mut deliveries, mut unreadable) = (Vec::new(), Vec::new());
        for entry in entries {
            match delivery(&entry) {
                Some(delivery) => deliveries.push(delivery),
                None => unreadable.push(entry.0),
            }
        }
        for id in unreadable {
            tracing::error!(target: telemetry::DEAD_JOB, queue = self.name, id, code = UNREADABLE, "a message of the queue cannot be read");
            let mut invocation = self.operation("dead_letter");
            invocation.arg(&self.consumer).arg(&id).arg(UNREADABLE).arg(0);
            // Still assigned to this process, it is found again before the next read.
            match self.run::<i64>(&invocation).await {
                Ok(_) => {
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(%error, id, "unreadable message not moved"),
            }
        }
        // Nothing is awaited from here on: what is held is in the caller's hands.
        self.held().extend(deliveries.iter().map(|delivery| delivery.handle.clone()));
        deliveries
    }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn enqueue(&self, message: &Message) -> Result<bool, QueueError> {
        let mut invocation = self.operation("enqueue");
        invocation.key(marker(&self.name, message.job_id));
        invocation.arg(message.job_id.to_string()).arg(message.write());
        invocation.arg(millis(MARKER_LIFETIME));
        Ok(self.run::<i64>(&invocation).await? == 1)
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        // One at a time: what is assigned to this process and not held is what got lost.
        let Ok(mut reader) = timeout_at(deadline, self.reader.lock()).await else {
            return Ok(Vec::new());
        };
        loop {
            self.reclaim(&mut reader).await?;
            let (orphans, due) = self.prepare(max).await?;
            let mut deliveries = self.accept(orphans).await;
            if deliveries.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                let block = left.min(BLOCK).min(due.unwrap_or(BLOCK));
                let entries = self.read(&mut reader, max, block).await?;
                deliveries = self.accept(entries).await;
            }
            if !deliveries.is_empty() || Instant::now() >= deadline {
                return Ok(deliveries);
            }
        }
    }

    async fn extend(&self, delivery: &Delivery) -> Result<(), QueueError> {
        self.on(delivery, "extend", |_| {}).await.map(drop)
    }

    async fn ack(&self, delivery: &Delivery) -> Result<(), QueueError> {
        let outcome = self.acks.ack(&delivery.handle).await;
        self.held().remove(&delivery.handle);
        outcome
    }

    async fn retry(
        &self,
        delivery: &Delivery,
        after: Duration,
        reason: &str,
    ) -> Result<bool, QueueError> {
        let answer = self.on(delivery, "retry", |invocation| {
            invocation.arg(millis(after)).arg(reason).arg(self.attempts);
        });
        Ok(answer.await? == 2)
    }

    async fn release(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError> {
        let answer = self.on(delivery, "release", |invocation| {
            invocation.arg(millis(after));
        });
        answer.await.map(drop)
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let answer = self.on(delivery, "dead_letter", |invocation| {
            invocation.arg(reason).arg(1);
        });
        answer.await.map(drop)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let (waiting, in_flight, dead) = self.run(&self.operation("depth")).await?;
        Ok(Depth { waiting, in_flight, dead })
    }

    async fn oldest(&self) -> Result<Option<Duration>, QueueError> {
        let age: u64 = self.run(&self.operation("oldest")).await?;
        Ok(Some(Duration::from_millis(age)))
    }

    fn system(&self) -> &'static str {
        "redis"
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.keys.dead).arg("-").arg("+").arg("COUNT").arg(limit);
        let letters: Vec<Entry> = self.kv.query(&command, BUDGET).await?;
        Ok(letters.iter().map(letter).collect())
    }

    async fn redrive(&self, jobs: &[Uuid]) -> Result<usize, QueueError> {
        // The end is where it is now: what dies again in the meantime is not put back twice.
        let (mut from, mut to) = ("-".to_owned(), "+".to_owned());
        let mut count = 0;
        while !from.is_empty() {
            let mut invocation = self.operation("redrive");
            invocation
                .arg(&from)
                .arg(&to)
                .arg(jobs.iter().map(Uuid::to_string).collect::<Vec<_>>());
            let moved: usize;
            (from, to, moved) = self.run(&invocation).await?;
            count += moved;
        }
        Ok(count)
    }

    fn unreadable(&self) -> usize {
        self.unreadable.swap(0, Ordering::Relaxed)
    }

    async fn close(&self) -> Result<(), QueueError> {
        let mut reader = self.reader.lock().await;
        // A read that was dropped took its connection with it; this is what an idle one keeps.
        reader.connection = None;
        let mut invocation = self.operation("close");
        invocation.arg(&self.consumer);
        let count: u64 = self.run(&invocation).await?;
        self.held().clear();
        if count > 0 {
            tracing::warn!(count, "voice jobs left to other workers");
        }
        Ok(())
    }
}

impl From<KvError> for QueueError {
    fn from(error: KvError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

fn value<T: FromStr>((_, fields): &Entry, name: &str) -> Option<T> {
    str::from_utf8(fields.get(name.as_bytes())?).ok()?.parse().ok()
}

fn delivery(entry: &Entry) -> Option<Delivery> {
    Some(Delivery {
        message: Message::read(&value::<String>(entry, "message")?)?,
        attempt: value(entry, "attempt")?,
        stalled: value(entry, "stalled")?,
        enqueued_at: instant(value(entry, "enqueued")?)?,
        handle: entry.0.clone(),
    })
}

fn letter(entry: &Entry) -> DeadLetter {
    DeadLetter {
        job_id: value(entry, "job"),
        reason: value(entry, "reason").unwrap_or_default(),
        first_reason: value(entry, "first"),
        attempts: value(entry, "attempts").unwrap_or_default(),
        enqueued_at: value(entry, "enqueued").and_then(instant),
        at: value(entry, "died").and_then(instant).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    }
}

/// From 0 to 1: the last byte of a UUID is random.
fn fraction() -> f64 {
    f64::from(Uuid::now_v7().as_bytes()[15]) / 255.0
}

fn instant(millis: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
