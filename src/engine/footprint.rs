//! What a model takes in memory, known from its shape before a weight is read.

use super::files::ModelConfig;
use super::kernels::{BLOCK_TOKENS, KvShape, Matrix, Precision};

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// As [`Model::bytes`](super::Model::bytes) tells once it is loaded.
    pub weights: u64,
    /// Keys and values of [`BLOCK_TOKENS`] positions.
    kv_block: u64,
}

// === impl Footprint ===

impl Footprint {
    /// The reason where a model of this shape cannot run.
    pub fn of(model: &ModelConfig, precision: Precision) -> Result<Self, String> {
        let shape = KvShape::new(model.layers, model.kv_heads, model.head_dim).map_err(|error| error.to_string())?;
        let matrix = |outputs, inputs| Matrix::packed_bytes(outputs, inputs, precision) as u64;
        let (queries, keys) = (model.heads * model.head_dim, model.kv_heads * model.head_dim);
        let layer = matrix(queries + 2 * keys, model.hidden)
            + matrix(model.hidden, queries)
            + matrix(2 * model.intermediate, model.hidden)
            + matrix(model.hidden, model.intermediate);
        let tables = if model.tied_embeddings { 1 } else { 2 };
        let weights = tables * matrix(model.vocab, model.hidden) + model.layers as u64 * layer;
        Ok(Self { weights, kv_block: shape.block_bytes(precision) as u64 })
    }

    /// What the keys and values of `tokens` positions take.
    pub fn kv(&self, tokens: usize) -> u64 {
        tokens.div_ceil(BLOCK_TOKENS) as u64 * self.kv_block
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Model;
    use crate::files::ModelFiles;

    #[test]
    fn the_weights_take_what_their_shape_says() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny");
        for name in ["llama3", "mistral", "qwen2", "qwen3"] {
            let files = ModelFiles::open(&fixtures.join(name)).expect(name);
            for precision in [Precision::Exact, Precision::Fast] {
                let Ok(model) = Model::load(&files, precision) else {
                    assert_eq!(precision, Precision::Fast, "{name}: some are too narrow for the fast path");
                    continue;
                };
                let footprint = Footprint::of(files.config(), precision).expect(name);
                assert_eq!(footprint.weights, model.bytes() as u64, "{name}, {precision:?}");
                let block = footprint.kv(1);
                assert_eq!((footprint.kv(BLOCK_TOKENS), footprint.kv(BLOCK_TOKENS + 1)), (block, 2 * block));
            }
        }
    }
}
