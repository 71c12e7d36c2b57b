//! One text of an answer, judged as it grows.
//!
//! The text is read in pieces that are cut where it says itself ([`next_cut`]),
//! never where a chunk of the worker's happened to end; so whatever the chunks, the
//! same is judged together and the same is found. After each piece stage 1 looks at
//! the last words. What is no more in doubt is let go of at once; what is waits for
//! the words that decide it: to the end of the sentence, for a window of words, or
//! for as long as a reader may be made to wait. Then a [`Question`] is asked.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use tenantry_guard::{Linear, Normalised, Tail, next_cut};

use super::super::escapes::Readable;

use super::super::judge::{Hits, Opinion, Question};
use super::super::policy::{Found, Rules};
use crate::types::{Action, Stage};

/// Bytes before a doubtful part that it is judged with.
const CONTEXT: usize = 240;
/// Bytes that may wait for words that decide.
const MOST: usize = 384;
/// Bytes before an open entry of a list that are looked through again, for the word
/// before it.
const LISTED: usize = 64;
/// Bytes of a word that was cut through that wait for its end.
const WORD: usize = 128;
/// What stands for a span that was taken out.
const REDACTED: &str = "[redacted]";

pub(super) struct Text {
    /// The text from the byte `start` on.
    kept: String,
    /// The same with its JSON escapes read, byte for byte as long, where it is JSON.
    readable: Option<Readable>,
    start: usize,
    tail: Tail,
    /// Up to here it was read.
    cut: usize,
    /// Ends of the last pieces.
    ends: VecDeque<usize>,
    /// Up to here the models have nothing against it.
    judged: usize,
    /// From here on an entry of a list may still match.
    listed: usize,
    /// Words since `judged`, and what stage 1 said of them, last and at worst.
    words: usize,
    last: f32,
    peak: f32,
    /// A sentence has ended since `judged`.
    sentence: bool,
    /// Up to here it was sent.
    sent: usize,
    /// Another text has taken over: nothing is waited for until this one goes on.
    paused: bool,
    /// It may go on in the middle of a word that another text has cut through: such a
    /// word waits for that.
    comes_back: bool,
    /// It has waited for long enough.
    late: bool,
    /// A question is asked of what stands between `judged` and `cut`.
    asked: Option<usize>,
    /// Spans to be taken out that are not sent yet, in order and apart.
    redactions: VecDeque<Range<usize>>,
    /// What lists took out, to be told.
    told: Vec<(Found, Range<usize>)>,
}

/// What a text needs before it can be read on.
pub(super) enum Step {
    Ask(Question),
    /// A list's entry stops it.
    Stop(Found, Range<usize>),
}

// === impl Text ===

impl Text {
    /// `json`: the text is JSON, whose strings are what is read. `comes_back`: others may
    /// come between its parts.
    pub(super) fn new(model: Linear, json: bool, comes_back: bool) -> Self {
        Self {
            kept: String::new(),
            readable: json.then(Readable::default),
            start: 0,
            tail: Tail::new(model),
            cut: 0,
            ends: VecDeque::new(),
            judged: 0,
            listed: 0,
            words: 0,
            last: 0.0,
            peak: 0.0,
            sentence: false,
            sent: 0,
            paused: false,
            comes_back,
            late: false,
            asked: None,
            redactions: VecDeque::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.forget_sent();
        self.paused = false;
        self.late = false;
        self.kept.push_str(text);
        if let Some(readable) = &mut self.readable {
            readable.push(text);
        }
    }

    /// Another text has taken over; whether that is news.
    pub(super) fn pause(&mut self) -> bool {
        !std::mem::replace(&mut self.paused, true)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.start + self.kept.len()
    }

    /// Up to here it may be sent.
    pub(super) fn cleared(&self) -> usize {
        self.judged.min(self.listed)
    }

    /// Up to here it was sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn send(&mut self, end: usize) {
        self.sent = end;
    }

    /// Bytes that wait.
    pub(super) fn held(&self) -> usize {
        self.len() - self.sent
    }

