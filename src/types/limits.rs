//! What a tenant may use, and by which name each limit is told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    RequestsPerSecond,
    RequestsPerMinute,
    InputTokensPerMinute,
    OutputTokensPerMinute,
    /// Input and output together, by the day of UTC.
    TokensPerDay,
    /// Input and output together, by the month of UTC.
    TokensPerMonth,
    Concurrency,
}

/// The limits of a tenant, of one of its keys or of one of its model names.
/// `None`: no limit. All that apply to a request hold at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub requests_per_second: Option<u64>,
    pub requests_per_minute: Option<u64>,
    pub input_tokens_per_minute: Option<u64>,
    pub output_tokens_per_minute: Option<u64>,
    pub tokens_per_day: Option<u64>,
    pub tokens_per_month: Option<u64>,
    /// Generations that are admitted and have not ended.
    pub concurrent_generations: Option<u64>,
    /// Of one request.
    pub max_prompt_tokens: Option<u64>,
    /// Of one choice.
    pub max_output_tokens: Option<u64>,
}

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does: it has what the others leave, and a small share at least.
    Batch,
}

/// A tenant's part of workers that are full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its share beside that of others; at least 1.
    pub weight: u32,
    pub priority: Priority,
    /// Requests that may wait for one base model.
    pub max_waiting: usize,
}

/// Who is next where workers are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOrder {
    /// The tenant that was served least by its weight, in tokens.
    Fair,
    /// Whoever came first. One tenant can keep all others waiting.
    Arrival,
}

// === impl Limit ===

impl Limit {
    pub const ALL: [Self; 7] = [
        Self::RequestsPerSecond,
        Self::RequestsPerMinute,
        Self::InputTokensPerMinute,
        Self::OutputTokensPerMinute,
        Self::TokensPerDay,
        Self::TokensPerMonth,
        Self::Concurrency,
    ];

    /// The limit's name in the configuration, in metrics and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests_per_second",
            Self::RequestsPerMinute => "requests_per_minute",
            Self::InputTokensPerMinute => "input_tokens_per_minute",
            Self::OutputTokensPerMinute => "output_tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::TokensPerMonth => "tokens_per_month",
            Self::Concurrency => "concurrent_generations",
        }
    }

    /// What it counts, as clients are told.
    pub fn unit(self) -> &'static str {
        match self {
            Self::RequestsPerSecond | Self::RequestsPerMinute => "requests",
            Self::InputTokensPerMinute | Self::OutputTokensPerMinute | Self::TokensPerDay | Self::TokensPerMonth => {
                "tokens"
            }
            Self::Concurrency => "concurrency",
        }
    }

    /// Whether it is a budget, for which a client does not wait.
    pub fn is_budget(self) -> bool {
        matches!(self, Self::TokensPerDay | Self::TokensPerMonth)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Limits ===

impl Limits {
    /// The largest that can be set.
    pub const MOST: u64 = 1_000_000_000_000;

    pub fn of(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::RequestsPerSecond => self.requests_per_second,
            Limit::RequestsPerMinute => self.requests_per_minute,
            Limit::InputTokensPerMinute => self.input_tokens_per_minute,
            Limit::OutputTokensPerMinute => self.output_tokens_per_minute,
            Limit::TokensPerDay => self.tokens_per_day,
            Limit::TokensPerMonth => self.tokens_per_month,
            Limit::Concurrency => self.concurrent_generations,
        }
    }

    /// Whether anything is limited that has to be counted.
    pub fn count(&self) -> bool {
        Limit::ALL.into_iter().any(|limit| self.of(limit).is_some())
    }
}

// === impl Priority ===

impl Priority {
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

// === impl Share ===

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, priority: Priority::default(), max_waiting: 128 }
    }
}
