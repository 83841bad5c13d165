//! The engine against a cloud in memory: any graph, killed at any call, converges to one of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::{
    apply::{Applied, Context, apply},
    destroy::{destroy, kept, observe_left},
    diff::Field,
    events::{Event, Events},
    lock::{Fence, Holder, LockError, Store, acquire, held, take_away},
    plan::{Action, Plan, observe, plan},
    *,
};

/// Everything that exists: physical id -> logical id and size. Ids are never used twice.
#[derive(Default)]
struct Cloud {
    things: BTreeMap<usize, (String, i64)>,
    next: usize,
    calls: usize,
    /// Dies at this mutating call, before or after it is carried out.
    dies_at: Option<(usize, bool)>,
    /// Answers this mutating call with a lost answer, carried out or not.
    loses: Option<(usize, bool)>,
}

#[derive(Clone, Default)]
struct Shared {
    cloud: Arc<Mutex<Cloud>>,
    died: Arc<Notify>,
}

impl Shared {
    fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap()
    }

    async fn mutate<T>(&self, change: impl FnOnce(&mut Cloud) -> T) -> Result<T, Error> {
        let (value, dies, lost) = {
            let mut cloud = self.cloud();
            cloud.calls += 1;
            let call = cloud.calls;
            let dies = cloud.dies_at.filter(|(at, _)| *at == call);
            let loses = cloud.loses.filter(|(at, _)| *at == call);
            let skipped = matches!(dies.or(loses), Some((_, false)));
            let value = (!skipped).then(|| change(&mut cloud));
            (value, dies.is_some(), loses.is_some())
        };
        if dies {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        match value {
            Some(value) if !lost => Ok(value),
            _ => Err(Error {
                class: Class::Unknown,
                ..Error::fatal("test:Mutate", "no-answer", "the answer was lost")
            }),
        }
    }
}

struct Thing {
    id: ResourceId,
    needs: Vec<Handle<Thing>>,
    size: i64,
    immutable: bool,
    shared: Shared,
}

#[async_trait]
impl Resource for Thing {
    type Output = usize;

