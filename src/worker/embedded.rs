//! The embedded engine as a worker: base models in this process, one engine
//! each.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
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
    self, Adapter, Broken, Engine, Job, LoadError, Model, Output, StartError, SubmitError, TokenDetail,
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
    pub engine: engine::Config,
    pub adapters: AdapterLimits,
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
    adapters: RwLock<HashMap<AdapterKey, Arc<Adapter>>>,
    limits: AdapterLimits,
    /// Places for prompts that take long to tokenise.
    long_prompts: Arc<Semaphore>,
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
}

// === impl Embedded ===

impl Embedded {
    /// Loads all base models and starts their engines. Takes seconds, so not for an async thread.
    pub fn start(config: &Config, bases: Vec<ServedBase>) -> Result<Self, EmbeddedError> {
        let mut started = BTreeMap::new();
        for base in bases {
            let files = ModelFiles::open(&base.path)?;
            let tokenizer = files.tokenizer().cloned().ok_or(StartError::NoTokenizer)?;
            engine::check(files.config(), config.precision, &config.engine)
                .map_err(|reason| EmbeddedError::Unfit { path: base.path.clone(), reason })?;
            let model = Arc::new(Model::load(&files, config.precision)?);
            let engine = Engine::start(model, &config.engine)?;
            let mut names = base.also_known_as;
            names.push(base.name.to_string());
            started.insert(base.name, Arc::new(Base { files, tokenizer, engine, names }));
        }
        let long_prompts = Arc::new(Semaphore::new(LONG_PROMPTS));
        Ok(Self { bases: started, adapters: RwLock::default(), limits: config.adapters, long_prompts })
    }

    fn base(&self, name: &BaseName) -> Result<&Arc<Base>, WorkerError> {
        self.bases.get(name).ok_or_else(|| WorkerError::Unavailable(format!("{name} is not served here")))
    }

    fn adapter(&self, key: &AdapterKey) -> Result<Arc<Adapter>, WorkerError> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        // Never the base instead: an answer without the adapter would look right and be wrong.
        adapters.get(key).cloned().ok_or_else(|| WorkerError::AdapterMissing(format!("{key} is not loaded here")))
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
        async move {
            let base = self.base(&load.base)?.clone();
            let limits = self.limits;
            let digest = load.key.digest.clone();
            let adapter = tokio::task::spawn_blocking(move || base.open_adapter(&load.folder, limits))
                .await
                .map_err(|_| WorkerError::AdapterUnavailable("loading it panicked".to_owned()))??;
            if *digest != *adapter.digest() {
                let reason = format!("its digest is {}, not {digest} as when it was configured", adapter.digest());
                return Err(WorkerError::AdapterInvalid(reason));
            }
            let bytes = adapter.bytes() as u64;
            let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
            adapters.insert(load.key, Arc::new(adapter));
            Ok(LoadedAdapter { bytes })
        }
        .boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        // Sequences that still use it keep it until they end.
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        std::future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Status {
        let mut status = Status::default();
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
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let model = self.engine.model();
        let files = AdapterFiles::open(folder, model.config(), &names, limits).map_err(adapter_refused)?;
        Adapter::pack(&files, model).map_err(|error| WorkerError::AdapterInvalid(error.to_string()))
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
