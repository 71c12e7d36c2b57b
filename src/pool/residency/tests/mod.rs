//! The resident set of a worker that does nothing until the test says what
//! comes of it. Time is paused: a wait that nothing can end fails at once.

mod accounts;
mod loading;
mod proofs;
mod room;

use std::sync::atomic::{AtomicUsize, Ordering};
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
/// What the worker takes for an answer to a probe.
const ANSWERS_AFTER: Duration = Duration::from_millis(100);

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
    /// Questions that it was asked.
    questions: Arc<AtomicUsize>,
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
        self.questions.fetch_add(1, Ordering::AcqRel);
        assert_eq!(call.tenant.as_str(), "(probe)", "residency generates nothing else");
        async move {
            tokio::time::sleep(ANSWERS_AFTER).await;
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
    questions: Arc<AtomicUsize>,
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
        let proven = ('a'..='z').map(|name| artifact(&name.to_string()));
        let listed = proven.chain([fresh()]).map(|artifact| (artifact, "unused".into())).collect();
        let catalogue = Catalogue::fixed(listed);
        // Nothing tells them from their base, but where a test says so.
        let base = BaseName::new("base");
        catalogue.record_probe(&base, "0", None).now_or_never().expect("nothing to wait for");
        let (activity, answers) = (Arc::new(Activity::default()), Arc::new(std::sync::Mutex::new(Ok(String::new()))));
        let questions = Arc::new(AtomicUsize::new(0));
        let driver =
            Arc::new(Scripted { asks, answers: answers.clone(), questions: questions.clone(), only_when_idle });
        let residency =
            Residency::new("w".into(), driver, config, catalogue.clone(), metrics.clone(), activity.clone());
        Self { residency: Arc::new(residency), metrics, catalogue, activity, answers, questions, asked }
    }

    /// Starts to ask for an adapter.
    fn ask(&self, name: &str) -> Asker {
        self.ask_for(artifact(name))
    }

    fn ask_for(&self, artifact: Artifact) -> Asker {
        let residency = self.residency.clone();
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

/// One that no probe was looked for yet.
fn fresh() -> Artifact {
    let artifact = artifact("fresh");
    let key = AdapterKey { digest: "1".into(), ..artifact.key };
    Artifact { key, ..artifact }
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