    fn id(&self) -> ResourceId {
        self.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        self.needs.iter().map(Handle::id).collect()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<usize>>, Error> {
        tokio::task::yield_now().await;
        let cloud = self.shared.cloud();
        let found = cloud.things.iter().find(|(_, (id, _))| id == self.id.as_str());
        Ok(found.map(|(physical, (_, size))| Live {
            output: *physical,
            properties: json!({"size": size}),
            condition: Condition::Ready,
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({"size": self.size})
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        if self.immutable { &[("size", "fixed")] } else { &[] }
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<usize>, Error> {
        let needs: Vec<usize> =
            self.needs.iter().map(|need| outputs.get(need)).collect::<Result<_, _>>()?;
        self.shared
            .mutate(|cloud| {
                assert!(
                    needs.iter().all(|need| cloud.things.contains_key(need)),
                    "a need is missing"
                );
                cloud.next += 1;
                cloud.things.insert(cloud.next, (self.id.to_string(), self.size));
                cloud.next
            })
            .await
            .map(Some)
    }

    async fn update(&self, live: &Live<usize>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        self.shared
            .mutate(|cloud| {
                if let Some(thing) = cloud.things.get_mut(&live.output) {
                    thing.1 = self.size;
                }
            })
            .await
    }

    async fn delete(&self, live: &Live<usize>) -> Result<(), Error> {
        self.shared.mutate(|cloud| cloud.things.remove(&live.output)).await.map(|_| ())
    }

    fn permissions(&self) -> Vec<Permission> {
        vec![Permission::anywhere(["test:Mutate"])]
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.size).unwrap_or_default())
    }

    /// A dollar for each unit of size; nobody knows what a large one costs.
    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        properties["size"].as_f64().filter(|size| *size < 100.0)
    }
}

/// A graph in which resource `i` needs those before it whose bit is set in `edges[i]`.
fn graph(shared: &Shared, edges: &[u16], size: i64, immutable: bool) -> Graph {
    let mut graph = Graph::default();
    let mut handles = Vec::new();
    for (position, bits) in edges.iter().enumerate() {
        let needs = handles
            .iter()
            .enumerate()
            .filter(|(before, _)| bits & (1 << before) != 0)
            .map(|(_, handle): (usize, &Handle<Thing>)| handle.clone())
            .collect();
        handles.push(graph.add(Thing {
            id: ResourceId::new("test", &position.to_string()),
            needs,
            size,
            immutable,
            shared: shared.clone(),
        }));
    }
    graph
}

fn timings() -> Timings {
    Timings {
        concurrency: 3,
        poll: Duration::from_millis(1),
        first_look: 0.0,
        backoff: Duration::from_millis(1),
        retry: Duration::from_secs(2),
        patience: 2,
        deletion: Duration::from_secs(5),
        lease: Duration::from_millis(300),
        beat: Duration::from_millis(50),
        lag: Duration::from_millis(1),
        rollout: Duration::from_secs(1),
    }
}

async fn run(graph: &Graph) -> Applied {
    run_with(graph, &timings()).await
}

async fn run_with(graph: &Graph, timings: &Timings) -> Applied {
    let (events, _receiver) = Events::channel("test".into());
    let (_switch, interrupt) = Interrupt::new();
    let fence = Fence::held_for(Duration::from_mins(1));
    let context = Context {
        graph,
        timings,
        events: &events,
        interrupt: &interrupt,
        fence: &fence,
        allow_data_loss: false,
    };
    let observed = observe(graph, timings).await.unwrap();
    apply(&context, observed, |_| true).await
}

async fn run_until_it_dies(shared: &Shared, graph: &Graph) -> Option<Applied> {
    tokio::select! {
        applied = run(graph) => Some(applied),
        () = shared.died.notified() => None,
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn one_of_each(shared: &Shared, edges: &[u16], size: i64) {
    let cloud = shared.cloud();
    let mut ids: Vec<_> = cloud.things.values().cloned().collect();
    ids.sort();
    let mut wanted: Vec<_> = (0..edges.len()).map(|i| (format!("test/{i}"), size)).collect();
    wanted.sort();
    assert_eq!(ids, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn killed_at_any_call_it_converges(
        edges in prop::collection::vec(any::<u16>(), 1..12),
        at in 1_usize..14,
        carried_out in any::<bool>(),
    ) {
        let shared = Shared::default();
        block_on(async {
            let graph = graph(&shared, &edges, 1, false);
            shared.cloud().dies_at = Some((at, carried_out));
            let died = run_until_it_dies(&shared, &graph).await;
            shared.cloud().dies_at = None;
            assert_eq!(died.is_none(), at <= edges.len());
            let again = run(&graph).await;
            assert!(again.failures.is_empty() && again.held_back.is_empty());
            one_of_each(&shared, &edges, 1);
            let calls = shared.cloud().calls;
            let nothing = run(&graph).await;
            assert_eq!(nothing.unchanged, edges.len());
            assert_eq!(shared.cloud().calls, calls, "a third run changes nothing");
        });
    }

    #[test]
    fn a_lost_answer_makes_no_second_one(
        edges in prop::collection::vec(any::<u16>(), 1..12),
        at in 1_usize..12,
        carried_out in any::<bool>(),
    ) {
        let shared = Shared::default();
        block_on(async {
            let graph = graph(&shared, &edges, 1, false);
            shared.cloud().loses = Some((at, carried_out));
            let applied = run(&graph).await;
            assert!(applied.failures.is_empty());
            one_of_each(&shared, &edges, 1);
        });
    }

    #[test]
    fn changes_and_replacements_converge_and_destroy_leaves_nothing(
        edges in prop::collection::vec(any::<u16>(), 1..10),
        immutable in any::<bool>(),
    ) {
        let shared = Shared::default();
        block_on(async {
            run(&graph(&shared, &edges, 1, false)).await;
            let changed = graph(&shared, &edges, 2, immutable);
            let applied = run(&changed).await;
            assert!(applied.failures.is_empty());
            assert_eq!(applied.updated + applied.replaced, edges.len());
            one_of_each(&shared, &edges, 2);

            let (events, _receiver) = Events::channel("test".into());
            let (_switch, interrupt) = Interrupt::new();
            let timings = timings();
            let fence = Fence::held_for(Duration::from_mins(1));
            let context = Context { graph: &changed, timings: &timings, events: &events, interrupt: &interrupt, fence: &fence, allow_data_loss: false };
            let observed = observe(&changed, &timings).await.unwrap();
            let gone = destroy(&context, observed, &std::collections::BTreeSet::new()).await;
            assert_eq!(gone.deleted, edges.len());
            assert!(shared.cloud().things.is_empty());
        });
    }
}

#[test]
fn what_only_a_wider_graph_has_is_planned_away_and_nothing_else() {
    block_on(async {
        let shared = Shared::default();
        let edges = [0, 1, 3, 7, 5];
        let (wide, narrow) =
            (graph(&shared, &edges, 1, false), graph(&shared, &edges[..3], 1, false));
        run(&wide).await;
        let timings = timings();
        let before = observe(&narrow, &timings).await.unwrap();
        let others = retired::observe(&wide, &narrow, &before.outputs, before.since, &timings)
            .await
            .unwrap();
        let planned = retired::changes(&wide, &others);
        let ids: Vec<_> = planned.iter().map(|change| change.id.name()).collect();
        assert_eq!(ids, ["3", "4"]);
        assert!(planned.iter().all(|change| change.action == Action::Delete));
        let costs = planned.iter().map(|change| (change.monthly_cost_before, change.monthly_cost));
        assert_eq!(costs.collect::<Vec<_>>(), [(Some(1.0), Some(0.0)); 2]);

        let (events, _receiver) = Events::channel("test".into());
        let (_switch, interrupt) = Interrupt::new();
        let fence = Fence::held_for(Duration::from_mins(1));
        let context = Context {
            graph: &wide,
            timings: &timings,
            events: &events,
            interrupt: &interrupt,
            fence: &fence,
            allow_data_loss: false,
        };
        // 4 needs 0 and 2, so that they stay with it, and 3 goes alone.
        let staying = kept(&wide, |node| node.id.name() == "4");
        assert_eq!(staying.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 4]);
        let gone = destroy(&context, others, &staying).await;
        assert_eq!((gone.deleted, gone.unchanged), (1, 1));
        let others = retired::observe(&wide, &narrow, &before.outputs, before.since, &timings)
            .await
            .unwrap();
        let gone = destroy(&context, others, &std::collections::BTreeSet::new()).await;
        assert_eq!((gone.deleted, gone.unchanged), (1, 0));
        one_of_each(&shared, &edges[..3], 1);
    });
}

#[test]
fn a_failure_holds_back_only_what_needs_it() {
    block_on(async {
        let shared = Shared::default();
        let mut graph = graph(&shared, &[0, 0], 1, false);
        let broken = graph.add(Broken(ResourceId::new("test", "broken")));
        graph.add(After(broken));
        let applied = run(&graph).await;
        assert_eq!(applied.created, 2);
        assert_eq!(applied.failures.len(), 1);
        assert_eq!(applied.held_back, [ResourceId::new("test", "after")]);
    });
}

struct After(Handle<Broken>);
#[async_trait]
impl Resource for After {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", "after")
    }
    fn needs(&self) -> Vec<ResourceId> {
        vec![self.0.id()]
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        Ok(None)
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        unreachable!("its need failed")
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

struct Broken(ResourceId);

#[async_trait]
impl Resource for Broken {
    type Output = ();
    fn id(&self) -> ResourceId {
        self.0.clone()
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        Ok(None)
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        Err(Error::fatal("test:Create", "LimitExceeded", "no more"))
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

/// Listed, but its second read finds it only as far as `told` says, one look each; afterwards it is
/// found, or never again.
struct Flickering {
    told: Mutex<Vec<bool>>,
    then: bool,
    made: Arc<Mutex<usize>>,
}

impl Flickering {
    fn graph(told: &[bool], then: bool) -> (Graph, Arc<Mutex<usize>>) {
        let made = Arc::default();
        let told = Mutex::new(told.iter().rev().copied().collect());
        let mut graph = Graph::default();
        graph.add(Self { told, then, made: Arc::clone(&made) });
        (graph, made)
    }
}

#[async_trait]
impl Resource for Flickering {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", "flickering")
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        if *self.made.lock().unwrap() == 0 {
            return Ok(None);
        }
        if self.told.lock().unwrap().pop().unwrap_or(self.then) {
            return Ok(Some(Live {
                output: (),
                properties: json!({}),
                condition: Condition::Ready,
            }));
        }
        Err(Error {
            class: Class::NotFound,
            ..Error::fatal("test:ListTags", "NoSuchThing", "it is being deleted")
        })
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    /// Carried out, but its answer is lost.
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        *self.made.lock().unwrap() += 1;
        Err(Error {
            class: Class::Unknown,
            ..Error::fatal("test:Create", "no-answer", "the answer was lost")
        })
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

#[test]
fn what_a_second_read_no_longer_finds_is_gone_for_a_destroy() {
    block_on(async {
        // On its way out before the destroy, and by the destroy.
        let cases: [&[bool]; 2] = [&[], &[true, true]];
        for told in cases {
            let (graph, made) = Flickering::graph(told, false);
            *made.lock().unwrap() = 1;
            let (events, _receiver) = Events::channel("test".into());
            let (_switch, interrupt) = Interrupt::new();
            let timings = timings();
            let fence = Fence::held_for(Duration::from_mins(1));
            let context = Context {
                graph: &graph,
                timings: &timings,
                events: &events,
                interrupt: &interrupt,
                fence: &fence,
                allow_data_loss: false,
            };
            let observed = observe_left(&graph, &timings).await.unwrap();
            let gone = destroy(&context, observed, &std::collections::BTreeSet::new()).await;
            assert!(gone.failures.is_empty(), "{:?}", gone.failures);
            assert_eq!(gone.deleted, 1);
        }
    });
}

#[test]
fn what_a_second_read_does_not_find_is_not_made_twice() {
    block_on(async {
        // Seen in the second look of the lag; and never.
        let cases: [(&[bool], bool, usize); 2] = [(&[false], true, 0), (&[], false, 1)];
        let timings = Timings { lag: Duration::from_millis(300), ..timings() };
        for (told, then, failures) in cases {
            let (graph, made) = Flickering::graph(told, then);
            let applied = run_with(&graph, &timings).await;
            assert_eq!(applied.failures.len(), failures, "{:?}", applied.failures);
            assert_eq!(*made.lock().unwrap(), 1);
        }
    });
}

/// Ctrl-C comes while it is made, and nobody sees it before the run ends.
struct Unseen(tokio::sync::watch::Sender<bool>);

#[async_trait]
impl Resource for Unseen {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", "unseen")
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        Ok(None)
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        self.0.send_replace(true);
        Ok(None)
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

#[test]
fn what_was_made_and_not_seen_before_an_interrupt_is_in_doubt() {
    block_on(async {
        let (switch, interrupt) = Interrupt::new();
        let mut graph = Graph::default();
        graph.add(Unseen(switch));
        let (events, _receiver) = Events::channel("test".into());
        let timings = timings();
        let fence = Fence::held_for(Duration::from_mins(1));
        let context = Context {
            graph: &graph,
            timings: &timings,
            events: &events,
            interrupt: &interrupt,
            fence: &fence,
            allow_data_loss: false,
        };
        let observed = observe(&graph, &timings).await.unwrap();
        let applied = apply(&context, observed, |_| true).await;
        assert!(applied.interrupted);
        let classes: Vec<_> = applied.failures.iter().map(|failure| failure.error.class).collect();
        assert_eq!(classes, [Class::Unknown], "{:?}", applied.failures);
    });
}

/// Made, but whoever looks then may not.
#[derive(Default)]
struct Veiled(AtomicBool);

#[async_trait]
impl Resource for Veiled {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", "veiled")
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::fatal(
                "test:Describe",
                "ExpiredToken",
                "the credentials have ended",
            ));
        }
        Ok(None)
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        self.0.store(true, Ordering::Relaxed);
        Ok(None)
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

#[test]
fn what_was_made_and_could_not_be_looked_at_is_in_doubt() {
    block_on(async {
        let mut graph = Graph::default();
        graph.add(Veiled::default());
        let applied = run(&graph).await;
        let failures = applied.failures.iter().map(|failure| &failure.error);
        let told: Vec<_> = failures.map(|error| (error.code.as_str(), error.class)).collect();
        assert_eq!(told, [("ExpiredToken", Class::Unknown)]);
    });
}

#[test]
fn a_resource_knows_what_it_has_put_out_once_it_is_seen() {
    block_on(async {
        let shared = Shared::default();
        let one = graph(&shared, &[0], 1, false);
        let thing = Thing {
            id: ResourceId::new("test", "0"),
            needs: Vec::new(),
            size: 1,
            immutable: false,
            shared: shared.clone(),
        };
        let before = observe(&one, &timings()).await.unwrap();
        assert_eq!(before.outputs.own(&thing), None);
        run(&one).await;
        let after = observe(&one, &timings()).await.unwrap();
        assert_eq!(after.outputs.own(&thing), Some(1));
    });
}

/// There, but it takes no change before something else is there, and at least two have been refused.
struct Busy {
    shared: Shared,
    refused: Mutex<usize>,
    size: Mutex<i64>,
}

#[async_trait]
impl Resource for Busy {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", "busy")
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        Ok(Some(Live {
            output: (),
            properties: json!({"size": *self.size.lock().unwrap()}),
            condition: Condition::Ready,
        }))
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({"size": 2})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        unreachable!("it is there")
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        let mut refused = self.refused.lock().unwrap();
        if *refused < 2 || self.shared.cloud().things.is_empty() {
            *refused += 1;
            return Err(Error {
                class: Class::InUse,
                ..Error::fatal("test:Modify", "InvalidDBInstanceState", "it is backed up")
            });
        }
        *self.size.lock().unwrap() = 2;
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        Vec::new()
    }
}

#[test]
fn a_change_that_something_is_in_the_way_of_waits_longer_and_keeps_nobody_from_calling() {
    block_on(async {
        let shared = Shared::default();
        let mut both = graph(&shared, &[0], 1, false);
        both.add(Busy { shared: shared.clone(), refused: Mutex::new(0), size: Mutex::new(1) });
        let timings = Timings { concurrency: 1, retry: Duration::ZERO, ..timings() };
        let (events, mut receiver) = Events::channel("test".into());
        let (_switch, interrupt) = Interrupt::new();
        let fence = Fence::held_for(Duration::from_mins(1));
        let context = Context {
            graph: &both,
            timings: &timings,
            events: &events,
            interrupt: &interrupt,
            fence: &fence,
            allow_data_loss: false,
        };
        let observed = observe(&both, &timings).await.unwrap();
        let applied = apply(&context, observed, |_| true).await;
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        assert_eq!((applied.created, applied.updated), (1, 1));
        let mut told = 0;
        while let Ok(event) = receiver.try_recv() {
            let Event::ResourceProgress { state, .. } = event.event else { continue };
            told += usize::from(state == "InvalidDBInstanceState");
        }
        assert!(told >= 2, "{told}");
    });
}

/// Made by a call of a service that refuses the first calls of all who make it.
struct Limited {
    name: &'static str,
    refuses: Arc<Mutex<usize>>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl Resource for Limited {
    type Output = ();
    fn id(&self) -> ResourceId {
        ResourceId::new("test", self.name)
    }
    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        Ok(None)
    }
    fn desired(&self, _: &Outputs) -> Value {
        json!({})
    }
    async fn create(&self, _: &Outputs) -> Result<Option<()>, Error> {
        self.calls.lock().unwrap().push(Instant::now());
        let mut refuses = self.refuses.lock().unwrap();
        if *refuses > 0 {
            *refuses -= 1;
            return Err(Error {
                class: Class::Throttled,
                ..Error::fatal("test:Create", "Throttling", "rate exceeded")
            });
        }
        Ok(Some(()))
    }
    async fn update(&self, _: &Live<()>, _: &[Field], _: &Outputs) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Live<()>) -> Result<(), Error> {
        Ok(())
    }
    fn permissions(&self) -> Vec<Permission> {
        vec![Permission::anywhere(["test:Create"])]
    }
}

#[test]
fn a_throttled_call_slows_the_others_of_its_service() {
    block_on(async {
        let (refuses, calls) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(Vec::new())));
        let mut graph = Graph::default();
        for name in ["one", "another"] {
            graph.add(Limited { name, refuses: Arc::clone(&refuses), calls: Arc::clone(&calls) });
        }
        let backoff = Duration::from_millis(100);
        let timings = Timings { concurrency: 1, backoff, ..timings() };
        let applied = run_with(&graph, &timings).await;
        assert_eq!(applied.created, 2, "{:?}", applied.failures);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), 3);
        assert!(calls[1] - calls[0] >= backoff / 2, "{:?}", calls[1] - calls[0]);
    });
}

#[test]
fn the_plan_counts_the_longest_way_only() {
    block_on(async {
        let shared = Shared::default();
        // 1 and 2 need 0, 3 needs 1: three after each other, each two seconds.
        let graph = graph(&shared, &[0, 0b1, 0b1, 0b10], 2, false);
        let observed = observe(&graph, &timings()).await.unwrap();
        let plan = plan(&graph, &observed);
        assert_eq!(plan.count(Action::Create), 4);
        assert!((plan.estimated_seconds - 6.0).abs() < f64::EPSILON);
        // 0 is there already or not made; 1 and 3 are left of the way.
        let narrowed = plan.narrowed(&graph, |id| id.name() != "0");
        assert_eq!(narrowed.count(Action::Create), 3);
        assert!((narrowed.estimated_seconds - 4.0).abs() < f64::EPSILON);
    });
}

#[test]
fn the_plan_tells_what_it_costs_now_and_then() {
    block_on(async {
        let shared = Shared::default();
        let edges = [0, 0b1, 0b10];
        run(&graph(&shared, &edges[..2], 3, false)).await;

        let larger = graph(&shared, &edges, 5, false);
        let resized = plan(&larger, &observe(&larger, &timings()).await.unwrap());
        let costs = |plan: &Plan| -> Vec<_> {
            let costs = plan.changes.iter();
            costs.map(|change| (change.monthly_cost_before, change.monthly_cost)).collect()
        };
        let grows = (Some(3.0), Some(5.0));
        assert_eq!(costs(&resized), [grows, grows, (Some(0.0), Some(5.0))]);
        assert!((resized.monthly_cost_before() - 6.0).abs() < f64::EPSILON);
        assert!((resized.monthly_cost() - 15.0).abs() < f64::EPSILON);
        assert!(resized.unpriced().is_empty());

        let unknown = graph(&shared, &edges[..2], 100, false);
        let unpriced = plan(&unknown, &observe(&unknown, &timings()).await.unwrap());
        assert_eq!(costs(&unpriced), [(Some(3.0), None); 2]);
        assert_eq!(unpriced.unpriced().len(), 2);
        assert!(unpriced.monthly_cost().abs() < f64::EPSILON, "counted by nobody, told by name");
    });
}

#[derive(Default)]
struct Memory(Mutex<Option<(u64, Vec<u8>)>>);

#[async_trait]
impl Store for Memory {
    async fn get(&self, _: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
        Ok(self.0.lock().unwrap().clone().map(|(version, body)| (version.to_string(), body)))
    }
    async fn put_new(&self, _: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        let mut object = self.0.lock().unwrap();
        if object.is_some() {
            return Ok(None);
        }
        *object = Some((fastrand::u64(..), body));
        Ok(object.as_ref().map(|(version, _)| version.to_string()))
    }
    async fn replace(
        &self,
        _: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let mut object = self.0.lock().unwrap();
        if object.as_ref().is_none_or(|(current, _)| current.to_string() != version) {
            return Ok(None);
        }
        *object = Some((fastrand::u64(..), body));
        Ok(object.as_ref().map(|(version, _)| version.to_string()))
    }
    async fn delete(&self, _: &str, version: &str) -> Result<(), Error> {
        let mut object = self.0.lock().unwrap();
        if object.as_ref().is_some_and(|(current, _)| current.to_string() != version) {
            return Err(Error {
                class: Class::Conflict,
                ..Error::fatal("test:Delete", "PreconditionFailed", "another version")
            });
        }
        *object = None;
        Ok(())
    }
}

/// A store that carries out every renewal, but answers late, and the first of them never.
#[derive(Default)]
struct Slow {
    memory: Memory,
    unanswered: Mutex<usize>,
    answers_after: Duration,
    begun: Notify,
}

#[async_trait]
impl Store for Slow {
    async fn get(&self, key: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
        self.memory.get(key).await
    }
    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        self.memory.put_new(key, body).await
    }
    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let replaced = self.memory.replace(key, version, body).await;
        self.begun.notify_one();
        let answered = {
            let mut unanswered = self.unanswered.lock().unwrap();
            let left = unanswered.checked_sub(1);
            *unanswered = left.unwrap_or_default();
            left.is_none()
        };
        if !answered {
            std::future::pending::<()>().await;
        }
        pause(self.answers_after).await;
        replaced
    }
    async fn delete(&self, key: &str, version: &str) -> Result<(), Error> {
        self.memory.delete(key, version).await
    }
}

