//! A text as numbers: hashed n-grams of the normal form.
//!
//! Training and serving call this same code (`examples/features.rs` writes it out
//! for the training script), so there is one hash. `scripts/guard/features.py` says
//! it again in Python, and golden vectors hold both together.
//!
//! A word is a run of letters, digits, apostrophes and `*` (which masks letters:
//! "f*ck"), in bytes, with a space before and after, or a run of `!` and `?`. A word
//! gives its n-grams of 2 to 5 bytes, itself, the pair of it and the word before, and
//! itself as negated or as quoted where it is: a sum over words has no other way to
//! tell "you are not a fool" from "you are a fool".
//!
//! Other signs give nothing. How a source of the training data sets its quotes and
//! dashes says where a text is from, and would be learnt as if it said what it means.

use std::ops::Range;

use crate::normalise::{Normalised, STRETCHED};

/// Shortest and longest n-gram within a word, in bytes.
const GRAMS: Range<usize> = 2..6;
/// A word that is longer is read to here: nothing longer was learnt, and hashes of
/// endless words are noise.
const LONGEST: usize = 48;

const SEED_GRAM: u32 = 0x811c_9dc5;
const SEED_WORD: u32 = 0x9747_b28c;
const SEED_PAIR: u32 = 0x1b87_3593;
const SEED_NEGATED: u32 = 0xe654_6b64;
const SEED_QUOTED: u32 = 0x85eb_ca6b;
/// Words after "not" that are taken to be negated.
const NEGATED: u32 = 3;
const PRIME: u32 = 0x0100_0193;

/// What a reader of a text comes upon, in order.
pub(super) enum Event {
    /// A word, at this byte range of the normal form.
    Word(Range<usize>),
    /// Of the word that began last.
    Feature(u32),
}

/// The 32-bit hashes of all features of a text, in order, with repetitions. A
/// model's bucket is the upper bits of one.
pub fn features(text: &Normalised) -> Vec<u32> {
    let mut all = Vec::with_capacity(text.text().len() * 5);
    walk(text, |event| {
        if let Event::Feature(hash) = event {
            all.push(hash);
        }
    });
    all
}

/// What a reader carries from one piece of a text to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    /// The hash of the word before; 0 for none.
    before: u32,
    /// Words that are still under a negation.
    negated: u32,
    quoted: bool,
    padded: Vec<u8>,
}

pub(super) fn walk(text: &Normalised, visit: impl FnMut(Event)) {
    Walk::default().read(text, visit);
}

impl Walk {
    /// Reads the next piece of a text that was cut where it is settled.
    pub(super) fn read(&mut self, text: &Normalised, mut visit: impl FnMut(Event)) {
        let Self { before, negated, quoted, padded } = self;
        let bytes = text.text().as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let kind = Kind::of(bytes[at]);
            let len = bytes[at..].iter().take_while(|&&byte| Kind::of(byte) == kind).count();
            let range = at..at + len;
            at += len;
            if kind == Kind::Space {
                continue;
            }
            let letters = &bytes[range.start..range.start + len.min(LONGEST)];
            if kind == Kind::Signs {
                *quoted ^= letters.contains(&b'"');
                *negated = 0;
                if !letters.iter().all(|byte| matches!(byte, b'!' | b'?')) {
                    continue;
                }
            }
            visit(Event::Word(range.clone()));
            padded.clear();
            padded.push(b' ');
            padded.extend_from_slice(letters);
            padded.push(b' ');
            let whole = word_features(padded, &mut visit);
            if *before != 0 {
                visit(Event::Feature(mix(SEED_PAIR ^ before.rotate_left(13) ^ whole.wrapping_mul(PRIME))));
            }
            *before = whole;
            if kind == Kind::Letters {
                if *negated > 0 {
                    visit(Event::Feature(mix(SEED_NEGATED ^ whole.wrapping_mul(PRIME))));
                }
                if *quoted {
                    visit(Event::Feature(mix(SEED_QUOTED ^ whole.wrapping_mul(PRIME))));
                }
                *negated = if is_negation(letters) { NEGATED } else { negated.saturating_sub(1) };
            }
            // A stretched letter stands once, and in "asssss" it stands for two.
            if (range.start..range.start + letters.len()).any(|at| text.flags(at) & STRETCHED != 0) {
                padded.clear();
                padded.push(b' ');
                for (offset, &letter) in letters.iter().enumerate() {
                    let twice = letter.is_ascii() && text.flags(range.start + offset) & STRETCHED != 0;
                    padded.extend(std::iter::repeat_n(letter, if twice { 2 } else { 1 }));
                }
                padded.push(b' ');
                word_features(padded, &mut visit);
            }
        }
    }
}

/// Features of a word with its spaces; gives the hash of the whole.
fn word_features(padded: &[u8], visit: &mut impl FnMut(Event)) -> u32 {
    for start in 0..padded.len() - 1 {
        let mut hash = SEED_GRAM;
        for (length, &byte) in padded[start..].iter().take(GRAMS.end - 1).enumerate() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(PRIME);
            if length + 1 >= GRAMS.start {
                visit(Event::Feature(mix(hash)));
            }
        }
    }
    let whole = padded.iter().fold(SEED_WORD, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    visit(Event::Feature(mix(whole)));
    whole
}

fn is_negation(word: &[u8]) -> bool {
    matches!(
        word,
        b"not" | b"no" | b"never" | b"nobody" | b"none" | b"nor" | b"without" | b"cannot" | b"dont" | b"isnt"
    ) || word.ends_with(b"n't")
}

/// FNV leaves its upper bits poor for short input; models take the upper bits.
fn mix(hash: u32) -> u32 {
    (hash ^ (hash >> 15)).wrapping_mul(0x9e37_79b1)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letters,
    Signs,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            b' ' => Self::Space,
            b'\'' | b'*' | 0x80.. => Self::Letters,
            byte if byte.is_ascii_alphanumeric() => Self::Letters,
            _ => Self::Signs,
        }
    }
}

#[cfg(test)]
mod tests;
