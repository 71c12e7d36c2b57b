//! The embedded engine: Llama-family models with LoRA adapters on CPUs.
//!
//! [`Model`] is the weights, packed for the kernels. [`Engine`] runs it: one
//! thread owns the running batch ([`batcher`]) and, with its team of compute
//! threads, takes one step after the other ([`forward`]); sequences join and
//! leave between steps, prompts are read in chunks beside the others' tokens,
//! and each row may use an adapter of its own. Callers see a [`Generation`],
//! the receiving end of one bounded channel; dropping it takes the sequence
//! out of the batch at the next step.
//!
//! A row's result depends on that row only (see [`kernels`]), so an answer is
//! the same alone and in a crowd, and a sequence that had to give up its cache
//! to others and is computed again continues as if nothing had happened.
//!
//! This room knows nothing of tenants, gateways or protocols.

mod adapter;
mod batcher;
mod budget;
mod cache;
mod config;
pub mod files;
mod footprint;
mod forward;
mod generation;
mod model;
mod prefill;
mod sampler;
mod sequence;
mod stop;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::{io, thread};

pub use tenantry_kernels as kernels;
use tenantry_types::Sampling;
use thiserror::Error;

pub use adapter::Adapter;
pub use budget::Budget;
pub use cache::SequenceCache;
pub use config::{Config, Context};
pub use footprint::Footprint;
pub use forward::{Forward, Slice, Wanted};
pub use generation::{Broken, Generation, Output};
pub use model::{LoadError, Model};
pub use sampler::TokenDetail;

use batcher::Batcher;
use files::{ModelConfig, Tokenizer};
use kernels::{BLOCK, BLOCK_TOKENS, KvShape, Precision};
use sequence::{Sequence, Step};

/// Steps a slow reader may lag behind before its sequences pause.
const CHANNEL_STEPS: usize = 32;

/// A running model. Dropping the last handle ends its threads.
pub struct Engine {
    model: Arc<Model>,
    tokenizer: Arc<Tokenizer>,
    context: Context,
    queue: usize,
    max_batch_rows: usize,
    shared: Arc<Shared>,
    inbox: Option<SyncSender<Sequence>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What to generate.
#[derive(Clone)]
pub struct Job {
    /// One or more prompts, each of at least one token.
    pub prompts: Vec<Vec<u32>>,
    /// Sequences for each prompt.
    pub choices: u32,
    /// Leave out the space that a SentencePiece vocabulary puts before an answer.
    pub drop_leading_space: bool,
    pub adapter: Option<Arc<Adapter>>,
    pub sampling: Sampling,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    /// Alternatives to report for each token; `None`: no log-probabilities.
    pub logprobs: Option<u8>,
}

/// Whether a model of this shape can run under this configuration; the reason
/// where it cannot. Needs no weights.
pub fn check(model: &ModelConfig, precision: Precision, config: &Config) -> Result<(), String> {
    let shape = KvShape::new(model.layers, model.kv_heads, model.head_dim).map_err(|error| error.to_string())?;
    let block = shape.block_bytes(precision) as u64;
    if config.kv_bytes < block {
        return Err(format!("kv_bytes is {}, and {BLOCK_TOKENS} tokens of this model take {block}", config.kv_bytes));
    }
    let widths = [model.hidden, model.heads * model.head_dim, model.intermediate];
    match widths.into_iter().find(|width| precision == Precision::Fast && !width.is_multiple_of(BLOCK)) {
        Some(width) => Err(format!("a width of {width} is no multiple of {BLOCK}, as precision \"fast\" needs")),
        None => Ok(()),
    }
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("the model has no tokenizer")]
    NoTokenizer,
    #[error("the compute threads cannot be started: {0}")]
    Threads(#[from] io::Error),
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    #[error("a prompt is empty")]
    EmptyPrompt,
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    UnknownToken { token: u32, vocabulary: usize },
    #[error("a prompt of {prompt} tokens does not fit into the context of {context}")]
    PromptTooLong { prompt: usize, context: usize },
    #[error("{prompt} prompt tokens and {max_tokens} new ones do not fit into the context of {context}")]
    TooManyTokens { prompt: usize, max_tokens: u32, context: usize },
    #[error("token {token} has a bias and is not in the vocabulary of {vocabulary}")]
    UnknownBias { token: u32, vocabulary: usize },
    #[error("{sequences} sequences are more than the {most} that may run and wait")]
    TooManySequences { sequences: usize, most: usize },
    #[error("the queue is full")]
    QueueFull,
    #[error("the engine has stopped")]
    Stopped,
}

/// Counters that the batcher writes and everyone may read.
#[derive(Default)]
struct Shared {
    waiting: AtomicUsize,
    running: AtomicUsize,
    kv_tokens: AtomicUsize,
    steps: AtomicU64,
    generated: AtomicU64,
    preempted: AtomicU64,
    /// The batcher's thread has ended.
    ended: AtomicBool,
}

/// How the engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sequences in the running batch, or held up by their readers.
    pub running: usize,
    /// Sequences that wait for a place.
    pub waiting: usize,
    /// Cached positions.
    pub kv_tokens: usize,
    /// Forward passes since the start.
    pub steps: u64,
    /// Tokens generated since the start.
    pub generated: u64,
    /// How often a sequence gave its cache up to an older one since the start.
    pub preempted: u64,
    pub ended: bool,
}