/// Takes the lock for a lease that is long enough for a busy machine.
async fn take_slowly(store: &Arc<Slow>, events: &Events) -> lock::Lock {
    let (_switch, interrupt) = Interrupt::new();
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    acquire(store, "lock".into(), holder("slow"), Duration::ZERO, &slowly(), events, &interrupt)
        .await
        .unwrap()
}

fn slowly() -> Timings {
    Timings { lease: Duration::from_secs(2), beat: Duration::from_millis(200), ..timings() }
}

#[test]
fn a_beat_without_an_answer_costs_no_lock_and_is_told() {
    block_on(async {
        let store = Arc::new(Slow { unanswered: Mutex::new(2), ..Slow::default() });
        let (events, mut receiver) = Events::channel("slow".into());
        let lock = take_slowly(&store, &events).await;
        pause(slowly().lease + slowly().beat).await;
        lock.fence().check().expect("it was renewed within the lease");
        let mut missed = 0;
        while let Ok(told) = receiver.try_recv() {
            let Event::Note { message } = told.event else { continue };
            missed += usize::from(message.contains("missed"));
        }
        assert!(missed >= 2, "{missed}");
        lock.release().await.unwrap();
        assert!(store.memory.0.lock().unwrap().is_none());
    });
}

#[test]
fn a_release_waits_for_the_beat_that_is_on_its_way() {
    block_on(async {
        // Answered late, and not at all.
        for unanswered in [0, 1] {
            let store = Arc::new(Slow {
                unanswered: Mutex::new(unanswered),
                answers_after: slowly().beat / 4,
                ..Slow::default()
            });
            let (events, _receiver) = Events::channel("slow".into());
            let lock = take_slowly(&store, &events).await;
            store.begun.notified().await;
            lock.release().await.unwrap();
            assert!(store.memory.0.lock().unwrap().is_none(), "released under a beat");
            pause(slowly().beat * 2).await;
            assert!(store.memory.0.lock().unwrap().is_none(), "renewed after its release");
        }
    });
}

