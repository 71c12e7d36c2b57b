//! Entries that a text which goes on may yet complete.

use aho_corasick::{AhoCorasick, MatchKind};

use super::skeleton::{Skeleton, Word};
use super::{ListError, Lists};
use crate::normalise::Normalised;

/// What entries begin with, short of themselves.
#[derive(Debug)]
pub(super) struct Openings {
    /// The skeletons of the first words of entries of several.
    words: AhoCorasick,
    needles: Vec<Word>,
    /// Bytes that a match of a regular expression may need.
    regex_bytes: usize,
}

// === impl Openings ===

impl Openings {
    /// `words` are normal forms of entries; `regexes` their patterns.
    pub(super) fn new<'a>(
        words: impl Iterator<Item = &'a str>,
        regexes: impl Iterator<Item = &'a str>,
    ) -> Result<Self, ListError> {
        let (mut skeletons, mut needles) = (Vec::new(), Vec::new());
        for text in words {
            for (end, _) in text.match_indices([' ', '-']) {
                let word = Word::new(&text[..end], false);
                for skeleton in word.skeletons() {
                    skeletons.push(skeleton);
                    needles.push(word.clone());
                }
            }
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&skeletons)
            .map_err(|error| ListError::Automaton { reason: error.to_string() })?;
        let regex_bytes = regexes.map(longest).max().unwrap_or(0);
        Ok(Self { words, needles, regex_bytes })
    }

    pub(super) fn from(&self, original: &str, text: &Normalised) -> usize {
        let mut from = original.floor_char_boundary(original.len().saturating_sub(self.regex_bytes));
        if self.needles.is_empty() {
            return from;
        }
        let skeleton = Skeleton::of(text.text());
        let end = skeleton.bytes().trim_ascii_end().len();
        for candidate in self.words.find_overlapping_iter(&skeleton.bytes()[..end]) {
            if candidate.end() != end {
                continue;
            }
            let range = skeleton.range(text.text(), candidate.range());
            if let Some(range) = self.needles[candidate.pattern().as_usize()].at(text, range) {
                from = from.min(text.original(range).start);
            }
        }
        from
    }
}

/// Bytes of the longest match, up to [`Lists::HELD_BYTES`].
fn longest(pattern: &str) -> usize {
    let parsed = regex_syntax::parse(pattern).ok();
    let longest = parsed.and_then(|parsed| parsed.properties().maximum_len());
    // One that is as long as it may be is known when it has come.
    longest.map_or(Lists::HELD_BYTES, |longest| longest.saturating_sub(1).min(Lists::HELD_BYTES))
}

#[cfg(test)]
mod tests {
    use crate::{Action, Entry, Lists, Normalised, Pattern};

    fn open(pattern: Pattern, text: &str) -> &str {
        let lists = Lists::new([Entry { pattern, action: Action::Block, category: String::new() }]);
        let from = lists.expect("the list is sound").open(text, &Normalised::of(text));
        &text[from..]
    }

    #[test]
    fn a_text_is_open_from_where_an_entry_may_have_begun() {
        let phrase = || Pattern::Word("kill all humans".to_owned());
        assert_eq!(open(phrase(), "They want to K1ll "), "K1ll ");
        assert_eq!(open(phrase(), "They want to kill, all "), "kill, all ");
        assert_eq!(open(phrase(), "They want to kill all humans "), "");
        assert_eq!(open(phrase(), "to skill "), "");
        assert_eq!(open(phrase(), "to kill some "), "");
        assert_eq!(open(Pattern::Word("kill".to_owned()), "to kill "), "");
        assert_eq!(open(Pattern::Word("kill".to_owned()), ""), "");
    }

    #[test]
    fn a_regular_expression_holds_as_much_as_its_longest_match() {
        assert_eq!(open(Pattern::Regex("[0-9]{4}-[0-9]{4}".to_owned()), "it is called 1234-5"), "d 1234-5");
        assert_eq!(open(Pattern::Regex("é+".to_owned()), "né"), "né");
        let long = "é".repeat(100);
        assert_eq!(open(Pattern::Regex("a.*b".to_owned()), &long).len(), Lists::HELD_BYTES);
    }
}
