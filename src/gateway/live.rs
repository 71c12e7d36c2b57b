//! The part of the configuration that may change while requests run: swapped
//! whole; a request reads it once and keeps what it read.

use std::time::SystemTime;

use crate::auth::Keyring;
use crate::types::BaseName;

#[derive(Clone)]
pub struct Live {
    keyring: Keyring,
    /// Base models that some tenant's model stands on.
    bases: Vec<BaseName>,
    loaded: u64,
}

impl Live {
    pub fn new(keyring: Keyring, bases: Vec<BaseName>) -> Self {
        Self { keyring, bases, loaded: super::unix_seconds(SystemTime::now()) }
    }

    /// The same with other callers.
    pub(super) fn with(&self, keyring: Keyring) -> Self {
        Self { keyring, bases: self.bases.clone(), loaded: self.loaded }
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(super) fn bases(&self) -> impl Iterator<Item = &BaseName> {
        self.bases.iter()
    }

    pub(super) fn loaded(&self) -> u64 {
        self.loaded
    }
}
