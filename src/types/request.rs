//! The one request type that both edges build and the gateway runs.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Error;

/// A request for tokens, parsed and within the ranges that hold for every
/// model. What depends on the model (context, vocabulary) the worker checks.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    pub route: Route,
    /// What the client wrote in `model`; resolved inside the caller's tenant.
    pub model: String,
    pub input: Input,
    pub sampling: Sampling,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// The most tokens to generate for each choice; `None`: what the context holds.
    pub max_tokens: Option<u32>,
    /// Choices for each prompt (`n`), at least 1.
    pub choices: u32,
    /// Alternatives to report for each token (0: the token's own alone);
    /// `None`: no log-probabilities.
    pub logprobs: Option<u8>,
    /// Go on after the model's end-of-text tokens (vLLM's `ignore_eos`).
    pub ignore_eos: bool,
    /// The client's own deadline, where its protocol has one (gRPC).
    pub timeout: Option<Duration>,
    /// Fields that have no place above, by name and as they came. A worker
    /// that does not know one refuses it by name.
    pub extra: Map<String, Value>,
}

/// The entry the request came in by; a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    ChatCompletions,
    Completions,
    GrpcGenerate,
}

impl Route {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::GrpcGenerate => "grpc_generate",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A conversation, at least one message.
    Chat(Vec<Message>),
    /// Raw prompts, at least one. Choice numbers run through the choices of
    /// the first prompt, then those of the second, and so on.
    Prompts(Vec<Prompt>),
}

impl Input {
    /// How many prompts this is.
    pub fn prompts(&self) -> u32 {
        match self {
            Self::Chat(_) => 1,
            Self::Prompts(prompts) => prompts.len() as u32,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl Prompt {
    /// What the prompt takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => size_of_val(tokens.as_slice()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    /// All of its text.
    pub content: String,
    /// What it says beside its role and its text.
    pub more: Option<Box<More>>,
}

/// A message that is more than a text: tool calls, images, a name. Workers that
/// speak OpenAI's interface get it as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct More {
    /// The whole message as the client wrote it.
    pub as_given: Map<String, Value>,
    /// How a worker that reads texts alone refuses it; `None` where it may
    /// leave out what it does not read.
    pub refusal: Option<Error>,
}

// === impl Message ===

impl Message {
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), more: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::System, Self::Developer, Self::User, Self::Assistant, Self::Tool];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// How the next token is drawn. The defaults are OpenAI's.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 to 2; 0 takes the most probable token.
    pub temperature: f32,
    /// Keep the most probable tokens up to this mass; above 0, up to 1.
    pub top_p: f32,
    /// Keep this many of the most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Drop tokens less probable than this share of the most probable; 0 to 1.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens that
    /// occurred in prompt or answer (Keskar et al., CTRL, 2019); above 0, up to 2.
    pub repetition_penalty: f32,
    /// Taken from the logit of each token that the answer holds; −2 to 2.
    pub presence_penalty: f32,
    /// Taken from it once for each time the answer holds it; −2 to 2.
    pub frequency_penalty: f32,
    /// Makes the draw reproducible.
    pub seed: Option<u64>,
    /// Added to the logits of these tokens; −100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}
