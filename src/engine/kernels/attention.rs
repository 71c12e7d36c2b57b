//! Grouped-query attention of one row over the cache.
//!
//! Heads are computed one key-value head at a time, with the query heads that share it together: a key is loaded once
//! for all of them. Three passes: scores of all positions, their exponentials, the weighted sum of the values. All
//! scores are kept in between, which at the lengths a CPU serves is less work than rescaling as one goes.
//!
//! Nothing depends on how rows or heads are spread over threads, nor on what a block holds beyond the visible
//! positions: scores there are replaced before they are looked at, values are not read.

use std::{borrow::Borrow, marker::PhantomData, ops::Range};

use super::{
    BLOCK_TOKENS, Isa, KvBlock, KvShape, Precision,
    element::{Full, Half},
    kv::CacheElement,
    simd::{Kernel, LANES, Simd, exp},
    vector::largest,
};

/// Blocks whose values are asked for while their keys are read, so that short contexts wait once and not twice. More
/// would push each other out of the first-level cache before they are used.
const VALUES_EARLY: usize = 8;

/// What one row attends to. All of it is borrowed, so it is made on the spot.
#[derive(Clone, Copy)]
pub struct Attention<'a, B> {
    /// The shape the blocks were made with.
    pub shape: &'a KvShape,
    /// The layer.
    pub layer: usize,
    /// The blocks of the row's sequence, in order.
    pub blocks: &'a [B],
    /// How many positions the row sees, itself included: at least one, and no more than the blocks have.
    pub positions: usize,
    /// Query heads, a multiple of the key-value heads.
    pub heads: usize,
    /// What scores are multiplied with: `1 / sqrt(head_dim)` in most models.
    pub scale: f32,
}

impl<B: Borrow<KvBlock>> Attention<'_, B> {
    /// Attention of all heads. `queries` and `out` have one head after the other; `scores` is scratch space that
    /// is best kept from call to call.
    pub fn attend(&self, isa: Isa, queries: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
        self.attend_heads(isa, 0..self.shape.kv_heads(), queries, scores, out);
    }

    /// Attention of the query heads that belong to some of the key-value heads, so that one row can be shared out.
    /// `queries` and `out` are those heads only.
    pub fn attend_heads(
        &self,
        isa: Isa,
        kv_heads: Range<usize>,
        queries: &[f32],
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let visible = self.positions.div_ceil(BLOCK_TOKENS);
        assert!(self.positions > 0 && visible <= self.blocks.len(), "positions that the blocks have");
        assert!(self.heads > 0 && self.heads.is_multiple_of(self.shape.kv_heads()), "equal groups of heads");
        let group = self.heads / self.shape.kv_heads() * self.shape.head_dim();
        assert_eq!(queries.len(), kv_heads.len() * group, "the queries of these heads");
        assert_eq!(out.len(), queries.len(), "as much out as in");
        let kv_groups = kv_heads.zip(queries.chunks_exact(group).zip(out.chunks_exact_mut(group)));
        for (kv_head, (queries, out)) in kv_groups {
            let tiles = Tiles {
                shape: self.shape,
                start: self.shape.tile_start(self.layer, kv_head),
                blocks: &self.blocks[..visible],
            };
            let group = Group { tiles, positions: self.positions, scale: self.scale, queries, scores, out };
            match self.blocks[0].borrow().precision() {
                Precision::Exact => group.run::<Full>(isa),
                Precision::Fast => group.run::<Half>(isa),
            }
        }
    }
}

/// The tiles of one key-value head.
struct Tiles<'a, B> {
    shape: &'a KvShape,
    /// Where the head's tiles are in each block.
    start: usize,
    /// Those with visible positions.
    blocks: &'a [B],
}

impl<B> Clone for Tiles<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Tiles<'_, B> {}

impl<'a, B: Borrow<KvBlock>> Tiles<'a, B> {
    /// The keys of a block, a vector of positions for each element of the head.
    #[inline(always)]
    fn keys<E: CacheElement>(self, block: usize) -> &'a [[E::Bits; LANES]] {
        let numbers = E::numbers(self.blocks[block].borrow(), self.shape);
        numbers[self.start..][..self.shape.tile()].as_chunks().0
    }

    /// The values of a block, as many vectors for each position as a head has.
    #[inline(always)]
    fn values<E: CacheElement>(self, block: usize) -> &'a [[E::Bits; LANES]] {
        let numbers = E::numbers(self.blocks[block].borrow(), self.shape);
        numbers[self.start + self.shape.tile()..][..self.shape.tile()].as_chunks().0
    }
}

