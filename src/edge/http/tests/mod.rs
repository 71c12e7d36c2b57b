//! The router, driven in process, over the real gateway and pool and a worker
//! that follows a script.

mod accepted;
mod connection;
mod fuzz;
mod guarded;
mod limits;
mod openapi;
mod operations;
mod parsing;
mod routes;
mod streaming;
mod uploads;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Config, public_router};
use crate::adapters::Catalogue;
use crate::admission::Admission;
use crate::auth::{KeyHash, Keyring};
use crate::gateway::{self, Gateway, Held, Live};
use crate::moderation::{Policies, Policy};
use crate::pool::{Pool, ResidencyConfig, Worker, WorkerConfig};
use crate::telemetry::Metrics;
use crate::types::{
    AdapterKey, BaseName, Caller, Delta, Event, FinishReason, GenerateRequest, Key, Limits, ModelRoute, Tenant,
    TenantId, Usage,
};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};

const CHAT: &str = r#"{"model":"assistant","messages":[{"role":"user","content":"Hi"}]}"#;
const CHAT_STREAM: &str = r#"{"model":"assistant","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

/// What the worker does, in order.
#[derive(Clone)]
enum Step {
    Yield(Event),
    Fail(WorkerError),
    Wait(Duration),
    /// Until the test adds a permit.
    Gate(Arc<Semaphore>),
}

/// A worker that answers every call with one script.
struct Scripted {
    script: Vec<Step>,
    running: Arc<AtomicU64>,
    seen: Mutex<Vec<Arc<GenerateRequest>>>,
}

/// Counts a generation for as long as its stream lives.
struct Running(Arc<AtomicU64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Driver for Scripted {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.seen.lock().expect("no test panics here").push(call.request);
        self.running.fetch_add(1, Ordering::AcqRel);
        let state = (self.script.clone().into_iter(), Running(self.running.clone()));
        let events = stream::unfold(state, async |(mut steps, running)| {
            loop {
                match steps.next()? {
                    Step::Yield(event) => return Some((Ok(event), (steps, running))),
                    Step::Fail(error) => return Some((Err(error), (steps, running))),
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Gate(gate) => gate.acquire().await.expect("gates are not closed").forget(),
                }
            }
        });
        async move { Ok(Started { prompt_tokens: Some(3), events: Box::pin(events) }) }.boxed()
    }

    fn load_adapter(&self, _: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        async { Ok(LoadedAdapter { bytes: 1 }) }.boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async { Ok(()) }.boxed()
    }

    fn status(&self) -> Status {
        Status { batch_rows: self.running.load(Ordering::Acquire), ..Status::default() }
    }
}

struct Harness {
    router: Router,
    gateway: Arc<Gateway>,
    worker: Arc<Scripted>,
    cut_off: CancellationToken,
}

impl Harness {
    fn new(script: Vec<Step>) -> Self {
        Self::with(script, Config::default())
    }

    fn with(script: Vec<Step>, config: Config) -> Self {
        Self::of(script, config, Catalogue::fixed(Vec::new()))
    }

    fn of(script: Vec<Step>, config: Config, catalogue: Arc<Catalogue>) -> Self {
        let limits = Limits { concurrent_generations: Some(1), ..Limits::default() };
        Self::limited(script, config, catalogue, limits)
    }

    /// One whose texts are looked at, by this policy.
    fn guarded(script: Vec<Step>, policy: Policy) -> Self {
        let policies = Policies::new(Arc::new(policy), std::collections::HashMap::new());
        Self::made(script, Config::default(), Catalogue::fixed(Vec::new()), Limits::default(), policies)
    }

    fn limited(script: Vec<Step>, config: Config, catalogue: Arc<Catalogue>, limits: Limits) -> Self {
        Self::made(script, config, catalogue, limits, Policies::unguarded())
    }

