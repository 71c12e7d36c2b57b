//! Requests over the real gateway and pool and two workers that follow a
//! script. Both are idle, so the first is asked first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::adapters::{Artifact, Catalogue};
use crate::admission::Admission;
use crate::auth::Keyring;
use crate::gateway::{self, Gateway, Generation, Held, Live};
use crate::pool::{self, ResidencyConfig, Worker};
use crate::telemetry::Metrics;
use crate::types::{
    AdapterKey, BaseName, Caller, Delta, ErrorKind, FinishReason, Input, Key, Limits, Prompt, Route, Sampling, Tenant,
    TenantId, Usage,
};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Status};

/// What comes of loading an adapter, of starting, and then of each poll.
#[derive(Clone)]
struct Script {
    load: Result<(), WorkerError>,
    load_takes: Duration,
    start: Result<(), WorkerError>,
    events: Vec<Result<Event, WorkerError>>,
}

struct Scripted {
    script: Script,
    /// Generations that the worker was asked for.
    calls: AtomicU64,
    running: Arc<AtomicU64>,
}

/// Counts a generation for as long as its stream lives.
struct Running(Arc<AtomicU64>);

struct Harness {
    gateway: Gateway,
    caller: Caller,
    workers: [Arc<Scripted>; 2],
}

// Scripts.

/// A whole answer.
fn answers() -> Script {
    let finished = Event::Finished { choice: 0, reason: FinishReason::Stop };
    streams(vec![Ok(delta()), Ok(finished), Ok(Event::Usage(Usage::default()))])
}

fn streams(events: Vec<Result<Event, WorkerError>>) -> Script {
    Script { load: Ok(()), load_takes: Duration::ZERO, start: Ok(()), events }
}

fn refuses(error: WorkerError) -> Script {
    Script { start: Err(error), ..answers() }
}

fn cannot_load(error: WorkerError) -> Script {
    Script { load: Err(error), ..answers() }
}

fn delta() -> Event {
    Event::Delta(Delta { text: "Hello".to_owned(), tokens: 1, ..Delta::default() })
}

fn failed() -> WorkerError {
    WorkerError::Failed("its own words".to_owned())
}

// === impl Scripted ===

