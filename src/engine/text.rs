//! Bytes of tokens to text, never splitting a character.

/// Turns the bytes of one sequence's tokens into whole characters. What can
/// never become one is replaced by U+FFFD, as `String::from_utf8_lossy` does.
#[derive(Debug, Default)]
pub(super) struct TextDecoder {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl TextDecoder {
    /// Takes a token's bytes; returns the characters that are complete by now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("valid up to here"));
                    rest = after;
                    if let Some(wrong) = error.error_len() {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[wrong..];
                        continue;
                    }
                }
            }
            break;
        }
        let kept = rest.len();
        self.held.drain(..self.held.len() - kept);
        text
    }

    /// No more tokens come.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut decoder = TextDecoder::default();
        let bytes = "é🙂".as_bytes();
        let parts: Vec<String> = bytes.iter().map(|byte| decoder.push(&[*byte])).collect();
        assert_eq!(parts, ["", "é", "", "", "", "🙂"]);
        assert_eq!(decoder.finish(), "");
    }

    #[test]
    fn what_is_no_character_is_replaced() {
        let mut decoder = TextDecoder::default();
        assert_eq!(decoder.push(b"a\xffb\xf0\x9f"), "a\u{fffd}b");
        assert_eq!(decoder.push(b"c"), "\u{fffd}c");
        assert_eq!(decoder.push(b"\xe2\x82"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_split_anywhere_give_the_lossy_text(bytes: Vec<u8>, cuts in prop::collection::vec(0_usize..8, 0..64)) {
            let mut decoder = TextDecoder::default();
            let (mut text, mut rest) = (String::new(), bytes.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                text += &decoder.push(now);
                rest = later;
            }
            text += &decoder.push(rest);
            text += &decoder.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