    fn made(script: Vec<Step>, config: Config, catalogue: Arc<Catalogue>, limits: Limits, policies: Policies) -> Self {
        let worker = Arc::new(Scripted { script, running: Arc::default(), seen: Mutex::default() });
        let metrics = Arc::new(Metrics::default());
        let route = ModelRoute { base: BaseName::new("base"), adapter: None };
        let models = ["assistant", "org/model"].map(|name| (name.into(), route.clone()));
        let tenant = Arc::new(Tenant::new(TenantId::new("acme"), limits, models.into()));
        let mut keyring = Keyring::default();
        let caller = Caller { tenant, key: Arc::new(Key::named("one")) };
        keyring.insert(KeyHash::of(b"sk-acme"), caller).expect("the ring was empty");
        let live = Live::new(keyring, vec![BaseName::new("base")]).guarded(policies);
        let residency = ResidencyConfig { adapter_bytes: 1 << 20, adapter_slots: None };
        let pooled = WorkerConfig { residency, slots: None };
        let pooled = Worker::new("w", worker.clone(), pooled, catalogue.clone(), metrics.clone());
        let pool = Pool::new(vec![pooled], catalogue, metrics.clone());
        let cut_off = CancellationToken::new();
        let request_timeout = Duration::from_secs(300);
        let timeouts = gateway::Config { request_timeout, attempts: 1, ..gateway::Config::default() };
        let gateway = Arc::new(Gateway::new(timeouts, live, Admission::default(), pool, metrics, cut_off.clone()));
        let router = public_router(gateway.clone(), config, Router::new());
        Self { router, gateway, worker, cut_off }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.expect("the router has no errors of its own")
    }

    async fn chat(&self, body: impl Into<Body>) -> Response {
        self.send(post("/v1/chat/completions", body)).await
    }

    /// Asserts that nothing is held any more.
    fn assert_nothing_held(&self) {
        // A task that was told to end may take a moment longer.
        assert_eq!(Held { tasks: 0, ..self.gateway.held() }, Held::default());
    }

    /// Requests that were counted with this outcome.
    fn outcomes(&self, outcome: &str) -> usize {
        let metrics = self.gateway.render_metrics().expect("metrics render");
        let label = format!("outcome=\"{outcome}\"");
        metrics
            .lines()
            .filter(|line| line.starts_with("tenantry_requests_total{") && line.contains(&label))
            .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a count"))
            .sum()
    }
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("authorization", "Bearer sk-acme")
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request")
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("authorization", "Bearer sk-acme").body(Body::empty()).expect("a request")
}

fn delta(text: &str) -> Step {
    Step::Yield(Event::Delta(Delta { choice: 0, text: text.to_owned(), tokens: 1, ..Delta::default() }))
}

fn finished(reason: FinishReason) -> Step {
    Step::Yield(Event::Finished { choice: 0, reason })
}

fn usage() -> Step {
    Step::Yield(Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 1 }))
}

/// "Hello world", complete.
fn hello() -> Vec<Step> {
    vec![delta("Hello"), delta(" world"), finished(FinishReason::Stop), usage()]
}

async fn bytes(response: Response) -> Bytes {
    response.into_body().collect().await.expect("the body has no errors").to_bytes()
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&bytes(response).await).expect("the body is JSON")
}

/// The status, and the error object's param, code and message.
async fn refusal(response: Response) -> (StatusCode, Value, Value, String) {
    let status = response.status();
    let mut error = json(response).await["error"].take();
    (status, error["param"].take(), error["code"].take(), error["message"].as_str().expect("a message").to_owned())
}

/// The `data:` lines of a stream, ids and times made equal.
async fn frames(response: Response) -> Vec<String> {
    let id = response.headers()["x-generation-id"].to_str().expect("text").to_owned();
    let text = String::from_utf8(bytes(response).await.to_vec()).expect("text");
    let frames: Vec<&str> = text.split_terminator("\n\n").collect();
    frames.into_iter().map(|frame| without_time(&frame.replace(&id, "ID"))).collect()
}

fn without_time(text: &str) -> String {
    let Some((before, after)) = text.split_once("\"created\":") else { return text.to_owned() };
    format!("{before}\"created\":0{}", after.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}
