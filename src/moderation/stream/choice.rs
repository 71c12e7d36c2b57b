//! One choice of an answer: its events in order, held until their texts are judged.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value};
use tenantry_guard::Linear;
use tokio::time::Instant;

use super::text::Text;
use crate::types::{Delta, Event, Extra, Finding, FinishReason};

/// The channel that a choice's own text is.
pub(super) const CONTENT: &str = "content";
/// Fields of a delta that name things and say nothing.
const NAMES: [&str; 5] = ["id", "index", "name", "role", "type"];

pub(super) struct Choice {
    number: u32,
    model: Linear,
    /// The choice's own text, and those of the fields that the worker adds.
    pub texts: BTreeMap<Arc<str>, Text>,
    content: Arc<str>,
    held: VecDeque<Held>,
    /// Bytes of its own text that were sent.
    sent: usize,
    /// What the client is told with the end.
    pub findings: Vec<Finding>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// The worker has ended it.
    Ended(FinishReason),
    /// It is sent up to what is cleared, and no more.
    Stopped,
    /// Its end was sent.
    Over,
}

struct Held {
    delta: Delta,
    arrived: Instant,
    /// Where each channel that it is a part of ends with it.
    ends: Vec<(Arc<str>, usize)>,
}

/// What may be sent next.
pub(super) struct Released {
    pub event: Event,
    /// When it came, for events with a text.
    pub arrived: Option<Instant>,
}

// === impl Choice ===

impl Choice {
    pub(super) fn new(number: u32, model: Linear) -> Self {
        let content: Arc<str> = CONTENT.into();
        let texts = [(content.clone(), Text::new(model))].into();
        Self { number, model, texts, content, held: VecDeque::new(), sent: 0, findings: Vec::new(), state: State::Open }
    }

    /// The next event of the worker's, and the channels that it is a part of.
    pub(super) fn push(&mut self, delta: Delta, arrived: Instant) -> Vec<Arc<str>> {
        let mut ends = Vec::new();
        if !delta.text.is_empty() {
            let text = self.texts.get_mut(&self.content).expect("made with the choice");
            text.push(&delta.text);
            ends.push((self.content.clone(), text.len()));
        }
        for (channel, said) in delta.extra.iter().flat_map(|extra| texts(extra)) {
            let text = self.texts.entry(channel.as_str().into()).or_insert_with(|| Text::new(self.model));
            text.push(said);
            ends.push((channel.into(), text.len()));
        }
        let channels = ends.iter().map(|(channel, _)| channel.clone()).collect();
        self.held.push_back(Held { delta, arrived, ends });
        channels
    }

    pub(super) fn end(&mut self, reason: FinishReason) {
        if self.state == State::Open {
            self.state = State::Ended(reason);
        }
    }

    /// Since when its oldest text has waited.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.held.front().map(|held| held.arrived)
    }

    /// Whether something of it is still to be sent.
    pub(super) fn waits(&self) -> bool {
        !self.held.is_empty() || matches!(self.state, State::Ended(_) | State::Stopped)
    }

    /// Bytes that wait, of all channels.
    pub(super) fn held_bytes(&self) -> usize {
        self.texts.values().map(Text::held).sum()
    }

    /// The next event that may be sent.
    pub(super) fn release(&mut self) -> Option<Released> {
        if self.state == State::Over {
            return None;
        }
        if let Some(front) = self.held.front() {
            let cleared = |(channel, end): &(Arc<str>, usize)| self.texts[channel].cleared() >= *end;
            if front.ends.iter().all(cleared) {
                return self.held.pop_front().map(|held| self.whole(held));
            }
            if let Some(part) = self.part() {
                return Some(part);
            }
            if self.state != State::Stopped {
                return None;
            }
            self.held.clear();
        }
        let reason = match self.state {
            State::Open | State::Over => return None,
            State::Ended(reason) => reason,
            State::Stopped => FinishReason::ContentFilter,
        };
        let choice = self.number;
        if !self.findings.is_empty() {
            let findings = std::mem::take(&mut self.findings);
            let delta = Delta { choice, findings, ..Delta::default() };
            return Some(Released { event: Event::Delta(delta), arrived: None });
        }
        self.state = State::Over;
        Some(Released { event: Event::Finished { choice, reason }, arrived: None })
    }

    /// All that waits, judged or not: for who sends at once.
    pub(super) fn release_all(&mut self) -> Option<Released> {
        match self.state {
            State::Open | State::Ended(_) if !self.held.is_empty() => {
                let held = self.held.pop_front()?;
                let arrived = (!held.delta.text.is_empty()).then_some(held.arrived);
                self.sent += held.delta.text.len();
                Some(Released { event: Event::Delta(held.delta), arrived })
            }
            State::Stopped => {
                self.held.clear();
                self.release()
            }
            _ => self.release(),
        }
    }

    fn whole(&mut self, held: Held) -> Released {
        let Held { mut delta, arrived, ends } = held;
        let arrived = (!ends.is_empty()).then_some(arrived);
        if let Some((_, end)) = ends.iter().find(|(channel, _)| *channel == self.content) {
            let range = self.sent..*end;
            let in_part = range.len() < delta.text.len();
            self.sent = *end;
            let text = self.texts.get_mut(&self.content).expect("made with the choice");
            match text.render(range) {
                // As it came: what needs no change is not copied.
                Cow::Borrowed(_) if !in_part => {}
                Cow::Borrowed(rest) => delta.text = rest.to_owned(),
                Cow::Owned(rest) => {
                    delta.text = rest;
                    // They spell what was taken out.
                    delta.logprobs.clear();
                }
            }
        }
        if let Some(extra) = &mut delta.extra {
            for (channel, end) in ends.iter().filter(|(channel, _)| *channel != self.content) {
                let text = self.texts.get_mut(channel).expect("made with the event");
                redact(extra, channel, |said| text.render(end - said.len()..*end).into_owned());
            }
        }
        Released { event: Event::Delta(delta), arrived }
    }

    /// What is cleared of the event that comes next, where that is not all of it.
    fn part(&mut self) -> Option<Released> {
        let front = self.held.front()?;
        let text = self.texts.get_mut(&self.content).expect("made with the choice");
        let cleared = text.cleared();
        if front.delta.extra.is_some() || cleared <= self.sent || front.ends.is_empty() {
            return None;
        }
        let arrived = Some(front.arrived);
        let said = text.render(self.sent..cleared).into_owned();
        self.sent = cleared;
        let delta = Delta { choice: self.number, text: said, ..Delta::default() };
        Some(Released { event: Event::Delta(delta), arrived })
    }
}