fn holder(run: &str) -> Holder {
    Holder { holder: run.into(), run: run.into(), since: String::new(), last_beat: String::new() }
}

/// Carries out what it is asked, and loses the answer to the first `replace`.
#[derive(Default)]
struct Lossy {
    memory: Memory,
    lost: AtomicBool,
}

#[async_trait]
impl Store for Lossy {
    async fn get(&self, key: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
        self.memory.get(key).await
    }
    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        self.memory.put_new(key, body).await
    }
    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let replaced = self.memory.replace(key, version, body).await?;
        if self.lost.swap(true, Ordering::Relaxed) {
            return Ok(replaced);
        }
        Err(Error {
            class: Class::Unknown,
            ..Error::fatal("test:Replace", "no-answer", "the answer was lost")
        })
    }
    async fn delete(&self, key: &str, version: &str) -> Result<(), Error> {
        self.memory.delete(key, version).await
    }
}

/// Does not carry out the first deletion, and loses the answers to the first two.
#[derive(Default)]
struct Failing {
    memory: Memory,
    deletions: Mutex<usize>,
}

#[async_trait]
impl Store for Failing {
    async fn get(&self, key: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
        self.memory.get(key).await
    }
    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<Option<String>, Error> {
        self.memory.put_new(key, body).await
    }
    async fn replace(
        &self,
        key: &str,
        version: &str,
        body: Vec<u8>,
    ) -> Result<Option<String>, Error> {
        self.memory.replace(key, version, body).await
    }
    async fn delete(&self, key: &str, version: &str) -> Result<(), Error> {
        let deletion = {
            let mut deletions = self.deletions.lock().unwrap();
            *deletions += 1;
            *deletions
        };
        if deletion > 1 {
            self.memory.delete(key, version).await?;
        }
        if deletion > 2 {
            return Ok(());
        }
        Err(Error {
            class: Class::Unknown,
            ..Error::fatal("test:Delete", "no-answer", "the answer was lost")
        })
    }
}

