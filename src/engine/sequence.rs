//! One sequence on its way through the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenantry_types::FinishReason;

use super::adapter::Adapter;
use super::cache::SequenceCache;
use super::sampler::{Sampled, Sampler, TokenDetail};
use super::{Job, StepSender};

/// Turned off by a reader that wants no more of one sequence.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<AtomicBool>);

pub(super) struct Sequence {
    choice: u32,
    /// The prompt, then what was generated.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that may be generated.
    limit: usize,
    pub adapter: Option<Arc<Adapter>>,
    /// Keys and values of the first tokens.
    pub cache: SequenceCache,
    pub sampler: Sampler,
    ignore_eos: bool,
    switch: Switch,
    steps: StepSender,
    /// The most steps a reader may be behind; as many sequences may write in one step.
    writers: usize,
}

/// What the batcher tells of one token.
#[derive(Debug)]
pub(super) struct Step {
    pub choice: u32,
    pub token: u32,
    pub detail: Option<TokenDetail>,
    /// The token only says that the text is over.
    pub ends_text: bool,
    pub finish: Option<FinishReason>,
}

/// Whoever waits for a sequence's tokens, seen from a step that has the
/// sequence itself in hand.
pub(super) struct Reader {
    switch: Switch,
    steps: StepSender,
}

// === impl Reader ===

impl Reader {
    pub(super) fn gone(&self) -> bool {
        self.steps.is_closed() || self.switch.is_off()
    }
}

// === impl Switch ===

impl Switch {
    pub(super) fn turn_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_off(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

// === impl Sequence ===

impl Sequence {
    pub(super) fn new(job: &Job, prompt: usize, choice: u32, limit: usize, switch: Switch, steps: StepSender) -> Self {
        let tokens = job.prompts[prompt].clone();
        Self {
            choice,
            prompt: tokens.len(),
            tokens,
            limit,
            adapter: job.adapter.clone(),
            cache: SequenceCache::default(),
            sampler: Sampler::new(&job.sampling, job.logprobs, choice),
            ignore_eos: job.ignore_eos,
            switch,
            steps,
            writers: job.prompts.len() * job.choices as usize,
        }
    }

    /// Nobody waits for more of it.
    pub(super) fn abandoned(&self) -> bool {
        self.steps.is_closed() || self.switch.is_off()
    }

    /// Whether both are answers to one request.
    pub(super) fn belongs_with(&self, other: &Self) -> bool {
        self.steps.same_channel(&other.steps)
    }

    pub(super) fn reader(&self) -> Reader {
        Reader { switch: self.switch.clone(), steps: self.steps.clone() }
    }

    /// The reader lags so far behind that another step might not find room.
    pub(super) fn stalled(&self) -> bool {
        self.steps.capacity() < self.writers
    }

    /// Tokens that the cache does not hold yet; at least one.
    pub(super) fn pending(&self) -> &[u32] {
        &self.tokens[self.cache.len()..]
    }

    /// Appends a token and tells the reader. Returns whether the sequence has come to its end.
    pub(super) fn push(&mut self, sampled: Sampled, eos: &[u32]) -> bool {
        self.tokens.push(sampled.token);
        let finish = if !self.ignore_eos && eos.contains(&sampled.token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() - self.prompt >= self.limit {
            Some(FinishReason::Length)
        } else {
            None
        };
        let ends_text = finish == Some(FinishReason::Stop);
        let step = Step { choice: self.choice, token: sampled.token, detail: sampled.detail, ends_text, finish };
        // An error means that the reader has gone, or (which `stalled` rules out) that there is no room: either way
        // the answer is lost and the sequence over.
        self.steps.try_send(step).is_err() || finish.is_some()
    }
}
