//! A worker's chunks as the product's events.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::upstream::{error_text, invalid};
use crate::types::{Delta, Event, Extra, FinishReason, GenerateRequest, TokenLogprob, TopLogprob, Usage};
use crate::worker::WorkerError;

/// What a chunk says of itself; ours say it in their own way.
const CHUNK: [&str; 8] = ["id", "object", "created", "model", "choices", "usage", "system_fingerprint", "error"];
const CHOICE: [&str; 5] = ["index", "delta", "text", "logprobs", "finish_reason"];
const DELTA: [&str; 2] = ["role", "content"];

/// How the answer's `model` is held against the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModelCheck {
    Equal(String),
    /// A name, or a dated form of it: `gpt-x-2025-01-31` of `gpt-x`, which
    /// `gpt-x-mini` is not.
    Dated(String),
}

/// Reads one answer.
pub(super) struct Reader {
    model: ModelCheck,
    /// For each choice.
    choices: Vec<Progress>,
    /// How many choices each prompt has.
    per_prompt: usize,
    /// Said of the whole answer.
    usage: Option<Usage>,
    running_usage: bool,
    events: VecDeque<Event>,
    done: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    finished: bool,
    /// Tokens that were told.
    tokens: u32,
    /// What the worker said of this choice alone.
    usage: Option<Usage>,
}

// === impl ModelCheck ===

impl ModelCheck {
    fn check(&self, model: Option<&str>) -> Result<(), WorkerError> {
        let (asked, right) = match (self, model) {
            (Self::Equal(asked), model) => (asked, model == Some(asked)),
            (Self::Dated(asked), model) => (asked, model.is_none_or(|model| is_dated(model, asked))),
        };
        if right {
            return Ok(());
        }
        let model = model.unwrap_or("none");
        Err(WorkerError::Failed(format!("it answered with the model `{}`, not `{asked}`", shortened(model))))
    }
}

fn is_dated(model: &str, asked: &str) -> bool {
    let Some(rest) = model.strip_prefix(asked) else { return false };
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|date| date.starts_with(|c: char| c.is_ascii_digit()))
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(request: &GenerateRequest, model: ModelCheck, running_usage: bool) -> Self {
        let choices = (request.choices * request.input.prompts()) as usize;
        Self {
            model,
            choices: vec![Progress::default(); choices],
            per_prompt: request.choices.max(1) as usize,
            usage: None,
            running_usage,
            events: VecDeque::new(),
            done: false,
        }
    }

    /// The next event that is known.
    pub(super) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The worker has said that the answer is over.
    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// Tokens of all prompts, once they are known of each.
    pub(super) fn prompt_tokens(&self) -> Option<u32> {
        let prompts = self.choices.chunks(self.per_prompt);
        let of_prompt =
            |choices: &[Progress]| choices.iter().find_map(|choice| choice.usage).map(|it| it.prompt_tokens);
        prompts.map(of_prompt).try_fold(0_u32, |sum, tokens| Some(sum.saturating_add(tokens?)))
    }

    /// Takes in the data of one event of the stream.
    pub(super) fn data(&mut self, data: &[u8]) -> Result<(), WorkerError> {
        if data == b"[DONE]" {
            return self.end();
        }
        let failed = |what: &str| Err(WorkerError::Failed(what.to_owned()));
        let mut chunk = match serde_json::from_slice(data) {
            Ok(Value::Object(chunk)) => chunk,
            // llama.cpp begins an answer to several prompts with one.
            Ok(Value::Null) => return Ok(()),
            _ => return failed("a chunk of its answer is not a JSON object"),
        };
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let said = format!("it said: {}", shortened(&error.to_string()));
            return match error.get("code").and_then(Value::as_u64) {
                // The request's own fault is none of the worker's.
                Some(400 | 413 | 422) => Err(WorkerError::Refused(invalid(data, &error_text(data)).with_detail(said))),
                _ => failed(&said),
            };
        }
        self.model.check(chunk.get("model").and_then(Value::as_str))?;
        let usage = chunk.get("usage").and_then(read_usage);
        let Some(Value::Array(choices)) = chunk.remove("choices") else {
            return failed("a chunk of its answer has no choices");
        };
        if choices.is_empty() {
            self.usage = usage.or(self.usage);
            return Ok(());
        }
        let mut more = left(chunk, &CHUNK);
        for choice in choices {
            let Value::Object(choice) = choice else { return failed("a choice of its answer is not an object") };
            self.choice(choice, usage, std::mem::take(&mut more))?;
        }
        Ok(())
    }

    fn choice(
        &mut self,
        mut choice: Map<String, Value>,
        usage: Option<Usage>,
        chunk: Map<String, Value>,
    ) -> Result<(), WorkerError> {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let progress = usize::try_from(index).ok().and_then(|index| self.choices.get_mut(index));
        let Some(progress) = progress.filter(|progress| !progress.finished) else {
            return Err(WorkerError::Failed(format!("it told more of choice {index} than there is")));
        };
        progress.usage = usage.or(progress.usage);
        let (text, delta) = match choice.remove("delta") {
            Some(Value::Object(mut delta)) => (text_of(delta.remove("content")), left(delta, &DELTA)),
            _ => (text_of(choice.remove("text")), Map::new()),
        };
        let logprobs = choice.remove("logprobs").map(|logprobs| read_logprobs(&logprobs)).unwrap_or_default();
        let reason = choice.remove("finish_reason").filter(|reason| !reason.is_null());
        let extra = Extra { delta, choice: left(choice, &CHOICE), chunk };
        let extra = (extra != Extra::default()).then(|| Box::new(extra));

        let says_something = !text.is_empty() || !logprobs.is_empty() || extra.is_some();
        let tokens = match usage {
            Some(usage) if self.running_usage => usage.completion_tokens.saturating_sub(progress.tokens),
            // One chunk, one token, as far as can be seen.
            _ => u32::try_from(logprobs.len()).unwrap_or(0).max(u32::from(says_something)),
        };
        progress.tokens = progress.tokens.saturating_add(tokens);
        let choice = index as u32;
        if says_something || tokens > 0 {
            self.events.push_back(Event::Delta(Delta { choice, text, tokens, logprobs, extra, ..Delta::default() }));
        }
        if let Some(reason) = reason {
            let reason = reason.as_str().unwrap_or_default();
            let told = FinishReason::parse(reason).or((reason == "function_call").then_some(FinishReason::ToolCalls));
            let Some(reason) = told else {
                return Err(WorkerError::Failed(format!("a choice finished for the reason `{}`", shortened(reason))));
            };
            progress.finished = true;
            self.events.push_back(Event::Finished { choice, reason });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), WorkerError> {
        if self.choices.iter().any(|choice| !choice.finished) {
            return Err(WorkerError::Failed("it ended its answer before all choices had finished".to_owned()));
        }
        self.done = true;
        let usage = self.final_usage();
        self.events.push_back(Event::Usage(usage));
        Ok(())
    }

    /// What the worker said of the whole, of each choice, or what was counted.
    fn final_usage(&self) -> Usage {
        let completion_of = |choice: &Progress| choice.usage.map_or(choice.tokens, |usage| usage.completion_tokens);
        let sum = |tokens: &mut dyn Iterator<Item = u32>| tokens.fold(0, u32::saturating_add);
        let by_choice = sum(&mut self.choices.iter().map(completion_of));
        let said = self.usage.unwrap_or(Usage {
            prompt_tokens: self.prompt_tokens().unwrap_or(0),
            completion_tokens: by_choice,
            cached_tokens: sum(&mut self.choices.iter().filter_map(|choice| choice.usage).map(|it| it.cached_tokens)),
        });
        // llama.cpp tells the tokens of one choice where there are several.
        if self.choices.len() > 1 && self.usage.is_some() {
            return Usage { completion_tokens: said.completion_tokens.max(by_choice), ..said };
        }
        said
    }
}