#[test]
fn a_release_without_an_answer_is_tried_again() {
    block_on(async {
        let store = Arc::new(Failing::default());
        let lock = take(&store, "first").await.unwrap();
        lock.release().await.unwrap();
        assert!(store.memory.0.lock().unwrap().is_none());
        assert_eq!(*store.deletions.lock().unwrap(), 3);
    });
}

async fn take<S: Store + 'static>(store: &Arc<S>, run: &str) -> Result<lock::Lock, LockError> {
    let (events, _receiver) = Events::channel(run.into());
    let (_switch, interrupt) = Interrupt::new();
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    acquire(store, "lock".into(), holder(run), Duration::ZERO, &timings(), &events, &interrupt)
        .await
}

#[test]
fn a_beating_lock_is_respected_and_a_released_one_is_free() {
    block_on(async {
        let store = Arc::new(Memory::default());
        let first = take(&store, "first").await.unwrap();
        let second = take(&store, "second").await;
        assert!(matches!(second, Err(LockError::Held(holder)) if holder.run == "first"));
        first.fence().check().expect("it has been beating all the while");
        first.release().await.unwrap();
        let third = take(&store, "third").await.unwrap();
        assert!(!third.after_unclean_end);
    });
}

#[test]
fn a_dead_holder_is_waited_out_and_told() {
    block_on(async {
        let store = Arc::new(Memory::default());
        let body = serde_json::to_vec(&holder("dead")).unwrap();
        store.put_new("lock", body).await.unwrap();
        let start = Instant::now();
        let lock = take(&store, "next").await.unwrap();
        assert!(lock.after_unclean_end);
        assert!(start.elapsed() >= timings().lease);
    });
}

