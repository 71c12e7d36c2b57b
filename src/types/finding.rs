//! What the guard found in a text, as clients and logs are told. Never the text.

use std::ops::Range;
use std::sync::Arc;

/// Which way the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Prompt,
    Output,
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It is told, and nothing else.
    Flag,
    /// The span was taken out.
    Redact,
    Block,
}

/// Who found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A word or a regular expression of a list.
    Lists,
    Linear,
    Encoder,
    /// A judge outside this process.
    Judge,
    /// Nobody could judge it in time, and the policy blocks what is not judged.
    Unjudged,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub side: Side,
    pub action: Action,
    pub stage: Stage,
    pub category: Arc<str>,
    /// 0 to 1; 1 for a list's entry.
    pub score: f32,
    /// Where: the field of a prompt (`messages[0].content`), the channel of an answer.
    pub place: Arc<str>,
    /// Bytes of the text there; `None` for all of it.
    pub span: Option<Range<usize>>,
}

// === impl Side ===

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Output => "output",
        }
    }
}

// === impl Action ===

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

// === impl Stage ===

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lists => "lists",
            Self::Linear => "linear",
            Self::Encoder => "encoder",
            Self::Judge => "judge",
            Self::Unjudged => "unjudged",
        }
    }
}
