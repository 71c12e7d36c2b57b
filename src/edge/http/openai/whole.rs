//! An answer that is sent in one piece: the events of a generation, gathered.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::extra::{add_delta, add_fields};
use super::finding::FindingBody;
use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::{Form, Identity, UsageBody, write};
use crate::edge::http::Api;
use crate::types::{Delta, Event, Finding, FinishReason, TokenLogprob, Usage};

pub(in crate::edge::http) struct Answer {
    form: Form,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    /// What the guard found, with the choices.
    findings: Vec<(u32, Vec<Finding>)>,
    /// Of the answer itself, beyond what we say.
    more: Map<String, Value>,
}

#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Vec<TokenLogprob>,
    finish_reason: Option<FinishReason>,
    /// Of the choice and of its message, beyond what we say.
    more: Map<String, Value>,
    message: Map<String, Value>,
}

#[derive(Serialize)]
struct Completion<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<C>,
    usage: Option<UsageBody>,
    system_fingerprint: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guard: Vec<FindingBody<'a>>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: usize,
    message: ChatMessage<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct ChatMessage<'a> {
    role: &'static str,
    /// Null where the answer is tool calls alone.
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<()>>,
    annotations: [(); 0],
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: usize,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

// === impl Answer ===

impl Answer {
    pub(in crate::edge::http) fn new(form: Form) -> Self {
        let choices = (0..form.choices).map(|_| Choice::default()).collect();
        Self { form, choices, usage: None, findings: Vec::new(), more: Map::new() }
    }

    pub(in crate::edge::http) fn add(&mut self, event: Event) {
        match event {
            Event::Delta(Delta { choice, text, mut logprobs, extra, findings, .. }) => {
                if !findings.is_empty() {
                    self.findings.push((choice, findings));
                }
                // A choice that was not asked for cannot be told to a client.
                let Some(choice) = self.choices.get_mut(choice as usize) else { return };
                choice.text.push_str(&text);
                choice.logprobs.append(&mut logprobs);
                if let Some(extra) = extra {
                    add_delta(&mut choice.message, extra.delta);
                    add_fields(&mut choice.more, extra.choice);
                    add_fields(&mut self.more, extra.chunk);
                }
            }
            Event::Finished { choice, reason } => {
                let Some(choice) = self.choices.get_mut(choice as usize) else { return };
                choice.finish_reason = Some(reason);
            }
            Event::Usage(usage) => self.usage = Some(usage),
        }
    }

    pub(in crate::edge::http) fn encode(&self, identity: &Identity) -> Bytes {
        match self.form.api {
            Api::Chat => self.encode_as("chat.completion", identity, |index, choice| self.chat_choice(index, choice)),
            Api::Completions => {
                self.encode_as("text_completion", identity, |index, choice| self.text_choice(index, choice))
            }
        }
    }

    fn encode_as<'a, C: Serialize>(
        &'a self,
        object: &'static str,
        identity: &Identity,
        choice: impl Fn(usize, &'a Choice) -> C,
    ) -> Bytes {
        let completion = Completion {
            id: &identity.id.to_string(),
            object,
            created: identity.created,
            model: &identity.model,
            choices: self.choices.iter().enumerate().map(|(index, it)| choice(index, it)).collect(),
            usage: self.usage.map(UsageBody::from),
            system_fingerprint: None,
            guard: self.findings.iter().flat_map(|(choice, all)| FindingBody::all(*choice, all)).collect(),
            more: &self.more,
        };
        let mut body = Vec::new();
        write(&mut body, &completion);
        body.into()
    }

    fn chat_choice<'a>(&self, index: usize, choice: &'a Choice) -> ChatChoice<'a> {
        let message = ChatMessage {
            role: "assistant",
            content: (!choice.text.is_empty() || choice.message.is_empty()).then_some(&choice.text),
            refusal: (!choice.message.contains_key("refusal")).then_some(None),
            annotations: [],
            more: &choice.message,
        };
        ChatChoice {
            index,
            message,
            logprobs: self.form.logprobs.map(|_| ChatLogprobs::new(&choice.logprobs)),
            finish_reason: choice.finish_reason.map(FinishReason::as_str),
            more: &choice.more,
        }
    }

    fn text_choice<'a>(&self, index: usize, choice: &'a Choice) -> TextChoice<'a> {
        TextChoice {
            text: &choice.text,
            index,
            logprobs: self.form.logprobs.map(|top| CompletionLogprobs::new(&choice.logprobs, top, &mut 0)),
            finish_reason: choice.finish_reason.map(FinishReason::as_str),
            more: &choice.more,
        }
    }
}
