//! What adapters exist: the [`Catalogue`] of artifacts, by [`AdapterKey`].
//!
//! The catalogue holds what the configuration lists. It knows where an
//! artifact lies and what it must hash to; reading and checking it is the
//! engine's business, since only that knows the base model's shapes.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::types::{AdapterKey, BaseName};

/// One revision of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub key: AdapterKey,
    /// The base model that the adapter was trained on.
    pub base: BaseName,
    /// A PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    artifacts: HashMap<AdapterKey, Artifact>,
}

// === impl Catalogue ===

impl Catalogue {
    pub fn insert(&mut self, artifact: Artifact) {
        self.artifacts.insert(artifact.key.clone(), artifact);
    }

    pub fn get(&self, key: &AdapterKey) -> Option<&Artifact> {
        self.artifacts.get(key)
    }
}