#[test]
fn a_lock_that_is_taken_away_is_free_at_once_but_not_forgotten() {
    block_on(async {
        let store = Arc::new(Memory::default());
        let dead = serde_json::to_vec(&holder("dead")).unwrap();
        store.put_new("lock", dead).await.unwrap();
        let seen = held(&*store, "lock").await.unwrap().unwrap();
        assert_eq!(seen.holder.run, "dead");
        let now = take_away(&*store, "lock", &seen, "anna".into(), &timings()).await.unwrap();
        assert_eq!(now, None);
        assert_eq!(held(&*store, "lock").await.unwrap(), None, "nobody is told as the holder");
        let start = Instant::now();
        let lock = take(&store, "next").await.unwrap();
        assert!(lock.after_unclean_end, "what the dead run made last may not be visible yet");
        assert!(start.elapsed() < timings().lease);
    });
}

#[test]
fn a_lock_that_beats_is_not_taken_away() {
    block_on(async {
        let store = Arc::new(Memory::default());
        let lock = take(&store, "alive").await.unwrap();
        let seen = held(&*store, "lock").await.unwrap().unwrap();
        pause(timings().beat * 3).await;
        let now = take_away(&*store, "lock", &seen, "anna".into(), &timings()).await.unwrap();
        assert_eq!(now.unwrap().holder.run, "alive");
        lock.fence().check().unwrap();
        lock.release().await.unwrap();
        let gone = take_away(&*store, "lock", &seen, "anna".into(), &timings()).await.unwrap();
        assert_eq!(gone, None);
        assert_eq!(store.get("lock").await.unwrap(), None, "nothing is made of a released lock");
    });
}

