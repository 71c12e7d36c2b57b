//! Continuous batching: which rows make up the next step.
//!
//! Sequences join when there is a place in the batch and room in the cache for
//! their prompt, and leave as soon as they end or nobody reads them. Every
//! step takes one row of each sequence that generates and, up to a bound,
//! rows of prompts that are still being read, those with the fewest left first. When a growing
//! sequence finds the cache full, the youngest gives its blocks up and waits
//! at the head of the queue to be computed again, which changes nothing in
//! its answer. A sequence whose reader lags takes no steps, and gives place and
//! cache up as soon as another sequence wants them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::Shared;
use super::budget::Budget;
use super::cache::BlockStore;
use super::config::Config;
use super::forward::{Forward, Slice, Wanted};
use super::kernels::Team;
use super::model::Model;
use super::prefill::shares;
use super::sampler::Sampled;
use super::sequence::{Reader, Sequence};

/// How often it is looked again while all readers lag, or other engines have the memory that those who wait need.
const NOTHING_TO_STEP: Duration = Duration::from_millis(2);

pub(super) struct Batcher {
    model: Arc<Model>,
    /// Tokens that end a sequence.
    eos: Vec<u32>,
    team: Team,
    forward: Forward,
    store: BlockStore,
    max_batch_rows: usize,
    prefill_chunk: usize,
    inbox: Receiver<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Had to make place because their readers lag.
    parked: Vec<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    /// Sequences wait, none runs, and there is no memory for the first.
    starved: bool,
    shared: Arc<Shared>,
}

/// A sequence's part in the next step.
struct Part {
    /// In `running`.
    sequence: usize,
    tokens: usize,
    wanted: Wanted,
}

// === impl Batcher ===

impl Batcher {
    pub(super) fn new(
        model: Arc<Model>,
        eos: Vec<u32>,
        config: &Config,
        inbox: Receiver<Sequence>,
        shared: Arc<Shared>,
        pot: Arc<Budget>,
    ) -> io::Result<Self> {
        let context = config.context(&model, pot.sure());
        Ok(Self {
            team: Team::new(config.threads)?,
            forward: Forward::default(),
            store: BlockStore::new(model.kv_shape().clone(), model.precision(), context.blocks, pot),
            max_batch_rows: config.max_batch_rows.max(1),
            prefill_chunk: config.prefill_chunk.max(1),
            inbox,
            waiting: VecDeque::new(),
            parked: Vec::new(),
            running: Vec::new(),
            starved: false,
            shared,
            eos,
            model,
        })
    }

    /// Runs until the engine's handle is dropped and nothing is left to do.
    pub(super) fn run(mut self) {
        while self.receive() {
            self.leave();
            self.join();
            let parts = self.plan();
            self.report();
            if parts.is_empty() {
                continue;
            }
            self.step(&parts);
        }
    }

