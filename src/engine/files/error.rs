//! Why a model could not be read. Every message names the file, and the key or tensor it is about.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("{}: {reason}", file.display())]
    Malformed { file: PathBuf, reason: String },
    #[error("{}: key `{key}`: {reason}", file.display())]
    Key { file: PathBuf, key: String, reason: String },
    #[error("{}: tensor `{tensor}`: {reason}", file.display())]
    Tensor { file: PathBuf, tensor: String, reason: String },
    #[error("{}: {what} is not supported", file.display())]
    Unsupported { file: PathBuf, what: String },
}

impl ModelFileError {
    pub(crate) fn read(file: &Path, source: io::Error) -> Self {
        Self::Read { file: file.to_owned(), source }
    }

    pub(crate) fn write(file: &Path, source: io::Error) -> Self {
        Self::Write { file: file.to_owned(), source }
    }

    pub(crate) fn malformed(file: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { file: file.to_owned(), reason: reason.into() }
    }

    pub(crate) fn key(file: &Path, key: &str, reason: impl Into<String>) -> Self {
        Self::Key { file: file.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }

    pub(crate) fn unsupported(file: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { file: file.to_owned(), what: what.into() }
    }
}

/// Shortens text that came out of a file before it is put into a message: a hostile name may be megabytes long
/// and full of control characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut short = String::new();
    for character in text.chars().take(SHOWN) {
        match character {
            '"' | '\'' | '\\' => short.push(character),
            other => short.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}
