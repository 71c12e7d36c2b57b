//! The service of `tenantry worker`: the embedded engine for gateways in other
//! processes. Messages are read and written by the driver's own conversions.
//!
//! Whoever may call it may use every adapter: tenants are the gateway's
//! business, and the key, where there is one, is the gateway's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Streaming};

use crate::auth::KeyHash;
use crate::types::{AdapterKey, BaseName};
use crate::worker::grpc::convert::{call_from_pb, error_to_pb, event_to_pb, key_from_pb, key_to_pb};
use crate::worker::grpc::pb::{self, worker_server};
use crate::worker::{Driver, Embedded, EventSource, WorkerError};
use pb::generate_event::Event as Told;
use pb::load_adapter_request::Part;

/// Uploads that are held in memory at one time.
const UPLOADS: usize = 2;
/// The longest wait for an upload's next part: others wait for its place.
const BETWEEN_PARTS: Duration = Duration::from_secs(10);
/// Of the message that carries a prompt.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Of an adapter_config.json.
const MAX_CONFIG_BYTES: usize = 1 << 20;

pub struct Service {
    embedded: Arc<Embedded>,
    /// Another in each run.
    instance: String,
    key: Option<KeyHash>,
    /// Turned when the process is about to end.
    drain: CancellationToken,
    uploads: Semaphore,
}

/// A generation's events on their way to the gateway. When it cancels, the
/// transport drops this, and the engine stops.
pub struct Events {
    first: Option<pb::generate_event::Event>,
    rest: Option<EventSource>,
}

// === impl Service ===

impl Service {
    /// Callers have to bring `key`, where there is one.
    pub fn new(embedded: Arc<Embedded>, instance: String, key: Option<KeyHash>, drain: CancellationToken) -> Self {
        Self { embedded, instance, key, drain, uploads: Semaphore::new(UPLOADS) }
    }

    /// The gRPC routes, reflection among them.
    pub fn router(self) -> axum::Router {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors are compiled in");
        let worker = worker_server::WorkerServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES);
        tonic::service::Routes::new(worker).add_service(reflection).prepare().into_axum_router()
    }

    fn authenticate<T>(&self, request: &Request<T>) -> Result<(), tonic::Status> {
        let Some(expected) = self.key else { return Ok(()) };
        let value = request.metadata().get("authorization").map(|value| value.as_encoded_bytes());
        let given = value.and_then(|value| value.strip_prefix(b"Bearer "));
        match given.map(|key| KeyHash::of(key.trim_ascii())) {
            Some(given) if given == expected => Ok(()),
            _ => Err(tonic::Status::unauthenticated("this worker asks for its key")),
        }
    }

    async fn load(&self, mut parts: Streaming<pb::LoadAdapterRequest>) -> Result<u64, WorkerError> {
        let invalid = |what: &str| Err(WorkerError::AdapterInvalid(what.to_owned()));
        let Some(Part::Header(header)) = next(&mut parts).await? else { return invalid("the header is not first") };
        let (key, base) = header_of(header)?;
        // First the base model, or a slow load of one would keep uploads for others waiting.
        let base = self.embedded.loaded(&base).await?;
        let _place = self.uploads.acquire().await.expect("nobody closes it");
        let (mut config, mut weights) = (Vec::new(), Vec::new());
        while let Some(part) = next(&mut parts).await? {
            let (file, piece, most) = match part {
                Part::Config(piece) => (&mut config, piece, MAX_CONFIG_BYTES as u64),
                Part::Weights(piece) => (&mut weights, piece, self.embedded.max_adapter_bytes()),
                Part::Header(_) => return invalid("there is a second header"),
            };
            if (file.len() + piece.len()) as u64 > most {
                return Err(WorkerError::AdapterInvalid(format!("a file has more than {most} bytes")));
            }
            file.extend_from_slice(&piece);
        }
        self.embedded.load_files(key, base, config, weights).await.map(|loaded| loaded.bytes)
    }
}

async fn next(parts: &mut Streaming<pb::LoadAdapterRequest>) -> Result<Option<Part>, WorkerError> {
    let interrupted = |status: tonic::Status| WorkerError::AdapterUnavailable(format!("the upload ended: {status}"));
    let late = |_| WorkerError::AdapterUnavailable("the upload came to a standstill".to_owned());
    let message = tokio::time::timeout(BETWEEN_PARTS, parts.message()).await.map_err(late)?;
    Ok(message.map_err(interrupted)?.and_then(|message| message.part))
}

