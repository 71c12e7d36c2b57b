//! A request's body, read into the one internal request.
//!
//! Strict about what is known: a wrong type or a value out of range is refused
//! with the path of the field. What is not known goes into `extra` as it came,
//! for the worker to honour or to refuse by name. The body is parsed once;
//! texts are moved, not copied.

mod fields;
mod harmless;
mod messages;
mod moderated;
mod prompt;
mod sampling;

use std::ops::RangeInclusive;

use super::Api;
use crate::edge::{limits, refusal};
use crate::types::{Error, GenerateRequest, Input};
use fields::Fields;
pub(super) use moderated::{Moderated, moderated};

const MOST_CHOICES: u32 = 64;
/// OpenAI's default for completions; a chat goes on as long as the context holds.
const COMPLETION_TOKENS: u32 = 16;
const COMPLETION_LOGPROBS: RangeInclusive<i64> = 0..=5;

#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub request: GenerateRequest,
    pub delivery: Delivery,
}

/// How the client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Stream { include_usage: bool },
}

pub(super) fn parse(api: Api, body: &[u8]) -> Result<Parsed, Error> {
    let mut fields = Fields::of_body(body)?;
    let model = fields.string("model")?.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| refusal::missing("model"))?;
    let input = match api {
        Api::Chat => Input::Chat(messages::take(&mut fields)?),
        Api::Completions => Input::Prompts(prompt::take(&mut fields)?),
    };
    let choices = choices(&mut fields, input.prompts())?;
    let delivery = delivery(&mut fields)?;
    let request = GenerateRequest {
        route: api.route(),
        model,
        input,
        sampling: sampling::take(&mut fields)?,
        stop: sampling::stop(&mut fields)?,
        max_tokens: match api {
            Api::Chat => chat_max_tokens(&mut fields)?,
            Api::Completions => Some(max_tokens(&mut fields, "max_tokens")?.unwrap_or(COMPLETION_TOKENS)),
        },
        choices,
        logprobs: match api {
            Api::Chat => chat_logprobs(&mut fields)?,
            Api::Completions => fields.integer("logprobs", &COMPLETION_LOGPROBS)?.map(|top| top as u8),
        },
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        timeout: None,
        extra: {
            harmless::drop_from(&mut fields, api, choices);
            fields.rest()?
        },
    };
    Ok(Parsed { request, delivery })
}

fn choices(fields: &mut Fields, prompts: u32) -> Result<u32, Error> {
    let choices = fields.integer("n", &limits::CHOICES)?.map_or(1, |n| n as u32);
    if prompts.saturating_mul(choices) <= MOST_CHOICES {
        return Ok(choices);
    }
    let param = if prompts > MOST_CHOICES { "prompt" } else { "n" };
    let message = format!(
        "Invalid '{param}': a request may ask for at most {MOST_CHOICES} choices, but {prompts} prompts with 'n' = \
         {choices} ask for more."
    );
    Err(Error::invalid(param, message))
}

fn delivery(fields: &mut Fields) -> Result<Delivery, Error> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream { Delivery::Stream { include_usage: false } } else { Delivery::Whole });
    };
    let mut options = Fields::of_value(options, fields.path_of("stream_options"))?;
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Error::invalid("stream_options", message));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    // Padding against an observer of packet sizes; clients do not rely on it.
    options.boolean("include_obfuscation")?;
    if let Some((name, _)) = options.left().find(|(_, value)| **value != false) {
        return Err(fields::unsupported(options.path_of(name)));
    }
    Ok(Delivery::Stream { include_usage })
}

/// `max_completion_tokens` is the newer name of `max_tokens`.
fn chat_max_tokens(fields: &mut Fields) -> Result<Option<u32>, Error> {
    let old = max_tokens(fields, "max_tokens")?;
    let new = max_tokens(fields, "max_completion_tokens")?;
    if old.is_some() && new.is_some() && old != new {
        let message = "'max_tokens' and 'max_completion_tokens' mean the same, but have different values.";
        return Err(Error::invalid("max_completion_tokens", message));
    }
    Ok(new.or(old))
}

fn max_tokens(fields: &mut Fields, name: &str) -> Result<Option<u32>, Error> {
    let tokens = fields.integer(name, &limits::MAX_TOKENS)?;
    Ok(tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)))
}

fn chat_logprobs(fields: &mut Fields) -> Result<Option<u8>, Error> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", &limits::TOP_LOGPROBS)?.map(|top| top as u8);
    if !wanted && top.is_some() {
        return Err(refusal::needs_logprobs());
    }
    Ok(wanted.then(|| top.unwrap_or(0)))
}
