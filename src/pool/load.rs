//! What a worker has taken on, in tokens, and how fast it works that off.
//!
//! The gateway's own assignments decide, since they are known at once; what a
//! worker reports of other gateways' is added, and is as old as the last poll.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{GenerateRequest, Input, Prompt};

/// Bytes of text that make a token, roughly, for every tokenizer.
const BYTES_PER_TOKEN: usize = 4;
/// Reading a token of a prompt takes this share of writing one.
const PROMPT_WEIGHT: f64 = 0.25;
/// What an answer is expected to have before one was seen, in tokens.
const FIRST_GUESS: f64 = USUAL_ANSWER as f64;
/// An answer's usual length, in tokens.
pub(super) const USUAL_ANSWER: u32 = 128;
/// Tokens a second before any was measured.
const FIRST_RATE: f64 = 500.0;
/// Of what was measured last, in a moving average.
const NEWEST: f64 = 0.2;
/// The shortest stretch of work that says something of a worker's speed.
const MEASURABLE: Duration = Duration::from_millis(500);

/// What one request is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub prompt_tokens: u32,
    /// Of all its choices.
    pub answer_tokens: u32,
}

/// Answers' lengths, as they were lately.
#[derive(Debug)]
pub(super) struct Lengths(AtomicU64);

/// One worker's load.
#[derive(Debug)]
pub(super) struct Load {
    leases: AtomicU32,
    /// Tokens taken on and not yet done, prompts by their weight; in 1/4096.
    outstanding: AtomicU64,
    lengths: Lengths,
    speed: Mutex<Speed>,
}

#[derive(Debug)]
struct Speed {
    /// Tokens a second while there is work.
    rate: f64,
    /// Done since the stretch began.
    done: u64,
    since: Option<Instant>,
}

/// A request's part of its worker's load: what of it is not yet done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    prompt: u64,
    answer: u64,
}

const UNIT: f64 = 4096.0;

fn units(tokens: f64) -> u64 {
    (tokens * UNIT) as u64
}

// === impl Cost ===

impl Cost {
    pub(super) fn of(request: &GenerateRequest, lengths: &Lengths) -> Self {
        let text = |bytes: usize| u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX);
        let prompt_tokens = match &request.input {
            Input::Chat(messages) => text(messages.iter().map(|message| message.content.len() + 8).sum()),
            Input::Prompts(prompts) => prompts.iter().fold(0_u32, |sum, prompt| {
                sum.saturating_add(match prompt {
                    Prompt::Text(text_of) => text(text_of.len()),
                    Prompt::Tokens(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
                })
            }),
        };
        let expected = lengths.expected();
        let each = request.max_tokens.map_or(expected, |most| most.min(expected));
        let choices = request.choices.saturating_mul(request.input.prompts());
        Self { prompt_tokens, answer_tokens: each.saturating_mul(choices) }
    }
}

// === impl Held ===

impl Held {
    pub(super) fn is_prompt_read(&self) -> bool {
        self.prompt == 0
    }
}

// === impl Lengths ===

impl Default for Lengths {
    fn default() -> Self {
        Self(AtomicU64::new(FIRST_GUESS.to_bits()))
    }
}

impl Lengths {
    fn expected(&self) -> u32 {
        f64::from_bits(self.0.load(Ordering::Relaxed)).ceil() as u32
    }

    /// An answer had as many tokens. Two at one time may count as one.
    pub(super) fn saw(&self, tokens: u32) {
        let before = f64::from_bits(self.0.load(Ordering::Relaxed));
        let now = before + (f64::from(tokens) - before) * NEWEST;
        self.0.store(now.to_bits(), Ordering::Relaxed);
    }
}

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        let speed = Mutex::new(Speed { rate: FIRST_RATE, done: 0, since: None });
        Self { leases: AtomicU32::new(0), outstanding: AtomicU64::new(0), lengths: Lengths::default(), speed }
    }
}

impl Load {
    /// Requests that were given to the worker and have not ended.
    pub(super) fn leases(&self) -> u32 {
        self.leases.load(Ordering::Acquire)
    }

    /// Until the worker has done all that it took on. `others` are sequences
    /// that it runs for other gateways.
    pub(super) fn work(&self, others: u64) -> f64 {
        let own = self.outstanding.load(Ordering::Acquire) as f64 / UNIT;
        (own + others as f64 * FIRST_GUESS) / self.rate()
    }

    /// Until a place is free for one more request.
    pub(super) fn queue(&self, others: u64, slots: u64) -> f64 {
        let all = u64::from(self.leases()) + others;
        if all < slots {
            return 0.0;
        }
        // All work together, so places come free at an even pace: one for each answer's length of tokens.
        (all - slots + 1) as f64 * f64::from(self.lengths.expected()) / self.rate()
    }

    pub(super) fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// Seconds that it takes to read so much of a prompt.
    pub(super) fn reading(&self, bytes: usize) -> f64 {
        (bytes / BYTES_PER_TOKEN) as f64 * PROMPT_WEIGHT / self.rate()
    }

    /// Tokens a second.
    pub(super) fn rate(&self) -> f64 {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).rate
    }

    pub(super) fn take(&self, cost: Cost) -> Held {
        let held = Held {
            prompt: units(f64::from(cost.prompt_tokens) * PROMPT_WEIGHT),
            answer: units(f64::from(cost.answer_tokens)),
        };
        self.outstanding.fetch_add(held.prompt + held.answer, Ordering::AcqRel);
        if self.leases.fetch_add(1, Ordering::AcqRel) == 0 {
            let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
            (speed.done, speed.since) = (0, Some(Instant::now()));
        }
        held
    }

    /// The prompt was read: the first event is there.
    pub(super) fn prompt_read(&self, held: &mut Held) {
        self.done(std::mem::take(&mut held.prompt));
    }

    /// So many tokens were generated. More than were expected count for nothing.
    pub(super) fn generated(&self, held: &mut Held, tokens: u32) {
        let done = units(f64::from(tokens)).min(held.answer);
        held.answer -= done;
        self.done(done);
    }

    /// The request has ended, whatever of it was done. `tokens` are those of
    /// its prompt and answer that the worker did.
    pub(super) fn give_back(&self, held: Held, prompt_tokens: u32, answer_tokens: u32) {
        self.outstanding.fetch_sub(held.prompt + held.answer, Ordering::AcqRel);
        self.leases.fetch_sub(1, Ordering::AcqRel);
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        speed.done += units(f64::from(prompt_tokens) * PROMPT_WEIGHT + f64::from(answer_tokens));
        // Read under the lock: another may have begun.
        speed.measure(self.leases() == 0);
    }

    fn done(&self, units: u64) {
        if units > 0 {
            self.outstanding.fetch_sub(units, Ordering::AcqRel);
        }
    }
}

// === impl Speed ===

impl Speed {
    /// A stretch of work that was long enough moves the average.
    fn measure(&mut self, idle: bool) {
        let Some(since) = self.since else { return };
        let took = since.elapsed();
        if took >= MEASURABLE {
            let measured = self.done as f64 / UNIT / took.as_secs_f64();
            // What is slow for want of requests says nothing of how fast it could be.
            let weight = if measured > self.rate { NEWEST } else { NEWEST / 4.0 };
            self.rate = (self.rate + (measured - self.rate) * weight).max(1.0);
            (self.done, self.since) = (0, Some(Instant::now()));
        }
        if idle {
            (self.done, self.since) = (0, None);
        }
    }
}
