//! Words by their skeleton, which is the same for all ways to write them, and then
//! in full.
//!
//! The skeleton has repeated letters once, `l` as `i`, one space for anything
//! between words, and no apostrophes. Words that differ can share one ("as",
//! "ass"), so what it finds is read again with [`Word::at`].

use std::ops::Range;

use crate::normalise::{EDGE, EITHER, Normalised, SPACED, STRETCHED};

/// Letters of a word that may be masked: shorter ones could be any word ("c*t").
const MASKED: usize = 4;

pub(super) struct Skeleton {
    bytes: Vec<u8>,
    /// For each byte, where it stands in the text, the first of those it stands for.
    at: Vec<u32>,
}

/// A word of a list, in its normal form.
#[derive(Debug, Clone)]
pub(super) struct Word {
    text: Box<[u8]>,
    /// It may go on after this.
    stem: bool,
}

// === impl Skeleton ===

impl Skeleton {
    pub(super) fn of(text: &str) -> Self {
        let text = text.as_bytes();
        let mut skeleton = Self { bytes: Vec::with_capacity(text.len()), at: Vec::with_capacity(text.len()) };
        for at in 0..text.len() {
            if let Some(byte) = bone(text, at)
                && !(skeleton.bytes.last() == Some(&byte) && (byte == b' ' || byte.is_ascii_alphabetic()))
            {
                skeleton.bytes.push(byte);
                skeleton.at.push(at as u32);
            }
        }
        skeleton
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The range of the text that a range of the skeleton stands for, with all
    /// letters that are one in the skeleton.
    pub(super) fn range(&self, text: &str, range: Range<usize>) -> Range<usize> {
        let text = text.as_bytes();
        let last = self.bytes[range.end - 1];
        let mut end = self.at[range.end - 1] as usize + 1;
        if last.is_ascii_alphabetic() {
            end += text[end..].iter().take_while(|&&byte| fold(byte) == last).count();
        }
        self.at[range.start] as usize..end
    }
}

/// The byte of the skeleton for one of the text; `None` for one that is left out.
fn bone(text: &[u8], at: usize) -> Option<u8> {
    let byte = text[at];
    let letter = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|&byte| is_word(byte));
    match byte {
        byte if is_word(byte) => Some(fold(byte)),
        b'\'' if letter(at.checked_sub(1)) && letter(Some(at + 1)) => None,
        // It may stand for a letter, at the end of a word as well.
        b'*' => Some(b'*'),
        _ => Some(b' '),
    }
}

fn fold(byte: u8) -> u8 {
    if byte == b'l' { b'i' } else { byte }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

// === impl Word ===

impl Word {
    /// Of a word in its normal form, without signs other than spaces, hyphens and
    /// apostrophes.
    pub(super) fn new(text: &str, stem: bool) -> Self {
        let text = text.as_bytes().iter().filter(|&&byte| byte != b'\'');
        let text = text.map(|&byte| if is_word(byte) { byte } else { b' ' }).collect();
        Self { text, stem }
    }

    /// All skeletons under which the word may stand: its own, with `*` for its
    /// vowels, and with `*` for all but its first and last letter.
    pub(super) fn skeletons(&self) -> Vec<Vec<u8>> {
        let bones = |text: &[u8]| Skeleton::of(&String::from_utf8_lossy(text)).bytes;
        let mut all = vec![bones(&self.text)];
        let letters = self.text.iter().filter(|byte| byte.is_ascii_lowercase()).count();
        if letters < MASKED || letters < self.text.len() {
            return all;
        }
        let inner = 1..self.text.len() - 1;
        let is_vowel = |byte: u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u');
        let vowels: Vec<_> = inner.clone().filter(|&at| is_vowel(self.text[at])).collect();
        let first: Vec<_> = vowels.iter().copied().take(1).collect();
        for masked in [first, vowels, inner.collect()] {
            let mut text = self.text.clone();
            masked.iter().for_each(|&at| text[at] = b'*');
            let skeleton = bones(&text);
            if !all.contains(&skeleton) {
                all.push(skeleton);
            }
        }
        all
    }

    /// Where the word stands, if it does at `range` of the text and not within another
    /// one; for a stem, with the rest of the word that begins with it.
    pub(super) fn at(&self, text: &Normalised, range: Range<usize>) -> Option<Range<usize>> {
        if !self.is_apart(text, range.clone()) || !self.spells(text, range.clone()) {
            return None;
        }
        let after = &text.text().as_bytes()[range.end..];
        let more = if self.stem { after.iter().take_while(|&&byte| is_word(byte)).count() } else { 0 };
        Some(range.start..range.end + more)
    }

    fn spells(&self, text: &Normalised, range: Range<usize>) -> bool {
        let bytes = text.text().as_bytes();
        let mut left = &*self.text;
        let mut at = range.start;
        while at < range.end {
            let Some(written) = bone(bytes, at) else {
                at += 1;
                continue;
            };
            let [wanted, rest @ ..] = left else { return self.stem };
            let flags = text.flags(at);
            let same = match written {
                b' ' | b'*' => *wanted == written || written == b'*' && wanted.is_ascii_lowercase(),
                _ => bytes[at] == *wanted || flags & EITHER != 0 && matches!(wanted, b'i' | b'l'),
            };
            if !same {
                return false;
            }
            left = rest;
            at += 1;
            if flags & STRETCHED != 0 {
                left = &left[left.iter().take_while(|byte| *byte == wanted).count()..];
            }
            if written == b' ' {
                while at < range.end && bone(bytes, at) == Some(b' ') {
                    at += 1;
                }
            }
        }
        left.is_empty()
    }

    fn is_apart(&self, text: &Normalised, range: Range<usize>) -> bool {
        let bytes = text.text().as_bytes();
        let before = range.start.checked_sub(1);
        let begins = before.is_none_or(|before| may_part(text, before, bytes[range.start], Side::Before));
        let ends = range.end == bytes.len() || may_part(text, range.end, bytes[range.end - 1], Side::After);
        begins && (self.stem || ends)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// Whether a word may end between the byte at `at` and its neighbour `inside`.
fn may_part(text: &Normalised, at: usize, inside: u8, side: Side) -> bool {
    let bytes = text.text().as_bytes();
    let outside = bytes[at];
    if !is_word(outside) {
        // "'s" belongs to the word before it and is no part of it; "*" may be a
        // letter only where one follows.
        return true;
    }
    if text.flags(at) & EDGE != 0 {
        return true;
    }
    // "fuck2": a digit after a letter is no letter, unless the word itself ends in one.
    if outside.is_ascii_digit() != inside.is_ascii_digit() {
        return true;
    }
    text.flags(at) & SPACED != 0 && only_short_words(text, at, side)
}

/// Whether the letters set apart from `at` outwards are words of one letter each: they
/// are in "u r a s s", and "c l" in "c l a s s" is not. Four at most, since nobody
/// writes more of them in a row, and each hit in a long run would read it all.
fn only_short_words(text: &Normalised, at: usize, side: Side) -> bool {
    let bytes = text.text().as_bytes();
    let spaced = |at: &usize| text.flags(*at) & SPACED != 0;
    let outwards: Vec<_> = match side {
        Side::Before => (0..=at).rev().take(5).take_while(spaced).collect(),
        Side::After => (at..bytes.len()).take(5).take_while(spaced).collect(),
    };
    outwards.len() < 5 && outwards.iter().all(|&at| matches!(bytes[at], b'a' | b'i' | b'u' | b'r' | b'y'))
}
