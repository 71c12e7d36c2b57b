//! The embedded engine against its references.

mod tiny;

use std::path::{Path, PathBuf};

use tenantry::engine::kernels::{Isa, Team};
use tenantry::engine::{Adapter, Forward, Model, SequenceCache, Slice, Wanted};

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A JSON fixture.
pub fn fixture<T: serde::de::DeserializeOwned>(path: &str) -> T {
    let path = repository("tests/fixtures").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the prompt as one chunk, then takes the most probable token `count` times.
pub fn greedy(model: &Model, team: &mut Team, adapter: Option<&Adapter>, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut forward = Forward::default();
    let mut cache = model.cache(prompt.len() + count);
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let next = &tokens[cache.len()..];
        let mut batch = [Slice { cache: &mut cache, tokens: next, adapter, wanted: Wanted::Last }];
        let logits = forward.run(model, team, &mut batch);
        tokens.push(team.isa().argmax(&logits[0]) as u32);
    }
    tokens.split_off(prompt.len())
}
