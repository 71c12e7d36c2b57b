//! Keys and values of the running sequences, in blocks from one bounded store.

use super::kernels::{BLOCK_TOKENS, Isa, KvBlock, KvShape, Precision};

/// All blocks there may be. A block is made when it is first needed and kept
/// for the next sequence afterwards.
pub(super) struct BlockStore {
    shape: KvShape,
    precision: Precision,
    free: Vec<KvBlock>,
    /// Blocks that may still be made.
    unmade: usize,
}

/// The cached positions of one sequence, from the first on.
#[derive(Default)]
pub struct SequenceCache {
    blocks: Vec<KvBlock>,
    /// Positions whose keys and values are there for every layer.
    len: usize,
}

// === impl BlockStore ===

impl BlockStore {
    pub(super) fn new(shape: KvShape, precision: Precision, blocks: usize) -> Self {
        Self { shape, precision, free: Vec::new(), unmade: blocks }
    }

    pub(super) fn available(&self) -> usize {
        self.free.len() + self.unmade
    }

    /// Gives `cache` room for `positions` in all; `false`, and nothing given, where there are too few blocks.
    pub(super) fn grow(&mut self, cache: &mut SequenceCache, positions: usize) -> bool {
        let missing = positions.div_ceil(BLOCK_TOKENS).saturating_sub(cache.blocks.len());
        if missing > self.available() {
            return false;
        }
        for _ in 0..missing {
            let block = self.free.pop().unwrap_or_else(|| {
                self.unmade -= 1;
                KvBlock::new(&self.shape, self.precision)
            });
            cache.blocks.push(block);
        }
        true
    }

    pub(super) fn take_back(&mut self, cache: &mut SequenceCache) {
        self.free.append(&mut cache.blocks);
        cache.len = 0;
    }
}

// === impl SequenceCache ===

impl SequenceCache {
    /// A cache with room for `positions`, outside of any store.
    pub(super) fn with_room(shape: &KvShape, precision: Precision, positions: usize) -> Self {
        let blocks = (0..positions.div_ceil(BLOCK_TOKENS)).map(|_| KvBlock::new(shape, precision)).collect();
        Self { blocks, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn blocks(&self) -> &[KvBlock] {
        &self.blocks
    }

    pub(super) fn room(&self) -> usize {
        self.blocks.len() * BLOCK_TOKENS
    }

    pub(super) fn store(&mut self, isa: Isa, shape: &KvShape, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        self.blocks[position / BLOCK_TOKENS].store(isa, shape, layer, position % BLOCK_TOKENS, k, v);
    }

    /// All layers of the next `positions` have been stored.
    pub(super) fn advance(&mut self, positions: usize) {
        self.len += positions;
    }
}
