//! Text as the stages read it: one spelling for what is meant as one word, with
//! the way back to the bytes it was written in.
//!
//! Three steps, each linear in the text: characters are folded (`fold`), words
//! are read through their disguises (`words`), and the result is written down
//! with the origin of every byte.
//!
//! Nothing here says what is bad: ordinary text goes through the same steps, so
//! a step may only do what leaves ordinary words apart.
//!
//! A stream can be normalised piece by piece: cut where [`settled()`] says, and the
//! pieces are what the whole would have been.

use std::ops::Range;

mod confusables;
mod emoji;
mod fold;
mod settled;
mod words;

pub use settled::{next_cut, settled};

/// A text in its normal form: lower case, Latin letters for those that look like
/// them, no marks or invisible characters, one space for any white space.
#[derive(Debug, Clone, Default)]
pub struct Normalised {
    text: String,
    /// One for each byte of `text`.
    origins: Vec<Origin>,
    /// Bytes of the original.
    original_len: usize,
}

/// Where a byte of the normal form comes from, and how sure that reading is.
#[derive(Debug, Clone, Copy, Default)]
struct Origin {
    start: u32,
    end: u32,
    flags: u8,
}

/// A character on its way to the normal form, with the bytes it stands for.
#[derive(Debug, Clone, Copy)]
struct Cell {
    ch: char,
    start: u32,
    end: u32,
    flags: u8,
}

/// It was written three times or more, and stands once.
pub(crate) const STRETCHED: u8 = 1;
/// It was a `1` or `!`: read as `i`, and as well an `l`.
pub(crate) const EITHER: u8 = 1 << 1;
/// It was a digit or sign at the edge of a word, and may be no letter at all.
pub(crate) const EDGE: u8 = 1 << 2;
/// It stood alone, between separators that are gone.
pub(crate) const SPACED: u8 = 1 << 3;

// === impl Normalised ===

impl Normalised {
    /// # Panics
    ///
    /// Over 4 GiB, which no request has.
    pub fn of(text: &str) -> Self {
        assert!(u32::try_from(text.len()).is_ok(), "a text of over 4 GiB");
        let mut cells = fold::fold(text);
        words::unmask(&mut cells);
        let mut normalised = Self {
            text: String::with_capacity(cells.len()),
            origins: Vec::with_capacity(cells.len()),
            original_len: text.len(),
        };
        for Cell { ch, start, end, flags } in cells {
            normalised.text.push(ch);
            let origin = Origin { start, end, flags };
            normalised.origins.extend(std::iter::repeat_n(origin, ch.len_utf8()));
        }
        normalised
    }

    /// The normal form.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of the text it was made of.
    pub fn original_len(&self) -> usize {
        self.original_len
    }

    /// The bytes of the original that a byte range of [`text`](Self::text) stands
    /// for, on character boundaries of the original. Bounds past the end are cut;
    /// an empty range gives an empty one.
    pub fn original(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.origins.len());
        let Some(origins) = self.origins.get(range.start..end).filter(|origins| !origins.is_empty()) else {
            let at = self.origins.get(range.start).map_or(self.original_len, |origin| origin.start as usize);
            return at..at;
        };
        // An emoji's name has one origin for all its letters, so the last byte's
        // end is the furthest.
        origins[0].start as usize..origins[origins.len() - 1].end as usize
    }

    pub(crate) fn flags(&self, at: usize) -> u8 {
        self.origins.get(at).map_or(0, |origin| origin.flags)
    }
}

// === impl Cell ===

impl Cell {
    fn is_letter(&self) -> bool {
        is_letter(self.ch)
    }

    fn is_word(&self) -> bool {
        self.ch.is_ascii_digit() || self.is_letter()
    }
}

fn is_letter(ch: char) -> bool {
    if ch.is_ascii() { ch.is_ascii_alphabetic() } else { ch.is_alphanumeric() }
}

#[cfg(test)]
mod tests;
