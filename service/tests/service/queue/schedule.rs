//! Any interleaving of what workers do ends with every job done once or dead once.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bme_service::queue::{Delivery, Depth, Queue, QueueError};
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::{
    ATTEMPTS,
    backend::{Backend, Memory, Redis},
    enqueue,
};

/// Ends often: most steps take less, some take more.
const LEASE: Duration = Duration::from_millis(60);

#[derive(Clone, Debug)]
enum Step {
    Enqueue,
    EnqueueAgain(usize),
    Receive {
        worker: usize,
        max: usize,
        wait_ms: u64,
    },
    /// A receive that is given up.
    GiveUp {
        worker: usize,
        after_ms: u64,
    },
    Ack(usize),
    Retry(usize, u64),
    Release(usize, u64),
    DeadLetter(usize),
    Extend(usize),
    /// A holder that says nothing any more.
    Forget(usize),
    /// A worker is killed, and another one starts.
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (worker, index, ms) = (0..2_usize, any::<usize>(), 0..30_u64);
    prop_oneof![
        4 => Just(Step::Enqueue),
        1 => index.prop_map(Step::EnqueueAgain),
        6 => (worker.clone(), 1..4_usize, 0..40_u64)
            .prop_map(|(worker, max, wait_ms)| Step::Receive { worker, max, wait_ms }),
        2 => (worker.clone(), 0..4_u64)
            .prop_map(|(worker, after_ms)| Step::GiveUp { worker, after_ms }),
        3 => index.prop_map(Step::Ack),
        2 => (index, ms.clone()).prop_map(|(index, ms)| Step::Retry(index, ms)),
        2 => (index, ms).prop_map(|(index, ms)| Step::Release(index, ms)),
        1 => index.prop_map(Step::DeadLetter),
        2 => index.prop_map(Step::Extend),
        1 => index.prop_map(Step::Forget),
        1 => worker.prop_map(Step::Kill),
    ]
}

/// The queue and what has happened.
struct World<B> {
    backend: B,
    workers: [Arc<dyn Queue>; 2],
    jobs: Vec<bme_service::queue::Message>,
    held: Vec<(usize, Delivery)>,
    done: HashSet<Uuid>,
    dead: HashSet<Uuid>,
}

impl<B: Backend> World<B> {
    async fn new() -> Self {
        let backend = B::new(LEASE).await;
        let workers = [backend.worker(), backend.worker()];
        let (done, dead) = (HashSet::new(), HashSet::new());
        Self { backend, workers, jobs: Vec::new(), held: Vec::new(), done, dead }
    }

    fn take(&mut self, index: usize) -> Option<(Arc<dyn Queue>, Delivery)> {
        let count = self.held.len();
        let (worker, delivery) = (count > 0).then(|| self.held.swap_remove(index % count))?;
        Some((self.workers[worker].clone(), delivery))
    }