    /// Reads what there is, up to the next step; `ends`: no text follows.
    pub(super) fn advance(&mut self, rules: &Rules, ends: bool) -> Option<Step> {
        let ends = ends || self.paused && !self.is_cut_through();
        if ends && let Some(readable) = &mut self.readable {
            readable.finish();
        }
        while self.asked.is_none() {
            let next = match next_cut(self.read(), self.cut - self.start) {
                Some(cut) => self.start + cut,
                None if ends && self.cut < self.len() => self.len(),
                None => break,
            };
            self.read_to(next);
            let last = ends && next == self.len();
            if let Some(step) = self.look_up(rules, last).or_else(|| self.decide(rules, last)) {
                return Some(step);
            }
        }
        if ends && self.asked.is_none() && self.cut == self.len() && self.cleared() < self.cut {
            // It ended after it was read.
            return self.look_up(rules, true).or_else(|| self.decide(rules, true));
        }
        None
    }

    /// It has waited for long enough: what was read of it is judged now.
    pub(super) fn expire(&mut self) -> Option<Step> {
        (self.asked.is_none() && self.judged < self.cut).then(|| self.ask())
    }

    /// Whether a word that waited for its end has now waited for long enough, and is
    /// read as it is.
    pub(super) fn is_late(&mut self) -> bool {
        let waits = self.paused && self.asked.is_none() && self.is_cut_through();
        self.late |= waits;
        waits
    }

    /// Another text came in the middle of a word.
    fn is_cut_through(&self) -> bool {
        self.comes_back && !self.late && self.cut < self.len() && unfinished(self.read()) < self.read().len()
    }

    /// The answer to the question; gives what was found, and where.
    pub(super) fn answer(&mut self, opinion: Opinion) -> Option<(Found, Vec<Range<usize>>)> {
        let from = self.asked.take()?;
        let Opinion { found, spans } = opinion;
        let spans: Vec<Range<usize>> = spans
            .into_iter()
            .map(|span| (from + span.start).max(self.judged)..from + span.end)
            .filter(|span| !span.is_empty())
            .collect();
        match &found {
            Some(Found { action: Action::Block, .. }) => return found.map(|found| (found, spans)),
            Some(Found { action: Action::Redact, .. }) => {
                for span in &spans {
                    self.redact(span.clone());
                }
            }
            Some(Found { action: Action::Flag, .. }) | None => {}
        }
        // It was judged with all that came before, and does not count again.
        self.tail.forget();
        self.clear();
        found.map(|found| (found, spans))
    }

