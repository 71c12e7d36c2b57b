//! One text judged: by the lists, by the first stage, where that is in doubt by
//! the second, and by whoever else the policy asks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tenantry_guard::{Action as Listed, Linear, Lists, Normalised, Score, Whole};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::debug;

use super::policy::{Busy, Found, Policy, Rules};
use super::stage2::Stage2;
use crate::telemetry::{GuardMetrics, Metrics};
use crate::types::{Action, Side, Stage};

/// Texts from this size on, in bytes, are read beside the runtime: they take over a
/// millisecond.
const LARGE: usize = 32 << 10;

/// Bytes of a text that a judge outside is given at one time.
const OUTSIDE: usize = 8 << 10;
/// Categories of OpenAI's moderations, and our own.
const CATEGORIES: [&str; 18] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "insult",
    "profanity",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "threat",
    "unsafe",
    "violence",
    "violence/graphic",
    "flagged",
];
/// Large texts that are read at one time, of all requests.
const READERS: usize = 2;

/// A judge outside of this room, who is asked by the policies that name it.
pub trait Outside: Send + Sync + 'static {
    /// `Ok(None)`: nothing is wrong with the text. An error is one of the judge's own
    /// that its settings let count as nothing found, or not.
    fn judge<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Sentence>, OutsideError>>;
}

/// What a judge outside found.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub category: Arc<str>,
    /// 0 to 1.
    pub score: f32,
}

/// It could not be asked, or did not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct OutsideError {
    pub reason: String,
    /// Whether a text that it did not judge is blocked.
    pub closed: bool,
}

/// Who judges.
pub(super) struct Judge {
    pub model: Linear,
    pub stage2: Option<Stage2>,
    pub outside: HashMap<Arc<str>, Arc<dyn Outside>>,
    pub metrics: Arc<Metrics>,
    /// One permit for each large text that is being read.
    pub readers: Arc<Semaphore>,
}

/// What is to be judged: `text` from the byte `from` on; before it stands context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub text: String,
    pub from: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Opinion {
    pub found: Option<Found>,
    /// The bytes of the question's text that carry it, in order and apart.
    pub spans: Vec<Range<usize>>,
}

/// How likely a text is toxic, by each who has looked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// By both stages together.
    pub toxic: f32,
    pub stage1: Score,
    pub stage2: Option<f32>,
}

/// Hits of a list, each a span of the text.
pub(super) struct Hits {
    pub worst: Option<(Action, Range<usize>, Arc<str>)>,
    pub redact: Vec<(Range<usize>, Arc<str>)>,
}

// === impl Policy ===

impl Policy {
    /// The rules of a side that is looked at.
    pub(super) fn rules(&self, side: Side) -> Option<&Rules> {
        match side {
            Side::Prompt => self.prompt.as_ref(),
            Side::Output => self.output.as_ref().map(|output| &output.rules),
        }
    }
}

// === impl Judge ===

impl Judge {
    pub(super) fn metrics(&self) -> &GuardMetrics {
        self.metrics.guard()
    }

    /// What the models say of a text, the second where the first is in doubt; and
    /// whether the second was wanted and had no time.
    async fn scores(&self, side: Side, question: &Question, whole: &Whole) -> (Scores, bool) {
        let stage1 = *whole.stage1();
        let alone = Scores { toxic: stage1.toxic, stage1, stage2: None };
        let Some(stage2) = self.stage2.as_ref().filter(|_| !whole.doubts().is_empty()) else {
            return (alone, false);
        };
        let parts = whole.doubts().iter().map(|doubt| question.text[doubt.around.clone()].to_owned()).collect();
        let asked = Instant::now();
        match stage2.score(parts).await {
            Ok(scores) => {
                self.metrics().escalated(side, "judged");
                self.metrics().took(side, Stage::Encoder, asked.elapsed());
                let worst = scores.iter().copied().fold(0.0, f32::max);
                (Scores { toxic: whole.toxic(&scores), stage1, stage2: Some(worst) }, false)
            }
            Err(_) => {
                self.metrics().escalated(side, "busy");
                (alone, true)
            }
        }
    }

    /// What the models say of a text.
    pub(super) async fn score(&self, side: Side, text: String) -> Scores {
        let (question, _, whole) = self.read(side, Question { text, from: 0 }).await;
        self.scores(side, &question, &whole).await.0
    }

    async fn read(&self, side: Side, question: Question) -> (Question, Normalised, Whole) {
        let model = self.model;
        let began = Instant::now();
        let read = self.aside(question.text.len(), move || {
            let normalised = Normalised::of(&question.text);
            let whole = Whole::read(&model, &normalised, question.from);
            (question, normalised, whole)
        });
        let read = read.await;
        self.metrics().took(side, Stage::Linear, began.elapsed());
        read
    }

    /// Work over a text of so many bytes: here, or where it delays nobody's tokens. What
    /// has begun goes on when its asker leaves, so the work itself holds its permit.
    pub(super) async fn aside<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        if bytes < LARGE {
            return work();
        }
        let permit = self.readers.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        working.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    pub(super) fn new(
        stage2: Option<Stage2>,
        outside: HashMap<Arc<str>, Arc<dyn Outside>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { model: Linear::embedded(), stage2, outside, metrics, readers: Arc::new(Semaphore::new(READERS)) }
    }

