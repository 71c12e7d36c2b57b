//! Words behind their disguises: stretched letters, digits and signs for letters,
//! letters set apart.

use super::{Cell, EDGE, EITHER, SPACED, STRETCHED};

pub(super) fn unmask(cells: &mut Vec<Cell>) {
    // Before the rest, so that "fff uuu ccc kkk" is four single letters; and again
    // after it, for "a$$s".
    squeeze(cells);
    read_leet(cells);
    join_spaced(cells);
    squeeze(cells);
}

/// A letter three times or more in a row stands once, and says so. Which words
/// have two of it is left to who reads. Signs and digits stay, up to three signs.
fn squeeze(cells: &mut Vec<Cell>) {
    let mut kept = 0;
    let mut at = 0;
    while at < cells.len() {
        let first = cells[at];
        let same = cells[at..].iter().take_while(|cell| cell.ch == first.ch).count();
        let keep = match first.is_letter() {
            true if same >= 3 => 1,
            false if !first.ch.is_ascii_digit() => same.min(3),
            _ => same,
        };
        for step in 0..keep {
            cells[kept + step] = cells[at + step];
        }
        if keep < same {
            let end = cells[at + same - 1].end;
            let flags = if first.is_letter() { STRETCHED } else { 0 };
            let last = &mut cells[kept + keep - 1];
            last.end = end;
            last.flags |= flags;
        }
        kept += keep;
        at += same;
    }
    cells.truncate(kept);
}

/// The letter that a digit or sign stands for within a word.
fn leet(ch: char) -> Option<char> {
    Some(match ch {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' | '€' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '6' | '9' => 'g',
        '7' => 't',
        _ => return None,
    })
}

/// Where letters surround them, digits and signs are read as letters; at the edge
/// of a word `$` and `@` are, and digits only in a word that has shown that it is
/// written that way ("5h1t", but neither "mp3" nor "4th").
fn read_leet(cells: &mut [Cell]) {
    let mut at = 0;
    while at < cells.len() {
        let word = &mut cells[at..];
        let len = word.iter().take_while(|cell| cell.is_word() || leet(cell.ch).is_some()).count();
        // "$x" is a variable or a price.
        if len > 2 {
            read_word(&mut word[..len]);
        }
        at += len.max(1);
    }
}

fn read_word(word: &mut [Cell]) {
    let Some(first) = word.iter().position(Cell::is_letter) else { return };
    let last = word.iter().rposition(Cell::is_letter).unwrap_or(first);
    if first == 0 && last == word.len() - 1 && word.iter().all(Cell::is_letter) {
        return;
    }
    let mut disguised = false;
    let mut at = first;
    while at < last {
        let run = word[at..last].iter().take_while(|cell| !cell.is_letter()).count();
        let inside = &mut word[at..at + run];
        // "wow!that" is a sentence's end, and "b!tch" is not.
        let ends = inside.iter().any(|cell| cell.ch == '!') && (run > 1 || at > first + 2);
        if (1..=4).contains(&run) && !ends && inside.iter().all(|cell| leet(cell.ch).is_some()) {
            inside.iter_mut().for_each(|cell| replace(cell, 0));
            disguised = true;
        }
        at += run.max(1);
    }
    let (rest, after) = word.split_at_mut(last + 1);
    read_edge(&mut rest[..first], disguised);
    let end = after.iter().position(|cell| cell.ch == '!').unwrap_or(after.len());
    read_edge(&mut after[..end], disguised);
}

fn read_edge(edge: &mut [Cell], disguised: bool) {
    let is_sign = |cell: &Cell| matches!(cell.ch, '$' | '@');
    let letter = |cell: &Cell| is_sign(cell) || disguised && cell.ch != '!' && leet(cell.ch).is_some();
    if edge.len() <= 3 && edge.iter().all(letter) {
        edge.iter_mut().for_each(|cell| replace(cell, EDGE));
    }
}

fn replace(cell: &mut Cell, flags: u8) {
    if let Some(letter) = leet(cell.ch) {
        cell.flags |= flags | if letter == 'i' { EITHER } else { 0 };
        cell.ch = letter;
    }
}

fn is_separator(ch: char) -> bool {
    matches!(ch, ' ' | '.' | '-' | '_' | '*' | ',' | '~' | '/' | '+' | '|' | '\'')
}

/// Three single letters or more are one word where the same one to three separators
/// stand between them; "f**k a" has two kinds and is none.
///
/// Cells move down in place: those from `kept` on are as they were, so the neighbours
/// of the one that is looked at are, too.
fn join_spaced(cells: &mut Vec<Cell>) {
    let mut kept = 0;
    let mut at = 0;
    while at < cells.len() {
        // The letter after an apostrophe is the end of "don't", not a beginning.
        let begins = cells[at].is_letter() && is_single(cells, at) && !(at > 0 && cells[at - 1].ch == '\'');
        let end = if begins { spaced_until(cells, at) } else { at };
        if end == at {
            cells[kept] = cells[at];
            kept += 1;
            at += 1;
            continue;
        }
        for from in at..end {
            let mut cell = cells[from];
            if from == at || is_single(cells, from) && !is_separator(cell.ch) {
                replace(&mut cell, 0);
                cell.flags |= SPACED;
                cells[kept] = cell;
                kept += 1;
            }
        }
        at = end;
    }
    cells.truncate(kept);
}

/// Where the letters set apart that begin at `start` end, or `start`.
fn spaced_until(cells: &[Cell], start: usize) -> usize {
    let mut letters = 1;
    let mut leets = 0;
    let mut end = start + 1;
    let mut at = end;
    let gap_at = |at: usize| cells[at..].iter().map(|cell| cell.ch).take(4).take_while(|&ch| is_separator(ch));
    loop {
        let gap = gap_at(at).count();
        let next = at + gap;
        let alike = (1..=3).contains(&gap) && gap_at(at).eq(gap_at(start + 1));
        if !alike || next >= cells.len() || !is_single(cells, next) {
            break;
        }
        if cells[next].is_letter() {
            letters += 1;
            end = next + 1;
        } else if leet(cells[next].ch).is_some() && leets < letters {
            // Never more of them than letters: "1 + 1" is no word, and a run that
            // breaks off late for that would be read again from each of its letters.
            leets += 1;
            // The last of them is a letter, unless it is a sign.
            end = if cells[next].ch == '$' { next + 1 } else { end };
        } else {
            break;
        }
        at = next + 1;
    }
    if letters + leets >= 3 && letters >= 2 { end } else { start }
}

/// Whether no letter or digit stands next to it.
fn is_single(cells: &[Cell], at: usize) -> bool {
    let word = |at: usize| cells.get(at).is_some_and(|cell| cell.is_word() || matches!(cell.ch, '$' | '@'));
    at.checked_sub(1).is_none_or(|before| !word(before)) && !word(at + 1)
}
