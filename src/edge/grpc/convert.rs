//! Between the wire's messages and the product's own: pure functions.
//!
//! A request is held against the ranges that hold for every model, the same
//! as over HTTP. What depends on the model, the worker checks.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::pb;
use crate::types::{
    Delta, Error, Event, GenerateRequest, Input, Message, Prompt, Role, Route, Sampling, TokenLogprob, TopLogprob,
};

const CHOICES: RangeInclusive<u32> = 1..=16;
const STOPS: usize = 16;
const TOP_LOGPROBS: RangeInclusive<u32> = 0..=20;
const LOGIT_BIAS: RangeInclusive<f32> = -100.0..=100.0;

/// What every event of a generation repeats.
pub(super) struct Header {
    pub id: String,
    pub model: String,
    pub created: i64,
}

pub(super) fn request(request: pb::GenerateRequest, timeout: Option<Duration>) -> Result<GenerateRequest, Error> {
    if request.model.is_empty() {
        return Err(Error::invalid("model", "Missing required field 'model'."));
    }
    Ok(GenerateRequest {
        route: Route::GrpcGenerate,
        sampling: sampling(&request)?,
        logprobs: logprobs(&request)?,
        max_tokens: match request.max_tokens {
            Some(0) => return Err(invalid("max_tokens", "at least 1", 0)),
            other => other,
        },
        choices: ranged("n", request.n, 1, &CHOICES)?,
        ignore_eos: request.ignore_eos.unwrap_or(false),
        input: input(request.messages, request.prompt)?,
        stop: stop(request.stop)?,
        model: request.model,
        timeout,
        extra: serde_json::Map::new(),
    })
}

fn input(messages: Vec<pb::Message>, prompt: Option<String>) -> Result<Input, Error> {
    match (messages.is_empty(), prompt) {
        (true, None) => Err(Error::invalid("messages", "Give one of 'messages' and 'prompt'; neither is there.")),
        (false, Some(_)) => Err(Error::invalid("prompt", "Give one of 'messages' and 'prompt'; both are there.")),
        (true, Some(prompt)) => Ok(Input::Prompts(vec![Prompt::Text(prompt)])),
        (false, None) => messages.into_iter().enumerate().map(message).collect::<Result<_, _>>().map(Input::Chat),
    }
}

fn message((index, message): (usize, pb::Message)) -> Result<Message, Error> {
    let role = Role::parse(&message.role).ok_or_else(|| {
        let known = Role::ALL.map(Role::as_str).join(", ");
        invalid(format!("messages[{index}].role"), &format!("one of {known}"), format_args!("'{}'", message.role))
    })?;
    Ok(Message { role, content: message.content })
}

fn sampling(request: &pb::GenerateRequest) -> Result<Sampling, Error> {
    let default = Sampling::default();
    Ok(Sampling {
        temperature: ranged("temperature", request.temperature, default.temperature, &(0.0..=2.0))?,
        top_p: above_zero("top_p", request.top_p, default.top_p, 1.0)?,
        top_k: request.top_k.unwrap_or(default.top_k),
        min_p: ranged("min_p", request.min_p, default.min_p, &(0.0..=1.0))?,
        repetition_penalty: above_zero(
            "repetition_penalty",
            request.repetition_penalty,
            default.repetition_penalty,
            2.0,
        )?,
        presence_penalty: ranged(
            "presence_penalty",
            request.presence_penalty,
            default.presence_penalty,
            &(-2.0..=2.0),
        )?,
        frequency_penalty: ranged(
            "frequency_penalty",
            request.frequency_penalty,
            default.frequency_penalty,
            &(-2.0..=2.0),
        )?,
        // A seed names a draw; its sign means nothing.
        seed: request.seed.map(i64::cast_unsigned),
        logit_bias: logit_bias(request)?,
    })
}

fn logit_bias(request: &pb::GenerateRequest) -> Result<Vec<(u32, f32)>, Error> {
    let mut bias: Vec<(u32, f32)> = request.logit_bias.iter().map(|(token, bias)| (*token, *bias)).collect();
    // A map has no order on the wire; the same request shall always read the same.
    bias.sort_unstable_by_key(|(token, _)| *token);
    match bias.iter().find(|(_, bias)| !LOGIT_BIAS.contains(bias)) {
        Some((token, bias)) => Err(invalid(format!("logit_bias[{token}]"), "a number from -100 to 100", bias)),
        None => Ok(bias),
    }
}

fn logprobs(request: &pb::GenerateRequest) -> Result<Option<u8>, Error> {
    let top = ranged("top_logprobs", request.top_logprobs, 0, &TOP_LOGPROBS)?;
    match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (true, _) => Ok(Some(u8::try_from(top).expect("the range was checked"))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Error::invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")),
    }
}

fn stop(stop: Vec<String>) -> Result<Vec<String>, Error> {
    if stop.len() > STOPS {
        return Err(invalid("stop", "at most 16 texts", stop.len()));
    }
    match stop.iter().position(String::is_empty) {
        Some(empty) => Err(invalid(format!("stop[{empty}]"), "a text that is not empty", "an empty one")),
        None => Ok(stop),
    }
}

/// NaN is in no range, so what passes is finite.
fn ranged<T>(field: &'static str, given: Option<T>, default: T, range: &RangeInclusive<T>) -> Result<T, Error>
where
    T: PartialOrd + Display,
{
    match given {
        None => Ok(default),
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) => Err(invalid(field, &format!("a number from {} to {}", range.start(), range.end()), value)),
    }
}

fn above_zero(field: &'static str, given: Option<f32>, default: f32, most: f32) -> Result<f32, Error> {
    match given {
        None => Ok(default),
        Some(value) if value > 0.0 && value <= most => Ok(value),
        Some(value) => Err(invalid(field, &format!("a number above 0, up to {most}"), value)),
    }
}

fn invalid(field: impl Into<Cow<'static, str>>, expected: &str, got: impl Display) -> Error {
    let field = field.into();
    let message = format!("Invalid value for '{field}': expected {expected}, got {got}.");
    Error::invalid(field, message)
}

/// The event as the client reads it; `None` where it would say nothing.
pub(super) fn event(header: &Header, event: Event) -> Option<pb::GenerateEvent> {
    use pb::generate_event::Event as Told;
    let told = match event {
        Event::Delta(Delta { text, logprobs, .. }) if text.is_empty() && logprobs.is_empty() => return None,
        Event::Delta(delta) => Told::Delta(pb::Delta {
            index: delta.choice,
            content: delta.text,
            logprobs: delta.logprobs.into_iter().map(token_logprob).collect(),
        }),
        Event::Finished { choice, reason } => {
            Told::Finish(pb::Finish { index: choice, finish_reason: reason.as_str().to_owned() })
        }
        Event::Usage(usage) => Told::Usage(pb::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total(),
            cached_tokens: usage.cached_tokens,
        }),
    };
    let Header { id, model, created } = header;
    Some(pb::GenerateEvent { id: id.clone(), model: model.clone(), created: *created, event: Some(told) })
}

fn token_logprob(logprob: TokenLogprob) -> pb::TokenLogprob {
    let TopLogprob { bytes, logprob: own } = logprob.token;
    pb::TokenLogprob {
        token: text(&bytes),
        logprob: own,
        bytes,
        top_logprobs: logprob
            .top
            .into_iter()
            .map(|top| pb::TopLogprob { token: text(&top.bytes), logprob: top.logprob, bytes: top.bytes })
            .collect(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