// === impl Engine ===

impl Engine {
    /// Starts the threads of a loaded model.
    /// Its cache takes blocks out of `pot` beyond its own, `config.kv_bytes`.
    pub fn start(model: Arc<Model>, config: &Config, pot: Arc<Budget>) -> Result<Self, StartError> {
        let tokenizer = model.tokenizer().cloned().ok_or(StartError::NoTokenizer)?;
        let shared = Arc::new(Shared::default());
        let context = config.context(&model, pot.sure());
        let (inbox, jobs) = sync_channel(config.queue + config.max_batch_rows);
        let batcher = Batcher::new(model.clone(), tokenizer.eos_ids().to_vec(), config, jobs, shared.clone(), pot)?;
        let ended = shared.clone();
        let thread = thread::Builder::new().name("tenantry-engine".to_owned()).spawn(move || {
            let _mark = MarkEnded(ended);
            batcher.run();
        })?;
        Ok(Self {
            model,
            tokenizer,
            context,
            queue: config.queue,
            max_batch_rows: config.max_batch_rows,
            shared,
            inbox: Some(inbox),
            thread: Some(thread),
        })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What a prompt and its answer have to fit into, in tokens.
    pub fn context(&self) -> Context {
        self.context
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            running: shared.running.load(Ordering::Acquire),
            waiting: shared.waiting.load(Ordering::Acquire),
            kv_tokens: shared.kv_tokens.load(Ordering::Acquire),
            steps: shared.steps.load(Ordering::Acquire),
            generated: shared.generated.load(Ordering::Acquire),
            preempted: shared.preempted.load(Ordering::Acquire),
            ended: shared.ended.load(Ordering::Acquire),
        }
    }

    /// Hands a job to the batcher: all its sequences or none.
    pub fn submit(&self, job: Job) -> Result<Generation, SubmitError> {
        let limits =
            job.prompts.iter().map(|prompt| self.limit(prompt, job.max_tokens)).collect::<Result<Vec<_>, _>>()?;
        let inbox = self.inbox.as_ref().ok_or(SubmitError::Stopped)?;
        let vocabulary = self.model.config().vocab;
        if let Some(&(token, _)) = job.sampling.logit_bias.iter().find(|(token, _)| *token as usize >= vocabulary) {
            return Err(SubmitError::UnknownBias { token, vocabulary });
        }
        let sequences = job.prompts.len() * job.choices as usize;
        let most = self.queue + self.max_batch_rows;
        if sequences > most {
            return Err(SubmitError::TooManySequences { sequences, most });
        }
        self.shared
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                // What will find a free place in the batch does not wait for long.
                let free = self.max_batch_rows.saturating_sub(self.shared.running.load(Ordering::Acquire));
                (now + sequences <= self.queue + free).then_some(now + sequences)
            })
            .map_err(|_| SubmitError::QueueFull)?;

        let (steps, receiver) = tokio::sync::mpsc::channel(CHANNEL_STEPS * sequences);
        let generation = Generation::new(&job, self.tokenizer.clone(), receiver);
        for choice in 0..sequences {
            let prompt = choice / job.choices as usize;
            let sequence =
                Sequence::new(&job, prompt, choice as u32, limits[prompt], generation.switch(choice), steps.clone());
            // The inbox has room for as many as the count above lets pass, so it is never full.
            if inbox.try_send(sequence).is_err() {
                self.shared.waiting.fetch_sub(sequences - choice, Ordering::AcqRel);
                return Err(SubmitError::Stopped);
            }
        }
        Ok(generation)
    }

    /// How many tokens may follow a prompt.
    fn limit(&self, prompt: &[u32], max_tokens: Option<u32>) -> Result<usize, SubmitError> {
        let vocabulary = self.model.config().vocab;
        if prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(&token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(SubmitError::UnknownToken { token, vocabulary });
        }
        let context = self.context.tokens;
        let room = context.saturating_sub(prompt.len());
        match max_tokens {
            _ if room == 0 => Err(SubmitError::PromptTooLong { prompt: prompt.len(), context }),
            Some(max) if max as usize > room => {
                Err(SubmitError::TooManyTokens { prompt: prompt.len(), max_tokens: max, context })
            }
            Some(max) => Ok(max as usize),
            None => Ok(room),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The batcher ends when it is idle and no inbox is left, so all
        // running generations are dropped by their holders first.
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its message already.
            let _ = thread.join();
        }
    }
}

/// Tells readers that the thread is gone, however it went.
struct MarkEnded(Arc<Shared>);

impl Drop for MarkEnded {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

type StepSender = tokio::sync::mpsc::Sender<Step>;