#[test]
fn a_dead_holder_is_told_when_the_answer_to_taking_over_is_lost() {
    block_on(async {
        let store = Arc::new(Lossy::default());
        let body = serde_json::to_vec(&holder("dead")).unwrap();
        store.put_new("lock", body).await.unwrap();
        let lock = take(&store, "next").await.unwrap();
        assert!(lock.after_unclean_end);
    });
}

#[test]
fn a_holder_that_lost_its_lock_makes_no_further_call() {
    block_on(async {
        let store = Arc::new(Memory::default());
        let lock = take(&store, "first").await.unwrap();
        let thief = serde_json::to_vec(&holder("thief")).unwrap();
        *store.0.lock().unwrap() = Some((1, thief));
        let deadline = Instant::now() + Duration::from_secs(5);
        while lock.fence().check().is_ok() {
            assert!(Instant::now() < deadline, "the loss was never noticed");
            pause(Duration::from_millis(10)).await;
        }
        lock.release().await.unwrap();
        assert!(store.0.lock().unwrap().is_some(), "the other's lock is left alone");
    });
}

#[test]
fn the_schema_of_the_events_in_the_repository_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.schema.json");
    let schema = super::events::schema_json();
    if std::env::var_os("BME_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == schema, "run this test with BME_WRITE_SCHEMA=1 and commit");
}
