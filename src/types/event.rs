//! What a generation yields while it runs, and how it ended.

use serde_json::{Map, Value};

use super::Finding;

/// One step of a generation, in order: any number of `Delta`s, one `Finished`
/// for each choice, then one `Usage` for all of them, which is the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Delta(Delta),
    Finished { choice: u32, reason: FinishReason },
    Usage(Usage),
}

/// New text of one choice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    pub choice: u32,
    /// Whole characters. Empty where a token's bytes did not complete one, or
    /// where they may be the beginning of a stop string.
    pub text: String,
    /// Tokens that this step took, whether or not they gave text yet.
    pub tokens: u32,
    /// One entry a token, where the request asked for them.
    pub logprobs: Vec<TokenLogprob>,
    /// What the worker said that has no place above.
    pub extra: Option<Box<Extra>>,
    /// What the guard found in the prompt and in this choice, once, before its end.
    pub findings: Vec<Finding>,
}

/// Fields of a worker's chunk that OpenAI's interface has and this vocabulary
/// has not (tool calls, reasoning, …), or that only this worker knows. They
/// reach the client as they came. Never a null.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extra {
    /// Of the choice's `delta`.
    pub delta: Map<String, Value>,
    /// Of the choice.
    pub choice: Map<String, Value>,
    /// Of the chunk itself.
    pub chunk: Map<String, Value>,
}

/// The log-probability of a token that was generated, before temperature and
/// truncation.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: TopLogprob,
    /// The most probable tokens at this position, best first.
    pub top: Vec<TopLogprob>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// The token's bytes; they may be a part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Prompt tokens whose keys and values were at hand already.
    pub cached_tokens: u32,
}

impl Usage {
    pub fn total(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

/// Why a choice came to its end, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its answer, or a stop string was met.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
    /// The model asks for tools to be called.
    ToolCalls,
    /// The guard ended it, or a filter of the worker's own.
    ContentFilter,
}

impl FinishReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Stop, Self::Length, Self::ToolCalls, Self::ContentFilter];
        all.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// How a generation ended, decided once. Metrics, the log line and the
/// worker's record all read this one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The worker said all it had to say.
    Complete,
    /// The client went away before the end.
    ClientGone,
    /// The guard let no more of the answer out.
    GuardStopped,
    /// The worker failed.
    Upstream,
    /// The request's time ran out.
    Deadline,
    /// The gateway shut down before the end.
    Drained,
}

impl Finish {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::GuardStopped => "guard_stopped",
            Self::Upstream => "upstream",
            Self::Deadline => "deadline",
            Self::Drained => "drained",
        }
    }
}
