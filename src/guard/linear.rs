//! Stage 1: a linear model over hashed n-grams, embedded in the binary.
//!
//! One weight of 8 bits for each bucket of hashes; a text's score is the logistic
//! function of their sum over the root of their number. The tf-idf weights that it
//! was trained with are folded into them. Four more tables say of what kind a toxic
//! text is.
//!
//! A sum over words has two uses besides. A long text is judged by windows of words
//! and is as toxic as the worst of them, so that an insult is not thinned out by a
//! page around it. And the words that carry a verdict are known, for who wants to
//! redact them alone.
//!
//! Not here: thresholds of tenants, actions, and what is done with a doubt.

use std::ops::Range;

use crate::normalise::Normalised;

mod features;
mod tail;
mod weights;

pub use features::features;
use features::{Event, walk};
pub use tail::{Read, Tail};
use weights::{Head, Weights};

/// What kinds of toxic text the training data tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Of a person or a group of people, not for what they were born as.
    Insult,
    /// Of people for what they are: origin, religion, sex, disability and the like.
    Hate,
    Threat,
    /// Swear words, whoever they are meant for.
    Profanity,
}

/// How likely, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    pub toxic: f32,
    categories: [f32; Category::ALL.len()],
}

/// A part of a text that is judged by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    pub toxic: f32,
    /// Bytes of the original.
    pub span: Range<usize>,
    /// The same with a window's words before and after it.
    pub around: Range<usize>,
}

/// The model. It is shared, never changed, and has no memory of texts.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    weights: Weights<'static>,
}

/// A text as the model sees it.
struct Words {
    hashes: Vec<u32>,
    words: Vec<Seen>,
}

/// A word, and where its features begin.
struct Seen {
    range: Range<usize>,
    first: usize,
}

/// Runs of words that are taken out of a window one by one before all of it is.
const TRIES: usize = 8;

/// What a word adds: the sum of its weights, and their number.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    sum: i32,
    count: u32,
}

// === impl Category ===

impl Category {
    /// In the order of the tables in the weights.
    pub const ALL: [Self; 4] = [Self::Insult, Self::Hate, Self::Threat, Self::Profanity];

    /// The category's name in the configuration, in metrics and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insult => "insult",
            Self::Hate => "hate",
            Self::Threat => "threat",
            Self::Profanity => "profanity",
        }
    }
}

// === impl Score ===

impl Score {
    /// That the text is toxic, and of this kind; never more than `toxic`. A text can
    /// be of several kinds.
    pub fn of(&self, category: Category) -> f32 {
        self.categories[category as usize]
    }

    /// All of them, in the order of [`Category::ALL`].
    pub fn categories(&self) -> impl Iterator<Item = (Category, f32)> {
        Category::ALL.into_iter().zip(self.categories)
    }

    /// The likeliest kind.
    pub fn category(&self) -> Category {
        let likelier = |a: &(Category, f32), b: &(Category, f32)| a.1.total_cmp(&b.1);
        self.categories().max_by(likelier).map_or(Category::Insult, |(category, _)| category)
    }
}

// === impl Linear ===

impl Linear {
    /// Words that are judged together; windows overlap by half. As many as a sentence
    /// has: in windows of 64, two of three insults within a page are thinned out.
    ///
    /// They are counted from the start of what is given, so who judges a stream in
    /// parts has to begin them where the text says, not where a chunk happened to end.
    pub const WINDOW: usize = 16;
    /// From here on a text is toxic, where nothing else is configured.
    pub const THRESHOLD: f32 = 0.6;
    /// Under this, no later stage needs to look.
    pub const DOUBTFUL: f32 = 0.2;

    /// The model that is part of the binary.
    pub fn embedded() -> Self {
        Self { weights: Weights::embedded() }
    }

    pub fn score(&self, text: &Normalised) -> Score {
        self.score_from(text, 0)
    }

    /// Of the windows that end after `from`, a byte of the original: what stands
    /// before it is context.
    pub fn score_from(&self, text: &Normalised, from: usize) -> Score {
        let read = Words::of(text);
        let parts = self.parts(&read);
        let ends = |window: &Range<usize>| text.original(read.words[window.end - 1].range.clone()).end;
        let worst = windows(parts.len())
            .filter(|window| from == 0 || ends(window) > from)
            .map(|window| (self.toxic(&parts[window.clone()]), window))
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        let Some((toxic, window)) = worst else { return Score { toxic: 0.0, categories: [0.0; 4] } };
        // Of what kind it is, its surroundings say as well.
        let around = window.start.saturating_sub(Self::WINDOW)..(window.end + Self::WINDOW).min(parts.len());
        let hashes = &read.hashes[read.features(around)];
        let categories = self.weights.categories(hashes).map(|given_toxic| toxic * given_toxic);
        Score { toxic, categories }
    }