    /// What a side's rules make of a text, its lists left aside.
    pub(super) async fn opinion(self: Arc<Self>, policy: Arc<Policy>, side: Side, question: Question) -> Opinion {
        let Some(rules) = policy.rules(side) else { return Opinion::default() };
        let (question, normalised, whole) = self.read(side, question).await;
        let (scores, busy) = self.scores(side, &question, &whole).await;
        let stage = if scores.stage2.is_some() { Stage::Encoder } else { Stage::Linear };
        let all = || sentences(&question.text, question.from..question.text.len());
        if busy && rules.busy == Busy::Block {
            return Opinion { found: Some(Found::unjudged()), spans: all() };
        }
        if let Some(found) = rules.find(scores.toxic, &scores.stage1, stage) {
            let threshold = rules.least().min(scores.stage1.toxic);
            let carriers = self.model.carriers(&normalised, threshold).into_iter();
            let new = |span: Range<usize>| span.start.max(question.from)..span.end;
            let spans: Vec<_> = carriers
                .map(new)
                .filter(|span| !span.is_empty())
                .flat_map(|it| sentences(&question.text, it))
                .collect();
            return Opinion { found: Some(found), spans: if spans.is_empty() { all() } else { spans } };
        }
        let found = self.outside(side, rules, &question.text).await;
        let spans = if found.is_some() { all() } else { Vec::new() };
        Opinion { found, spans }
    }

    /// What the judge beside says, of a long text part by part.
    async fn outside(&self, side: Side, rules: &Rules, text: &str) -> Option<Found> {
        let name = rules.judge.as_ref()?;
        let judge = self.outside.get(name)?;
        let mut left = text;
        while !left.is_empty() {
            let (part, rest) = left.split_at(left.floor_char_boundary(OUTSIDE));
            left = rest;
            let asked = Instant::now();
            let answer = judge.judge(part).await;
            self.metrics().took(side, Stage::Judge, asked.elapsed());
            match answer {
                Ok(None) => {}
                Ok(Some(Sentence { category, score })) => {
                    let category = bounded(category);
                    return Some(Found { action: rules.action, stage: Stage::Judge, category, score });
                }
                Err(OutsideError { reason, closed }) => {
                    debug!(judge = &**name, reason, closed, "a judge did not answer");
                    if closed {
                        return Some(Found::unjudged());
                    }
                }
            }
        }
        None
    }
}

/// The parts of a span that are in one sentence each, without the space around them
/// and the signs that end them: what is taken out leaves the sentences apart.
fn sentences(text: &str, span: Range<usize>) -> Vec<Range<usize>> {
    let ends = |at: usize| match text.as_bytes()[at] {
        b'\n' => true,
        b'.' | b'!' | b'?' => text.as_bytes().get(at + 1).is_none_or(u8::is_ascii_whitespace),
        _ => false,
    };
    let (mut parts, mut start) = (Vec::new(), span.start);
    for end in span.clone().filter(|at| ends(*at)).chain([span.end]) {
        let part = text[start..end].trim_end_matches(['.', '!', '?', ' ']).trim();
        let begin = part.as_ptr() as usize - text.as_ptr() as usize;
        if !part.is_empty() {
            parts.push(begin..begin + part.len());
        }
        start = (end + 1).min(span.end);
    }
    parts
}

/// A judge's category, where it is one that is known: it goes into metrics.
fn bounded(category: Arc<str>) -> Arc<str> {
    if CATEGORIES.contains(&&*category) { category } else { "other".into() }
}

// === impl Hits ===

impl Hits {
    /// What lists find in a text that ends at or after `from`.
    pub(super) fn of(lists: &Lists, text: &str, normalised: &Normalised, from: usize) -> Self {
        let mut hits = Self { worst: None, redact: Vec::new() };
        for hit in lists.find(text, normalised).into_iter().filter(|hit| hit.span.end > from) {
            match hit.action {
                Listed::Block => {
                    let first = hits.worst.as_ref().is_none_or(|(_, span, _)| hit.span.start < span.start);
                    if first {
                        hits.worst = Some((Action::Block, hit.span, hit.category.into()));
                    }
                }
                Listed::Redact => hits.redact.push((hit.span, hit.category.into())),
                Listed::Allow => {}
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_is_within_sentences_and_without_the_space_around() {
        let parts = |text: &str| -> Vec<String> {
            sentences(text, 0..text.len()).into_iter().map(|part| text[part].to_owned()).collect()
        };
        assert_eq!(parts(" stupid idiot "), ["stupid idiot"]);
        assert_eq!(parts("stupid idiot. You moron!!! "), ["stupid idiot", "You moron"]);
        assert_eq!(parts("an idiot\n\nf.u.c.k you sh!t"), ["an idiot", "f.u.c.k you sh!t"]);
        assert_eq!(parts("ünfähig! Übel"), ["ünfähig", "Übel"]);
        assert_eq!(parts(" ... \n"), [""; 0]);
        assert_eq!(sentences("you idiot. Fine.", 4..9), std::slice::from_ref(&(4..9)));
    }
}
