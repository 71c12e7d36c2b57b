//! Characters, one at a time: compatibility forms, case, marks, invisible ones,
//! look-alikes, emoji.
//!
//! Every character is decomposed (NFKD) and loses its marks. For what is left
//! that is the same as NFKC, and it needs no look ahead.

use unicode_normalization::char::decompose_compatible;

use super::{Cell, confusables, emoji};

pub(super) fn fold(text: &str) -> Vec<Cell> {
    let mut cells = Vec::with_capacity(text.len() + 8);
    for (start, ch) in text.char_indices() {
        let end = start + ch.len_utf8();
        let at = At { start: start as u32, end: end as u32 };
        if ch.is_ascii() {
            push(&mut cells, ch.to_ascii_lowercase(), at);
        } else {
            fold_other(&mut cells, ch, at);
        }
    }
    cells
}

#[derive(Clone, Copy)]
struct At {
    start: u32,
    end: u32,
}

/// White space is one space; controls leave nothing but go with what is before
/// them, so that who redacts a word redacts what hid in it.
fn push(cells: &mut Vec<Cell>, ch: char, at: At) {
    if ch.is_whitespace() {
        match cells.last_mut() {
            Some(last) if last.ch == ' ' => last.end = at.end,
            _ => cells.push(Cell { ch: ' ', start: at.start, end: at.end, flags: 0 }),
        }
    } else if ch.is_control() {
        drop_into_last(cells, at);
    } else {
        cells.push(Cell { ch, start: at.start, end: at.end, flags: 0 });
    }
}

fn fold_other(cells: &mut Vec<Cell>, ch: char, at: At) {
    if is_invisible(ch) || is_mark(ch) {
        return drop_into_last(cells, at);
    }
    if let Some(name) = emoji::name(ch) {
        // A word of its own, whatever it stands next to.
        if cells.last().is_some_and(|last| last.ch != ' ') {
            push(cells, ' ', at);
        }
        for letter in name.chars() {
            push(cells, letter, at);
        }
        return push(cells, ' ', at);
    }
    decompose_compatible(ch, |part| {
        for lower in part.to_lowercase() {
            if is_mark(lower) || is_invisible(lower) {
                continue;
            }
            match confusables::sharp(lower) {
                Some(letters) => letters.chars().for_each(|letter| push(cells, letter, at)),
                None => push(cells, confusables::latin(lower), at),
            }
        }
    });
}

fn drop_into_last(cells: &mut [Cell], at: At) {
    if let Some(last) = cells.last_mut() {
        last.end = at.end;
    }
}

/// Marks of the blocks for combining diacritics. Those of Arabic, Hebrew and the
/// Indic scripts tell words apart and stay.
fn is_mark(ch: char) -> bool {
    matches!(ch,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Unicode's `Default_Ignorable_Code_Point`, which also holds the tags that spell
/// hidden ASCII, and the blank Braille cell.
fn is_invisible(ch: char) -> bool {
    matches!(ch,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}
