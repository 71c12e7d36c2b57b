//! How much of the machine an engine may use.

use super::kernels::BLOCK_TOKENS;
use super::model::Model;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Compute threads.
    pub threads: usize,
    /// Sequences that run at one time.
    pub max_batch_rows: usize,
    /// Prompt tokens that are read in one step, beside the running sequences' next tokens.
    pub prefill_chunk: usize,
    /// Sequences that may wait for a place in the batch.
    pub queue: usize,
    /// Memory for keys and values that is this engine's alone.
    pub kv_bytes: u64,
    /// Cuts the model's context, in tokens.
    pub context: Option<usize>,
}

/// What a prompt and its answer have to fit into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The model's context, or the configured one, or what the cache holds: the least of the three.
    pub tokens: usize,
    /// Blocks of the cache that are this engine's own, for all sequences together.
    pub blocks: usize,
}

impl Config {
    /// What is left of the model's context under this configuration, where
    /// the cache may count on `pot` bytes beside its own.
    pub fn context(&self, model: &Model, pot: u64) -> Context {
        let block_bytes = model.kv_shape().block_bytes(model.precision()) as u64;
        let blocks = |bytes: u64| usize::try_from(bytes / block_bytes).unwrap_or(usize::MAX);
        let (own, most) = (blocks(self.kv_bytes), blocks(self.kv_bytes).saturating_add(blocks(pot)));
        let configured = self.context.unwrap_or(usize::MAX).min(model.config().context);
        Context { tokens: configured.min(most.saturating_mul(BLOCK_TOKENS)), blocks: own }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_batch_rows: 32,
            prefill_chunk: 256,
            queue: 256,
            kv_bytes: 1 << 30,
            context: None,
        }
    }
}
