//! A worker in a process of its own, `tenantry worker`, spoken to over gRPC.
//!
//! All generations share one HTTP/2 connection. Dropping a generation's stream
//! resets it, which the worker sees at once; a worker that has died or stands
//! still is found by the connection's keep-alive. A client that does not read
//! fills the window of its own stream, and the connection has room for many such.
//! Uploads, and asking the worker how it is, have connections of their own:
//! neither waits for a generation's stream or window.

pub mod convert;
pub mod pb;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{StreamExt, stream};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tracing::{info, warn};

use super::{AdapterLoad, Call, Driver, EventSource, Held, LoadedAdapter, Started, Status, WorkerError};
use crate::types::{AdapterKey, BaseName, Secret, TraceContext};
use convert::{call_to_pb, error_from_pb, event_from_pb, key_from_pb, key_to_pb};
use pb::generate_event::Event as Told;
use pb::worker_client::WorkerClient;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the worker listens, such as `http://10.0.0.7:9101`.
    pub url: String,
    pub bases: Vec<BaseName>,
    /// What the worker was configured to ask for.
    pub key: Option<Secret>,
    pub connect_timeout: Duration,
    /// The longest wait for an answer's first event, in the worker's queue too.
    pub first_byte_timeout: Duration,
    /// The longest silence within an answer that has begun.
    pub stall_timeout: Duration,
    pub load_timeout: Duration,
    /// How often the worker is asked how it is.
    pub poll_interval: Duration,
}

#[derive(Debug, Error)]
pub enum GrpcError {
    #[error("{url} is not a worker's address: {source}")]
    Url { url: String, source: tonic::transport::Error },
    #[error("the worker's key cannot be sent in a header")]
    Key,
}

/// The longest that a worker may take to say how it is.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);
/// Polls without an answer in time after which a worker is taken for lost. A
/// busy machine may delay one.
const MISSED_POLLS: u32 = 2;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Larger than any prompt that an edge lets in.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// What a generation may have sent and its client not read: some thousand tokens.
const STREAM_WINDOW: u32 = 64 << 10;
/// A bound, not memory that is held: so many streams may stand still and the
/// others go on.
const CONNECTION_WINDOW: u32 = 1024 * STREAM_WINDOW;

type Client = WorkerClient<InterceptedService<Channel, Credentials>>;

pub struct Grpc {
    bases: Vec<BaseName>,
    generations: Client,
    uploads: Client,
    control: Client,
    first_byte_timeout: Duration,
    stall_timeout: Duration,
    load_timeout: Duration,
    status: Arc<RwLock<Status>>,
    _poller: AbortOnDropHandle<()>,
}

/// An answer that is being read.
struct Reading {
    events: Streaming<pb::GenerateEvent>,
    /// When the first event has to be there; `None` once it is.
    begins_by: Option<Instant>,
}

#[derive(Clone)]
struct Credentials(Option<MetadataValue<Ascii>>);

// === impl Grpc ===

