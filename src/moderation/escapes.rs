//! Strings of JSON as a reader of the JSON sees them.
//!
//! A tool call's arguments are JSON in a text. A model that wants to say something
//! there may write it with escapes, and every line of it begins with one.

/// A text with its JSON escapes read, byte for byte as long as it was: what an escape
/// is longer than its character is filled with characters that leave nothing.
#[derive(Debug, Default)]
pub(super) struct Readable {
    text: String,
    /// An escape that has not come to its end.
    rest: String,
}

/// Nothing to a reader, of three and of two bytes.
const THREE: &str = "\u{200b}";
const TWO: &str = "\u{ad}";
/// Of `\u0000`.
const UNICODE: usize = 6;

// === impl Readable ===

impl Readable {
    pub(super) fn of(text: &str) -> String {
        let mut readable = Self::default();
        readable.push(text);
        readable.finish();
        readable.text
    }

    pub(super) fn push(&mut self, text: &str) {
        let all;
        let mut left = if self.rest.is_empty() {
            text
        } else {
            all = std::mem::take(&mut self.rest) + text;
            all.as_str()
        };
        while let Some(at) = left.find('\\') {
            self.text.push_str(&left[..at]);
            left = &left[at..];
            let Some(length) = escape(left) else {
                left.clone_into(&mut self.rest);
                return;
            };
            read(&left[..length], &mut self.text);
            left = &left[length..];
        }
        self.text.push_str(left);
    }

    /// Nothing follows that could complete an escape: what is left is text.
    pub(super) fn finish(&mut self) {
        self.text.push_str(&std::mem::take(&mut self.rest));
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn forget(&mut self, bytes: usize) {
        self.text.drain(..bytes);
    }
}

/// The length of the escape that a text begins with, `None` while it is not all there.
fn escape(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [_, b'u', digits @ ..] => {
            let hex = digits.iter().take(UNICODE - 2).take_while(|digit| digit.is_ascii_hexdigit()).count();
            if hex == UNICODE - 2 || hex < digits.len() { Some(2 + hex) } else { None }
        }
        // Whatever stands behind it, up to a whole character.
        [_, _, ..] => text.chars().nth(1).map(|escaped| 1 + escaped.len_utf8()),
        _ => None,
    }
}

fn read(escape: &str, text: &mut String) {
    let bytes = escape.len();
    let code = escape.strip_prefix("\\u").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match (code.and_then(char::from_u32), escape.as_bytes()) {
        (Some(character), _) if bytes == UNICODE => {
            text.push(character);
            match UNICODE - character.len_utf8() {
                5 => text.extend([THREE, TWO]),
                4 => text.extend([TWO, TWO]),
                _ => text.push_str(THREE),
            }
        }
        (_, [_, b'"']) => text.push_str(" \""),
        (_, [_, b'/']) => text.push_str(" /"),
        _ => text.extend(std::iter::repeat_n(' ', bytes)),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_guard::Normalised;

    use super::*;

    #[test]
    fn escapes_are_read_and_keep_their_length() {
        for (written, read) in [
            (r#"{"a":"Hi,\nxyzzy"}"#, r#"{"a":"hi, xyzzy"}"#),
            (r"\u0073tupid", "stupid"),
            (r"st\u00fcpid", "stupid"),
            (r"a\u20acb", "aeb"),
            (r#"say \"no\" now"#, r#"say "no " now"#),
            (r"half \u00", r"half \u00"),
            (r"back\\slash", "back slash"),
        ] {
            let readable = Readable::of(written);
            assert_eq!(readable.len(), written.len(), "{written}");
            assert_eq!(Normalised::of(&readable).text().trim_end(), read.trim_end(), "{written}");
        }
    }

    #[test]
    fn whatever_the_pieces_it_reads_the_same() {
        let text = r#"{"a":"x\u0073\n\"\\\u00e9é\q"}"#;
        for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let mut readable = Readable::default();
            readable.push(&text[..cut]);
            readable.push(&text[cut..]);
            readable.finish();
            assert_eq!(readable.text(), Readable::of(text), "{cut}");
        }
    }
}
