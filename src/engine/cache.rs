//! Keys and values of the running sequences, in blocks from one bounded store.

use std::sync::Arc;

use super::budget::Budget;
use super::kernels::{BLOCK_TOKENS, Isa, KvBlock, KvShape, Precision};

/// All blocks there may be: the engine's own, and beyond them what a pot that
/// it shares with others has left. An own block is made when it is first
/// needed and kept for the next sequence afterwards; one out of the pot goes
/// back there.
pub(super) struct BlockStore {
    shape: KvShape,
    precision: Precision,
    free: Vec<KvBlock>,
    /// Own blocks that may still be made.
    unmade: usize,
    pot: Arc<Budget>,
    /// Blocks, free or not, that the pot gave.
    borrowed: usize,
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
    pub(super) fn new(shape: KvShape, precision: Precision, blocks: usize, pot: Arc<Budget>) -> Self {
        Self { shape, precision, free: Vec::new(), unmade: blocks, pot, borrowed: 0 }
    }

    /// Gives `cache` room for `positions` in all; `false`, and nothing given, where there are too few blocks.
    pub(super) fn grow(&mut self, cache: &mut SequenceCache, positions: usize) -> bool {
        let missing = positions.div_ceil(BLOCK_TOKENS).saturating_sub(cache.blocks.len());
        let borrow = missing.saturating_sub(self.free.len() + self.unmade);
        if borrow > 0 && !self.pot.take(self.bytes(borrow)) {
            return false;
        }
        self.borrowed += borrow;
        self.unmade += borrow;
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
        let returned = self.borrowed.min(self.free.len());
        self.free.truncate(self.free.len() - returned);
        self.borrowed -= returned;
        self.pot.give_back(self.bytes(returned));
    }

    fn bytes(&self, blocks: usize) -> u64 {
        (blocks * self.shape.block_bytes(self.precision)) as u64
    }
}

impl Drop for BlockStore {
    fn drop(&mut self) {
        self.pot.give_back(self.bytes(self.borrowed));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> KvShape {
        KvShape::new(1, 1, 64).expect("a shape")
    }

    fn block_bytes() -> u64 {
        shape().block_bytes(Precision::Fast) as u64
    }

    fn store(own: usize, pot: &Arc<Budget>) -> BlockStore {
        BlockStore::new(shape(), Precision::Fast, own, pot.clone())
    }

    #[test]
    fn own_blocks_come_first_and_the_pot_gets_its_own_back() {
        let pot = Arc::new(Budget::new(2 * block_bytes()));
        let (mut one, mut other) = (store(1, &pot), store(1, &pot));
        let (mut a, mut b) = (SequenceCache::default(), SequenceCache::default());
        assert!(one.grow(&mut a, BLOCK_TOKENS));
        assert_eq!(pot.left(), 2 * block_bytes(), "its own block does");
        assert!(one.grow(&mut a, 3 * BLOCK_TOKENS));
        assert_eq!(pot.left(), 0);
        assert!(!other.grow(&mut b, 2 * BLOCK_TOKENS), "all or nothing");
        assert_eq!(b.room(), 0);
        assert!(other.grow(&mut b, BLOCK_TOKENS), "what is its own nobody takes");
        one.take_back(&mut a);
        assert_eq!(pot.left(), 2 * block_bytes());
        assert!(other.grow(&mut b, 3 * BLOCK_TOKENS));
        drop(other);
        assert_eq!(pot.left(), 2 * block_bytes(), "given back with the engine");
    }
}