    fn got(&mut self, worker: usize, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let job = delivery.message.job_id;
            assert!((1..=ATTEMPTS).contains(&delivery.attempt), "{delivery:?}");
            assert!(!self.done.contains(&job), "done, and here again: {delivery:?}");
            assert!(!self.dead.contains(&job), "dead, and here again: {delivery:?}");
            self.held.push((worker, delivery));
        }
    }

    async fn take_step(&mut self, step: Step) {
        match step {
            Step::Enqueue => self.jobs.push(enqueue(&*self.workers[0]).await),
            Step::EnqueueAgain(index) => {
                if let Some(message) = self.jobs.get(index % self.jobs.len().max(1)) {
                    self.workers[1].enqueue(message).await.unwrap();
                }
            }
            Step::Receive { worker, max, wait_ms } => {
                let wait = Duration::from_millis(wait_ms);
                let deliveries = self.workers[worker].receive(max, wait).await.unwrap();
                self.got(worker, deliveries);
            }
            Step::GiveUp { worker, after_ms } => {
                let queue = self.workers[worker].clone();
                let receiving = queue.receive(2, Duration::from_millis(20));
                let patience = Duration::from_millis(after_ms);
                if let Ok(received) = tokio::time::timeout(patience, receiving).await {
                    self.got(worker, received.unwrap());
                }
            }
            Step::Ack(index) => {
                if let Some((queue, delivery)) = self.take(index) {
                    let job = delivery.message.job_id;
                    if still_held(queue.ack(&delivery).await).is_some() {
                        assert!(self.done.insert(job), "acknowledged twice");
                    }
                }
            }
            Step::Retry(index, ms) => {
                if let Some((queue, delivery)) = self.take(index) {
                    let after = Duration::from_millis(ms);
                    let answer = queue.retry(&delivery, after, "failed").await;
                    if still_held(answer) == Some(true) {
                        assert_eq!(delivery.attempt, ATTEMPTS);
                        assert!(self.dead.insert(delivery.message.job_id), "dead twice");
                    }
                }
            }
            Step::Release(index, ms) => {
                if let Some((queue, delivery)) = self.take(index) {
                    still_held(queue.release(&delivery, Duration::from_millis(ms)).await);
                }
            }
            Step::DeadLetter(index) => {
                if let Some((queue, delivery)) = self.take(index)
                    && still_held(queue.dead_letter(&delivery, "hopeless").await).is_some()
                {
                    assert!(self.dead.insert(delivery.message.job_id), "dead twice");
                }
            }
            Step::Extend(index) => {
                if let Some((worker, delivery)) = self.held.get(index % self.held.len().max(1)) {
                    still_held(self.workers[*worker].extend(delivery).await);
                }
            }
            Step::Forget(index) => drop(self.take(index)),
            Step::Kill(worker) => {
                self.workers[worker] = self.backend.worker();
                self.held.retain(|(holder, _)| *holder != worker);
            }
        }
    }

    /// Works off what is left.
    async fn finish(mut self) {
        self.held.clear();
        let deadline = Instant::now() + Duration::from_secs(20);
        let queue = self.workers[0].clone();
        loop {
            for delivery in queue.receive(5, Duration::from_millis(30)).await.unwrap() {
                let job = delivery.message.job_id;
                self.got(0, vec![delivery.clone()]);
                if still_held(queue.ack(&delivery).await).is_some() {
                    assert!(self.done.insert(job), "acknowledged twice");
                }
            }
            let depth = queue.depth().await.unwrap();
            if (depth.waiting, depth.in_flight) == (0, 0) {
                break;
            }
            assert!(Instant::now() < deadline, "not empty after 20 s: {depth:?}");
        }
        let letters = queue.dead(1000).await.unwrap();
        let dead: HashSet<_> = letters.iter().map(|letter| letter.job_id.unwrap()).collect();
        assert_eq!(dead.len(), letters.len(), "dead twice: {letters:?}");
        assert_eq!(dead, self.dead);
        assert!(dead.is_disjoint(&self.done), "done and dead");
        let jobs: HashSet<_> = self.jobs.iter().map(|message| message.job_id).collect();
        assert_eq!(&dead | &self.done, jobs, "lost, or from nowhere");
        let dead = u64::try_from(dead.len()).unwrap();
        assert_eq!(queue.depth().await.unwrap(), Depth { waiting: 0, in_flight: 0, dead });
    }
}

/// The answer, unless the lease was lost, which is nobody's fault here.
fn still_held<T>(answer: Result<T, QueueError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(QueueError::LostLease) => None,
        Err(error) => panic!("{error}"),
    }
}

fn run<B: Backend>(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::<B>::new().await;
        for step in steps {
            world.take_step(step).await;
        }
        world.finish().await;
    });
}

fn config(cases: u32) -> ProptestConfig {
    // A schedule depends on time: shrinking would run thousands of cases and prove little.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20, ..Default::default() }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn in_memory_every_job_ends_once(steps in vec(step(), 1..80)) {
        run::<Memory>(steps);
    }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn in_redis_every_job_ends_once(steps in vec(step(), 1..80)) {
        run::<Redis>(steps);
    }
}