    /// Takes in new sequences; sleeps while there is nothing to do. `false` when there never will be.
    fn receive(&mut self) -> bool {
        let idle = self.running.is_empty() && self.waiting.is_empty() && self.parked.is_empty();
        if idle {
            self.report();
            match self.inbox.recv() {
                Ok(sequence) => self.waiting.push_back(sequence),
                Err(_) => return false,
            }
        } else if self.starved || (self.next().is_none() && self.running.iter().all(Sequence::stalled)) {
            match self.inbox.recv_timeout(NOTHING_TO_STEP) {
                Ok(sequence) => self.waiting.push_back(sequence),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(NOTHING_TO_STEP),
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(sequence) => self.waiting.push_back(sequence),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Lets go of sequences that nobody reads any more.
    fn leave(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|sequence| !sequence.abandoned());
        self.shared.waiting.fetch_sub(before - self.waiting.len(), Ordering::AcqRel);
        self.parked.retain(|sequence| !sequence.abandoned());
        self.running.retain_mut(|sequence| {
            if sequence.abandoned() {
                self.store.take_back(&mut sequence.cache);
                return false;
            }
            true
        });
    }

    /// The first that waits and may run: one request never has all of the places,
    /// or its many answers would keep everybody else's waiting to their end.
    fn next(&self) -> Option<usize> {
        let kept = (self.max_batch_rows / 4).max(1);
        let most = self.max_batch_rows.saturating_sub(kept).max(1);
        let rows = |sequence: &Sequence| self.running.iter().filter(|other| other.belongs_with(sequence)).count();
        self.waiting.iter().position(|sequence| rows(sequence) < most)
    }

    /// Moves waiting sequences into the batch, in order, while there is room.
    fn join(&mut self) {
        self.unpark();
        loop {
            self.starved = false;
            let Some(next) = self.next() else { return };
            let sequence = &mut self.waiting[next];
            let place = self.running.len() < self.max_batch_rows;
            if !place || !self.store.grow(&mut sequence.cache, sequence.tokens.len()) {
                if self.park() {
                    continue;
                }
                self.starved = self.running.is_empty();
                return;
            }
            self.running.extend(self.waiting.remove(next));
            // In this order, so that it is never counted as neither.
            self.report();
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes place and cache from one running sequence whose reader lags: others wait who read.
    fn park(&mut self) -> bool {
        let Some(index) = self.running.iter().rposition(Sequence::stalled) else { return false };
        let mut sequence = self.running.remove(index);
        self.store.take_back(&mut sequence.cache);
        self.parked.push(sequence);
        self.report();
        true
    }

    /// Lets parked sequences wait for a place again once their readers have caught up.
    fn unpark(&mut self) {
        while let Some(index) = self.parked.iter().position(|sequence| !sequence.stalled()) {
            self.waiting.push_front(self.parked.remove(index));
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn plan(&mut self) -> Vec<Part> {
        let mut parts = Vec::with_capacity(self.running.len());
        let unread = |sequence: &Sequence| match sequence.pending().len() {
            pending if pending > 1 && !sequence.stalled() => pending,
            _ => 0,
        };
        let unread: Vec<usize> = self.running.iter().map(unread).collect();
        let shares = shares(&unread, self.prefill_chunk);
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            let pending = sequence.pending().len();
            let tokens = if pending == 1 { 1 } else { shares[index] };
            if sequence.stalled() || tokens == 0 {
                index += 1;
                continue;
            }
            if !self.make_room(index, tokens) {
                // It was the youngest itself that had to give way, so nobody comes after it.
                break;
            }
            let wanted = if tokens == pending { Wanted::Last } else { Wanted::Nothing };
            parts.push(Part { sequence: index, tokens, wanted });
            index += 1;
        }
        parts
    }

    /// Grows a sequence's cache, at the expense of younger ones where there is no other way. `false` where it was the
    /// sequence itself that had to give way.
    fn make_room(&mut self, index: usize, tokens: usize) -> bool {
        loop {
            let cache = &mut self.running[index].cache;
            let positions = cache.len() + tokens;
            if self.store.grow(cache, positions) {
                return true;
            }
            let mut youngest = self.running.pop().expect("the sequence at `index` runs");
            self.store.take_back(&mut youngest.cache);
            self.waiting.push_front(youngest);
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
            self.shared.preempted.fetch_add(1, Ordering::Release);
            if self.running.len() == index {
                return false;
            }
        }
    }

    fn step(&mut self, parts: &[Part]) {
        let prefill = parts.iter().any(|part| part.tokens > 1);
        let readers: Vec<Reader> = match prefill {
            true => parts.iter().map(|part| self.running[part.sequence].reader()).collect(),
            false => Vec::new(),
        };
        let mut batch = Vec::with_capacity(parts.len());
        let mut samplers = Vec::with_capacity(parts.len());
        let mut rest = self.running.iter_mut().enumerate();
        for part in parts {
            let (_, sequence) = rest.find(|(index, _)| *index == part.sequence).expect("parts are in order");
            let Sequence { cache, tokens, prompt, adapter, sampler, .. } = sequence;
            let from = cache.len();
            if part.wanted == Wanted::Last {
                samplers.push((sampler, &tokens[..], *prompt));
            }
            batch.push(Slice {
                tokens: &tokens[from..from + part.tokens],
                cache,
                adapter: adapter.as_deref(),
                wanted: part.wanted,
            });
        }
        // A step that reads prompts takes long; one that nobody waits for any more ends early.
        let wanted = || readers.is_empty() || readers.iter().any(|reader| !reader.gone());
        let Some(logits) = self.forward.run(&self.model, &mut self.team, &mut batch, wanted) else { return };
        let isa = self.team.isa();
        let mut draws: Vec<_> =
            samplers.into_iter().zip(logits).map(|(sampler, logits)| (sampler, logits, None)).collect();
        self.team.each(&mut draws, |_, ((sampler, tokens, prompt), logits, sampled)| {
            *sampled = Some(sampler.sample(isa, logits, tokens, *prompt));
        });
        let sampled: Vec<Option<Sampled>> = draws.into_iter().map(|(.., sampled)| sampled).collect();
        self.deliver(parts, sampled);
    }

    /// Hands the new tokens out and lets finished sequences go.
    fn deliver(&mut self, parts: &[Part], sampled: Vec<Option<Sampled>>) {
        let wanted = parts.iter().filter(|part| part.wanted == Wanted::Last);
        let mut ended = Vec::new();
        for (part, sampled) in wanted.zip(sampled) {
            let sampled = sampled.expect("every draw was made");
            self.shared.generated.fetch_add(1, Ordering::Release);
            if self.running[part.sequence].push(sampled, &self.eos) {
                ended.push(part.sequence);
            }
        }
        for index in ended.into_iter().rev() {
            let mut sequence = self.running.remove(index);
            self.store.take_back(&mut sequence.cache);
        }
        self.shared.steps.fetch_add(1, Ordering::Release);
    }

    fn report(&self) {
        let cached = self.running.iter().map(|sequence| sequence.cache.len()).sum();
        self.shared.running.store(self.running.len() + self.parked.len(), Ordering::Release);
        self.shared.kv_tokens.store(cached, Ordering::Release);
    }
}