impl Driver for Scripted {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let Script { start, events, .. } = self.script.clone();
        self.running.fetch_add(1, Ordering::AcqRel);
        let state = (events.into_iter(), Running(self.running.clone()));
        let events = stream::unfold(state, async |(mut events, running)| Some((events.next()?, (events, running))));
        async { start.map(|()| Started { prompt_tokens: None, events: events.boxed() }) }.boxed()
    }

    fn load_adapter(&self, _: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        async {
            if !self.script.load_takes.is_zero() {
                tokio::time::sleep(self.script.load_takes).await;
            }
            self.script.load.clone().map(|()| LoadedAdapter { bytes: 1 })
        }
        .boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async { Ok(()) }.boxed()
    }

    fn status(&self) -> Status {
        Status { batch_rows: self.running.load(Ordering::Acquire), ..Status::default() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Harness ===

impl Harness {
    fn new(attempts: u32, scripts: [Script; 2]) -> Self {
        let workers =
            scripts.map(|script| Arc::new(Scripted { script, calls: AtomicU64::new(0), running: Arc::default() }));
        let metrics = Arc::new(Metrics::default());
        let base = BaseName::new("base");
        let key = AdapterKey { tenant: TenantId::new("acme"), name: "tone".into(), revision: 1, digest: "0".into() };
        let artifact = Artifact { key: key.clone(), base: base.clone() };
        let catalogue = Catalogue::fixed(vec![(artifact, "unused".into())]);
        // Nothing tells it from its base: no probe is asked.
        catalogue.record_probe(&base, "0", None).now_or_never().expect("nothing to wait for");
        let route = ModelRoute { base: base.clone(), adapter: Some(key) };
        let limits = Limits { concurrent_generations: Some(1), ..Limits::default() };
        let tenant = Tenant::new(TenantId::new("acme"), limits, [("assistant".into(), route)].into());
        let caller = Caller { tenant: Arc::new(tenant), key: Arc::new(Key::named("one")) };
        // In the order in which the pool tries idle ones for this adapter.
        let pooled = ["a", "b"].into_iter().zip(&workers).map(|(name, worker)| {
            Worker::new(
                name,
                worker.clone(),
                pool::WorkerConfig {
                    residency: ResidencyConfig { adapter_bytes: 1 << 20, adapter_slots: None },
                    slots: None,
                },
                catalogue.clone(),
                metrics.clone(),
            )
        });
        let pool = Pool::new(pooled.collect(), catalogue.clone(), metrics.clone());
        let request_timeout = Duration::from_secs(300);
        let config = gateway::Config { request_timeout, attempts, ..gateway::Config::default() };
        let live = Live::new(Keyring::default(), vec![base]);
        let gateway = Gateway::new(config, live, Admission::default(), pool, metrics, CancellationToken::new());
        Self { gateway, caller, workers }
    }

    async fn generate(&self) -> Result<Generation, Error> {
        let request = GenerateRequest {
            route: Route::Completions,
            model: "assistant".to_owned(),
            input: Input::Prompts(vec![Prompt::Text("Hi".to_owned())]),
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: None,
            choices: 1,
            logprobs: None,
            ignore_eos: false,
            timeout: None,
            extra: serde_json::Map::default(),
        };
        self.gateway.generate(self.gateway.new_id(&self.caller), &self.caller, request).await
    }

    /// How the request fails; nothing may be held then.
    async fn fails(&self) -> ErrorKind {
        let error = self.generate().await.err().expect("no worker answers");
        self.assert_nothing_held();
        error.kind()
    }

    fn calls(&self) -> [u64; 2] {
        self.workers.each_ref().map(|worker| worker.calls.load(Ordering::Acquire))
    }

    fn assert_nothing_held(&self) {
        // A task that was told to end may take a moment longer.
        assert_eq!(Held { tasks: 0, ..self.gateway.held() }, Held::default());
    }

    fn assert_outcome(&self, outcome: &str) {
        let metrics = self.gateway.render_metrics().expect("metrics render");
        let label = format!("outcome=\"{outcome}\"");
        let mut counts = metrics.lines().filter(|line| line.starts_with("tenantry_requests_total{"));
        let count = counts.next().expect("the request was counted");
        assert!(count.contains(&label) && count.ends_with(" 1"), "{count}");
        assert_eq!(counts.next(), None);
    }
}

#[tokio::test]
async fn before_the_first_event_another_worker_is_tried() {
    let unavailable = || WorkerError::AdapterUnavailable("not now".to_owned());
    let scripts = [
        ("is busy", refuses(WorkerError::Busy)),
        ("is gone", refuses(WorkerError::Unavailable("gone".to_owned()))),
        ("cannot load the adapter", cannot_load(unavailable())),
        ("fails in its stream", streams(vec![Err(failed())])),
        ("ends before its first event", streams(Vec::new())),
    ];
    for (what, script) in scripts {
        let harness = Harness::new(2, [script, answers()]);
        let generation = harness.generate().await.unwrap_or_else(|error| panic!("one that {what}: {error:?}"));
        let held = harness.gateway.held();
        assert_eq!((held.permits, held.leases, held.pins, held.sequences), (1, 1, 1, 1), "one that {what}");
        assert_eq!(harness.calls()[1], 1, "one that {what}");
        let events: Vec<_> = generation.stream.collect().await;
        assert_eq!(events.len(), 3, "one that {what}");
        harness.assert_nothing_held();
        harness.assert_outcome("complete");
    }
}

#[tokio::test]
async fn a_refusal_of_the_request_itself_is_not_tried_elsewhere() {
    let refusal = Error::invalid("prompt", "The prompt is empty.");
    let harness = Harness::new(2, [refuses(WorkerError::Refused(refusal)), answers()]);
    assert_eq!(harness.fails().await, ErrorKind::InvalidRequest);
    assert_eq!(harness.calls(), [1, 0]);
    harness.assert_outcome("invalid_request");
}

#[tokio::test]
async fn after_the_last_attempt_its_error_is_told() {
    let harness = Harness::new(2, [refuses(WorkerError::Busy), streams(vec![Err(failed())])]);
    assert_eq!(harness.fails().await, ErrorKind::Upstream);
    assert_eq!(harness.calls(), [1, 1]);
    harness.assert_outcome("upstream_error");

    let harness = Harness::new(1, [refuses(WorkerError::Busy), answers()]);
    assert_eq!(harness.fails().await, ErrorKind::QueueFull);
    assert_eq!(harness.calls(), [1, 0]);
}

#[tokio::test]
async fn where_no_other_worker_is_left_the_last_ones_error_is_told() {
    let harness = Harness::new(3, [refuses(failed()), refuses(WorkerError::Busy)]);
    assert_eq!(harness.fails().await, ErrorKind::QueueFull);
    assert_eq!(harness.calls(), [1, 1]);
}

#[tokio::test]
async fn a_busy_worker_does_not_hide_that_the_adapter_is_invalid() {
    let invalid = WorkerError::AdapterInvalid("the rank is 0".to_owned());
    let harness = Harness::new(2, [refuses(WorkerError::Busy), cannot_load(invalid)]);
    assert_eq!(harness.fails().await, ErrorKind::AdapterInvalid);
    assert_eq!(harness.calls(), [1, 0]);
    harness.assert_outcome("adapter_invalid");
}

#[tokio::test]
async fn a_worker_that_fails_after_its_first_event_is_not_replaced() {
    let harness = Harness::new(2, [streams(vec![Ok(delta()), Err(failed())]), answers()]);
    let mut stream = harness.generate().await.expect("the first event exists").stream;
    assert_eq!(stream.next().await, Some(Ok(delta())));
    let error = stream.next().await.expect("the stream tells how it ended").expect_err("the worker failed");
    assert_eq!(error.kind(), ErrorKind::Upstream);
    // Given back with the error, though the client still has the stream.
    harness.assert_nothing_held();
    assert_eq!(stream.next().await, None);
    assert_eq!(harness.calls(), [1, 0]);
    harness.assert_outcome("upstream");
}

/// lessons 11: the client leaves, in whatever phase.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_adapter_loads_holds_nothing_and_reaches_no_worker() {
    let never = Script { load_takes: Duration::from_secs(60), ..answers() };
    let harness = Harness::new(2, [never.clone(), never]);
    let left = tokio::time::timeout(Duration::from_secs(1), harness.generate()).await;
    assert!(left.is_err(), "the load takes longer");
    let held = harness.gateway.held();
    assert_eq!((held.permits, held.leases, held.pins, held.sequences), (0, 0, 0, 0));
    assert_eq!(held.tasks, 1, "the load goes on, for whoever asks next");
    harness.assert_outcome("client_gone");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.calls(), [0, 0]);
    harness.assert_nothing_held();
    drop(tokio::time::timeout(Duration::from_secs(1), harness.generate()).await.expect("it is there now"));
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_generations_fail_is_left_alone_and_tried_again_later() {
    let harness = Harness::new(2, [streams(vec![Err(failed())]), answers()]);
    for _ in 0..3 {
        drop(harness.generate().await.expect("the other answers"));
    }
    let [first, second] = harness.calls();
    assert_eq!((first, second), (3, 3), "its breaker is open now");
    drop(harness.generate().await.expect("the other answers"));
    assert_eq!(harness.calls(), [3, 4]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(harness.generate().await.expect("the other answers"));
    assert_eq!(harness.calls(), [4, 5], "one trial");
}

#[tokio::test]
async fn a_failure_after_the_first_event_counts_as_one() {
    let harness = Harness::new(1, [streams(vec![Ok(delta()), Err(failed())]), answers()]);
    for _ in 0..3 {
        let events: Vec<_> = harness.generate().await.expect("it begins").stream.collect().await;
        assert!(events.last().is_some_and(Result::is_err));
    }
    drop(harness.generate().await.expect("the other answers"));
    assert_eq!(harness.calls(), [3, 1]);
}

#[tokio::test]
async fn a_drained_worker_gets_nothing_new_and_finishes_what_it_runs() {
    let harness = Harness::new(1, [answers(), answers()]);
    let stream = harness.generate().await.expect("it begins").stream;
    assert_eq!(harness.calls(), [1, 0]);
    let card = harness.gateway.drain_worker("one", "a").expect("it is there");
    assert_eq!((card.state.as_str(), card.leases), ("draining", 1));
    let rest: Vec<_> = stream.collect().await;
    assert!(rest.len() == 3 && rest.iter().all(Result::is_ok));
    for _ in 0..3 {
        drop(harness.generate().await.expect("the other answers"));
    }
    assert_eq!(harness.calls(), [1, 3]);
    assert_eq!(harness.gateway.drain_worker("one", "c"), None);
    harness.gateway.undrain_worker("one", "a").expect("it is there");
    drop(harness.generate().await.expect("it is back"));
    assert_eq!(harness.calls(), [2, 3]);
}

#[tokio::test]
async fn retries_come_to_an_end_where_all_workers_fail() {
    let harness = Harness::new(2, [refuses(WorkerError::Busy), refuses(WorkerError::Busy)]);
    for _ in 0..40 {
        assert_eq!(harness.fails().await, ErrorKind::QueueFull);
    }
    let made: u64 = harness.calls().iter().sum::<u64>() - 40;
    assert!((15..=20).contains(&made), "{made} retries to 40 requests");
}