/// Query heads that share a key-value head.
struct Group<'a, B> {
    tiles: Tiles<'a, B>,
    positions: usize,
    scale: f32,
    queries: &'a [f32],
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl<B: Borrow<KvBlock>> Group<'_, B> {
    /// Takes as many heads at a time as the registers hold.
    fn run<E: CacheElement>(mut self, isa: Isa) {
        let head_dim = self.tiles.shape.head_dim();
        let heads = self.queries.len() / head_dim;
        let mut first = 0;
        while first < heads {
            let count = isa.tile_heads().min(heads - first);
            let part = self.part(first * head_dim..(first + count) * head_dim);
            match count {
                1 => isa.run(Heads::<B, E, 1>(part, PhantomData)),
                2 => isa.run(Heads::<B, E, 2>(part, PhantomData)),
                3 => isa.run(Heads::<B, E, 3>(part, PhantomData)),
                4 => isa.run(Heads::<B, E, 4>(part, PhantomData)),
                _ => unreachable!("at most four heads at a time"),
            }
            first += count;
        }
    }

    fn part(&mut self, range: Range<usize>) -> Group<'_, B> {
        Group {
            tiles: self.tiles,
            positions: self.positions,
            scale: self.scale,
            queries: &self.queries[range.clone()],
            scores: self.scores,
            out: &mut self.out[range],
        }
    }
}

/// A [`Group`] of `N` heads over a cache in format `E`.
struct Heads<'a, B, E, const N: usize>(Group<'a, B>, PhantomData<E>);

impl<B: Borrow<KvBlock>, E: CacheElement, const N: usize> Kernel for Heads<'_, B, E, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Group { tiles, positions, scale, queries, scores, out } = self.0;
        let head_dim = tiles.shape.head_dim();
        let padded = tiles.blocks.len() * BLOCK_TOKENS;
        scores.clear();
        scores.resize(N * padded, 0.0);
        score::<S, B, E, N>(simd, tiles, queries, scale, scores);
        let mut totals = [0.0; N];
        for (scores, total) in scores.chunks_exact_mut(padded).zip(&mut totals) {
            *total = exponentials(simd, scores, positions);
        }
        // Four vectors of a head at a time are what the sums of four heads leave room for.
        let vectors = head_dim / LANES;
        let mut first = 0;
        while first < vectors {
            let weighted = Weighted { tiles, positions, scores, totals, first, out: &mut *out };
            first += match vectors - first {
                1 => weighted.sum::<S, E, 1>(simd),
                2 | 3 => weighted.sum::<S, E, 2>(simd),
                _ => weighted.sum::<S, E, 4>(simd),
            };
        }
    }
}

/// Scores of all positions of all blocks, whether visible or not.
#[inline(always)]
fn score<S: Simd, B: Borrow<KvBlock>, E: CacheElement, const N: usize>(
    simd: S,
    tiles: Tiles<'_, B>,
    queries: &[f32],
    scale: f32,
    scores: &mut [f32],
) {
    let head_dim = tiles.shape.head_dim();
    let padded = tiles.blocks.len() * BLOCK_TOKENS;
    let mut heads: [&[f32]; N] = [&[]; N];
    for (head, query) in heads.iter_mut().zip(queries.chunks_exact(head_dim)) {
        *head = query;
    }
    for block in 0..tiles.blocks.len() {
        let keys = tiles.keys::<E>(block);
        let next = tiles.keys::<E>((block + 1).min(tiles.blocks.len() - 1));
        let values = tiles.values::<E>(block);
        // Even and odd elements apart, or a lone head would wait for its own additions.
        let mut sums = [[simd.splat(0.0); 2]; N];
        for d in (0..head_dim).step_by(2) {
            prefetch_pair::<S, E>(simd, next, d);
            if block < VALUES_EARLY {
                prefetch_pair::<S, E>(simd, values, d);
            }
            let (even, odd) = (E::load(simd, &keys[d]), E::load(simd, &keys[d + 1]));
            for n in 0..N {
                sums[n][0] = simd.fma(even, simd.splat(heads[n][d]), sums[n][0]);
                sums[n][1] = simd.fma(odd, simd.splat(heads[n][d + 1]), sums[n][1]);
            }
        }
        for n in 0..N {
            let mut lanes = [0.0; LANES];
            simd.store(simd.mul(simd.add(sums[n][0], sums[n][1]), simd.splat(scale)), &mut lanes);
            scores[n * padded + block * BLOCK_TOKENS..][..LANES].copy_from_slice(&lanes);
        }
    }
}

