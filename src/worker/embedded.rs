//! The embedded engine as a worker: base models in this process, one engine
//! each.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{Stream, StreamExt, stream};
use thiserror::Error as ThisError;
use tokio::sync::Semaphore;

use super::prompt::prompts;
use super::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};
use crate::engine::files::{AdapterError, AdapterFiles, AdapterLimits, ModelFileError, ModelFiles, Tokenizer};
use crate::engine::kernels::Precision;
use crate::engine::{
    self, Adapter, Broken, Budget, Engine, Job, LoadError, Model, Output, StartError, SubmitError, TokenDetail,
};
use crate::types::{
    AdapterKey, BaseName, Delta, Error, ErrorKind, Event, GenerateRequest, Input, Prompt, TokenLogprob, TopLogprob,
    Usage,
};

/// Long prompts that are tokenised at one time; the others wait.
const LONG_PROMPTS: usize = 2;

/// Prompts of this many bytes are long: tokenising them takes milliseconds.
const LONG: usize = 4 << 10;

/// What a message's markup takes, in bytes.
const MARKUP: usize = 32;

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
    /// values, in the place of `engine.kv_bytes`.
    pub memory_bytes: Option<u64>,
}

/// What the worker's memory is used for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
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
    bases: BTreeMap<BaseName, Arc<Base>>,
    adapters: RwLock<Adapters>,
    limits: AdapterLimits,
    weights: u64,
    kv_limit: u64,
    /// Sequences that the engine of a base model runs at one time.
    slots: u64,
    /// Places for prompts that take long to tokenise.
    long_prompts: Arc<Semaphore>,
}

/// What is loaded. In here so that a decision sees all of it.
struct Adapters {
    loaded: HashMap<AdapterKey, Loaded>,
    limit: Option<u64>,
    /// Counts uses; the adapter with the lowest stamp was used longest ago.
    clock: AtomicU64,
}

struct Loaded {
    adapter: Arc<Adapter>,
    used: AtomicU64,
}

struct Base {
    files: ModelFiles,
    tokenizer: Arc<Tokenizer>,
    engine: Engine,
    names: Vec<String>,
}

#[derive(Debug, ThisError)]
pub enum EmbeddedError {
    #[error(transparent)]
    Files(#[from] ModelFileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{}: {reason}", path.display())]
    Unfit { path: PathBuf, reason: String },
    #[error(
        "memory_bytes is {memory}; the weights take {weights} and adapters may take {adapters}, which leaves too \
         little for keys and values"
    )]
    Memory { memory: u64, weights: u64, adapters: u64 },
}

// === impl Embedded ===

impl Embedded {
    /// Loads all base models and starts their engines. Takes seconds, so not for an async thread.
    pub fn start(config: &Config, bases: Vec<ServedBase>) -> Result<Self, EmbeddedError> {
        let mut models = Vec::new();
        for base in bases {
            let files = ModelFiles::open(&base.path)?;
            let tokenizer = files.tokenizer().cloned().ok_or(StartError::NoTokenizer)?;
            let model = Arc::new(Model::load(&files, config.precision)?);
            models.push((base, files, tokenizer, model));
        }
        let weights = models.iter().map(|(.., model)| model.bytes() as u64).sum();
        let kv_limit = config.kv_limit(weights)?;
        let (own, pot) = shares(kv_limit, models.len() as u64);
        let (engine, pot) = (engine::Config { kv_bytes: own, ..config.engine.clone() }, Arc::new(Budget::new(pot)));
        let mut started = BTreeMap::new();
        for (base, files, tokenizer, model) in models {
            engine::check(files.config(), config.precision, &engine)
                .map_err(|reason| EmbeddedError::Unfit { path: base.path.clone(), reason })?;
            let engine = Engine::start(model, &engine, pot.clone())?;
            let mut names = base.also_known_as;
            names.push(base.name.to_string());
            started.insert(base.name, Arc::new(Base { files, tokenizer, engine, names }));
        }
        Ok(Self {
            bases: started,
            adapters: RwLock::new(Adapters::new(config.adapter_bytes)),
            limits: config.adapters,
            weights,
            kv_limit,
            slots: config.engine.max_batch_rows as u64,
            long_prompts: Arc::new(Semaphore::new(LONG_PROMPTS)),
        })
    }

