//! Secrets by reference: `env:NAME` or `file:PATH`.

use std::{env, fs};

use crate::types::Secret;

use super::SecretRef;
use super::section::text;
use super::tree::Node;
use super::validate::Folder;

/// A secret is one line; a longer file is another file.
const LONGEST: usize = 4096;

pub(super) fn reference(folder: &Folder<'_>) -> impl Fn(&Node) -> Result<SecretRef, String> {
    move |node| {
        let text = text(node)?;
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(SecretRef::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(SecretRef::File(folder.join(node, path))),
            // Not repeated: it may be the secret itself.
            _ => Err("a secret is named, not written: expected \"env:NAME\" or \"file:PATH\"".to_owned()),
        }
    }
}

// === impl SecretRef ===

impl SecretRef {
    /// The secret itself. The error says where it was looked for, and nothing of what was found.
    pub fn read(&self) -> Result<Secret, String> {
        let (place, text) = match self {
            Self::Env(name) => {
                (format!("the variable {name}"), env::var(name).map_err(|_| format!("the variable {name} is not set"))?)
            }
            Self::File(path) => {
                let place = path.display().to_string();
                let text = fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
                (place, text)
            }
        };
        let secret = text.trim_end_matches(['\n', '\r']);
        let plain = !secret.is_empty() && secret.len() <= LONGEST && secret.bytes().all(|c| c.is_ascii_graphic());
        if plain { Ok(Secret::new(secret)) } else { Err(format!("{place} does not hold one line of visible ASCII")) }
    }
}
