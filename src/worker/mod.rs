//! How to speak to a worker: the trait [`Driver`] and one implementation a
//! kind of engine.
//!
//! A driver translates; it does not choose, count, retry or judge. What it
//! returns from [`Driver::generate`] is a stream that does the worker's work
//! only while it is polled or buffered in bounds, and dropping that stream ends the
//! work at the worker.

pub mod discovery;
mod embedded;
pub mod grpc;
pub mod http;
mod prompt;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::time::Instant;

use crate::types::{AdapterKey, BaseName, Error, Event, GenerateRequest, GenerationId, TenantId, TraceContext};

pub use grpc::{Config as GrpcConfig, Grpc, GrpcError};

pub use http::{
    FixedAdapter, LlamaCpp, LlamaCppConfig, OpenAi, OpenAiConfig, RemoteConfig, UrlError, Vllm, VllmConfig,
};

pub use embedded::{Config as EmbeddedConfig, Embedded, EmbeddedError, LoadedBase, Memory, ServedBase};

/// The events of one generation, in [`Event`]'s order. After an `Err`, nothing.
pub type EventSource = Pin<Box<dyn Stream<Item = Result<Event, WorkerError>> + Send>>;

/// A generation that the worker has taken.
pub struct Started {
    /// Tokens of all prompts together, where the worker says so before it
    /// generates.
    pub prompt_tokens: Option<u32>,
    pub events: EventSource,
}

/// One kind of engine.
pub trait Driver: Send + Sync + 'static {
    /// The base models that the worker can serve.
    fn bases(&self) -> Vec<BaseName>;

    /// Starts a generation. What is wrong with the request itself is told
    /// here; the stream then yields at least one event or one error.
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>>;

    /// Whether the worker may hold this adapter at all: one whose adapters
    /// are fixed at its start, or that has none, says no to all others.
    fn accepts(&self, adapter: &AdapterKey) -> bool {
        let _ = adapter;
        true
    }

    /// Makes an adapter ready for calls that name its key. Loading a key that
    /// is loaded already is no error.
    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>>;

    /// Takes an adapter away that no generation uses.
    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>>;

    /// The text of a prompt's tokens, as near as it can be told; `None` where the
    /// worker cannot.
    fn text_of<'a>(&'a self, base: &'a BaseName, tokens: &'a [u32]) -> BoxFuture<'a, Option<String>> {
        let _ = (base, tokens);
        Box::pin(std::future::ready(None))
    }

    fn status(&self) -> Status;

    /// Whether the engine may give a running request another adapter while one
    /// is loaded (vllm-project/vllm#47724): the pool then loads only while
    /// nothing runs there, or stays within its slots.
    fn loads_only_when_idle(&self) -> bool {
        false
    }

    /// Whether a row's answer does not depend on what else runs: what an
    /// adapter answers there under load is the artifact's own answer.
    fn batch_invariant(&self) -> bool {
        false
    }

    /// Whether the engine keeps what it computed of a prompt for the tenant's
    /// next one that begins alike and is for the same adapter.
    fn caches_prefixes(&self, adapter: Option<&AdapterKey>) -> bool {
        let _ = adapter;
        false
    }
}

/// What a driver needs to run one generation.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: GenerationId,
    /// Whose request it is; no two tenants share what an engine caches.
    pub tenant: TenantId,
    pub base: BaseName,
    /// Loaded at this worker, and pinned there by the caller.
    pub adapter: Option<AdapterKey>,
    pub request: Arc<GenerateRequest>,
    /// Where the call stands in the request's trace.
    pub trace: Option<TraceContext>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterLoad {
    pub key: AdapterKey,
    pub base: BaseName,
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedAdapter {
    /// Memory that the adapter takes at the worker.
    pub bytes: u64,
}

/// How a worker is doing now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// Why the worker can serve nothing; `None` when it can.
    pub unhealthy: Option<String>,
    /// Sequences in the running batch.
    pub batch_rows: u64,
    /// Sequences that wait for a place in it.
    pub waiting: u64,
    /// Positions of the key-value cache that are in use.
    pub kv_tokens: u64,
    /// The share of the key-value cache that is in use, 0 to 1, where the
    /// worker tells that and no positions.
    pub kv_used: Option<f32>,
    /// It takes nothing new and finishes what it runs.
    pub draining: bool,
    /// Sequences that it runs at one time, where it says so; more wait.
    pub slots: Option<u64>,
    /// Base models that it serves and that are not in its memory: a call has
    /// them loaded first.
    pub cold: Vec<BaseName>,
    /// What the worker itself says that it holds; `None` where it does not say.
    pub held: Option<Arc<Held>>,
}

/// A worker's own account of its adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Tells one run of the worker's process from the next: what an earlier
    /// one had loaded is gone.
    pub instance: String,
    /// Adapters that are loaded, with the memory that each takes.
    pub adapters: Vec<(AdapterKey, u64)>,
    /// When the worker was asked: what was loaded later may be missing.
    pub as_of: Instant,
}

/// Why a worker did not do, or not finish, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkerError {
    /// The request's own fault; no worker would take it.
    #[error("{0}")]
    Refused(Error),
    /// The worker's waiting room is full; another worker may have a place.
    #[error("the worker's queue is full")]
    Busy,
    /// The worker is not there, or not able to serve.
    #[error("the worker is not available: {0}")]
    Unavailable(String),
    /// The worker took the request and failed.
    #[error("the worker failed: {0}")]
    Failed(String),
    /// The artifact is wrong, or more than this worker takes.
    #[error("the adapter is invalid: {0}")]
    AdapterInvalid(String),
    /// The worker no longer has an adapter that it had loaded; loading it
    /// again helps.
    #[error("the worker does not have the adapter: {0}")]
    AdapterMissing(String),
    /// The worker answers with another adapter than it was given.
    #[error("the worker answers with another adapter: {0}")]
    AdapterMismatch(String),
    /// The adapter could not be loaded just now.
    #[error("the adapter could not be loaded: {0}")]
    AdapterUnavailable(String),
}

// === impl WorkerError ===

impl WorkerError {
    /// Whether another worker may do better.
    pub fn another_may_help(&self) -> bool {
        match self {
            Self::Busy
            | Self::Unavailable(_)
            | Self::Failed(_)
            | Self::AdapterInvalid(_)
            | Self::AdapterMissing(_)
            | Self::AdapterMismatch(_)
            | Self::AdapterUnavailable(_) => true,
            Self::Refused(_) => false,
        }
    }
}