    /// The adapters that are loaded, with the memory that each takes.
    pub fn adapters(&self) -> Vec<(AdapterKey, u64)> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.loaded.iter().map(|(key, loaded)| (key.clone(), loaded.bytes())).collect()
    }

    pub fn memory(&self) -> Memory {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        Memory {
            weights: self.weights,
            kv_limit: self.kv_limit,
            adapters: adapters.bytes(),
            adapters_limit: adapters.limit,
        }
    }

    /// Largest weights file of an adapter.
    pub fn max_adapter_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// As [`Driver::load_adapter`], of files that came over the wire.
    pub async fn load_files(
        &self,
        key: AdapterKey,
        base: &BaseName,
        config: Vec<u8>,
        weights: Vec<u8>,
    ) -> Result<LoadedAdapter, WorkerError> {
        let limits = self.limits;
        self.load(key, base, move |base| base.adapter_of(&config, weights, limits)).await
    }

    async fn load(
        &self,
        key: AdapterKey,
        base: &BaseName,
        open: impl FnOnce(&Base) -> Result<Adapter, WorkerError> + Send + 'static,
    ) -> Result<LoadedAdapter, WorkerError> {
        let base = self.base(base)?.clone();
        let adapter = tokio::task::spawn_blocking(move || open(&base))
            .await
            .map_err(|_| WorkerError::AdapterUnavailable("loading it panicked".to_owned()))??;
        if *key.digest != *adapter.digest() {
            let reason = format!("its digest is {}, not {}", adapter.digest(), key.digest);
            return Err(WorkerError::AdapterInvalid(reason));
        }
        let bytes = adapter.bytes() as u64;
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).insert(key, adapter)?;
        Ok(LoadedAdapter { bytes })
    }

    fn base(&self, name: &BaseName) -> Result<&Arc<Base>, WorkerError> {
        self.bases.get(name).ok_or_else(|| WorkerError::Unavailable(format!("{name} is not served here")))
    }

    fn adapter(&self, key: &AdapterKey) -> Result<Arc<Adapter>, WorkerError> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        // Never the base instead: an answer without the adapter would look right and be wrong.
        adapters.get(key).ok_or_else(|| WorkerError::AdapterMissing(format!("{key} is not loaded here")))
    }

    async fn start_generation(&self, call: Call) -> Result<Started, WorkerError> {
        let base = self.base(&call.base)?.clone();
        let adapter = call.adapter.as_ref().map(|key| self.adapter(key)).transpose()?;
        let request = call.request;
        refuse_unsupported(&request).map_err(WorkerError::Refused)?;
        let generation = if long(&request) {
            // Tokenising it takes longer than an async thread should be held. What has begun goes on when its client
            // leaves, so the place among the few that may is held by the work itself.
            let place = self.long_prompts.clone().acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _place = place;
                base.submit(&request, adapter).map(|generation| (generation, base))
            })
            .await
            .map_err(|_| WorkerError::Failed("tokenising a prompt panicked".to_owned()))?
        } else {
            base.submit(&request, adapter).map(|generation| (generation, base))
        };
        let (generation, base) = generation?;
        let prompt_tokens = u32::try_from(generation.prompt_tokens()).ok();
        Ok(Started { prompt_tokens, events: events(generation, base.tokenizer.clone()).boxed() })
    }
}

impl Driver for Embedded {
    fn bases(&self) -> Vec<BaseName> {
        self.bases.keys().cloned().collect()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.start_generation(call).boxed()
    }

    fn load_adapter(&self, load: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let AdapterLoad { key, base, folder } = load;
        let limits = self.limits;
        async move { self.load(key, &base, move |base| base.open_adapter(&folder, limits)).await }.boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        // Sequences that still use it keep it until they end.
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).loaded.remove(&key);
        std::future::ready(Ok(())).boxed()
    }

    fn batch_invariant(&self) -> bool {
        true
    }

    fn status(&self) -> Status {
        let mut status = Status { slots: Some(self.slots), ..Status::default() };
        for (name, base) in &self.bases {
            let stats = base.engine.stats();
            status.batch_rows += stats.running as u64;
            status.waiting += stats.waiting as u64;
            status.kv_tokens += stats.kv_tokens as u64;
            if stats.ended {
                status.unhealthy = Some(format!("the engine of {name} has stopped"));
            }
        }
        status
    }
}

