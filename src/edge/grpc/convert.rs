//! Between the wire's messages and the product's own: pure functions.
//!
//! A request is held against [`limits`], the same as over HTTP.

use std::time::Duration;

use super::pb;
use crate::edge::limits::{self, Decimals};
use crate::edge::refusal::{missing, needs_logprobs, unknown_role};
use crate::gateway::Judgement;
use crate::types::{
    Delta, Error, Event, Finding, GenerateRequest, Input, Message, Prompt, Role, Route, Sampling, TokenLogprob,
    TopLogprob,
};

/// What every event of a generation repeats.
pub(super) struct Header {
    pub id: String,
    pub model: String,
    pub created: i64,
}

pub(super) fn request(request: pb::GenerateRequest, timeout: Option<Duration>) -> Result<GenerateRequest, Error> {
    if request.model.is_empty() {
        return Err(missing("model"));
    }
    Ok(GenerateRequest {
        route: Route::GrpcGenerate,
        sampling: sampling(&request)?,
        logprobs: logprobs(&request)?,
        max_tokens: match request.max_tokens {
            Some(tokens) => {
                limits::integer("max_tokens", tokens.into(), &limits::MAX_TOKENS)?;
                Some(tokens)
            }
            None => None,
        },
        choices: limits::integer("n", request.n.unwrap_or(1).into(), &limits::CHOICES)? as u32,
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
    let role =
        Role::parse(&message.role).ok_or_else(|| unknown_role(format!("messages[{index}].role"), &message.role))?;
    Ok(Message::text(role, message.content))
}

fn sampling(request: &pb::GenerateRequest) -> Result<Sampling, Error> {
    let default = Sampling::default();
    Ok(Sampling {
        temperature: decimal("temperature", request.temperature, default.temperature, limits::TEMPERATURE)?,
        top_p: decimal("top_p", request.top_p, default.top_p, limits::TOP_P)?,
        top_k: request.top_k.unwrap_or(default.top_k),
        min_p: decimal("min_p", request.min_p, default.min_p, limits::MIN_P)?,
        repetition_penalty: decimal(
            "repetition_penalty",
            request.repetition_penalty,
            default.repetition_penalty,
            limits::REPETITION_PENALTY,
        )?,
        presence_penalty: decimal(
            "presence_penalty",
            request.presence_penalty,
            default.presence_penalty,
            limits::PRESENCE_PENALTY,
        )?,
        frequency_penalty: decimal(
            "frequency_penalty",
            request.frequency_penalty,
            default.frequency_penalty,
            limits::FREQUENCY_PENALTY,
        )?,
        // A seed names a draw; its sign means nothing.
        seed: request.seed.map(i64::cast_unsigned),
        logit_bias: logit_bias(request)?,
    })
}

fn decimal(field: &'static str, given: Option<f32>, default: f32, range: Decimals) -> Result<f32, Error> {
    match given {
        None => Ok(default),
        Some(value) => limits::decimal(field, value.into(), value, range),
    }
}

fn logit_bias(request: &pb::GenerateRequest) -> Result<Vec<(u32, f32)>, Error> {
    limits::logit_bias_count(request.logit_bias.len())?;
    let bias = |(token, bias): (&u32, &f32)| {
        let path = format!("logit_bias.{token}");
        Ok((*token, limits::decimal(path, f64::from(*bias), bias, limits::LOGIT_BIAS)?))
    };
    let mut biases = request.logit_bias.iter().map(bias).collect::<Result<Vec<_>, Error>>()?;
    // A map has no order on the wire; the same request shall always read the same.
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}

fn logprobs(request: &pb::GenerateRequest) -> Result<Option<u8>, Error> {
    let top = limits::integer("top_logprobs", request.top_logprobs.unwrap_or(0).into(), &limits::TOP_LOGPROBS)?;
    match (request.logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top as u8)),
        (false, 0) => Ok(None),
        (false, _) => Err(needs_logprobs()),
    }
}

fn stop(stop: Vec<String>) -> Result<Vec<String>, Error> {
    limits::stop_count(stop.len())?;
    stop.into_iter().enumerate().map(|(index, text)| limits::stop(format!("stop[{index}]"), text)).collect()
}

/// The event as the client reads it; `None` where it would say nothing.
pub(super) fn event(header: &Header, event: Event) -> Option<pb::GenerateEvent> {
    use pb::generate_event::Event as Told;
    let told = match event {
        Event::Delta(Delta { text, logprobs, findings, .. })
            if text.is_empty() && logprobs.is_empty() && findings.is_empty() =>
        {
            return None;
        }
        Event::Delta(delta) => Told::Delta(pb::Delta {
            index: delta.choice,
            content: delta.text,
            logprobs: delta.logprobs.into_iter().map(token_logprob).collect(),
            guard: delta.findings.into_iter().map(finding).collect(),
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

fn finding(finding: Finding) -> pb::Finding {
    pb::Finding {
        side: finding.side.as_str().to_owned(),
        action: finding.action.as_str().to_owned(),
        category: finding.category.to_string(),
        score: finding.score,
        stage: finding.stage.as_str().to_owned(),
        place: finding.place.to_string(),
    }
}

/// What was judged, in the order of the texts.
pub(super) fn moderation(id: String, judged: Vec<Judgement>) -> pb::ModerateResponse {
    let result = |judgement: Judgement| {
        let categories = judgement.categories().into_iter();
        let category = |(name, flagged, score): (std::sync::Arc<str>, bool, f32)| pb::ModerationCategory {
            name: name.to_string(),
            flagged,
            score,
        };
        pb::ModerationResult { flagged: judgement.is_flagged(), categories: categories.map(category).collect() }
    };
    pb::ModerateResponse { id, results: judged.into_iter().map(result).collect() }
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
