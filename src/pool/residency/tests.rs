//! The resident set of a worker that does nothing until the test says what
//! comes of it. Time is paused: a wait that nothing can end fails at once.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::types::{BaseName, TenantId};
use crate::worker::{Call, LoadedAdapter, Started, Status};

/// Two adapters of 10 bytes fit.
const BUDGET: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Load,
    Unload,
}

/// What the worker was asked to do; dropped without an answer, it panics.
struct Asked {
    work: Work,
    name: Arc<str>,
    answer: oneshot::Sender<Result<(), WorkerError>>,
}

struct Scripted(mpsc::Sender<Asked>);

impl Scripted {
    fn ask(&self, work: Work, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Asked { work, name: key.name, answer }).expect("the test listens");
        async { answered.await.expect("the test wants a panic") }.boxed()
    }
}

impl Driver for Scripted {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        unreachable!("residency does not generate")
    }

    fn load_adapter(&self, load: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let answered = self.ask(Work::Load, load.key);
        async { answered.await.map(|()| LoadedAdapter { bytes: 10 }) }.boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        self.ask(Work::Unload, key)
    }

    fn status(&self) -> Status {
        Status::default()
    }
}

type Asker = JoinHandle<Result<Pin, WorkerError>>;

struct Harness {
    residency: Arc<Residency>,
    metrics: Arc<Metrics>,
    asked: mpsc::Receiver<Asked>,
}

impl Harness {
    fn new() -> Self {
        let (ask, asked) = mpsc::channel(16);
        let metrics = Arc::new(Metrics::default());
        let config = Config { adapter_bytes: BUDGET };
        let listed = ('a'..='z').map(|name| (artifact(&name.to_string()), "unused".into())).collect();
        let catalogue = Catalogue::fixed(listed);
        let residency =
            Arc::new(Residency::new("w".into(), Arc::new(Scripted(ask)), config, catalogue, metrics.clone()));
        Self { residency, metrics, asked }
    }

    /// Starts to ask for an adapter.
    fn ask(&self, name: &str) -> Asker {
        let (residency, artifact) = (self.residency.clone(), artifact(name));
        tokio::spawn(async move { residency.pin(&artifact).await })
    }

    /// The next thing the worker is asked, which must be this.
    async fn asked(&mut self, work: Work, name: &str) -> oneshot::Sender<Result<(), WorkerError>> {
        let asked = timeout(Duration::from_secs(1), self.asked.recv()).await.expect("the worker is asked something");
        let asked = asked.expect("the worker lives");
        assert_eq!((asked.work, &*asked.name), (work, name));
        asked.answer
    }

    /// Lets everything run, and asserts that the worker is asked nothing more.
    async fn settled(&mut self) {
        let asked = timeout(Duration::from_secs(1), self.asked.recv()).await.ok().flatten();
        assert_eq!(asked.map(|asked| (asked.work, asked.name)), None);
    }

    /// Loads an adapter that is not there, and holds it.
    async fn loaded(&mut self, name: &str) -> Pin {
        let asker = self.ask(name);
        succeed(self.asked(Work::Load, name).await);
        pinned(asker).await
    }

    fn holds(&self, name: &str) -> bool {
        self.residency.holds(&artifact(name).key)
    }

    fn evictions(&self) -> String {
        let text = self.metrics.render(&[]).expect("metrics render");
        let line = text.lines().find(|line| line.starts_with("tenantry_adapter_evictions_total "));
        line.and_then(|line| line.split(' ').nth(1)).expect("the counter is there").to_owned()
    }
}

fn artifact(name: &str) -> Artifact {
    let key = AdapterKey { tenant: TenantId::new("acme"), name: name.into(), revision: 1, digest: "0".into() };
    Artifact { key, base: BaseName::new("base") }
}

fn succeed(answer: oneshot::Sender<Result<(), WorkerError>>) {
    answer.send(Ok(())).expect("the worker waits");
}

fn fail(answer: oneshot::Sender<Result<(), WorkerError>>) {
    answer.send(Err(broken())).expect("the worker waits");
}