fn left(mut object: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    object.retain(|name, value| !value.is_null() && !known.contains(&name.as_str()));
    object
}

fn text_of(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

fn number(value: Option<&Value>) -> Option<u32> {
    value?.as_u64().map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A zero that was said is a zero.
fn read_usage(usage: &Value) -> Option<Usage> {
    Some(Usage {
        prompt_tokens: number(usage.get("prompt_tokens"))?,
        completion_tokens: number(usage.get("completion_tokens")).unwrap_or(0),
        cached_tokens: number(usage.pointer("/prompt_tokens_details/cached_tokens")).unwrap_or(0),
    })
}

/// Both of OpenAI's forms, told apart by what is there.
fn read_logprobs(logprobs: &Value) -> Vec<TokenLogprob> {
    if let Some(content) = logprobs.get("content").and_then(Value::as_array) {
        let token = |token: &Value| TokenLogprob {
            token: read_token(token),
            top: token.get("top_logprobs").and_then(Value::as_array).into_iter().flatten().map(read_token).collect(),
        };
        return content.iter().map(token).collect();
    }
    let list = |name: &str| logprobs.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (tokens, own, tops) = (list("tokens"), list("token_logprobs"), list("top_logprobs"));
    let named = |token: &str, logprob: Option<&Value>| TopLogprob {
        bytes: token.as_bytes().to_vec(),
        logprob: logprob.and_then(Value::as_f64).map_or(f32::NEG_INFINITY, |logprob| logprob as f32),
    };
    let one = |(index, token): (usize, &Value)| {
        let mut top: Vec<TopLogprob> = match tops.get(index) {
            Some(Value::Object(top)) => top.iter().map(|(token, logprob)| named(token, Some(logprob))).collect(),
            _ => Vec::new(),
        };
        top.sort_by(|one, other| other.logprob.total_cmp(&one.logprob));
        TokenLogprob { token: named(token.as_str().unwrap_or_default(), own.get(index)), top }
    };
    tokens.iter().enumerate().map(one).collect()
}

fn read_token(token: &Value) -> TopLogprob {
    let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = token.get("bytes").and_then(Value::as_array).and_then(|bytes| bytes.iter().map(byte).collect());
    let text = token.get("token").and_then(Value::as_str).unwrap_or_default();
    TopLogprob {
        bytes: bytes.unwrap_or_else(|| text.as_bytes().to_vec()),
        logprob: token.get("logprob").and_then(Value::as_f64).map_or(f32::NEG_INFINITY, |logprob| logprob as f32),
    }
}

/// A worker's text, for the log.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 500;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