    /// What lists took out since it was asked last.
    pub(super) fn told(&mut self) -> std::vec::Drain<'_, (Found, Range<usize>)> {
        self.told.drain(..)
    }

    /// A part of the text as it may be sent.
    pub(super) fn render(&mut self, range: Range<usize>) -> Cow<'_, str> {
        while self.redactions.front().is_some_and(|redaction| redaction.end <= range.start) {
            self.redactions.pop_front();
        }
        let plain = &self.kept[range.start - self.start..range.end - self.start];
        if self.redactions.front().is_none_or(|redaction| redaction.start >= range.end) {
            return Cow::Borrowed(plain);
        }
        let mut rendered = String::with_capacity(plain.len());
        let mut at = range.start;
        for redaction in self.redactions.iter().take_while(|redaction| redaction.start < range.end) {
            if redaction.start >= range.start {
                rendered.push_str(&self.kept[at - self.start..redaction.start - self.start]);
                rendered.push_str(REDACTED);
            }
            at = redaction.end.min(range.end);
        }
        rendered.push_str(&self.kept[at - self.start..range.end - self.start]);
        Cow::Owned(rendered)
    }

    /// What is read of the text, from `start` on.
    fn read(&self) -> &str {
        self.readable.as_ref().map_or(&self.kept, Readable::text)
    }

    fn read_to(&mut self, next: usize) {
        let piece = &self.read()[self.cut - self.start..next - self.start];
        let (piece, sentence) = (Normalised::of(piece), has_sentence_end(piece));
        let read = self.tail.push(&piece);
        if read.words > 0 {
            self.last = read.worst;
        }
        self.words += read.words;
        self.peak = self.peak.max(read.worst);
        self.sentence |= sentence;
        self.cut = next;
        self.ends.push_back(next);
    }

    /// What the lists say, as far as no entry is open.
    fn look_up(&mut self, rules: &Rules, last: bool) -> Option<Step> {
        if rules.lists.is_empty() {
            self.listed = self.cut;
            return None;
        }
        let from = self.piece_at(self.listed.saturating_sub(LISTED));
        let text = &self.read()[from - self.start..self.cut - self.start];
        let normalised = Normalised::of(text);
        let open = if last { self.cut } else { from + rules.lists.open(text, &normalised).min(unfinished(text)) };
        let before = self.listed;
        let Hits { worst, redact } = Hits::of(&rules.lists, text, &normalised, before - from);
        self.listed = open.max(before);
        // What begins later may be a part of what an entry allows.
        let settled = |span: &Range<usize>| last || from + span.start < open;
        if let Some((action, span, category)) = worst.filter(|(_, span, _)| settled(span)) {
            let found = Found { action, stage: Stage::Lists, category, score: 1.0 };
            self.listed = before;
            return Some(Step::Stop(found, from + span.start..from + span.end));
        }
        for (span, category) in redact.into_iter().filter(|(span, _)| settled(span)) {
            let span = (from + span.start).max(before)..from + span.end;
            if self.redact(span.clone()) {
                let found = Found { action: Action::Redact, stage: Stage::Lists, category, score: 1.0 };
                self.told.push((found, span));
            }
        }
        None
    }

    /// Whether what was read is in no doubt, or whom to ask.
    fn decide(&mut self, rules: &Rules, last: bool) -> Option<Step> {
        let asks_always = rules.judge.is_some();
        let least = rules.least();
        // Nothing is looked for where nothing could count.
        let doubtful = if least.is_finite() { Linear::DOUBTFUL.min(least) } else { least };
        if self.last < doubtful && self.peak < least.min(Linear::THRESHOLD.max(doubtful)) && !asks_always {
            self.clear();
            return None;
        }
        let decisive = last || self.sentence || self.words >= Linear::WINDOW || self.cut - self.judged >= MOST;
        if !decisive || self.judged == self.cut {
            return None;
        }
        if self.peak < doubtful && !asks_always {
            self.clear();
            return None;
        }
        Some(self.ask())
    }

    fn ask(&mut self) -> Step {
        let from = self.piece_at(self.judged.saturating_sub(CONTEXT));
        self.asked = Some(from);
        let text = self.read()[from - self.start..self.cut - self.start].to_owned();
        Step::Ask(Question { text, from: self.judged - from })
    }

    fn clear(&mut self) {
        self.judged = self.cut;
        self.words = 0;
        self.peak = 0.0;
        self.last = 0.0;
        self.sentence = false;
    }

    /// Takes a span out; whether it was not out already.
    fn redact(&mut self, span: Range<usize>) -> bool {
        let mut span = span;
        let covers = |redaction: &Range<usize>| redaction.start <= span.start && span.end <= redaction.end;
        // A new one is mostly behind all others.
        if span.is_empty() || self.redactions.iter().rev().any(covers) {
            return false;
        }
        if self.redactions.back().is_none_or(|last| last.end < span.start) {
            self.redactions.push_back(span);
            return true;
        }
        let (mut before, mut after) = (VecDeque::new(), VecDeque::new());
        for redaction in self.redactions.drain(..) {
            if redaction.end < span.start {
                before.push_back(redaction);
            } else if redaction.start > span.end {
                after.push_back(redaction);
            } else {
                span = redaction.start.min(span.start)..redaction.end.max(span.end);
            }
        }
        before.push_back(span);
        before.append(&mut after);
        self.redactions = before;
        true
    }

    /// Where the piece begins that a place is in, or what is kept from.
    fn piece_at(&self, at: usize) -> usize {
        self.ends.iter().rev().copied().find(|end| *end <= at).unwrap_or(self.start)
    }

    /// Lets go of text that is neither to be sent nor context any more.
    fn forget_sent(&mut self) {
        const SPARE: usize = 2048;
        if self.kept.len() < SPARE {
            return;
        }
        let needed = self.cleared().min(self.sent).saturating_sub(CONTEXT.max(LISTED) + MOST);
        while self.ends.front().is_some_and(|end| *end < needed) {
            let end = self.ends.pop_front().unwrap_or(self.start);
            if self.ends.front().is_none_or(|next| *next >= needed) {
                self.kept.drain(..end - self.start);
                if let Some(readable) = &mut self.readable {
                    readable.forget(end - self.start);
                }
                self.start = end;
            }
        }
    }
}

/// Where the word begins that a text ends in the middle of; its length where it does not.
fn unfinished(text: &str) -> usize {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80;
    let run = text.bytes().rev().take(WORD).take_while(is_word).count();
    text.floor_char_boundary(text.len() - run)
}

/// Whether a sentence or a line ends within a piece.
fn has_sentence_end(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    let ends = |(at, byte): (usize, &u8)| match byte {
        b'\n' => true,
        b'.' | b'!' | b'?' => bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace),
        _ => false,
    };
    bytes.iter().enumerate().any(ends)
}