    /// The windows of a text that score `least` or more, in order.
    pub fn windows(&self, text: &Normalised, least: f32) -> Vec<Window> {
        let read = Words::of(text);
        let parts = self.parts(&read);
        let span = |words: Range<usize>| {
            let (first, last) = (&read.words[words.start].range, &read.words[words.end - 1].range);
            text.original(first.start..last.end)
        };
        windows(parts.len())
            .map(|window| (self.toxic(&parts[window.clone()]), window))
            .filter(|(toxic, _)| *toxic >= least)
            .map(|(toxic, window)| {
                let around = window.start.saturating_sub(Self::WINDOW)..(window.end + Self::WINDOW).min(parts.len());
                Window { toxic, span: span(window), around: span(around) }
            })
            .collect()
    }

    /// The bytes of the original that carry what makes a text score `threshold` or
    /// more, in order and apart; without these words the rest scores less. Empty for
    /// a text that does not.
    pub fn carriers(&self, text: &Normalised, threshold: f32) -> Vec<Range<usize>> {
        let read = Words::of(text);
        let mut parts = self.parts(&read);
        let mut taken = vec![false; parts.len()];
        for window in windows(parts.len()) {
            // Mostly it is one run of words; where it is not a few, it is all of them.
            for attempt in 0.. {
                if self.toxic(&parts[window.clone()]) < threshold {
                    break;
                }
                let run = match attempt {
                    0..TRIES => heaviest(&parts[window.clone()]),
                    _ => 0..window.len(),
                };
                for at in window.start + run.start..window.start + run.end {
                    parts[at] = Part::default();
                    taken[at] = true;
                }
                if attempt == TRIES {
                    break;
                }
            }
        }
        spans(text, &read, &taken)
    }

    fn parts(&self, read: &Words) -> Vec<Part> {
        (0..read.words.len())
            .map(|word| {
                let hashes = &read.hashes[read.features(word..word + 1)];
                Part { sum: self.weights.toxic_sum(hashes), count: hashes.len() as u32 }
            })
            .collect()
    }

    fn toxic(&self, parts: &[Part]) -> f32 {
        let Part { sum, count } = total(parts);
        if count == 0 { 0.0 } else { self.weights.logistic(Head::Toxic, sum, count) }
    }
}

/// Windows over so many words; none over none.
fn windows(words: usize) -> impl Iterator<Item = Range<usize>> {
    let step = Linear::WINDOW / 2;
    let last = words.saturating_sub(Linear::WINDOW).div_ceil(step);
    let count = if words == 0 { 0 } else { last + 1 };
    (0..count).map(move |nth| nth * step..(nth * step + Linear::WINDOW).min(words))
}

/// The run of words that is heaviest over what as many features weigh on average
/// here: the greatest sum alone would take along every word that adds a little.
fn heaviest(parts: &[Part]) -> Range<usize> {
    let all = total(parts);
    let over = |part: &Part| i64::from(part.sum) * i64::from(all.count) - i64::from(all.sum) * i64::from(part.count);
    let mut best = (i64::MIN, 0..parts.len());
    let (mut sum, mut start) = (0, 0);
    for (at, part) in parts.iter().enumerate() {
        // A run does not go over words that were taken before.
        if part.count == 0 || sum <= 0 {
            (sum, start) = (0, at);
        }
        if part.count == 0 {
            start = at + 1;
            continue;
        }
        sum += over(part);
        if sum > best.0 {
            best = (sum, start..at + 1);
        }
    }
    best.1
}

fn total(parts: &[Part]) -> Part {
    parts.iter().fold(Part::default(), |all, part| Part { sum: all.sum + part.sum, count: all.count + part.count })
}

/// Neighbouring words are one span with what stands between them.
fn spans(text: &Normalised, read: &Words, taken: &[bool]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (at, word) in read.words.iter().enumerate().filter(|(at, _)| taken[*at]) {
        let span = text.original(word.range.clone());
        match spans.last_mut() {
            // Two words of one emoji's name are the same bytes.
            Some(last) if at > 0 && taken[at - 1] || last.end > span.start => last.end = last.end.max(span.end),
            _ => spans.push(span),
        }
    }
    spans
}

// === impl Words ===

impl Words {
    fn of(text: &Normalised) -> Self {
        let mut hashes = Vec::with_capacity(text.text().len() * 5);
        let mut words: Vec<Seen> = Vec::with_capacity(text.text().len() / 4);
        walk(text, |event| match event {
            Event::Word(range) => words.push(Seen { range, first: hashes.len() }),
            Event::Feature(hash) => hashes.push(hash),
        });
        Self { hashes, words }
    }

    /// Where the features of a range of words are.
    fn features(&self, words: Range<usize>) -> Range<usize> {
        let first = |word: usize| self.words.get(word).map_or(self.hashes.len(), |word| word.first);
        first(words.start)..first(words.end)
    }
}

#[cfg(test)]
mod tests;