/// The texts of what a worker added to a delta, each with the channel that it
/// belongs to: a field's path, with the number of the tool call.
fn texts(extra: &Extra) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    walk(&extra.delta, "", &mut found);
    found
}

fn walk<'a>(fields: &'a Map<String, Value>, path: &str, found: &mut Vec<(String, &'a str)>) {
    for (name, value) in fields.iter().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::String(text) if !text.is_empty() => found.push((path, text)),
            Value::Object(fields) => walk(fields, &path, found),
            Value::Array(entries) => {
                for (at, entry) in entries.iter().enumerate() {
                    let number = entry.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
                    let path = format!("{path}[{number}]");
                    match entry {
                        Value::Object(fields) => walk(fields, &path, found),
                        Value::String(text) if !text.is_empty() => found.push((path, text)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Rewrites the text of one channel.
fn redact(extra: &mut Extra, channel: &str, rewrite: impl FnOnce(&str) -> String) {
    let mut rewrite = Some(rewrite);
    rewrite_in(&mut extra.delta, "", channel, &mut |text| {
        if let Some(rewrite) = rewrite.take() {
            *text = rewrite(text);
        }
    });
}

fn rewrite_in(fields: &mut Map<String, Value>, path: &str, channel: &str, rewrite: &mut dyn FnMut(&mut String)) {
    for (name, value) in fields.iter_mut() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !channel.starts_with(&path) {
            continue;
        }
        match value {
            Value::String(text) if path == channel => rewrite(text),
            Value::Object(fields) => rewrite_in(fields, &path, channel, rewrite),
            Value::Array(entries) => {
                for (at, entry) in entries.iter_mut().enumerate() {
                    let number = entry.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
                    let path = format!("{path}[{number}]");
                    match entry {
                        Value::Object(fields) => rewrite_in(fields, &path, channel, rewrite),
                        Value::String(text) if path == channel => rewrite(text),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn extra(delta: Value) -> Extra {
        let Value::Object(delta) = delta else { panic!("an object") };
        Extra { delta, ..Extra::default() }
    }

    #[test]
    fn every_text_of_an_extra_has_its_channel_and_names_have_none() {
        let extra = extra(json!({
            "reasoning_content": "so",
            "tool_calls": [
                { "index": 3, "id": "call_1", "type": "function", "function": { "name": "say", "arguments": "{\"a\"" } },
            ],
            "annotations": ["x", { "note": "y" }],
            "empty": "",
        }));
        let mut found = texts(&extra);
        found.sort();
        let expected = [
            ("annotations[0]", "x"),
            ("annotations[1].note", "y"),
            ("reasoning_content", "so"),
            ("tool_calls[3].function.arguments", "{\"a\""),
        ];
        assert_eq!(found.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_channel_is_rewritten_and_no_other() {
        let mut extra = extra(
            json!({ "tool_calls": [{ "function": { "arguments": "a" } }, { "function": { "arguments": "b" } }] }),
        );
        redact(&mut extra, "tool_calls[1].function.arguments", |text| format!("{text}!"));
        assert_eq!(extra.delta["tool_calls"][0]["function"]["arguments"], "a");
        assert_eq!(extra.delta["tool_calls"][1]["function"]["arguments"], "b!");
    }
}
