//! What clients read: OpenAI's response objects, to the letter, and nothing of
//! how they come about. Field order is theirs too.

mod chunk;
mod extra;
mod finding;
mod logprobs;
mod whole;

use std::sync::Arc;

use serde::Serialize;

use super::Api;
use crate::gateway::{Generation, ModelCard};
use crate::types::{GenerateRequest, GenerationId, Usage};

pub(super) use chunk::ChunkEncoder;
pub(super) use whole::Answer;

/// What the last frame of a complete stream says.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// What of a request its answer's form depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub api: Api,
    /// Choices of all prompts together.
    pub choices: u32,
    pub logprobs: Option<u8>,
}

/// What every object of one generation says about it.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub id: GenerationId,
    pub created: u64,
    pub model: Arc<str>,
}

#[derive(Serialize)]
pub(super) struct ModelList<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
pub(super) struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u32,
    audio_tokens: u32,
}

#[derive(Serialize, Default)]
struct CompletionDetails {
    reasoning_tokens: u32,
    audio_tokens: u32,
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

// === impl Form ===

impl Form {
    pub(super) fn of(api: Api, request: &GenerateRequest) -> Self {
        Self { api, choices: request.choices * request.input.prompts(), logprobs: request.logprobs }
    }
}

// === impl Identity ===

impl Identity {
    pub(super) fn of(generation: &Generation) -> Self {
        Self { id: generation.id, created: generation.created, model: generation.model.clone() }
    }
}

// === impl ModelList ===

impl<'a> ModelList<'a> {
    pub(super) fn new(cards: &'a [ModelCard], owner: &'a str) -> Self {
        Self { object: "list", data: cards.iter().map(|card| Model::new(card, owner)).collect() }
    }
}

// === impl Model ===

impl<'a> Model<'a> {
    pub(super) fn new(card: &'a ModelCard, owner: &'a str) -> Self {
        Self { id: &card.name, object: "model", created: card.created, owned_by: owner }
    }
}

// === impl UsageBody ===

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total(),
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens, audio_tokens: 0 },
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}

/// Serialises into `out`. Our own types cannot fail, and memory does not either.
fn write<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("these types have string keys and write to memory");
}
