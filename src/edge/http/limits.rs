//! `x-ratelimit-…`: how the caller stands with its limits, in OpenAI's names
//! and forms, on every answer to it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::edge::refusal::go_duration;
use crate::gateway::{Allowance, Standing};

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Nothing is said of what is not limited.
pub(super) fn attach(headers: &mut HeaderMap, standing: Standing) {
    for (names, allowance) in [(REQUESTS, standing.requests), (TOKENS, standing.tokens)] {
        let Some(Allowance { limit, remaining, reset }) = allowance else { continue };
        let [of_limit, of_remaining, of_reset] = names;
        headers.insert(of_limit, limit.into());
        headers.insert(of_remaining, remaining.into());
        headers.insert(of_reset, duration(reset));
    }
}

fn duration(length: Duration) -> HeaderValue {
    HeaderValue::try_from(go_duration(length)).expect("digits and letters")
}
