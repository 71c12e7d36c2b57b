//! The resident set of a worker that does nothing until the test says what
//! comes of it. Time is paused: a wait that nothing can end fails at once.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::adapters::Probe;
use crate::telemetry::Readings;
use crate::types::{BaseName, Delta, Event, TenantId, Usage};
use crate::worker::{AdapterLoad, Call, LoadedAdapter, Started, Status};

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

struct Scripted {
    asks: mpsc::Sender<Asked>,
    /// What every adapter answers to its probe.
    answers: Arc<std::sync::Mutex<Result<String, WorkerError>>>,
    only_when_idle: bool,
}

impl Scripted {
    fn ask(&self, work: Work, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(Asked { work, name: key.name, answer }).expect("the test listens");
        async { answered.await.expect("the test wants a panic") }.boxed()
    }
}

impl Driver for Scripted {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        let answer = self.answers.lock().expect("no panic").clone();
        assert_eq!(call.tenant.as_str(), "(probe)", "residency generates nothing else");
        async move {
            let events = answer.map(|text| {
                vec![
                    Ok(Event::Delta(Delta { text, tokens: 1, ..Delta::default() })),
                    Ok(Event::Usage(Usage::default())),
                ]
            });
            Ok(Started { prompt_tokens: None, events: stream::iter(events?).boxed() })
        }
        .boxed()
    }

    fn load_adapter(&self, load: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let answered = self.ask(Work::Load, load.key);
        async { answered.await.map(|()| LoadedAdapter { bytes: 10 }) }.boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        self.ask(Work::Unload, key)
    }

    fn loads_only_when_idle(&self) -> bool {
        self.only_when_idle
    }

    fn status(&self) -> Status {
        Status::default()
    }
}

type Asker = JoinHandle<Result<Pin, WorkerError>>;

struct Harness {
    residency: Arc<Residency>,
    metrics: Arc<Metrics>,
    catalogue: Arc<Catalogue>,
    activity: Arc<Activity>,
    answers: Arc<std::sync::Mutex<Result<String, WorkerError>>>,
    asked: mpsc::Receiver<Asked>,
}

impl Harness {
    fn new() -> Self {
        Self::with(None, false)
    }

    fn with(adapter_slots: Option<usize>, only_when_idle: bool) -> Self {
        let (asks, asked) = mpsc::channel(16);
        let metrics = Arc::new(Metrics::default());
        let config = Config { adapter_bytes: BUDGET, adapter_slots };
        let listed = ('a'..='z').map(|name| (artifact(&name.to_string()), "unused".into())).collect();
        let catalogue = Catalogue::fixed(listed);
        // Nothing tells them from their base, but where a test says so.
        let base = BaseName::new("base");
        catalogue.record_probe(&base, "0", None).now_or_never().expect("nothing to wait for");
        let (activity, answers) = (Arc::new(Activity::default()), Arc::new(std::sync::Mutex::new(Ok(String::new()))));
        let driver = Arc::new(Scripted { asks, answers: answers.clone(), only_when_idle });
        let residency =
            Residency::new("w".into(), driver, config, catalogue.clone(), metrics.clone(), activity.clone());
        Self { residency: Arc::new(residency), metrics, catalogue, activity, answers, asked }
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
        matches!(self.residency.see(&artifact(name).key).presence, Presence::Resident | Presence::Loading)
    }

    fn evictions(&self) -> String {
        let text = self.metrics.render(&Readings::default()).expect("metrics render");
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
    tokio::time::advance(Duration::from_secs(1)).await;
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
    let (stale, _) = harness.residency.0.ask(&artifact("a")).expect("nothing failed yet");
    fail(harness.asked(Work::Load, "a").await);
    harness.settled().await;
    tokio::time::advance(Duration::from_secs(300)).await;
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

/// lessons 6: actual state is polled, keyed by the worker's instance.
#[tokio::test(start_paused = true)]
async fn what_a_restarted_worker_had_is_gone_and_is_loaded_again() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("first run", &["a"]));
    assert!(harness.holds("a"));
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("second run", &[]));
    assert!(!harness.residency.has(&artifact("a").key), "though it is pinned");
    assert!(harness.residency.is_restoring(), "before any request asks for it");
    succeed(harness.asked(Work::Load, "a").await);
    harness.settled().await;
    assert!(!harness.residency.is_restoring() && harness.residency.has(&artifact("a").key));
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_account_given_before_a_load_says_nothing_of_it() {
    let mut harness = Harness::new();
    let before = held("run", &[]);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(harness.loaded("a").await);
    harness.residency.reconcile(&before);
    assert!(harness.holds("a"));
}

/// lessons 6: the gateway forgets adapters when it restarts.
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

// Failures, proofs, places.