impl Grpc {
    /// Connects when first needed: the worker may come up later. Called
    /// inside a Tokio runtime, where the worker is then asked how it is.
    pub fn start(config: Config) -> Result<Self, GrpcError> {
        let endpoint = endpoint(&config)?;
        let credentials = Credentials::new(config.key.as_ref())?;
        // Each connects by itself.
        let client = || {
            WorkerClient::with_interceptor(endpoint.connect_lazy(), credentials.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
        let control = client();
        let unasked = Status { unhealthy: Some("it has not answered yet".to_owned()), ..Status::default() };
        let status = Arc::new(RwLock::new(unasked));
        let poller = tokio::spawn(poll(control.clone(), config.clone(), status.clone()));
        Ok(Self {
            bases: config.bases,
            generations: client(),
            uploads: client(),
            control,
            first_byte_timeout: config.first_byte_timeout,
            stall_timeout: config.stall_timeout,
            load_timeout: config.load_timeout,
            status,
            _poller: AbortOnDropHandle::new(poller),
        })
    }

    async fn start_generation(&self, call: Call) -> Result<Started, WorkerError> {
        let mut client = self.generations.clone();
        let begins_by = Instant::now() + self.first_byte_timeout;
        let starting = async {
            let mut request = tonic::Request::new(call_to_pb(&call));
            if let Some(trace) = &call.trace {
                traced(request.metadata_mut(), trace);
            }
            let mut events = client.generate(request).await?.into_inner();
            let first = events.message().await?;
            Ok::<_, tonic::Status>((first, events))
        };
        let started = tokio::time::timeout_at(begins_by, starting).await;
        let started = started.map_err(|_| silent(self.first_byte_timeout))?;
        let (first, events) = started.map_err(|status| lost(&status))?;
        match first.and_then(|event| event.event) {
            Some(Told::Started(started)) => {
                Ok(Started { prompt_tokens: started.prompt_tokens, events: self.rest(events, begins_by) })
            }
            Some(Told::Error(error)) => Err(error_from_pb(error)),
            _ => Err(WorkerError::Failed("its answer did not begin with `started`".to_owned())),
        }
    }

    /// What follows `started`, which says that the worker has taken the call
    /// and not that it has a place in the batch. Ends with the usage or with an
    /// error.
    fn rest(&self, events: Streaming<pb::GenerateEvent>, begins_by: Instant) -> EventSource {
        let (first, stall) = (self.first_byte_timeout, self.stall_timeout);
        let next = move |reading: Option<Reading>| async move {
            let Reading { mut events, begins_by } = reading?;
            let (until, patience) = match begins_by {
                Some(begins_by) => (begins_by, first),
                None => (Instant::now() + stall, stall),
            };
            let event = match tokio::time::timeout_at(until, events.message()).await {
                Ok(Ok(Some(pb::GenerateEvent { event: Some(event) }))) => event_from_pb(event),
                Ok(Ok(_)) => Err(WorkerError::Failed("its answer ended early".to_owned())),
                Ok(Err(status)) => Err(WorkerError::Failed(told(&status))),
                Err(_) => Err(silent(patience)),
            };
            let over = matches!(event, Err(_) | Ok(crate::types::Event::Usage(_)));
            Some((event, (!over).then_some(Reading { events, begins_by: None })))
        };
        stream::unfold(Some(Reading { events, begins_by: Some(begins_by) }), next).boxed()
    }

    async fn load(&self, load: AdapterLoad) -> Result<LoadedAdapter, WorkerError> {
        let mut client = self.uploads.clone();
        let (pieces, reader) = upload::pieces(&load);
        let answer = client.load_adapter(pieces).await;
        // What was not read was not sent, and the worker can only have called it incomplete.
        if let Ok(Err(error)) = reader.await {
            return Err(WorkerError::AdapterUnavailable(error));
        }
        let answer = answer.map_err(|status| not_loaded(&status))?.into_inner();
        match answer.error {
            Some(error) => Err(error_from_pb(error)),
            None => Ok(LoadedAdapter { bytes: answer.bytes }),
        }
    }
}

impl Driver for Grpc {
    fn bases(&self) -> Vec<BaseName> {
        self.bases.clone()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.start_generation(call).boxed()
    }

    fn load_adapter(&self, load: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        async move {
            let late = |_| Err(WorkerError::AdapterUnavailable("loading it took too long".to_owned()));
            tokio::time::timeout(self.load_timeout, self.load(load)).await.unwrap_or_else(late)
        }
        .boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async move {
            let mut client = self.control.clone();
            let request = pb::UnloadAdapterRequest { key: Some(key_to_pb(&key)) };
            let late = |_| Err(WorkerError::Unavailable("unloading took too long".to_owned()));
            let unload = async { client.unload_adapter(request).await.map(drop).map_err(|status| lost(&status)) };
            tokio::time::timeout(self.load_timeout, unload).await.unwrap_or_else(late)
        }
        .boxed()
    }

    /// A worker that is older than the question does not know it, and so cannot tell.
    fn text_of<'a>(&'a self, base: &'a BaseName, tokens: &'a [u32]) -> BoxFuture<'a, Option<String>> {
        async move {
            let mut client = self.generations.clone();
            let tokens = Some(pb::Tokens { ids: tokens.to_vec() });
            let asking = client.decode(pb::DecodeRequest { base: base.to_string(), tokens });
            // It may have to load the base model first, as for a generation.
            let answer = tokio::time::timeout(self.first_byte_timeout, asking).await.ok()?;
            answer.ok()?.into_inner().text
        }
        .boxed()
    }

