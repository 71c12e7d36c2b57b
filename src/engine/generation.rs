//! The reader's end of a job: tokens become text here, on the reader's own
//! time, and stop strings are found.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tenantry_types::FinishReason;
use thiserror::Error;
use tokio::sync::mpsc::Receiver;

use super::Job;
use super::files::Tokenizer;
use super::sampler::TokenDetail;
use super::sequence::{Step, Switch};
use super::stop::StopStrings;
use super::text::TextDecoder;

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// One token of a choice, and the text that is certain by now.
    Token { choice: u32, token: u32, text: String, detail: Option<TokenDetail> },
    /// The choice is over; `text` is what had been held back.
    Finished { choice: u32, text: String, reason: FinishReason },
}

/// The engine ended before the generation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the engine ended in the middle of a generation")]
pub struct Broken;

/// A job under way: a stream of [`Output`]s. Dropping it ends the job.
pub struct Generation {
    tokenizer: Arc<Tokenizer>,
    steps: Receiver<Step>,
    choices: Vec<Choice>,
    open: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
    ready: VecDeque<Output>,
}

struct Choice {
    text: TextDecoder,
    stop: StopStrings,
    switch: Switch,
    /// The first text is still to come, and a space before it to be left out.
    drop_space: bool,
    over: bool,
}

// === impl Generation ===

impl Generation {
    pub(super) fn new(job: &Job, tokenizer: Arc<Tokenizer>, steps: Receiver<Step>) -> Self {
        let sequences = job.prompts.len() * job.choices as usize;
        let choices: Vec<Choice> = (0..sequences)
            .map(|_| Choice {
                text: TextDecoder::default(),
                stop: StopStrings::new(&job.stop),
                switch: Switch::default(),
                drop_space: job.drop_leading_space,
                over: false,
            })
            .collect();
        let prompt_tokens = job.prompts.iter().map(Vec::len).sum();
        Self {
            tokenizer,
            steps,
            open: choices.len(),
            choices,
            prompt_tokens,
            completion_tokens: 0,
            ready: VecDeque::new(),
        }
    }

    pub(super) fn switch(&self, choice: usize) -> Switch {
        self.choices[choice].switch.clone()
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of all choices so far.
    pub fn completion_tokens(&self) -> usize {
        self.completion_tokens
    }

    fn take(&mut self, step: Step) {
        let choice = &mut self.choices[step.choice as usize];
        if choice.over {
            // Made before the batcher saw that the choice was switched off.
            return;
        }
        self.completion_tokens += 1;
        let silent = step.ends_text || self.tokenizer.is_special(step.token);
        let mut new = if silent { String::new() } else { choice.text.push(self.tokenizer.token_bytes(step.token)) };
        if choice.drop_space && !new.is_empty() {
            choice.drop_space = false;
            if new.starts_with(' ') {
                new.remove(0);
            }
        }
        let (text, stopped) = choice.stop.push(&new);
        self.ready.push_back(Output::Token { choice: step.choice, token: step.token, text, detail: step.detail });
        let reason = if stopped { Some(FinishReason::Stop) } else { step.finish };
        if let Some(reason) = reason {
            let text = if stopped { String::new() } else { choice.stop.finish(&choice.text.finish()) };
            choice.over = true;
            choice.switch.turn_off();
            self.open -= 1;
            self.ready.push_back(Output::Finished { choice: step.choice, text, reason });
        }
    }
}

impl Stream for Generation {
    type Item = Result<Output, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(output) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(output)));
            }
            if this.open == 0 {
                return Poll::Ready(None);
            }
            match this.steps.poll_recv(cx) {
                Poll::Ready(Some(step)) => this.take(step),
                Poll::Ready(None) => {
                    this.open = 0;
                    return Poll::Ready(Some(Err(Broken)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
