//! The ranges of a request's fields that hold for every model, over HTTP and
//! over gRPC alike. What depends on the model, the worker checks.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use super::refusal::invalid_value;
use crate::types::Error;

pub(super) const TEMPERATURE: Decimals = Decimals::From(0.0, 2.0);
pub(super) const TOP_P: Decimals = Decimals::Above(0.0, 1.0);
pub(super) const MIN_P: Decimals = Decimals::From(0.0, 1.0);
pub(super) const REPETITION_PENALTY: Decimals = Decimals::Above(0.0, 2.0);
pub(super) const PRESENCE_PENALTY: Decimals = Decimals::From(-2.0, 2.0);
pub(super) const FREQUENCY_PENALTY: Decimals = Decimals::From(-2.0, 2.0);
pub(super) const LOGIT_BIAS: Decimals = Decimals::From(-100.0, 100.0);

/// No context holds as many as the type does, so what is beyond it is beyond the context too.
pub(super) const MAX_TOKENS: RangeInclusive<i64> = 1..=i64::MAX;
pub(super) const CHOICES: RangeInclusive<i64> = 1..=16;
pub(super) const TOP_LOGPROBS: RangeInclusive<i64> = 0..=20;

const MOST_STOPS: usize = 16;
/// In bytes. Every step of an answer looks for each of its stops.
const LONGEST_STOP: usize = 256;
/// As many as OpenAI takes. Each costs something for every token of the answer.
const MOST_LOGIT_BIASES: usize = 300;

/// Ratings of one request.
const MOST_RATED: usize = 256;
/// Texts of one request that are judged.
const MOST_MODERATED: usize = 256;

/// The values that a decimal number may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Decimals {
    From(f64, f64),
    /// The lower end is not part of it.
    Above(f64, f64),
}

/// `got` is the number as the client wrote it. NaN is in no range, so what
/// passes is finite.
pub(super) fn decimal(
    path: impl Into<Cow<'static, str>>,
    number: f64,
    got: impl Display,
    range: Decimals,
) -> Result<f32, Error> {
    match range {
        Decimals::From(least, most) if (least..=most).contains(&number) => Ok(number as f32),
        // Rounding must not make the end that is left out of a number that is just above it.
        Decimals::Above(below, most) if below < number && number <= most => {
            Ok((number as f32).max((below as f32).next_up()))
        }
        range => Err(invalid_value(path, range, got)),
    }
}

pub(super) fn rated(ratings: usize) -> Result<(), Error> {
    match ratings {
        1..=MOST_RATED => Ok(()),
        _ => Err(invalid_value("ratings", format_args!("1 to {MOST_RATED} ratings"), ratings)),
    }
}

pub(super) fn moderated(path: &'static str, texts: usize) -> Result<(), Error> {
    match texts {
        1..=MOST_MODERATED => Ok(()),
        _ => Err(invalid_value(path, format_args!("1 to {MOST_MODERATED} texts"), texts)),
    }
}

/// An end of `i64::MAX` is no limit: what is beyond it counts as that.
pub(super) fn integer(
    path: impl Into<Cow<'static, str>>,
    number: i128,
    range: &RangeInclusive<i64>,
) -> Result<i64, Error> {
    match i64::try_from(number.min(i64::MAX.into())) {
        Ok(held) if range.contains(&held) => Ok(held),
        _ if *range.end() == i64::MAX => {
            Err(invalid_value(path, format_args!("an integer of at least {}", range.start()), number))
        }
        _ => {
            let expected = format_args!("an integer from {} to {}", range.start(), range.end());
            Err(invalid_value(path, expected, number))
        }
    }
}

pub(super) fn stop_count(count: usize) -> Result<(), Error> {
    if count <= MOST_STOPS {
        return Ok(());
    }
    Err(invalid_value("stop", format_args!("at most {MOST_STOPS} strings"), count))
}

pub(super) fn stop(path: String, text: String) -> Result<String, Error> {
    if (1..=LONGEST_STOP).contains(&text.len()) {
        return Ok(text);
    }
    let got = format_args!("{} bytes", text.len());
    Err(invalid_value(path, format_args!("a string of 1 to {LONGEST_STOP} bytes"), got))
}

pub(super) fn logit_bias_count(count: usize) -> Result<(), Error> {
    if count <= MOST_LOGIT_BIASES {
        return Ok(());
    }
    Err(invalid_value("logit_bias", format_args!("at most {MOST_LOGIT_BIASES} tokens"), count))
}

// === impl Decimals ===

impl Display for Decimals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Above(below, most) => write!(f, "a number above {below}, up to {most}"),
        }
    }
}