/// Replaces the scores of one head by their exponentials, scaled so that none overflows, and returns their sum.
/// Invisible positions become zero, whatever their scores were.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [f32], positions: usize) -> f32 {
    let highest = simd.splat(largest(simd, &scores[..positions]));
    let mut sum = simd.splat(0.0);
    let (vectors, _) = scores.as_chunks_mut::<LANES>();
    for (index, vector) in vectors.iter_mut().enumerate() {
        simd.store(exp(simd, simd.sub(simd.load(vector), highest)), vector);
        let visible = (positions - index * LANES).min(LANES);
        vector[visible..].fill(0.0);
        sum = simd.add(sum, simd.load(vector));
    }
    simd.sum(sum)
}

/// The last pass: values weighted by the exponentials.
struct Weighted<'a, B, const N: usize> {
    tiles: Tiles<'a, B>,
    positions: usize,
    /// Exponentials of each head.
    scores: &'a [f32],
    /// Their sums.
    totals: [f32; N],
    /// The first vector of the heads to be computed.
    first: usize,
    out: &'a mut [f32],
}

impl<B: Borrow<KvBlock>, const N: usize> Weighted<'_, B, N> {
    /// Computes `V` vectors of each head, and returns `V`.
    #[inline(always)]
    fn sum<S: Simd, E: CacheElement, const V: usize>(self, simd: S) -> usize {
        let blocks = self.tiles.blocks.len();
        let vectors = self.tiles.shape.head_dim() / LANES;
        let padded = blocks * BLOCK_TOKENS;
        let mut sums = [[simd.splat(0.0); V]; N];
        for block in 0..blocks {
            let values = self.tiles.values::<E>(block);
            let next = self.tiles.values::<E>((block + 1).min(blocks - 1));
            let visible = (self.positions - block * BLOCK_TOKENS).min(BLOCK_TOKENS);
            let mut weights = [&[][..]; N];
            for (weights, scores) in weights.iter_mut().zip(self.scores.chunks_exact(padded)) {
                *weights = &scores[block * BLOCK_TOKENS..][..LANES];
            }
            for (slot, row) in values.chunks_exact(vectors).take(visible).enumerate() {
                let row = &row[self.first..][..V];
                if block + 1 >= VALUES_EARLY {
                    for v in (0..V).step_by(2) {
                        prefetch_pair::<S, E>(simd, next, slot * vectors + self.first + v);
                    }
                }
                for v in 0..V {
                    let value = E::load(simd, &row[v]);
                    for n in 0..N {
                        sums[n][v] = simd.fma(value, simd.splat(weights[n][slot]), sums[n][v]);
                    }
                }
            }
        }
        for (n, head) in self.out.chunks_exact_mut(vectors * LANES).enumerate() {
            let total = simd.splat(self.totals[n]);
            let (head, _) = head.as_chunks_mut::<LANES>();
            for v in 0..V {
                simd.store(simd.div(sums[n][v], total), &mut head[self.first + v]);
            }
        }
        V
    }
}

/// Asks for two vectors of a tile: a cache line on the fast path, two on the exact one.
#[inline(always)]
fn prefetch_pair<S: Simd, E: CacheElement>(simd: S, tile: &[[E::Bits; LANES]], first: usize) {
    let address = tile.as_ptr().wrapping_add(first);
    simd.prefetch(address.cast());
    if size_of::<[E::Bits; LANES]>() >= 64 {
        simd.prefetch(address.wrapping_add(1).cast());
    }
}
