//! The embedded engine as a worker: base models in this process, one engine
//! each.
//!
//! Where `memory_bytes` has no room for all of them, [`plan`] says which are
//! loaded first, and [`bases`] loads and unloads them as calls want them, with
//! what [`library`] reads from disk. [`adapters`] are loaded for a base model
//! and leave with it.

mod adapters;
mod base;
mod bases;
mod events;
mod library;
mod plan;
mod refusal;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use thiserror::Error as ThisError;
use tokio::sync::Semaphore;

use super::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};
use crate::engine::files::{AdapterLimits, ModelFileError};
use crate::engine::kernels::Precision;
use crate::engine::{self, Adapter, StartError};
use crate::types::{AdapterKey, BaseName, GenerateRequest, Input, Prompt};

use adapters::Adapters;
use base::Base;
use bases::{Bases, Pin};
use events::events;
use library::{Library, Survey};
use refusal::refuse_unsupported;

/// Long prompts that are tokenised at one time; the others wait.
const LONG_PROMPTS: usize = 2;

/// Prompts of this many bytes are long: tokenising them takes milliseconds.
const LONG: usize = 4 << 10;

/// What a message's markup takes, in bytes.
const MARKUP: usize = 32;

/// How long a call waits for the memory of a base model that is not loaded
/// while all others are in use.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Config {
    pub precision: Precision,
    /// For each base model, but for `kv_bytes`, which they share.
    pub engine: engine::Config,
    pub adapters: AdapterLimits,
    /// Memory that loaded adapters may take together; those used longest ago
    /// then give way. `None` where whoever loads them sees to that.
    pub adapter_bytes: Option<u64>,
    /// Memory for everything: weights, adapters, and what is left for keys and
    /// values, in the place of `engine.kv_bytes`. Base models that it has no
    /// room for are loaded when they are called, in the place of others.
    pub memory_bytes: Option<u64>,
}

/// What the worker's memory is used for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of the base models that are loaded now.
    pub weights: u64,
    /// What keys and values may take.
    pub kv_limit: u64,
    /// Loaded adapters, and what they may take.
    pub adapters: u64,
    pub adapters_limit: Option<u64>,
}

/// A base model to serve.
#[derive(Debug, Clone)]
pub struct ServedBase {
    pub name: BaseName,
    /// A GGUF file or a Hugging Face folder.
    pub path: PathBuf,
    /// Names that adapters may give for the model they were trained on.
    pub also_known_as: Vec<String>,
}

pub struct Embedded {
    bases: Bases<Library>,
    adapters: Arc<Adapters>,
    limits: AdapterLimits,
    /// What keys and values may take, with the weights where those are counted.
    budget: u64,
    weights_counted: bool,
    /// Sequences that the engine of a base model runs at one time.
    slots: u64,
    /// Places for prompts that take long to tokenise.
    long_prompts: Arc<Semaphore>,
}

/// A base model that is loaded and stays so until this is dropped.
#[derive(Clone)]
pub struct LoadedBase(Arc<Pin<Library>>);

#[derive(Debug, ThisError)]
pub enum EmbeddedError {
    #[error(transparent)]
    Files(#[from] ModelFileError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{}: {reason}", path.display())]
    Unfit { path: PathBuf, reason: String },
    #[error("base model {base}: {reason}")]
    NotLoaded { base: BaseName, reason: String },
    #[error(
        "memory_bytes is {memory}, and base model {base} needs {missing} more: its weights take {weights}, keys and \
         values at least {kv}, adapters may take {adapters}"
    )]
    Memory { base: BaseName, memory: u64, weights: u64, kv: u64, adapters: u64, missing: u64 },
}

// === impl Embedded ===

impl Embedded {
    /// Loads the base models that there is memory for, and starts their
    /// engines. Takes seconds, so not for an async thread, though inside a
    /// Tokio runtime: what is loaded later is loaded there.
    pub fn start(config: &Config, bases: Vec<ServedBase>) -> Result<Self, EmbeddedError> {
        let adapters = Arc::new(Adapters::new(config.adapter_bytes));
        let Survey { library, plan, entries, pot } = Survey::of(config, bases, adapters.clone())?;
        let bases = Bases::new(library, &entries, plan.budget - plan.sure, pot, PATIENCE);
        for base in entries.into_iter().filter(|entry| entry.share.first).map(|entry| entry.name) {
            bases.load_first(&base).map_err(|reason| EmbeddedError::NotLoaded { base, reason })?;
        }
        Ok(Self {
            bases,
            adapters,
            limits: config.adapters,
            budget: plan.budget,
            weights_counted: config.memory_bytes.is_some(),
            slots: config.engine.max_batch_rows as u64,
            long_prompts: Arc::new(Semaphore::new(LONG_PROMPTS)),
        })
    }

    /// The adapters that are loaded, with the memory that each takes.
    pub fn adapters(&self) -> Vec<(AdapterKey, u64)> {
        self.adapters.list()
    }

