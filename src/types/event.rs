//! What a generation yields while it runs, and how it ended.

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
        self.prompt_tokens + self.completion_tokens
    }
}

/// Why a choice came to its end, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its answer, or a stop string was met.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

impl FinishReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
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
            Self::Upstream => "upstream",
            Self::Deadline => "deadline",
            Self::Drained => "drained",
        }
    }
}
