//! One choice of an answer: its events in order, held until their texts are judged.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use tenantry_guard::Linear;
use tokio::time::Instant;

use super::fields;
use super::text::Text;
use crate::types::{Delta, Event, Extra, Finding, FinishReason, TokenLogprob};

/// The channel that a choice's own text is.
pub(super) const CONTENT: &str = "content";
/// What the tokens spell whose log-probabilities are told: they may run ahead of the text.
pub(super) const TOKENS: &str = "logprobs";
/// Texts that one choice may have: so many tool calls nobody means.
const MOST_CHANNELS: usize = 256;
/// Findings that a client is told of one choice.
const MOST_FINDINGS: usize = 16;

pub(super) struct Choice {
    number: u32,
    model: Linear,
    /// The choice's own text, and those of the fields that the worker adds.
    texts: BTreeMap<Arc<str>, Text>,
    content: Arc<str>,
    held: VecDeque<Held>,
    /// What the client is told with the end.
    findings: Vec<Finding>,
    state: State,
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
    /// What of each channel it is, in the order of its fields.
    parts: Vec<(Arc<str>, Range<usize>)>,
    /// Something was taken out of it: what spells it as well has to go.
    tainted: bool,
}

/// What may be sent next.
pub(super) struct Released {
    pub event: Event,
    /// When it came, for events with a text.
    pub arrived: Option<Instant>,
}

/// What became of an event that was pushed.
pub(super) struct Pushed {
    /// The channels that it is a part of.
    pub grown: Vec<Arc<str>>,
    /// Those that gave way to them.
    pub paused: Vec<Arc<str>>,
    /// It has more texts than an answer may have.
    pub too_many: bool,
}

// === impl Choice ===

