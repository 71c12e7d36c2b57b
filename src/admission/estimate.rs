//! What a request will use, as far as it can be told before a worker has it.

use crate::types::{GenerateRequest, Input, Prompt};

/// Bytes of text that make a token, roughly, for every tokenizer.
const BYTES_PER_TOKEN: usize = 4;
/// What a template puts around a message, in tokens.
const AROUND: u64 = 4;
/// An answer's length where the request does not bound it.
const USUAL_ANSWER: u64 = 256;

/// What is reserved of one answer at most: a longer one is charged as it runs,
/// and does not hold back what it may never write.
const RESERVED: u64 = 1024;

/// In tokens, of all its prompts and choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub input: u64,
    pub output: u64,
}

impl Estimate {
    pub fn of(request: &GenerateRequest) -> Self {
        let text = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
        let prompt = |prompt: &Prompt| match prompt {
            Prompt::Text(words) => text(words.len()),
            Prompt::Tokens(tokens) => tokens.len() as u64,
        };
        let input = match &request.input {
            Input::Chat(messages) => messages.iter().map(|message| text(message.content.len()) + AROUND).sum(),
            Input::Prompts(prompts) => prompts.iter().map(prompt).sum(),
        };
        let each = request.max_tokens.map_or(USUAL_ANSWER, u64::from).min(RESERVED);
        Self { input, output: each.saturating_mul(sequences(request).into()) }
    }
}

/// Sequences that a request has the workers run.
pub fn sequences(request: &GenerateRequest) -> u32 {
    request.choices.saturating_mul(request.input.prompts()).max(1)
}
