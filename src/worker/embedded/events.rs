//! The engine's outputs as the product's events.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};

use super::LoadedBase;
use crate::engine::files::Tokenizer;
use crate::engine::{Broken, Generation, Output, TokenDetail};
use crate::types::{Delta, Event, TokenLogprob, TopLogprob, Usage};
use crate::worker::WorkerError;

/// A generation that is being read.
struct Reading {
    // Before the base model, which may leave as soon as nobody has it pinned.
    generation: Generation,
    tokenizer: Arc<Tokenizer>,
    _base: LoadedBase,
    later: Option<Event>,
    over: bool,
}

/// Keeps the base model in memory until dropped.
pub(super) fn events(
    generation: Generation,
    base: LoadedBase,
) -> impl Stream<Item = Result<Event, WorkerError>> + Send {
    let tokenizer = base.0.tokenizer().clone();
    let reading = Reading { generation, tokenizer, _base: base, later: None, over: false };
    stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) })
}

// === impl Reading ===

impl Reading {
    async fn next(&mut self) -> Option<Result<Event, WorkerError>> {
        if let Some(event) = self.later.take() {
            return Some(Ok(event));
        }
        if self.over {
            return None;
        }
        match self.generation.next().await {
            Some(Ok(Output::Token { choice, token, text, detail })) => {
                let logprobs = detail.map(|detail| logprob(&self.tokenizer, token, detail)).into_iter().collect();
                Some(Ok(Event::Delta(Delta { choice, text, tokens: 1, logprobs, ..Delta::default() })))
            }
            Some(Ok(Output::Finished { choice, text, reason })) => {
                let finished = Event::Finished { choice, reason };
                if text.is_empty() {
                    return Some(Ok(finished));
                }
                self.later = Some(finished);
                Some(Ok(Event::Delta(Delta { choice, text, ..Delta::default() })))
            }
            Some(Err(error @ Broken)) => {
                self.over = true;
                Some(Err(WorkerError::Failed(error.to_string())))
            }
            None => {
                self.over = true;
                Some(Ok(Event::Usage(Usage {
                    prompt_tokens: self.generation.prompt_tokens() as u32,
                    completion_tokens: self.generation.completion_tokens() as u32,
                    cached_tokens: 0,
                })))
            }
        }
    }
}

fn logprob(tokenizer: &Tokenizer, token: u32, detail: TokenDetail) -> TokenLogprob {
    let named = |token, logprob| TopLogprob { bytes: tokenizer.token_bytes(token).to_vec(), logprob };
    TokenLogprob {
        token: named(token, detail.logprob),
        top: detail.top.into_iter().map(|(token, logprob)| named(token, logprob)).collect(),
    }
}