impl Choice {
    pub(super) fn new(number: u32, model: Linear, findings: Vec<Finding>) -> Self {
        let content: Arc<str> = CONTENT.into();
        let texts = [(content.clone(), Text::new(model, false, true))].into();
        Self { number, model, texts, content, held: VecDeque::new(), findings, state: State::Open }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The next event of the worker's. Where nobody looks at it, it has no texts.
    pub(super) fn push(&mut self, mut delta: Delta, arrived: Instant, looked_at: bool) -> Pushed {
        let mut parts = Vec::new();
        let mut pushed = Pushed { grown: Vec::new(), paused: Vec::new(), too_many: false };
        if looked_at {
            if !delta.text.is_empty() {
                parts.push(self.grow(&self.content.clone(), &delta.text));
            }
            if !delta.logprobs.is_empty() {
                parts.push(self.grow(&TOKENS.into(), &spelled(&delta.logprobs)));
            }
            if let Some(extra) = &mut delta.extra {
                without_tokens(extra);
                fields::visit(&mut extra.delta, &mut |path, text| parts.push(self.grow(&path.into(), text)));
            }
            pushed.grown = parts.iter().map(|(channel, _)| channel.clone()).collect();
            pushed.too_many = self.texts.len() > MOST_CHANNELS;
        }
        if self.texts.len() > 1 && !pushed.grown.is_empty() {
            let others = self.texts.iter_mut().filter(|(channel, _)| !pushed.grown.contains(channel));
            pushed.paused = others.filter_map(|(channel, text)| text.pause().then(|| channel.clone())).collect();
        }
        self.held.push_back(Held { delta, arrived, parts, tainted: false });
        pushed
    }

    fn grow(&mut self, channel: &Arc<str>, more: &str) -> (Arc<str>, Range<usize>) {
        let json = channel.ends_with(fields::JSON);
        // A tool call has its name and arguments one after the other.
        let comes_back = !channel.contains('[');
        let text = self.texts.entry(channel.clone()).or_insert_with(|| Text::new(self.model, json, comes_back));
        let start = text.len();
        text.push(more);
        (channel.clone(), start..text.len())
    }

    pub(super) fn text(&mut self, channel: &str) -> Option<&mut Text> {
        self.texts.get_mut(channel)
    }

    pub(super) fn channels(&self) -> Vec<Arc<str>> {
        self.texts.keys().cloned().collect()
    }

    pub(super) fn end(&mut self, reason: FinishReason) {
        if self.state == State::Open {
            self.state = State::Ended(reason);
        }
    }

    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// To be told with the end. Not all of very many are.
    pub(super) fn note(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
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
        if let Some(front) = self.held.front() {
            let cleared = |(channel, range): &(Arc<str>, Range<usize>)| self.texts[channel].cleared() >= range.end;
            if front.parts.iter().all(cleared) {
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
        self.release_end()
    }

    /// All that waits, judged or not: for who sends at once. The end waits for what is
    /// still asked.
    pub(super) fn release_all(&mut self) -> Option<Released> {
        if self.state == State::Stopped {
            self.held.clear();
        }
        if let Some(Held { delta, arrived, parts, .. }) = self.held.pop_front() {
            for (channel, range) in &parts {
                self.texts.get_mut(channel).expect("made with the event").send(range.end);
            }
            let arrived = (!parts.is_empty()).then_some(arrived);
            return Some(Released { event: Event::Delta(delta), arrived });
        }
        let decided = self.state == State::Stopped || !self.texts.values().any(Text::is_asked);
        if decided { self.release_end() } else { None }
    }

    fn release_end(&mut self) -> Option<Released> {
        let choice = self.number;
        let reason = match self.state {
            State::Open | State::Over => return None,
            State::Ended(reason) => reason,
            State::Stopped => FinishReason::ContentFilter,
        };
        if !self.findings.is_empty() {
            let findings = std::mem::take(&mut self.findings);
            let delta = Delta { choice, findings, ..Delta::default() };
            return Some(Released { event: Event::Delta(delta), arrived: None });
        }
        self.state = State::Over;
        Some(Released { event: Event::Finished { choice, reason }, arrived: None })
    }

    fn whole(&mut self, held: Held) -> Released {
        let Held { mut delta, arrived, parts, mut tainted } = held;
        let arrived = (!parts.is_empty()).then_some(arrived);
        let mut rendered: VecDeque<Option<String>> = VecDeque::new();
        for (channel, range) in &parts {
            let text = self.texts.get_mut(channel).expect("made with the event");
            let rest = text.sent().max(range.start)..range.end;
            let begun = rest.start > range.start;
            text.send(range.end);
            // As it came: what needs no change is not copied.
            let changed = match text.render(rest) {
                Cow::Borrowed(rest) => begun.then(|| rest.to_owned()),
                Cow::Owned(rest) => {
                    tainted = true;
                    Some(rest)
                }
            };
            if *channel == self.content {
                if let Some(changed) = changed {
                    delta.text = changed;
                }
            } else if **channel != *TOKENS {
                rendered.push_back(changed);
            }
        }
        if let Some(extra) = &mut delta.extra {
            fields::visit(&mut extra.delta, &mut |_, text| {
                if let Some(Some(changed)) = rendered.pop_front() {
                    *text = changed;
                }
            });
        }
        if tainted {
            // They spell what was taken out.
            delta.logprobs.clear();
        }
        Released { event: Event::Delta(delta), arrived }
    }

    /// What is cleared of the event that comes next, where that is not all of it.
    fn part(&mut self) -> Option<Released> {
        let front = self.held.front_mut()?;
        let [(channel, range)] = front.parts.as_slice() else { return None };
        if *channel != self.content {
            return None;
        }
        let text = self.texts.get_mut(channel).expect("made with the choice");
        let (from, cleared) = (text.sent().max(range.start), text.cleared());
        if cleared <= from {
            return None;
        }
        let said = text.render(from..cleared);
        // The space before a word goes with the word, unless nothing follows it.
        if self.state != State::Stopped && said.trim().is_empty() {
            return None;
        }
        front.tainted |= matches!(said, Cow::Owned(_));
        let delta = Delta { choice: self.number, text: said.into_owned(), ..Delta::default() };
        text.send(cleared);
        Some(Released { event: Event::Delta(delta), arrived: Some(front.arrived) })
    }
}

/// What tokens spell, one after the other.
fn spelled(logprobs: &[TokenLogprob]) -> String {
    let bytes: Vec<u8> = logprobs.iter().flat_map(|logprob| &logprob.token.bytes).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Leaves out of what a worker adds to choices and chunks what may spell the answer
/// in another way (token ids, prompts, …): nobody reads it here.
fn without_tokens(extra: &mut Extra) {
    for fields in [&mut extra.choice, &mut extra.chunk] {
        fields.retain(|_, value| !matches!(value, Value::Array(_) | Value::Object(_)));
    }
}
