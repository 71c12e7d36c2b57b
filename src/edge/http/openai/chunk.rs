//! A stream's frames: one event, one `data:` line, serialised once into the
//! buffer that is sent. What all frames of a generation share is written once
//! and copied.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::finding::FindingBody;
use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::{Form, Identity, UsageBody, write};
use crate::edge::http::Api;
use crate::types::{Delta, Event, Extra, Finding, TokenLogprob, Usage};

pub(in crate::edge::http) struct ChunkEncoder {
    form: Form,
    include_usage: bool,
    /// Everything up to the choices.
    head: Vec<u8>,
    choices: Vec<Progress>,
}

/// What was sent of one choice.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: bool,
    /// Characters of the tokens whose log-probabilities were sent.
    offset: u32,
}

#[derive(Serialize)]
struct ChunkHead<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: Option<()>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: u32,
    delta: ChatDelta<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(flatten)]
    more: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct ChatDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(flatten)]
    more: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct CompletionChoice<'a> {
    text: &'a str,
    index: u32,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(flatten)]
    more: Option<&'a Map<String, Value>>,
}

/// What one frame says about its choice.
struct Step<'a> {
    index: u32,
    text: &'a str,
    logprobs: &'a [TokenLogprob],
    finish_reason: Option<&'static str>,
    extra: Option<&'a Extra>,
    findings: &'a [Finding],
}

// === impl Step ===

impl Step<'_> {
    fn says_nothing(&self) -> bool {
        self.text.is_empty()
            && self.logprobs.is_empty()
            && self.finish_reason.is_none()
            && self.extra.is_none()
            && self.findings.is_empty()
    }
}

// === impl ChunkEncoder ===

impl ChunkEncoder {
    pub(in crate::edge::http) fn new(form: Form, identity: &Identity, include_usage: bool) -> Self {
        let head = ChunkHead {
            id: &identity.id.to_string(),
            object: match form.api {
                Api::Chat => "chat.completion.chunk",
                Api::Completions => "text_completion",
            },
            created: identity.created,
            model: &identity.model,
            system_fingerprint: None,
        };
        let mut text = b"data: ".to_vec();
        write(&mut text, &head);
        assert_eq!(text.pop(), Some(b'}'), "an object ends with a brace");
        text.extend_from_slice(b",\"choices\":[");
        text.shrink_to_fit();
        Self { form, include_usage, head: text, choices: vec![Progress::default(); form.choices as usize] }
    }

    /// The frame for an event; `None` where the client has nothing to learn from it.
    pub(in crate::edge::http) fn event(&mut self, event: &Event) -> Option<Bytes> {
        match event {
            Event::Delta(Delta { choice, text, logprobs, extra, findings, .. }) => {
                let extra = extra.as_deref();
                self.step(&Step { index: *choice, text, logprobs, finish_reason: None, extra, findings })
            }
            Event::Finished { choice, reason } => {
                let finish_reason = Some(reason.as_str());
                self.step(&Step { index: *choice, text: "", logprobs: &[], finish_reason, extra: None, findings: &[] })
            }
            Event::Usage(usage) => self.include_usage.then(|| self.usage(*usage)),
        }
    }

    fn step(&mut self, step: &Step<'_>) -> Option<Bytes> {
        // A choice that was not asked for cannot be told to a client.
        let mut progress = *self.choices.get(step.index as usize)?;
        // The first frame goes out even without text: it says that the answer has begun.
        if progress.begun && step.says_nothing() {
            return None;
        }
        let mut frame = self.frame(192 + step.text.len());
        match self.form.api {
            Api::Chat => write(&mut frame, &self.chat_choice(step, progress)),
            Api::Completions => write(&mut frame, &self.completion_choice(step, &mut progress)),
        }
        progress.begun = true;
        self.choices[step.index as usize] = progress;
        frame.extend_from_slice(if self.include_usage { b"],\"usage\":null" } else { b"]" });
        for (name, value) in step.extra.iter().flat_map(|extra| &extra.chunk) {
            frame.push(b',');
            write(&mut frame, name);
            frame.push(b':');
            write(&mut frame, value);
        }
        if !step.findings.is_empty() {
            frame.extend_from_slice(b",\"guard\":");
            write(&mut frame, &FindingBody::all(step.index, step.findings));
        }
        frame.extend_from_slice(b"}\n\n");
        Some(frame.into())
    }

    fn chat_choice<'a>(&self, step: &Step<'a>, progress: Progress) -> ChatChoice<'a> {
        let first = !progress.begun;
        let more = step.extra.map(|extra| &extra.delta).filter(|more| !more.is_empty());
        // A tool call's frames have no content, nor has the last frame.
        let silent = step.text.is_empty() && (step.finish_reason.is_some() || more.is_some());
        ChatChoice {
            index: step.index,
            delta: ChatDelta {
                role: first.then_some("assistant"),
                content: (first || !silent).then_some(step.text),
                more,
            },
            logprobs: self.wants_logprobs(step).then(|| ChatLogprobs::new(step.logprobs)),
            finish_reason: step.finish_reason,
            more: step.extra.map(|extra| &extra.choice),
        }
    }

    fn completion_choice<'a>(&self, step: &Step<'a>, progress: &mut Progress) -> CompletionChoice<'a> {
        let top = self.form.logprobs.unwrap_or(0);
        CompletionChoice {
            text: step.text,
            index: step.index,
            logprobs: self
                .wants_logprobs(step)
                .then(|| CompletionLogprobs::new(step.logprobs, top, &mut progress.offset)),
            finish_reason: step.finish_reason,
            more: step.extra.map(|extra| &extra.choice),
        }
    }

    fn wants_logprobs(&self, step: &Step<'_>) -> bool {
        self.form.logprobs.is_some() && !step.logprobs.is_empty()
    }

    fn usage(&self, usage: Usage) -> Bytes {
        let mut frame = self.frame(320);
        frame.extend_from_slice(b"],\"usage\":");
        write(&mut frame, &UsageBody::from(usage));
        frame.extend_from_slice(b"}\n\n");
        frame.into()
    }

    /// The beginning of a frame, with room for `more` bytes.
    fn frame(&self, more: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.head.len() + more);
        frame.extend_from_slice(&self.head);
        frame
    }
}
