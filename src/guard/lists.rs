//! Stage 0: the words and regular expressions that an operator or a tenant wrote
//! down.
//!
//! Words are looked for in the normal form, all at once, whatever disguise they
//! were written in; regular expressions in the original text, as they stand. An
//! `allow` entry takes back what other entries found within what it matches.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Regex, RegexBuilder};

use crate::normalise::Normalised;

mod open;
mod skeleton;

use open::Openings;
use skeleton::{Skeleton, Word};

/// What is to be done where an entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Block,
    Redact,
    /// Nothing, and nothing for other entries' matches within this one.
    Allow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// A word, or several with a space between, as a whole: `ass` is not in `class`.
    Word(String),
    /// What a word begins with: `scam` finds all of `scammers`.
    Stem(String),
    /// A regular expression of the crate `regex`, on the original text; so it says
    /// itself whether case matters: `(?i)order \d{6}`. Empty matches do not count.
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub pattern: Pattern,
    pub action: Action,
    /// In the words of who wrote the list; it goes into verdicts as it is.
    pub category: String,
}

/// One match of one entry. In order of the entries' numbers, then of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit<'lists> {
    /// Bytes of the original.
    pub span: Range<usize>,
    /// Never [`Action::Allow`].
    pub action: Action,
    pub category: &'lists str,
    /// Which entry, from 0.
    pub entry: usize,
}

/// What is wrong with a list; `entry` is its place in what was given, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("{given} entries, and {} at most", Lists::MAX_ENTRIES)]
    TooMany { given: usize },
    #[error("{given} regular expressions, and {} at most", Lists::MAX_REGEXES)]
    TooManyRegexes { given: usize },
    #[error("entry {entry}: {given} bytes, and {allowed} at most")]
    TooLong { entry: usize, given: usize, allowed: usize },
    #[error("entry {entry}: nothing to look for is left of {pattern:?} once it is normalised")]
    Empty { entry: usize, pattern: String },
    #[error("entry {entry}: {pattern:?} has {sign:?} in it, which is not part of a word; write a regular expression")]
    NotAWord { entry: usize, pattern: String, sign: char },
    #[error("entry {entry}: the regular expression {pattern:?}: {reason}")]
    Regex { entry: usize, pattern: String, reason: String },
    #[error("the words together are too many to be looked for at once: {reason}")]
    Automaton { reason: String },
}

/// Lists, made once and then only read.
#[derive(Debug)]
pub struct Lists {
    entries: Vec<(Action, String)>,
    words: AhoCorasick,
    /// For each needle of `words`, the word that it may be.
    needles: Vec<Needle>,
    regexes: Vec<(usize, Regex)>,
    openings: Openings,
}

#[derive(Debug)]
struct Needle {
    entry: usize,
    word: Word,
}

// === impl Lists ===

impl Lists {
    pub const MAX_ENTRIES: usize = 20_000;
    pub const MAX_REGEXES: usize = 256;
    /// Of words. Each may be read again at every place it could stand, so short ones
    /// bound what lists of words within words can cost.
    pub const MAX_WORD_BYTES: usize = 128;
    pub const MAX_REGEX_BYTES: usize = 1024;
    /// Of one regular expression in one text. Looking for all of them takes quadratic
    /// time in the worst case; after so many, the rest of the text counts as one more.
    pub const MAX_MATCHES: usize = 1000;
    /// Of one regular expression, compiled, in bytes; its lazy automaton has as much again.
    pub const MAX_REGEX_SIZE: usize = 256 << 10;
    /// Bytes at the end of a text that grows that a regular expression is waited for
    /// ([`Lists::open`]), where a match of it may be as long or longer.
    pub const HELD_BYTES: usize = 128;

