//! Texts as tokens, and long ones as windows of them.

use tokenizers::Tokenizer;

use super::config::Config;
use super::error::{EncoderError, Result};

pub(super) const FILE: &str = "tokenizer.json";

#[derive(Debug)]
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    /// The special tokens before and behind each window.
    before: Vec<u32>,
    behind: Vec<u32>,
    /// Tokens of a text that fit between them.
    room: usize,
    /// How far one window begins behind the other.
    step: usize,
}

/// Tokens of one window, the special ones included.
pub(super) type Window = Vec<u32>;

impl Tokens {
    /// Windows have `longest` tokens at most, and share `overlap` with the next.
    pub(super) fn open(json: &[u8], config: &Config, longest: usize, overlap: usize) -> Result<Self> {
        let unfit = |field: &str, reason: String| EncoderError::unfit(FILE, field, reason);
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| unfit("JSON", error.to_string()))?;
        let largest = tokenizer.get_vocab_size(true);
        if largest > config.vocabulary {
            let reason = format!("it has {largest} tokens, and by config.json the model knows {}", config.vocabulary);
            return Err(unfit("model.vocab", reason));
        }
        tokenizer.with_padding(None);
        // Windows are cut here: what truncating leaves over, tokenizers 0.23 does not keep.
        tokenizer.with_truncation(None).map_err(|error| unfit("truncation", error.to_string()))?;
        let mut tokens = Self { tokenizer, before: Vec::new(), behind: Vec::new(), room: 0, step: 0 };
        let (bare, dressed) = (tokens.ids("a", false)?, tokens.ids("a", true)?);
        let place = dressed.windows(bare.len().max(1)).position(|window| window == bare);
        let place =
            place.ok_or_else(|| unfit("post_processor", "it does more than adding special tokens".to_owned()))?;
        tokens.before = dressed[..place].to_vec();
        tokens.behind = dressed[place + bare.len()..].to_vec();
        let room = longest.min(config.positions).checked_sub(tokens.before.len() + tokens.behind.len());
        let room = room.filter(|room| *room >= 4);
        tokens.room = room.ok_or_else(|| unfit("post_processor", "it adds too many tokens".to_owned()))?;
        tokens.step = tokens.room - overlap.min(tokens.room / 4);
        Ok(tokens)
    }

    /// In the order of the text; none where there is nothing to read.
    pub(super) fn windows(&self, text: &str) -> Result<Vec<Window>> {
        let ids = self.ids(text, false)?;
        let behind_first = ids.len().saturating_sub(self.room).div_ceil(self.step);
        let count = if ids.is_empty() { 0 } else { behind_first + 1 };
        let window = |nth: usize| {
            let start = nth * self.step;
            let text = &ids[start..(start + self.room).min(ids.len())];
            [self.before.as_slice(), text, self.behind.as_slice()].concat()
        };
        Ok((0..count).map(window).collect())
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoded =
            self.tokenizer.encode_fast(text, special).map_err(|error| EncoderError::Tokens(error.to_string()))?;
        Ok(encoded.get_ids().to_vec())
    }
}