fn header_of(header: pb::LoadAdapterHeader) -> Result<(AdapterKey, BaseName), WorkerError> {
    let key = header.key.ok_or_else(|| WorkerError::AdapterInvalid("the header has no key".to_owned()))?;
    Ok((key_from_pb(key), BaseName::new(header.base)))
}

#[tonic::async_trait]
impl worker_server::Worker for Service {
    type GenerateStream = Events;

    async fn generate(&self, request: Request<pb::GenerateRequest>) -> Result<Response<Events>, tonic::Status> {
        self.authenticate(&request)?;
        let call = call_from_pb(request.into_inner()).map_err(tonic::Status::invalid_argument)?;
        let events = match self.embedded.generate(call).await {
            Ok(started) => Events {
                first: Some(Told::Started(pb::Started { prompt_tokens: started.prompt_tokens })),
                rest: Some(started.events),
            },
            Err(error) => Events { first: Some(Told::Error(error_to_pb(&error))), rest: None },
        };
        Ok(Response::new(events))
    }

    async fn load_adapter(
        &self,
        request: Request<Streaming<pb::LoadAdapterRequest>>,
    ) -> Result<Response<pb::LoadAdapterResponse>, tonic::Status> {
        self.authenticate(&request)?;
        Ok(Response::new(match self.load(request.into_inner()).await {
            Ok(bytes) => pb::LoadAdapterResponse { error: None, bytes },
            Err(error) => pb::LoadAdapterResponse { error: Some(error_to_pb(&error)), bytes: 0 },
        }))
    }

    async fn unload_adapter(
        &self,
        request: Request<pb::UnloadAdapterRequest>,
    ) -> Result<Response<pb::UnloadAdapterResponse>, tonic::Status> {
        self.authenticate(&request)?;
        let key = request.into_inner().key.ok_or_else(|| tonic::Status::invalid_argument("`key` is missing"))?;
        // Never fails: what is not there is gone.
        let _ = self.embedded.unload_adapter(key_from_pb(key)).await;
        Ok(Response::new(pb::UnloadAdapterResponse {}))
    }

    async fn decode(&self, request: Request<pb::DecodeRequest>) -> Result<Response<pb::DecodeResponse>, tonic::Status> {
        self.authenticate(&request)?;
        let pb::DecodeRequest { base, tokens } = request.into_inner();
        let tokens = tokens.ok_or_else(|| tonic::Status::invalid_argument("`tokens` is missing"))?.ids;
        let text = self.embedded.text_of(&BaseName::new(base), &tokens).await;
        Ok(Response::new(pb::DecodeResponse { text }))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, tonic::Status> {
        self.authenticate(&request)?;
        let (status, memory) = (self.embedded.status(), self.embedded.memory());
        let held = |(key, bytes): (AdapterKey, u64)| pb::HeldAdapter { key: Some(key_to_pb(&key)), bytes };
        Ok(Response::new(pb::StatusResponse {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bases: self.embedded.bases().iter().map(ToString::to_string).collect(),
            unhealthy: status.unhealthy,
            batch_rows: status.batch_rows,
            waiting: status.waiting,
            kv_tokens: status.kv_tokens,
            adapters: self.embedded.adapters().into_iter().map(held).collect(),
            draining: self.drain.is_cancelled(),
            slots: status.slots.unwrap_or(0),
            cold: status.cold.iter().map(ToString::to_string).collect(),
            memory: Some(pb::MemoryUse {
                limit: memory.weights + memory.kv_limit + memory.adapters_limit.unwrap_or(0),
                weights: memory.weights,
                kv_limit: memory.kv_limit,
                adapters: memory.adapters,
                adapters_limit: memory.adapters_limit.unwrap_or(0),
            }),
        }))
    }
}

// === impl Events ===

impl Stream for Events {
    type Item = Result<pb::GenerateEvent, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = match self.first.take() {
            Some(first) => first,
            None => {
                let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
                match ready!(rest.poll_next_unpin(cx)) {
                    None => return Poll::Ready(None),
                    Some(Ok(event)) => event_to_pb(event),
                    Some(Err(error)) => Told::Error(error_to_pb(&error)),
                }
            }
        };
        Poll::Ready(Some(Ok(pb::GenerateEvent { event: Some(event) })))
    }
}
