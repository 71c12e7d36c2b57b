//! Attention of tokens to the other tokens of their text (Vaswani et al. 2017).
//!
//! It is the engine's kernel, whose query heads are the tokens here: those of one head
//! read the same keys and values.

use std::ops::Range;

use tenantry_kernels::{Attention, BLOCK_TOKENS, Isa, KvBlock, KvShape, LayoutError, Precision};

/// The sizes of a model's heads.
#[derive(Debug)]
pub(super) struct Heads {
    count: usize,
    width: usize,
    /// Of one layer, with heads as wide as the kernel can take; what is beyond `width`
    /// stays zero, and adds nothing.
    shape: KvShape,
}

/// What is kept from one text to the next.
pub(super) struct Scratch {
    blocks: Vec<KvBlock>,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    out: Vec<f32>,
    scores: Vec<f32>,
}

/// The heads' vectors are as wide as this or a multiple of it.
const LANES: usize = 16;

// === impl Scratch ===

impl Scratch {
    pub(super) fn new(heads: &Heads, longest: usize) -> Self {
        let wide = vec![0.0; heads.count * heads.shape.head_dim()];
        let blocks = longest.div_ceil(BLOCK_TOKENS);
        Self {
            blocks: (0..blocks).map(|_| KvBlock::new(&heads.shape, Precision::Exact)).collect(),
            keys: wide.clone(),
            values: wide,
            queries: Vec::new(),
            out: Vec::new(),
            scores: Vec::new(),
        }
    }
}

// === impl Heads ===

impl Heads {
    pub(super) fn new(count: usize, width: usize) -> Result<Self, LayoutError> {
        Ok(Self { count, width, shape: KvShape::new(1, count, width.next_multiple_of(LANES))? })
    }

    /// `projected`: of each token its queries, keys and values, one behind the other, each
    /// head by head. What the tokens in `asking` gather is written to `out`, one each.
    pub(super) fn attend<'out>(
        &self,
        isa: Isa,
        projected: &[f32],
        asking: Range<usize>,
        scratch: &mut Scratch,
        out: impl Iterator<Item = &'out mut [f32]>,
    ) {
        let (hidden, wide) = (self.count * self.width, self.shape.head_dim());
        let positions = projected.len() / (3 * hidden);
        for (at, token) in projected.chunks_exact(3 * hidden).enumerate() {
            let (block, slot) = (&mut scratch.blocks[at / BLOCK_TOKENS], at % BLOCK_TOKENS);
            let (mut keys, mut values) = (&token[hidden..2 * hidden], &token[2 * hidden..]);
            if wide != self.width {
                self.widen(keys, &mut scratch.keys);
                self.widen(values, &mut scratch.values);
                (keys, values) = (&scratch.keys, &scratch.values);
            }
            block.store(isa, &self.shape, 0, slot, keys, values);
        }
        let attention = Attention {
            shape: &self.shape,
            layer: 0,
            blocks: &scratch.blocks,
            positions,
            heads: asking.len() * self.count,
            scale: 1.0 / (self.width as f32).sqrt(),
        };
        let each = asking.len() * wide;
        scratch.queries.resize(self.count * each, 0.0);
        scratch.out.resize(self.count * each, 0.0);
        for (at, token) in projected.chunks_exact(3 * hidden).skip(asking.start).take(asking.len()).enumerate() {
            for (head, query) in token[..hidden].chunks_exact(self.width).enumerate() {
                scratch.queries[head * each + at * wide..][..self.width].copy_from_slice(query);
            }
        }
        let heads = scratch.queries.chunks_exact(each).zip(scratch.out.chunks_exact_mut(each));
        for (head, (queries, out)) in heads.enumerate() {
            attention.attend_heads(isa, head..head + 1, queries, &mut scratch.scores, out);
        }
        for (at, out) in out.enumerate() {
            for (head, part) in out.chunks_exact_mut(self.width).enumerate() {
                part.copy_from_slice(&scratch.out[head * each + at * wide..][..self.width]);
            }
        }
    }

    fn widen(&self, narrow: &[f32], to: &mut [f32]) {
        for (head, to) in narrow.chunks_exact(self.width).zip(to.chunks_exact_mut(self.shape.head_dim())) {
            to[..self.width].copy_from_slice(head);
        }
    }
}