/// Each base model's own memory for keys and values, and what they share. One
/// alone has it all; of several each keeps a part that no other can take, so
/// that none starves.
fn shares(kv_bytes: u64, bases: u64) -> (u64, u64) {
    let own = if bases <= 1 { kv_bytes } else { kv_bytes / (2 * bases) };
    (own, kv_bytes - own * bases.max(1))
}

// === impl Config ===

impl Config {
    /// What keys and values may take beside the weights.
    fn kv_limit(&self, weights: u64) -> Result<u64, EmbeddedError> {
        let Some(memory) = self.memory_bytes else { return Ok(self.engine.kv_bytes) };
        let adapters = self.adapter_bytes.unwrap_or(0);
        memory.checked_sub(weights + adapters).filter(|left| *left > 0).ok_or(EmbeddedError::Memory {
            memory,
            weights,
            adapters,
        })
    }
}

// === impl Adapters ===

impl Adapters {
    fn new(limit: Option<u64>) -> Self {
        Self { loaded: HashMap::new(), limit, clock: AtomicU64::new(0) }
    }

    fn bytes(&self) -> u64 {
        self.loaded.values().map(Loaded::bytes).sum()
    }

    fn get(&self, key: &AdapterKey) -> Option<Arc<Adapter>> {
        let loaded = self.loaded.get(key)?;
        loaded.used.store(self.clock.fetch_add(1, Ordering::AcqRel), Ordering::Release);
        Some(loaded.adapter.clone())
    }

    /// Adapters that no generation uses give way, those used longest ago first.
    fn insert(&mut self, key: AdapterKey, adapter: Adapter) -> Result<(), WorkerError> {
        let bytes = adapter.bytes() as u64;
        self.loaded.remove(&key);
        while let Some(limit) = self.limit.filter(|limit| self.bytes() + bytes > *limit) {
            let idle = self.loaded.iter().filter(|(_, loaded)| Arc::strong_count(&loaded.adapter) == 1);
            let oldest = idle.min_by_key(|(_, loaded)| loaded.used.load(Ordering::Acquire)).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else {
                let reason = format!("it takes {bytes} bytes, and of {limit} those in use take {}", self.bytes());
                return Err(WorkerError::AdapterUnavailable(reason));
            };
            self.loaded.remove(&oldest);
        }
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::AcqRel));
        self.loaded.insert(key, Loaded { adapter: Arc::new(adapter), used });
        Ok(())
    }
}

// === impl Loaded ===

impl Loaded {
    fn bytes(&self) -> u64 {
        self.adapter.bytes() as u64
    }
}

// === impl Base ===

impl Base {
    fn submit(
        &self,
        request: &GenerateRequest,
        adapter: Option<Arc<Adapter>>,
    ) -> Result<engine::Generation, WorkerError> {
        let job = Job {
            prompts: prompts(&self.files, &self.tokenizer, &request.input).map_err(WorkerError::Refused)?,
            choices: request.choices,
            drop_leading_space: matches!(request.input, Input::Chat(_)) && self.tokenizer.drops_leading_space(),
            adapter,
            sampling: request.sampling.clone(),
            max_tokens: request.max_tokens,
            stop: request.stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
        };
        self.engine.submit(job).map_err(|error| refusal(error, &request.input))
    }

    fn open_adapter(&self, folder: &std::path::Path, limits: AdapterLimits) -> Result<Adapter, WorkerError> {
        let head = self.engine.model().config();
        self.packed(AdapterFiles::open(folder, head, &self.names(), limits))
    }

    fn adapter_of(&self, config: &[u8], weights: Vec<u8>, limits: AdapterLimits) -> Result<Adapter, WorkerError> {
        let head = self.engine.model().config();
        self.packed(AdapterFiles::from_parts(config, weights, head, &self.names(), limits))
    }

