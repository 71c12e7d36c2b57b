//! The driver against a worker that follows a script.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use serde_json::Map;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status as Told, Streaming};

use super::pb::{self, generate_event, worker_server};
use super::{Config, Grpc};
use crate::types::{
    AdapterKey, BaseName, Event, GenerateRequest, GenerationId, Input, Prompt, Route, Sampling, TenantId, TraceContext,
};
use crate::worker::{AdapterLoad, Call, Driver, Started, WorkerError};

/// Answers as the prompt says.
struct Scripted;

type Events = Pin<Box<dyn Stream<Item = Result<pb::GenerateEvent, Told>> + Send>>;

fn event(event: generate_event::Event) -> Result<pb::GenerateEvent, Told> {
    Ok(pb::GenerateEvent { event: Some(event) })
}

fn delta(bytes: usize) -> Result<pb::GenerateEvent, Told> {
    event(generate_event::Event::Delta(pb::Delta { text: "x".repeat(bytes), tokens: 1, ..pb::Delta::default() }))
}

fn started() -> Events {
    stream::iter([event(generate_event::Event::Started(pb::Started { prompt_tokens: Some(1) }))]).boxed()
}

fn after(milliseconds: u64) -> Events {
    let wait = async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        delta(1)
    };
    stream::once(wait).boxed()
}

#[tonic::async_trait]
impl worker_server::Worker for Scripted {
    type GenerateStream = Events;

    async fn generate(&self, request: Request<pb::GenerateRequest>) -> Result<Response<Events>, Told> {
        let metadata = request.metadata();
        let header = |name| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let trace = format!("{} {}", header("traceparent"), header("tracestate"));
        let Some(pb::generate_request::Input::Prompts(prompts)) = request.into_inner().input else {
            return Err(Told::invalid_argument("no prompt"));
        };
        let Some(pb::prompt::Prompt::Text(script)) = &prompts.prompts[0].prompt else {
            return Err(Told::invalid_argument("no text"));
        };
        Ok(Response::new(match script.as_str() {
            "never starts" => stream::pending().boxed(),
            "never begins" => started().chain(stream::pending()).boxed(),
            "waits in the queue, then stalls" => started().chain(after(500)).chain(stream::pending()).boxed(),
            "endless" => started().chain(stream::repeat_with(|| delta(8 << 10))).boxed(),
            "in which trace" => return Err(Told::invalid_argument(trace)),
            other => return Err(Told::invalid_argument(other)),
        }))
    }

    async fn load_adapter(
        &self,
        _: Request<Streaming<pb::LoadAdapterRequest>>,
    ) -> Result<Response<pb::LoadAdapterResponse>, Told> {
        std::future::pending().await
    }

    async fn unload_adapter(
        &self,
        _: Request<pb::UnloadAdapterRequest>,
    ) -> Result<Response<pb::UnloadAdapterResponse>, Told> {
        Ok(Response::new(pb::UnloadAdapterResponse {}))
    }

    /// As a worker answers that is older than the question.
    async fn decode(&self, _: Request<pb::DecodeRequest>) -> Result<Response<pb::DecodeResponse>, Told> {
        Err(Told::unimplemented("no such method"))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Told> {
        Ok(Response::new(pb::StatusResponse { bases: vec!["base".to_owned()], ..pb::StatusResponse::default() }))
    }
}

const FIRST: Duration = Duration::from_millis(1_500);
const STALL: Duration = Duration::from_millis(200);

/// A driver and its worker, which lives as long as the test.
async fn driver() -> Grpc {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let service = worker_server::WorkerServer::new(Scripted);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let config = Config {
        url,
        bases: vec![BaseName::new("base")],
        key: None,
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: FIRST,
        stall_timeout: STALL,
        load_timeout: Duration::from_secs(2),
        poll_interval: Duration::from_millis(50),
    };
    Grpc::start(config).expect("an address")
}

async fn start(driver: &Grpc, script: &str) -> Result<Started, WorkerError> {
    traced(driver, script, None).await
}

async fn traced(driver: &Grpc, script: &str, trace: Option<TraceContext>) -> Result<Started, WorkerError> {
    let request = GenerateRequest {
        route: Route::GrpcGenerate,
        model: "base".to_owned(),
        input: Input::Prompts(vec![Prompt::Text(script.to_owned())]),
        sampling: Sampling::default(),
        stop: Vec::new(),
        max_tokens: None,
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Map::new(),
    };
    let call = Call {
        id: GenerationId::new(Default::default()),
        tenant: TenantId::new("acme"),
        base: BaseName::new("base"),
        adapter: None,
        request: request.into(),
        trace,
    };
    driver.generate(call).await
}

fn silent(time: Duration) -> WorkerError {
    WorkerError::Failed(format!("it was silent for {} seconds", time.as_secs_f64()))
}

#[tokio::test]
async fn the_first_event_has_a_limit_of_its_own_and_what_follows_another() {
    let driver = driver().await;
    assert_eq!(start(&driver, "never starts").await.map(drop), Err(silent(FIRST)));
    let since = tokio::time::Instant::now();
    let mut events = start(&driver, "never begins").await.expect("taken").events;
    assert_eq!(events.next().await, Some(Err(silent(FIRST))));
    assert!(since.elapsed() < FIRST * 2, "one limit for both, not one for each");
    assert_eq!(events.next().await, None);

    // Longer than a stall: it has not begun, and others are before it.
    let mut events = start(&driver, "waits in the queue, then stalls").await.expect("taken").events;
    assert!(matches!(events.next().await, Some(Ok(Event::Delta(_)))));
    assert_eq!(events.next().await, Some(Err(silent(STALL))));
}

#[tokio::test]
async fn the_worker_learns_which_trace_it_works_for() {
    let driver = driver().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent.as_bytes(), Some(b"vendor=1"));
    for (trace, told) in [(trace, format!("{parent} vendor=1")), (None, "none none".to_owned())] {
        match traced(&driver, "in which trace", trace).await.map(drop) {
            Err(WorkerError::Failed(text)) => assert!(text.contains(&told), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// lessons 9: a load has a time limit of its own.
#[tokio::test]
async fn a_load_that_does_not_end_is_given_up_and_nobody_else_waits_for_it() {
    let driver = driver().await;
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::write(folder.path().join(file), [0; 7]).expect("written");
    }
    let key = AdapterKey { tenant: TenantId::new("acme"), name: "a".into(), revision: 1, digest: "d".into() };
    let load = AdapterLoad { key, base: BaseName::new("base"), folder: folder.path().to_owned() };
    let (loaded, answered) = tokio::join!(driver.load_adapter(load), async {
        let mut events = start(&driver, "endless").await.expect("taken").events;
        events.next().await.expect("an event")
    });
    assert_eq!(loaded, Err(WorkerError::AdapterUnavailable("loading it took too long".to_owned())));
    answered.expect("no error");
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other() {
    let driver = driver().await;
    let mut unread = Vec::new();
    for _ in 0..64 {
        let mut events = start(&driver, "endless").await.expect("taken").events;
        events.next().await.expect("an event").expect("no error");
        unread.push(events);
    }
    // Time for the worker to fill whatever it may.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut events = start(&driver, "endless").await.expect("taken").events;
    for _ in 0..100 {
        events.next().await.expect("an event").expect("no stall");
    }
    assert_eq!(driver.status().unhealthy, None);
    drop(unread);
}

#[tokio::test]
async fn an_older_worker_cannot_tell_what_tokens_say() {
    let driver = driver().await;
    assert_eq!(driver.text_of(&BaseName::new("base"), &[1, 2]).await, None);
}