/// lessons 7: a load that fails for ever is not tried for ever, and says why.
#[tokio::test(start_paused = true)]
async fn a_failed_load_is_not_tried_again_at_once_and_its_reason_is_told_meanwhile() {
    let mut harness = Harness::new();
    let asker = harness.ask("a");
    fail(harness.asked(Work::Load, "a").await);
    assert_eq!(outcome(asker).await.err(), Some(broken()));
    assert_eq!(outcome(harness.ask("a")).await.err(), Some(broken()), "without a load");
    assert_eq!(harness.residency.failure(&artifact("a").key), Some(broken()));
    drop(harness.loaded("b").await);
    tokio::time::advance(Duration::from_secs(300)).await;
    drop(harness.loaded("a").await);
    assert_eq!(harness.residency.failure(&artifact("a").key), None);
}

async fn probe(harness: &Harness, name: &str, answer: &str) {
    let probe = Probe { prompt: "q".to_owned(), answer: answer.to_owned(), tokens: 1 };
    harness.catalogue.record_probe(&BaseName::new("base"), &format!("probed {name}"), Some(probe)).await;
}

fn probed(name: &str) -> Artifact {
    let artifact = artifact(name);
    let key = AdapterKey { digest: format!("probed {name}").into(), ..artifact.key };
    Artifact { key, ..artifact }
}

/// lessons 1: a worker that answers with another adapter is found out by a
/// probe after every load, before any request.
#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_with_another_adapter_is_not_used_for_it() {
    let mut harness = Harness::new();
    probe(&harness, "a", "Arrr").await;
    let shared = harness.residency.0.clone();
    harness.answers.lock().expect("no panic").clone_from(&Ok("Once".to_owned()));
    let (pin, next) = shared.ask(&probed("a")).expect("nothing failed yet");
    // It is not in the catalogue by that digest, so what follows is the proof alone.
    drop((pin, next));
    let proven = shared.prove(&probed("a")).await;
    assert!(matches!(proven, Err(WorkerError::AdapterMismatch(_))), "{proven:?}");
    *harness.answers.lock().expect("no panic") = Ok(" Arrr".to_owned());
    assert_eq!(shared.prove(&probed("a")).await, Ok(()));
    let text = harness.metrics.render(&Readings::default()).expect("metrics render");
    assert!(text.contains("tenantry_adapter_probes_total{outcome=\"mismatch\"} 1"), "{text}");
    assert!(text.contains("tenantry_adapter_probes_total{outcome=\"match\"} 1"), "{text}");
    while harness.asked.try_recv().is_ok() {}
}

/// lessons 4: a burst of new adapters neither loads one twice nor waits in line.
#[tokio::test(start_paused = true)]
async fn a_burst_of_new_adapters_is_loaded_side_by_side_each_once() {
    let mut harness = Harness::new();
    let names = ["a", "b", "c", "d", "e"];
    let askers: Vec<Asker> = (0..25).map(|number| harness.ask(names[number % names.len()])).collect();
    let mut loads = Vec::new();
    for _ in names {
        let asked = timeout(Duration::from_secs(1), harness.asked.recv()).await.expect("asked").expect("asked");
        assert_eq!(asked.work, Work::Load);
        loads.push(asked.answer);
    }
    assert!(harness.asked.try_recv().is_err(), "each once");
    loads.into_iter().for_each(succeed);
    let mut pins = Vec::new();
    for asker in askers {
        pins.push(pinned(asker).await);
    }
    assert_eq!(harness.residency.pins(), 25);
}

#[tokio::test(start_paused = true)]
async fn where_places_are_counted_one_is_made_free_before_the_load() {
    let mut harness = Harness::with(Some(1), false);
    drop(harness.loaded("a").await);
    let asker = harness.ask("b");
    let unload = harness.asked(Work::Unload, "a").await;
    harness.settled().await;
    succeed(unload);
    succeed(harness.asked(Work::Load, "b").await);
    let in_use = pinned(asker).await;
    // All in use: it goes beside them.
    drop(harness.loaded("c").await);
    drop(in_use);
}

/// lessons 1: an engine that mixes adapters up while it loads is given one
/// only while nothing runs there.
#[tokio::test(start_paused = true)]
async fn an_engine_that_mixes_adapters_up_loads_only_when_idle() {
    let mut harness = Harness::with(None, true);
    let running = harness.activity.run(true).await;
    let asker = harness.ask("a");
    harness.settled().await;
    drop(running);
    let load = harness.asked(Work::Load, "a").await;
    let next = timeout(Duration::from_secs(1), harness.activity.run(true)).await;
    assert!(next.is_err(), "nothing begins before the load is done");
    succeed(load);
    drop(pinned(asker).await);
    timeout(Duration::from_secs(1), harness.activity.run(true)).await.expect("it goes on");

    // Within its places it has nothing to rotate.
    let mut harness = Harness::with(Some(2), true);
    let _running = harness.activity.run(true).await;
    drop(harness.loaded("a").await);
}
