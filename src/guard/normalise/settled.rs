//! Where a text may be cut without changing how it reads.

/// How far back a cut is looked for, in bytes. Text without one for so long (one
/// endless word, letters with spaces between) is cut there all the same.
const REACH: usize = 512;
/// Bytes between two cuts of a text that grows.
const LONGEST_PIECE: usize = 256;

/// The last place at or before `at` (a byte of `text`) where the text may be cut:
/// what stands before it is normalised the same whatever follows, and what stands
/// after it the same whatever came before. Zero where there is none, and in a text
/// that has none for 512 bytes, 512 bytes back, on a character boundary.
///
/// So a window over a stream begins at a settled place, and what is before the
/// last settled place is final. Two more needs are the caller's: the model reads
/// pairs of words and is used to sentences, so a window should begin some 20 words
/// back; and an entry of several words, or a regular expression, can be cut through
/// by the window's edge, so it should go as far back as the longest of them.
pub fn settled(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let at = at.min(bytes.len());
    let floor = at.saturating_sub(REACH);
    for cut in (floor.max(3)..=at).rev() {
        if is_settled(bytes, cut) {
            return cut;
        }
    }
    (0..=floor).rev().find(|&cut| text.is_char_boundary(cut)).unwrap_or(0)
}

/// The first place after `from`, a settled one, where a text that still grows may
/// be cut; `None` while that is not known. It depends on the text alone, not on how
/// it came: in a text that has no such place for 256 bytes, the cut is before the
/// last word that begins in the second half of them, or else at their end.
pub fn next_cut(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let first = from + 1;
    let last = (from + LONGEST_PIECE).min(bytes.len());
    // A word of two letters has to fit between the cuts.
    if let Some(cut) = (first..last).find(|&cut| cut >= from + 3 && is_settled(bytes, cut)) {
        return Some(cut);
    }
    if bytes.len() <= from + LONGEST_PIECE {
        return None;
    }
    let whole = (first..=last).rev().find(|&cut| text.is_char_boundary(cut)).unwrap_or(last);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80;
    let begins_word = |cut: usize| text.is_char_boundary(cut) && !is_word(bytes[cut - 1]) && is_word(bytes[cut]);
    let in_time = from + LONGEST_PIECE / 2..=whole.min(bytes.len() - 1);
    Some(in_time.rev().find(|&cut| begins_word(cut)).unwrap_or(whole))
}

/// White space between a word of two letters that differ and the next word. The
/// two letters, since a single one may be the first of a word written with spaces
/// in it, and so may one that is repeated.
fn is_settled(bytes: &[u8], cut: usize) -> bool {
    let (before, after) = bytes.split_at(cut);
    let begins = after.first().is_some_and(u8::is_ascii_alphanumeric);
    if !begins || !before.last().is_some_and(u8::is_ascii_whitespace) {
        return false;
    }
    let [.., first, second] = *before.trim_ascii_end() else { return false };
    first.is_ascii_alphabetic() && second.is_ascii_alphabetic() && !first.eq_ignore_ascii_case(&second)
}