    fn packed(&self, files: Result<AdapterFiles, AdapterError>) -> Result<Adapter, WorkerError> {
        let files = files.map_err(adapter_refused)?;
        Adapter::pack(&files, self.engine.model()).map_err(|error| WorkerError::AdapterInvalid(error.to_string()))
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

fn adapter_refused(error: AdapterError) -> WorkerError {
    if error.is_temporary() {
        WorkerError::AdapterUnavailable(error.to_string())
    } else {
        WorkerError::AdapterInvalid(error.to_string())
    }
}

/// Names the first thing that this engine does not know.
fn refuse_unsupported(request: &GenerateRequest) -> Result<(), Error> {
    if let Input::Chat(messages) = &request.input {
        let mut refusals = messages.iter().filter_map(|message| message.more.as_ref()?.refusal.as_ref());
        if let Some(refusal) = refusals.next() {
            return Err(refusal.clone());
        }
    }
    match request.extra.keys().next() {
        None => Ok(()),
        Some(field) => Err(Error::invalid(
            field.clone(),
            format!("Unsupported parameter: '{field}' is not supported with this model."),
        )
        .with_code("unsupported_parameter")),
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

/// The engine's refusal in OpenAI's words.
fn refusal(error: SubmitError, input: &Input) -> WorkerError {
    let field = match input {
        Input::Chat(_) => "messages",
        Input::Prompts(_) => "prompt",
    };
    WorkerError::Refused(match error {
        SubmitError::EmptyPrompt => Error::invalid(field, format!("'{field}' must hold at least one token.")),
        SubmitError::UnknownToken { token, vocabulary } => Error::invalid(
            field,
            format!("Invalid token {token} in '{field}': the model's vocabulary has {vocabulary} tokens."),
        ),
        SubmitError::PromptTooLong { prompt, context } => Error::new(
            ErrorKind::ContextTooLong,
            format!(
                "This model's maximum context length is {context} tokens. However, your {field} resulted in {prompt} \
                 tokens. Please reduce the length of the {field}."
            ),
        )
        .with_param(field),
        SubmitError::TooManyTokens { prompt, max_tokens, context } => Error::new(
            ErrorKind::ContextTooLong,
            format!(
                "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} \
                 in the {field}, {max_tokens} in the completion). Please reduce the length of the {field} or \
                 completion.",
                prompt as u64 + u64::from(max_tokens)
            ),
        )
        .with_param("max_tokens"),
        SubmitError::UnknownBias { token, vocabulary } => Error::invalid(
            "logit_bias",
            format!("Invalid token {token} in 'logit_bias': the model's vocabulary has {vocabulary} tokens."),
        ),
        SubmitError::TooManySequences { sequences, most } => Error::invalid(
            "n",
            format!("The request asks for {sequences} completions; this model takes up to {most} at one time."),
        ),
        SubmitError::QueueFull => return WorkerError::Busy,
        SubmitError::Stopped => return WorkerError::Unavailable(error.to_string()),
    })
}

/// The engine's outputs as the product's events.
fn events(
    generation: engine::Generation,
    tokenizer: Arc<Tokenizer>,
) -> impl Stream<Item = Result<Event, WorkerError>> + Send {
    let state = (generation, tokenizer, Vec::<Event>::new(), false);
    stream::unfold(state, |(mut generation, tokenizer, mut later, over)| async move {
        if let Some(event) = later.pop() {
            return Some((Ok(event), (generation, tokenizer, later, over)));
        }
        if over {
            return None;
        }
        match generation.next().await {
            Some(Ok(Output::Token { choice, token, text, detail })) => {
                let logprobs = detail.map(|detail| logprob(&tokenizer, token, detail)).into_iter().collect();
                let event = Event::Delta(Delta { choice, text, tokens: 1, logprobs, extra: None });
                Some((Ok(event), (generation, tokenizer, later, false)))
            }
            Some(Ok(Output::Finished { choice, text, reason })) => {
                let finished = Event::Finished { choice, reason };
                if text.is_empty() {
                    return Some((Ok(finished), (generation, tokenizer, later, false)));
                }
                later.push(finished);
                let event = Event::Delta(Delta { choice, text, ..Delta::default() });
                Some((Ok(event), (generation, tokenizer, later, false)))
            }
            Some(Err(error @ Broken)) => {
                Some((Err(WorkerError::Failed(error.to_string())), (generation, tokenizer, later, true)))
            }
            None => {
                let usage = Usage {
                    prompt_tokens: generation.prompt_tokens() as u32,
                    completion_tokens: generation.completion_tokens() as u32,
                    cached_tokens: 0,
                };
                Some((Ok(Event::Usage(usage)), (generation, tokenizer, later, true)))
            }
        }
    })
}

fn logprob(tokenizer: &Tokenizer, token: u32, detail: TokenDetail) -> TokenLogprob {
    let named = |token, logprob| TopLogprob { bytes: tokenizer.token_bytes(token).to_vec(), logprob };
    TokenLogprob {
        token: named(token, detail.logprob),
        top: detail.top.into_iter().map(|(token, logprob)| named(token, logprob)).collect(),
    }
}