fn broken() -> WorkerError {
    WorkerError::AdapterInvalid("broken".to_owned())
}

async fn outcome(asker: Asker) -> Result<Pin, WorkerError> {
    timeout(Duration::from_secs(1), asker).await.expect("the asker is answered").expect("the asker does not panic")
}

async fn pinned(asker: Asker) -> Pin {
    outcome(asker).await.unwrap_or_else(|error| panic!("the adapter is not loaded: {error}"))
}

// Loading.

#[tokio::test(start_paused = true)]
async fn many_askers_start_one_load_and_all_hold_the_adapter() {
    let mut harness = Harness::new();
    let askers: Vec<Asker> = (0..20).map(|_| harness.ask("a")).collect();
    let load = harness.asked(Work::Load, "a").await;
    harness.settled().await;
    assert_eq!(harness.residency.tasks(), 1);
    succeed(load);
    let mut pins = Vec::new();
    for asker in askers {
        pins.push(pinned(asker).await);
    }
    assert_eq!((harness.residency.pins(), harness.residency.resident()), (20, 1));
    drop(pins);
    harness.settled().await;
    assert_eq!((harness.residency.pins(), harness.residency.resident(), harness.residency.tasks()), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_asker_that_started_a_load_may_leave_and_disturbs_nobody() {
    let mut harness = Harness::new();
    let first = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    let second = harness.ask("a");
    first.abort();
    harness.settled().await;
    succeed(load);
    let pin = pinned(second).await;
    assert_eq!(harness.residency.pins(), 1);
    drop(pin);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_all_askers_left_is_finished_and_kept() {
    let mut harness = Harness::new();
    let asker = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    asker.abort();
    harness.settled().await;
    succeed(load);
    harness.settled().await;
    assert_eq!((harness.residency.pins(), harness.residency.resident()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_reaches_all_who_asked_for_that_adapter_and_nobody_else() {
    let mut harness = Harness::new();
    let askers = [harness.ask("a"), harness.ask("a")];
    let load = harness.asked(Work::Load, "a").await;
    let other = harness.ask("b");
    let other_load = harness.asked(Work::Load, "b").await;
    fail(load);
    for asker in askers {
        assert_eq!(outcome(asker).await.err(), Some(broken()));
    }
    succeed(other_load);
    let _other = pinned(other).await;
    assert!(!harness.holds("a"));
    let _again = harness.loaded("a").await;
}

#[tokio::test(start_paused = true)]
async fn one_slow_load_delays_no_other_adapter() {
    let mut harness = Harness::new();
    let slow = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    let quick = harness.loaded("b").await;
    assert!(!slow.is_finished());
    succeed(load);
    drop((quick, pinned(slow).await));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_fails_its_askers_and_the_next_one_loads_anew() {
    let mut harness = Harness::new();
    let askers = [harness.ask("a"), harness.ask("a")];
    drop(harness.asked(Work::Load, "a").await);
    for asker in askers {
        assert!(matches!(outcome(asker).await.err(), Some(WorkerError::AdapterUnavailable(_))));
    }
    let _pin = harness.loaded("a").await;
    assert_eq!(harness.residency.pins(), 1);
}

// Making room.

#[tokio::test(start_paused = true)]
async fn the_adapter_used_longest_ago_makes_room() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    drop(harness.loaded("b").await);
    drop(pinned(harness.ask("a")).await);
    let _new = harness.loaded("c").await;
    succeed(harness.asked(Work::Unload, "b").await);
    harness.settled().await;
    assert!(harness.holds("a") && !harness.holds("b") && harness.holds("c"));
    assert_eq!(harness.evictions(), "1");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_in_use_stays_though_the_budget_is_passed() {
    let mut harness = Harness::new();
    let oldest = harness.loaded("a").await;
    let _in_use = (harness.loaded("b").await, harness.loaded("c").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 3);
    drop(oldest);
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_being_unloaded_is_waited_for_and_loaded_anew() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    let others = (harness.loaded("b").await, harness.loaded("c").await);
    let unload = harness.asked(Work::Unload, "a").await;
    let asker = harness.ask("a");
    harness.settled().await;
    assert!(!asker.is_finished() && !harness.holds("a"));
    succeed(unload);
    succeed(harness.asked(Work::Load, "a").await);
    drop((pinned(asker).await, others));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_cannot_be_unloaded_stays_and_is_tried_again_after_the_next_load() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    let others = (harness.loaded("b").await, harness.loaded("c").await);
    let unload = harness.asked(Work::Unload, "a").await;
    let asker = harness.ask("a");
    harness.settled().await;
    fail(unload);
    drop(pinned(asker).await);
    harness.settled().await;
    assert_eq!((harness.residency.resident(), harness.evictions()), (3, "0".to_owned()));

    let last = harness.loaded("d").await;
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!((harness.residency.resident(), harness.evictions()), (3, "1".to_owned()));
    drop((others, last));
}

#[tokio::test(start_paused = true)]
async fn where_one_adapter_cannot_be_unloaded_the_next_oldest_goes() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    drop(harness.loaded("b").await);
    let _new = harness.loaded("c").await;
    drop(harness.asked(Work::Unload, "a").await);
    succeed(harness.asked(Work::Unload, "b").await);
    harness.settled().await;
    assert!(harness.holds("a") && !harness.holds("b") && harness.holds("c"));
}

// Pins.

#[tokio::test(start_paused = true)]
async fn a_pin_whose_entry_was_replaced_leaves_the_new_one_alone() {
    let mut harness = Harness::new();
    let (stale, _) = harness.residency.0.ask(&artifact("a"));
    fail(harness.asked(Work::Load, "a").await);
    harness.settled().await;
    let pin = harness.loaded("a").await;
    drop(stale);
    assert_eq!(harness.residency.pins(), 1);
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pin_dropped_outside_the_runtime_makes_room_all_the_same() {
    let mut harness = Harness::new();
    let oldest = harness.loaded("a").await;
    let _in_use = (harness.loaded("b").await, harness.loaded("c").await);
    std::thread::spawn(move || drop(oldest)).join().expect("the drop does not panic");
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 2);
}

fn held(instance: &str, names: &[&str]) -> Held {
    let adapters = names.iter().map(|name| (artifact(name).key, 10)).collect();
    Held { instance: instance.to_owned(), adapters, as_of: Instant::now() }
}

/// lessons: actual state is polled, keyed by the worker's instance.
#[tokio::test(start_paused = true)]
async fn what_a_restarted_worker_had_is_gone_and_is_loaded_again() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("first run", &["a"]));
    assert!(harness.residency.holds(&artifact("a").key));
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("second run", &[]));
    assert!(!harness.residency.holds(&artifact("a").key), "though it is pinned");
    drop(pin);
    drop(harness.loaded("a").await);
}

#[tokio::test(start_paused = true)]
async fn an_account_given_before_a_load_says_nothing_of_it() {
    let mut harness = Harness::new();
    let before = held("run", &[]);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(harness.loaded("a").await);
    harness.residency.reconcile(&before);
    assert!(harness.residency.holds(&artifact("a").key));
}

/// lessons: the gateway forgets adapters when it restarts.
#[tokio::test(start_paused = true)]
async fn what_the_worker_had_before_we_asked_is_used_as_it_is() {
    let harness = Harness::new();
    harness.residency.reconcile(&held("run", &["a"]));
    // No load was asked for: the scripted worker would have to answer it.
    timeout(Duration::from_secs(1), harness.residency.pin(&artifact("a"))).await.expect("at once").expect("there");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_adapter_is_loaded_by_the_next_who_asks() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    pin.forget();
    drop(harness.loaded("a").await);
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_retired_adapter_is_unloaded_once_nobody_uses_it() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    harness.residency.retire(&artifact("a").key);
    assert!(harness.asked.try_recv().is_err(), "it is in use");
    drop(pin);
    let asked = timeout(Duration::from_secs(1), harness.asked.recv()).await.expect("asked").expect("asked");
    assert_eq!((asked.work, &*asked.name), (Work::Unload, "a"));
    asked.answer.send(Ok(())).expect("waited for");
}
