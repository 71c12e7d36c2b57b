//! `limits`, wherever it stands: of a tenant, of a key, of a model name.

use crate::types::{Limits, Priority};

use super::section::{Section, number};

/// The limits of one table; what is left out is not limited.
pub(super) fn limits(mut section: Section<'_>) -> Limits {
    let mut most = |key: &'static str| section.optional(key, number(1..=Limits::MOST));
    let limits = Limits {
        requests_per_second: most("requests_per_second"),
        requests_per_minute: most("requests_per_minute"),
        input_tokens_per_minute: most("input_tokens_per_minute"),
        output_tokens_per_minute: most("output_tokens_per_minute"),
        tokens_per_day: most("tokens_per_day"),
        tokens_per_month: most("tokens_per_month"),
        concurrent_generations: section.optional("concurrent_generations", number(1..=1_000_000)),
        max_prompt_tokens: section.optional("max_prompt_tokens", number(1..=Limits::MOST)),
        max_output_tokens: section.optional("max_output_tokens", number(1..=Limits::MOST)),
    };
    section.finish();
    limits
}

/// The values of a key `priority`.
pub(super) const PRIORITIES: [(&str, Priority); 2] =
    [("interactive", Priority::Interactive), ("batch", Priority::Batch)];
