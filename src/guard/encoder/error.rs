//! Why a model cannot be opened, or a text not be judged.

use std::path::PathBuf;

/// The texts name the file and the field, for who wrote the configuration.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    #[error("cannot read {}: {reason}", file.display())]
    Unreadable { file: PathBuf, reason: String },
    /// It was read, and is not what this crate can run.
    #[error("{file}: {field}: {reason}")]
    Unfit { file: &'static str, field: String, reason: String },
    /// The arithmetic failed, which no text should cause.
    #[error("the text cannot be judged: {0}")]
    Failed(#[from] candle_core::Error),
    #[error("the text cannot be split into tokens: {0}")]
    Tokens(String),
    #[error("no thread can be started for the model: {0}")]
    Thread(String),
}

pub(super) type Result<T> = std::result::Result<T, EncoderError>;

impl EncoderError {
    pub(super) fn unfit(file: &'static str, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unfit { file, field: field.into(), reason: reason.into() }
    }
}