    fn status(&self) -> Status {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine there is ours.
    fn batch_invariant(&self) -> bool {
        true
    }
}

fn endpoint(config: &Config) -> Result<Endpoint, GrpcError> {
    let endpoint = Endpoint::from_shared(config.url.clone())
        .map_err(|source| GrpcError::Url { url: config.url.clone(), source })?;
    Ok(endpoint
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// W3C Trace Context, as gRPC carries it.
fn traced(metadata: &mut MetadataMap, trace: &TraceContext) {
    let value = |text: &str| text.parse().ok();
    if let Some(parent) = value(&trace.traceparent()) {
        metadata.insert("traceparent", parent);
    }
    if let Some(state) = trace.state.as_deref().and_then(value) {
        metadata.insert("tracestate", state);
    }
}

fn silent(time: Duration) -> WorkerError {
    WorkerError::Failed(format!("it was silent for {} seconds", time.as_secs_f64()))
}

/// A call that got no answer of the worker's own. It may have been taken or
/// not; no event of it has been seen.
fn lost(status: &tonic::Status) -> WorkerError {
    match status.code() {
        Code::Internal | Code::InvalidArgument | Code::Unknown => WorkerError::Failed(told(status)),
        _ => WorkerError::Unavailable(told(status)),
    }
}

fn not_loaded(status: &tonic::Status) -> WorkerError {
    WorkerError::AdapterUnavailable(told(status))
}

fn told(status: &tonic::Status) -> String {
    let source = std::error::Error::source(status).map(|source| format!(" ({source})")).unwrap_or_default();
    format!("{}: {}{source}", status.code(), status.message())
}

/// Asks the worker how it is, until dropped.
async fn poll(client: Client, config: Config, shared: Arc<RwLock<Status>>) {
    let mut missed = 0;
    loop {
        let before = shared.read().unwrap_or_else(PoisonError::into_inner).unhealthy.clone();
        let mut status = look(client.clone(), &config.bases).await;
        if let Err(Lost::Late) = status {
            missed += 1;
        } else {
            missed = 0;
        }
        let now = match &mut status {
            Ok(status) => Some(std::mem::take(status)),
            Err(Lost::Late) if missed < MISSED_POLLS => None,
            Err(why) => Some(Status { unhealthy: Some(why.to_string()), ..Status::default() }),
        };
        if let Some(now) = now {
            match (&before, &now.unhealthy) {
                (Some(_), None) => info!(worker = config.url, "the worker is there"),
                (None, Some(why)) => warn!(worker = config.url, why, "the worker is lost"),
                _ => {}
            }
            *shared.write().unwrap_or_else(PoisonError::into_inner) = now;
        }
        tokio::time::sleep(config.poll_interval).await;
    }
}

#[derive(Debug, Error)]
enum Lost {
    #[error("it does not say in time how it is")]
    Late,
    #[error("{0}")]
    Told(String),
}

async fn look(mut client: Client, bases: &[BaseName]) -> Result<Status, Lost> {
    let as_of = Instant::now();
    let answer = tokio::time::timeout(POLL_TIMEOUT, client.status(pb::StatusRequest {})).await;
    let answer = answer.map_err(|_| Lost::Late)?.map_err(|status| Lost::Told(told(&status)))?.into_inner();
    let missing = bases.iter().find(|base| !answer.bases.iter().any(|served| served == base.as_str()));
    let adapters = answer.adapters.into_iter().filter_map(|held| Some((key_from_pb(held.key?), held.bytes))).collect();
    Ok(Status {
        unhealthy: answer.unhealthy.or_else(|| missing.map(|base| format!("it does not serve {base}"))),
        batch_rows: answer.batch_rows,
        waiting: answer.waiting,
        kv_tokens: answer.kv_tokens,
        kv_used: None,
        draining: answer.draining,
        slots: Some(answer.slots).filter(|slots| *slots > 0),
        cold: answer.cold.into_iter().map(BaseName::new).collect(),
        held: Some(Arc::new(Held { instance: answer.instance, adapters, as_of })),
    })
}

// === impl Credentials ===

impl Credentials {
    fn new(key: Option<&Secret>) -> Result<Self, GrpcError> {
        let value = |key: &Secret| {
            let mut value = format!("Bearer {}", key.expose()).parse::<MetadataValue<Ascii>>().ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        key.map(|key| value(key).ok_or(GrpcError::Key)).transpose().map(Self)
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}