    pub fn memory(&self) -> Memory {
        let weights = self.bases.account().weights;
        Memory {
            weights,
            kv_limit: if self.weights_counted { self.budget - weights } else { self.budget },
            adapters: self.adapters.bytes(),
            adapters_limit: self.adapters.limit(),
        }
    }

    /// Largest weights file of an adapter.
    pub fn max_adapter_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// Loads the base model where it is not, for what needs it from its first
    /// step on.
    pub async fn loaded(&self, base: &BaseName) -> Result<LoadedBase, WorkerError> {
        Ok(LoadedBase(Arc::new(self.bases.pin(base).await?)))
    }

    /// As [`Driver::load_adapter`], of files that came over the wire.
    pub async fn load_files(
        &self,
        key: AdapterKey,
        base: LoadedBase,
        config: Vec<u8>,
        weights: Vec<u8>,
    ) -> Result<LoadedAdapter, WorkerError> {
        let limits = self.limits;
        self.load(key, base, move |base| base.adapter_of(&config, weights, limits)).await
    }

    async fn load(
        &self,
        key: AdapterKey,
        base: LoadedBase,
        open: impl FnOnce(&Base) -> Result<Adapter, WorkerError> + Send + 'static,
    ) -> Result<LoadedAdapter, WorkerError> {
        let opened = base.clone();
        let adapter = tokio::task::spawn_blocking(move || open(&opened.0))
            .await
            .map_err(|_| WorkerError::AdapterUnavailable("loading it panicked".to_owned()))??;
        if *key.digest != *adapter.digest() {
            let reason = format!("its digest is {}, not {}", adapter.digest(), key.digest);
            return Err(WorkerError::AdapterInvalid(reason));
        }
        let bytes = adapter.bytes() as u64;
        self.adapters.insert(key, base.0.name().clone(), adapter)?;
        base.0.keep_for_a_moment();
        Ok(LoadedAdapter { bytes })
    }

    async fn start_generation(&self, call: Call) -> Result<Started, WorkerError> {
        refuse_unsupported(&call.request).map_err(WorkerError::Refused)?;
        if let Some(key) = &call.adapter {
            // It left with the base model, which is loaded again with the adapter.
            self.adapters.get(key, &call.base)?;
        }
        let base = self.loaded(&call.base).await?;
        let adapter = call.adapter.as_ref().map(|key| self.adapters.get(key, &call.base)).transpose()?;
        let request = call.request;
        let (generation, base) = if long(&request) {
            // Tokenising it takes longer than an async thread should be held. What has begun goes on when its client
            // leaves, so the place among the few that may is held by the work itself.
            let place = self.long_prompts.clone().acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _place = place;
                base.0.submit(&request, adapter).map(|generation| (generation, base))
            })
            .await
            .map_err(|_| WorkerError::Failed("tokenising a prompt panicked".to_owned()))??
        } else {
            (base.0.submit(&request, adapter)?, base)
        };
        let prompt_tokens = u32::try_from(generation.prompt_tokens()).ok();
        Ok(Started { prompt_tokens, events: events(generation, base).boxed() })
    }
}

impl Driver for Embedded {
    fn bases(&self) -> Vec<BaseName> {
        self.bases.names()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.start_generation(call).boxed()
    }

    fn load_adapter(&self, load: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let AdapterLoad { key, base, folder } = load;
        let limits = self.limits;
        async move {
            let base = self.loaded(&base).await?;
            self.load(key, base, move |base| base.open_adapter(&folder, limits)).await
        }
        .boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        // Sequences that still use it keep it until they end.
        self.adapters.remove(&key);
        std::future::ready(Ok(())).boxed()
    }

    fn text_of<'a>(&'a self, base: &'a BaseName, tokens: &'a [u32]) -> BoxFuture<'a, Option<String>> {
        async move {
            let base = self.loaded(base).await.ok()?;
            let tokenizer = base.0.tokenizer();
            // Between words special tokens would hide what the words say together.
            let said = tokens.iter().filter(|token| !tokenizer.is_special(**token));
            let bytes: Vec<u8> = said.flat_map(|token| tokenizer.token_bytes(*token)).copied().collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        .boxed()
    }

    fn batch_invariant(&self) -> bool {
        true
    }

    fn status(&self) -> Status {
        let bases::Account { cold, unable, .. } = self.bases.account();
        let mut status = Status { slots: Some(self.slots), unhealthy: unable, cold, ..Status::default() };
        self.bases.each_loaded(|base| {
            let stats = base.stats();
            status.batch_rows += stats.running as u64;
            status.waiting += stats.waiting as u64;
            status.kv_tokens += stats.kv_tokens as u64;
        });
        // Where base models leave, their adapters do.
        status.held = self.weights_counted.then(|| self.adapters.held());
        status
    }
}

/// Whether tokenising the prompt takes longer than an async thread should be held.
fn long(request: &GenerateRequest) -> bool {
    let bytes: usize = match &request.input {
        Input::Chat(messages) => messages.iter().map(|message| MARKUP + message.content.len()).sum(),
        Input::Prompts(prompts) => prompts.iter().map(Prompt::bytes).sum(),
    };
    bytes > LONG
}
