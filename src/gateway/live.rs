//! The part of the configuration that may change while requests run: swapped
//! whole; a request reads it once and keeps what it read.

use std::time::SystemTime;

use crate::auth::Keyring;
use crate::types::BaseName;

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
