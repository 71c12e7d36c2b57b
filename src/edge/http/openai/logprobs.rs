//! Log-probabilities in the two forms that OpenAI has for them.

use std::borrow::Cow;
use std::fmt::Write;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::types::{TokenLogprob, TopLogprob};

/// A chat's form: one object a token.
#[derive(Serialize)]
pub(super) struct ChatLogprobs<'a> {
    content: Vec<ChatToken<'a>>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct ChatToken<'a> {
    #[serde(flatten)]
    token: ChatEntry<'a>,
    top_logprobs: Vec<ChatEntry<'a>>,
}

#[derive(Serialize)]
struct ChatEntry<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

/// A completion's form: one array a property.
#[derive(Serialize)]
pub(super) struct CompletionLogprobs<'a> {
    tokens: Vec<Cow<'a, str>>,
    token_logprobs: Vec<f32>,
    /// Null where no alternatives were asked for.
    top_logprobs: Option<Vec<Alternatives<'a>>>,
    /// Where each token begins in the choice's text, in characters.
    text_offset: Vec<u32>,
}

/// Token → log-probability, best first.
struct Alternatives<'a>(&'a TokenLogprob);

// === impl ChatLogprobs ===

impl<'a> ChatLogprobs<'a> {
    pub(super) fn new(tokens: &'a [TokenLogprob]) -> Self {
        let token = |token: &'a TokenLogprob| ChatToken {
            token: ChatEntry::new(&token.token),
            top_logprobs: token.top.iter().map(ChatEntry::new).collect(),
        };
        Self { content: tokens.iter().map(token).collect(), refusal: None }
    }
}

impl<'a> ChatEntry<'a> {
    fn new(token: &'a TopLogprob) -> Self {
        Self { token: shown(&token.bytes, ""), logprob: finite(token.logprob), bytes: &token.bytes }
    }
}

// === impl CompletionLogprobs ===

impl<'a> CompletionLogprobs<'a> {
    /// `offset` is where the first token begins, and afterwards where the next one will.
    pub(super) fn new(tokens: &'a [TokenLogprob], alternatives: u8, offset: &mut u32) -> Self {
        Self {
            tokens: tokens.iter().map(|token| name(&token.token)).collect(),
            token_logprobs: tokens.iter().map(|token| finite(token.token.logprob)).collect(),
            top_logprobs: (alternatives > 0).then(|| tokens.iter().map(Alternatives).collect()),
            text_offset: tokens
                .iter()
                .map(|token| {
                    let begins = *offset;
                    *offset += characters(&token.token.bytes);
                    begins
                })
                .collect(),
        }
    }
}

impl Serialize for Alternatives<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let TokenLogprob { token, top } = self.0;
        // The token that was drawn is there even if it is not among the best.
        let drawn = (!top.iter().any(|entry| entry.bytes == token.bytes)).then_some(token);
        let mut map = serializer.serialize_map(None)?;
        for entry in top.iter().chain(drawn) {
            map.serialize_entry(&name(entry), &finite(entry.logprob))?;
        }
        map.end()
    }
}

fn name(token: &TopLogprob) -> Cow<'_, str> {
    shown(&token.bytes, "bytes:")
}

/// A token's text; a part of a character as OpenAI writes it: `\xe2\x80`.
fn shown<'a>(bytes: &'a [u8], prefix: &str) -> Cow<'a, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut escaped = prefix.to_owned();
            for byte in bytes {
                write!(escaped, "\\x{byte:02x}").expect("writing to a string does not fail");
            }
            escaped.into()
        }
    }
}

/// Characters that begin in `bytes`.
fn characters(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|byte| (**byte as i8) >= -0x40).count() as u32
}

/// JSON has no infinities; OpenAI writes −9999 for an impossible token.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}
