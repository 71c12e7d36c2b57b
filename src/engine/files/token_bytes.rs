//! The exact bytes each token stands for, so that a stream can be cut between characters and not inside one.

use std::ops::Range;

/// How a vocabulary spells bytes that are not printable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// GPT-2's table: every byte has a printable character of its own.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0x0A>` a byte.
    ByteFallback,
}

/// All tokens' bytes in one buffer; a token is a range of it.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    buffer: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl TokenBytes {
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self { buffer: Vec::with_capacity(tokens * 8), ranges: vec![0..0; tokens] }
    }

    pub(crate) fn set(&mut self, id: u32, bytes: &[u8]) {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        self.ranges[id as usize] = begin..self.buffer.len();
    }

    /// Empty for an id without a token: some models have more output rows than tokens.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        self.ranges.get(id as usize).map_or(&[], |range| &self.buffer[range.clone()])
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

impl Spelling {
    pub(crate) fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            // A character outside the table cannot come out of training; its own bytes are what decoders give.
            Self::ByteLevel => {
                token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::ByteFallback => match escaped_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
        }
    }
}

fn escaped_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if plain { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Printable bytes stand for themselves, the 68 others are numbered from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut seen = [0; 256];
        for character in (0..0x200).filter_map(char::from_u32) {
            if let Some(byte) = byte_of(character) {
                seen[usize::from(byte)] += 1;
            }
        }
        assert_eq!(seen, [1; 256]);
    }

    #[test]
    fn spellings_give_the_bytes_back() {
        assert_eq!(Spelling::ByteLevel.bytes("ĠheÃ©Ċ"), " heé\n".as_bytes());
        assert_eq!(Spelling::ByteFallback.bytes("▁he"), b" he");
        assert_eq!(Spelling::ByteFallback.bytes("<0x0A>"), b"\n");
        assert_eq!(Spelling::ByteFallback.bytes("<0x+A>"), b"<0x+A>");
    }
}