    /// # Errors
    ///
    /// The first entry that cannot be used, and why.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Result<Self, ListError> {
        let entries: Vec<_> = entries.into_iter().collect();
        if entries.len() > Self::MAX_ENTRIES {
            return Err(ListError::TooMany { given: entries.len() });
        }
        let mut texts = Vec::new();
        let mut needles = Vec::new();
        let mut regexes = Vec::new();
        let mut phrases = Vec::new();
        for (entry, Entry { pattern, .. }) in entries.iter().enumerate() {
            let (Pattern::Word(text) | Pattern::Stem(text) | Pattern::Regex(text)) = pattern;
            let is_regex = matches!(pattern, Pattern::Regex(_));
            let allowed = if is_regex { Self::MAX_REGEX_BYTES } else { Self::MAX_WORD_BYTES };
            if text.len() > allowed {
                return Err(ListError::TooLong { entry, given: text.len(), allowed });
            }
            if is_regex {
                regexes.push((entry, compile(entry, text)?));
                continue;
            }
            let stem = matches!(pattern, Pattern::Stem(_));
            let (word, normal) = word(entry, text, stem)?;
            phrases.push(normal);
            for skeleton in word.skeletons() {
                texts.push(skeleton);
                needles.push(Needle { entry, word: word.clone() });
            }
        }
        if regexes.len() > Self::MAX_REGEXES {
            return Err(ListError::TooManyRegexes { given: regexes.len() });
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&texts)
            .map_err(|error| ListError::Automaton { reason: error.to_string() })?;
        let patterns = entries.iter().filter_map(|entry| match &entry.pattern {
            Pattern::Regex(pattern) => Some(pattern.as_str()),
            Pattern::Word(_) | Pattern::Stem(_) => None,
        });
        let openings = Openings::new(phrases.iter().map(String::as_str), patterns)?;
        let entries = entries.into_iter().map(|entry| (entry.action, entry.category)).collect();
        Ok(Self { entries, words, needles, regexes, openings })
    }

    /// What the lists say of a text; `original` is what `text` was made of.
    pub fn find(&self, original: &str, text: &Normalised) -> Vec<Hit<'_>> {
        let mut found = Vec::new();
        self.find_words(text, &mut found);
        self.find_regexes(original, &mut found);
        let allowed: Vec<_> = found
            .iter()
            .filter(|(entry, _)| self.entries[*entry].0 == Action::Allow)
            .map(|(_, span)| span.clone())
            .collect();
        let allowed = covering(allowed);
        found.retain(|(entry, span)| self.entries[*entry].0 != Action::Allow && !is_covered(&allowed, span));
        found.sort_by_key(|(entry, span)| (*entry, span.start, span.end));
        found.dedup();
        found.into_iter().map(|(entry, span)| self.hit(entry, span)).collect()
    }

    /// From which byte of a text on an entry may match once the text goes on; its
    /// length where none has begun. Exact for words; for regular expressions as many
    /// bytes as their longest match has, [`Self::HELD_BYTES`] at most, so no part of a
    /// match is let go of before it is known, if a match that begins there has as few.
    pub fn open(&self, original: &str, text: &Normalised) -> usize {
        self.openings.from(original, text)
    }

    /// Whether an entry takes spans out.
    pub fn redacts(&self) -> bool {
        self.entries.iter().any(|(action, _)| *action == Action::Redact)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn hit(&self, entry: usize, span: Range<usize>) -> Hit<'_> {
        let (action, category) = &self.entries[entry];
        Hit { span, action: *action, category, entry }
    }

    fn find_words(&self, text: &Normalised, found: &mut Vec<(usize, Range<usize>)>) {
        if self.needles.is_empty() {
            return;
        }
        let skeleton = Skeleton::of(text.text());
        for candidate in self.words.find_overlapping_iter(skeleton.bytes()) {
            let Needle { entry, word } = &self.needles[candidate.pattern().as_usize()];
            let range = skeleton.range(text.text(), candidate.range());
            if let Some(range) = word.at(text, range) {
                found.push((*entry, text.original(range)));
            }
        }
    }

    fn find_regexes(&self, original: &str, found: &mut Vec<(usize, Range<usize>)>) {
        for (entry, regex) in &self.regexes {
            let spans = regex.find_iter(original).map(|matched| matched.range()).filter(|span| !span.is_empty());
            let before = found.len();
            found.extend(spans.take(Self::MAX_MATCHES).map(|span| (*entry, span)));
            // What was not looked at is not allowed.
            let action = self.entries[*entry].0;
            if found.len() - before == Self::MAX_MATCHES && action != Action::Allow {
                let rest = found[found.len() - 1].1.end..original.len();
                found.extend((!rest.is_empty()).then_some((*entry, rest)));
            }
        }
    }
}

fn compile(entry: usize, pattern: &str) -> Result<Regex, ListError> {
    let built = RegexBuilder::new(pattern)
        .size_limit(Lists::MAX_REGEX_SIZE)
        .dfa_size_limit(Lists::MAX_REGEX_SIZE)
        .nest_limit(64)
        .build();
    built.map_err(|error| ListError::Regex { entry, pattern: pattern.to_owned(), reason: error.to_string() })
}

/// The word, and its normal form.
fn word(entry: usize, pattern: &str, stem: bool) -> Result<(Word, String), ListError> {
    let text = Normalised::of(pattern);
    let text = text.text().trim();
    let sign = |ch: &char| !ch.is_alphanumeric() && !matches!(ch, ' ' | '-' | '\'');
    if let Some(sign) = text.chars().find(sign) {
        return Err(ListError::NotAWord { entry, pattern: pattern.to_owned(), sign });
    }
    if !text.chars().any(char::is_alphanumeric) {
        return Err(ListError::Empty { entry, pattern: pattern.to_owned() });
    }
    Ok((Word::new(text, stem), text.to_owned()))
}

/// The spans in order and joined where they overlap.
fn covering(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

fn is_covered(joined: &[Range<usize>], span: &Range<usize>) -> bool {
    let next = joined.partition_point(|allowed| allowed.start <= span.start);
    next > 0 && span.end <= joined[next - 1].end
}

#[cfg(test)]
mod tests;
