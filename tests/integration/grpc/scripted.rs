//! A worker that does what the prompt says, and the server around it: the
//! real gateway, pool and gRPC edge on a loopback port.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use http::StatusCode;
use tenantry::admission::Admission;
use tenantry::auth::{KeyHash, Keyring};
use tenantry::edge::grpc;
use tenantry::gateway::{self, Gateway, Held, Live};
use tenantry::moderation::Policies;
use tenantry::pool::{self, Pool, ResidencyConfig};
use tenantry::telemetry::Metrics;
use tenantry::types::{
    AdapterKey, BaseName, Caller, Delta, Error, ErrorKind, Event, FinishReason, Input, Key, Limits, ModelRoute, Prompt,
    Tenant, TenantId, Usage,
};
use tenantry::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest request message that the test server takes.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Scripted {
    running: Arc<AtomicU64>,
    unhealthy: Mutex<Option<String>>,
}

/// The events of a script, then an end or, where it stays, none.
struct Script {
    steps: std::vec::IntoIter<Result<Event, WorkerError>>,
    stays: bool,
    running: Arc<AtomicU64>,
}

pub(super) struct Server {
    pub(super) gateway: Arc<Gateway>,
    pub(super) worker: Arc<Scripted>,
    pub(super) draining: CancellationToken,
    pub(super) address: String,
    pub(super) router: Router,
    task: JoinHandle<()>,
}

// === impl Scripted ===

impl Scripted {
    pub(super) fn set_unhealthy(&self, reason: Option<&str>) {
        *self.unhealthy.lock().expect("no test panics while it holds this") = reason.map(str::to_owned);
    }

    fn script(&self, prompt: &str) -> Result<(Vec<Result<Event, WorkerError>>, bool), WorkerError> {
        let text =
            |text: &str| Ok(Event::Delta(Delta { choice: 0, text: text.to_owned(), tokens: 1, ..Delta::default() }));
        let failed = || Err(WorkerError::Failed("secret trace from worker-7".to_owned()));
        Ok(match prompt {
            "hold" => (vec![text("Wait")], true),
            "insult" => {
                let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
                let usage = Ok(Event::Usage(Usage { prompt_tokens: 5, completion_tokens: 3, cached_tokens: 1 }));
                (vec![text("Hello. You are"), text(" a stupid id"), text("iot."), Ok(end), usage], false)
            }
            "never" => (Vec::new(), true),
            "fail" => (vec![failed()], false),
            "break" => (vec![text("Half"), failed()], false),
            "refuse" => {
                let error = Error::new(ErrorKind::ContextTooLong, "The context holds 8 tokens.").with_param("messages");
                return Err(WorkerError::Refused(error));
            }
            _ => {
                let usage = Usage { prompt_tokens: 5, completion_tokens: 3, cached_tokens: 1 };
                let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
                (vec![text("Hel"), text(""), text("lo"), Ok(end), Ok(Event::Usage(usage))], false)
            }
        })
    }
}

impl Driver for Scripted {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        let prompt = match &call.request.input {
            Input::Chat(messages) => messages[0].content.clone(),
            Input::Prompts(prompts) => match &prompts[0] {
                Prompt::Text(text) => text.clone(),
                Prompt::Tokens(_) => String::new(),
            },
        };
        async move {
            let (steps, stays) = self.script(&prompt)?;
            self.running.fetch_add(1, Ordering::AcqRel);
            let script = Script { steps: steps.into_iter(), stays, running: self.running.clone() };
            Ok(Started { prompt_tokens: None, events: Box::pin(script) })
        }
        .boxed()
    }

    fn load_adapter(&self, _: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        async { Ok(LoadedAdapter { bytes: 1 }) }.boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async { Ok(()) }.boxed()
    }

    fn status(&self) -> Status {
        let unhealthy = self.unhealthy.lock().expect("no test panics while it holds this").clone();
        Status { unhealthy, batch_rows: self.running.load(Ordering::Acquire), ..Status::default() }
    }
}

// === impl Script ===

impl Stream for Script {
    type Item = Result<Event, WorkerError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.steps.next() {
            Some(step) => Poll::Ready(Some(step)),
            None if self.stays => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Server ===

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(Policies::unguarded()).await
    }

    /// One whose texts are looked at.
    pub(super) async fn with(policies: Policies) -> Self {
        let worker = Arc::new(Scripted::default());
        let gateway = gateway(worker.clone(), policies);
        let draining = CancellationToken::new();
        let asked = gateway.clone();
        let readiness = grpc::Readiness { not_ready: Arc::new(move || asked.not_ready()), draining: draining.clone() };
        let config = grpc::Config { max_message_bytes: MAX_MESSAGE };
        let other = Router::new().fallback(fallback).with_state(gateway.clone());
        let router = other.merge(grpc::router(gateway.clone(), config, readiness));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let serving = router.clone();
        let task = tokio::spawn(async move { axum::serve(listener, serving).await.expect("serving does not fail") });
        Self { gateway, worker, draining, address, router, task }
    }

    /// Waits until no request holds anything.
    pub(super) async fn idle(&self) {
        let all_given_back = async {
            while self.gateway.held() != Held::default() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), all_given_back).await;
        waited.unwrap_or_else(|_| panic!("still held: {:?}", self.gateway.held()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the HTTP edge does with a path that no route takes.
async fn fallback(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    match grpc::speaks_grpc(request.headers()) {
        true => grpc::unknown_path(&gateway, request.headers()),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

fn gateway(worker: Arc<Scripted>, policies: Policies) -> Arc<Gateway> {
    let mut keyring = Keyring::default();
    let one = Limits { concurrent_generations: Some(1), ..Limits::default() };
    let counted = Limits { requests_per_minute: Some(2), output_tokens_per_minute: Some(1_000), ..Limits::default() };
    for (id, model, key, limits) in [
        ("acme", "assistant", "sk-acme", &one),
        ("globex", "other", "sk-globex", &one),
        ("initech", "assistant", "sk-initech", &counted),
    ] {
        let route = ModelRoute { base: BaseName::new("base"), adapter: None };
        let tenant = Tenant::new(TenantId::new(id), limits.clone(), [(model.into(), route)].into());
        let caller = Caller { tenant: Arc::new(tenant), key: Arc::new(Key::named("one")) };
        keyring.insert(KeyHash::of(key.as_bytes()), caller).expect("the keys differ");
    }
    let metrics = Arc::new(Metrics::default());
    let none = tenantry::adapters::Catalogue::fixed(Vec::new());
    let residency = ResidencyConfig { adapter_bytes: 1, adapter_slots: None };
    let config = pool::WorkerConfig { residency, slots: None };
    let worker = pool::Worker::new("worker", worker, config, none.clone(), metrics.clone());
    let config =
        gateway::Config { request_timeout: Duration::from_secs(30), attempts: 1, ..gateway::Config::default() };
    let live = Live::new(keyring, vec![BaseName::new("base")]).guarded(policies);
    let pool = Pool::new(vec![worker], none, metrics.clone());
    Arc::new(Gateway::new(config, live, Admission::default(), pool, metrics, CancellationToken::new()))
}
