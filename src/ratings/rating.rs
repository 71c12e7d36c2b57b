//! A rating as clients send it, and which of them are refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most bytes of each field.
pub const LONGEST_COMMENT: usize = 8 * 1024;
pub const LONGEST_CORRECTION: usize = 128 * 1024;
pub const LONGEST_END_USER: usize = 256;
pub const LONGEST_IDEMPOTENCY_KEY: usize = 256;
/// The most labels of one rating.
pub const MOST_LABELS: usize = 32;

/// What an end user thinks of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Rating {
    pub generation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumb: Option<Thumb>,
    /// 1 to 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_text: Option<String>,
    /// The end user's name, as the tenant has it; never stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thumb {
    Up,
    Down,
}

/// Why a rating is refused, in words for who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refusal {
    /// The field that is at fault; empty where the whole rating is.
    pub field: String,
    pub message: String,
}

// === impl Rating ===

impl Rating {
    /// Reads a rating's JSON. The refusal names the field.
    pub fn from_json(value: Value) -> Result<Self, Refusal> {
        let Value::Object(mut fields) = value else {
            return Err(Refusal::new("", "a rating is a JSON object"));
        };
        let rating = Self {
            generation_id: text(&mut fields, "generation_id")?
                .ok_or_else(|| Refusal::new("generation_id", "is missing"))?,
            thumb: match text(&mut fields, "thumb")?.as_deref() {
                None => None,
                Some("up") => Some(Thumb::Up),
                Some("down") => Some(Thumb::Down),
                Some(_) => return Err(Refusal::new("thumb", "must be \"up\" or \"down\"")),
            },
            score: score(&mut fields)?,
            labels: labels(&mut fields)?,
            comment: text(&mut fields, "comment")?,
            corrected_text: text(&mut fields, "corrected_text")?,
            end_user: text(&mut fields, "end_user")?,
            idempotency_key: text(&mut fields, "idempotency_key")?,
        };
        match fields.keys().next() {
            Some(unknown) => Err(Refusal::new(shortened(unknown), "is not a field of a rating")),
            None => Ok(rating),
        }
    }

    /// Whether it may be recorded for a tenant that knows these labels. Whose
    /// generation it is, is not looked at.
    pub fn check(&self, known_labels: &BTreeSet<String>) -> Result<(), Refusal> {
        if self.generation_id.is_empty() {
            return Err(Refusal::new("generation_id", "is empty"));
        }
        if self.score.is_some_and(|score| !(1..=5).contains(&score)) {
            return Err(Refusal::new("score", OUT_OF_RANGE));
        }
        if self.labels.len() > MOST_LABELS {
            return Err(Refusal::new("labels", format!("there are more than {MOST_LABELS}")));
        }
        for (at, label) in self.labels.iter().enumerate() {
            if !known_labels.contains(label) {
                let message = format!("{:?} is not one of the tenant's labels", shortened(label));
                return Err(Refusal::new(format!("labels[{at}]"), message));
            }
            if self.labels[..at].contains(label) {
                return Err(Refusal::new(format!("labels[{at}]"), format!("{label:?} is given twice")));
            }
        }
        filled("comment", self.comment.as_deref(), LONGEST_COMMENT)?;
        filled("corrected_text", self.corrected_text.as_deref(), LONGEST_CORRECTION)?;
        name("end_user", self.end_user.as_deref(), LONGEST_END_USER)?;
        name("idempotency_key", self.idempotency_key.as_deref(), LONGEST_IDEMPOTENCY_KEY)?;
        if !self.judges() {
            let message = "a rating has at least one of: thumb, score, labels, comment, corrected_text";
            return Err(Refusal::new("", message));
        }
        Ok(())
    }

    fn judges(&self) -> bool {
        self.thumb.is_some()
            || self.score.is_some()
            || !self.labels.is_empty()
            || self.comment.is_some()
            || self.corrected_text.is_some()
    }
}

impl TryFrom<Value> for Rating {
    type Error = Refusal;

    fn try_from(value: Value) -> Result<Self, Refusal> {
        Self::from_json(value)
    }
}

// === impl Thumb ===

impl Thumb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

const OUT_OF_RANGE: &str = "must be a whole number from 1 to 5";

/// The field's text; `None` where it is missing or null.
fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::new(name, "must be a string")),
    }
}

fn score(fields: &mut Map<String, Value>) -> Result<Option<u8>, Refusal> {
    match fields.remove("score") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(score @ 1..=5) => Ok(Some(score as u8)),
            _ => Err(Refusal::new("score", OUT_OF_RANGE)),
        },
    }
}

fn labels(fields: &mut Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let list = match fields.remove("labels") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Refusal::new("labels", "must be an array of strings")),
    };
    let label = |(at, value)| match value {
        Value::String(label) => Ok(label),
        _ => Err(Refusal::new(format!("labels[{at}]"), "must be a string")),
    };
    list.into_iter().enumerate().map(label).collect()
}

/// A text that says something, and not too much.
fn filled(field: &str, text: Option<&str>, longest: usize) -> Result<(), Refusal> {
    match text {
        Some("") => Err(Refusal::new(field, "is empty")),
        Some(text) if text.len() > longest => {
            Err(Refusal::new(field, format!("has {} bytes; the most is {longest}", text.len())))
        }
        _ => Ok(()),
    }
}

fn name(field: &str, text: Option<&str>, longest: usize) -> Result<(), Refusal> {
    filled(field, text, longest)?;
    match text {
        Some(text) if text.chars().any(char::is_control) => Err(Refusal::new(field, "has a control character")),
        _ => Ok(()),
    }
}

/// Of what a client wrote, as much as an answer repeats.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 64;
    text.char_indices().nth(SHOWN).map_or(text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}
