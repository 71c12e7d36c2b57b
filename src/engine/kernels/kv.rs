//! The cache of keys and values, in blocks of a few positions.
//!
//! A block holds [`BLOCK_TOKENS`] positions of one sequence for all layers, so that a sequence grows, is shared and
//! is freed in units of blocks. For each layer and key-value head it has a tile of keys and a tile of values next to
//! each other. Keys are transposed (element by element, sixteen positions each): a vector then holds the scores of
//! sixteen positions and nothing has to be summed across lanes. Values are kept position by position.
//!
//! A block knows neither which of its positions are in use nor whose they are; a reused block still holds what was
//! in it. Attention reads only the positions it is told of.

use super::{
    Isa, LayoutError, Precision,
    element::{Element, Full, Half},
    matrix::check_dimension,
    simd::{Kernel, LANES, Simd},
};

/// Positions per block: one vector of scores.
pub const BLOCK_TOKENS: usize = LANES;

/// What of a model the cache depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvShape {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl KvShape {
    /// `head_dim` must be a multiple of 16.
    pub fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Result<Self, LayoutError> {
        check_dimension("layers", layers, 1)?;
        check_dimension("kv_heads", kv_heads, 1)?;
        check_dimension("head_dim", head_dim, LANES)?;
        Ok(Self { layers, kv_heads, head_dim })
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Heads of keys and values in a layer.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Memory one block takes.
    pub fn block_bytes(&self, precision: Precision) -> usize {
        let element = match precision {
            Precision::Exact => size_of::<f32>(),
            Precision::Fast => size_of::<u16>(),
        };
        self.elements() * element
    }

    /// Numbers in a block.
    fn elements(&self) -> usize {
        self.layers * self.kv_heads * 2 * self.tile()
    }

    /// Numbers in a tile of keys or of values.
    pub(super) fn tile(&self) -> usize {
        self.head_dim * BLOCK_TOKENS
    }

    /// Where the tile of keys of a head begins; that of its values follows.
    pub(super) fn tile_start(&self, layer: usize, kv_head: usize) -> usize {
        assert!(layer < self.layers && kv_head < self.kv_heads, "a head of the model");
        (layer * self.kv_heads + kv_head) * 2 * self.tile()
    }
}

/// Keys and values of [`BLOCK_TOKENS`] positions.
pub struct KvBlock {
    storage: Storage,
}

/// Numbers in the format of the path.
enum Storage {
    Exact(Aligned<Full>),
    Fast(Aligned<Half>),
}

/// A format that blocks are kept in.
pub(super) trait CacheElement: Element {
    /// All numbers of a block, which must be of the given shape and in this format.
    fn numbers<'a>(block: &'a KvBlock, shape: &KvShape) -> &'a [Self::Bits];
}

impl CacheElement for Full {
    #[inline(always)]
    fn numbers<'a>(block: &'a KvBlock, shape: &KvShape) -> &'a [f32] {
        match &block.storage {
            Storage::Exact(numbers) => numbers.get(shape),
            Storage::Fast(_) => panic!("all blocks of a sequence have one precision"),
        }
    }
}

impl CacheElement for Half {
    #[inline(always)]
    fn numbers<'a>(block: &'a KvBlock, shape: &KvShape) -> &'a [u16] {
        match &block.storage {
            Storage::Fast(numbers) => numbers.get(shape),
            Storage::Exact(_) => panic!("all blocks of a sequence have one precision"),
        }
    }
}

impl KvBlock {
    /// A block of zeroes. The memory is not touched before it is used.
    pub fn new(shape: &KvShape, precision: Precision) -> Self {
        let length = shape.elements();
        let storage = match precision {
            Precision::Exact => Storage::Exact(Aligned::new(vec![0.0; length + LINE], length)),
            Precision::Fast => Storage::Fast(Aligned::new(vec![0; length + LINE], length)),
        };
        Self { storage }
    }

    /// Stores keys and values of one position (all heads of a layer, head by head) in a slot of the block.
    pub fn store(&mut self, isa: Isa, shape: &KvShape, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let width = shape.kv_heads * shape.head_dim;
        assert!(slot < BLOCK_TOKENS, "slot {slot} of {BLOCK_TOKENS}");
        assert!(keys.len() == width && values.len() == width, "all heads of a layer");
        let heads = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
        for (kv_head, (keys, values)) in heads.enumerate() {
            let start = shape.tile_start(layer, kv_head);
            let row = slot * shape.head_dim..(slot + 1) * shape.head_dim;
            match &mut self.storage {
                Storage::Exact(numbers) => {
                    let tiles = &mut numbers.get_mut(shape)[start..][..2 * shape.tile()];
                    let (key_tile, value_tile) = tiles.split_at_mut(shape.tile());
                    put_keys(key_tile, slot, keys);
                    value_tile[row].copy_from_slice(values);
                }
                Storage::Fast(numbers) => {
                    let tiles = &mut numbers.get_mut(shape)[start..][..2 * shape.tile()];
                    let (key_tile, value_tile) = tiles.split_at_mut(shape.tile());
                    let value_row = &mut value_tile[row];
                    isa.run(StoreHalf { key_tile, value_row, slot, keys, values });
                }
            }
        }
    }

    /// Which path the block belongs to.
    pub fn precision(&self) -> Precision {
        match &self.storage {
            Storage::Exact(_) => Precision::Exact,
            Storage::Fast(_) => Precision::Fast,
        }
    }
}

/// Puts the key of one position into its column of a tile.
fn put_keys<T: Copy>(tile: &mut [T], slot: usize, keys: &[T]) {
    let (rows, _) = tile.as_chunks_mut::<BLOCK_TOKENS>();
    for (row, key) in rows.iter_mut().zip(keys) {
        row[slot] = *key;
    }
}

/// Rounds the keys and values of one head and position to f16.
struct StoreHalf<'a> {
    key_tile: &'a mut [u16],
    value_row: &'a mut [u16],
    slot: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

impl Kernel for StoreHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (keys, _) = self.keys.as_chunks::<LANES>();
        for (keys, tile) in keys.iter().zip(self.key_tile.chunks_exact_mut(LANES * BLOCK_TOKENS)) {
            let mut halves = [0; LANES];
            store_saturated(simd, keys, &mut halves);
            put_keys(tile, self.slot, &halves);
        }
        let (values, _) = self.values.as_chunks::<LANES>();
        let (row, _) = self.value_row.as_chunks_mut::<LANES>();
        for (values, row) in values.iter().zip(row) {
            store_saturated(simd, values, row);
        }
    }
}

/// Stops at the largest f16: an infinite key would turn all scores of its head into NaN. A NaN stays one.
#[inline(always)]
fn store_saturated<S: Simd>(simd: S, from: &[f32; LANES], to: &mut [u16; LANES]) {
    const LARGEST: f32 = 65_504.0;
    let below = simd.min(simd.splat(LARGEST), simd.load(from));
    simd.store_f16(simd.max(simd.splat(-LARGEST), below), to);
}

/// Elements to spare for alignment; enough for a cache line of either format.
const LINE: usize = 32;

/// Numbers that begin at a cache line. Half of the loads of a tile would span two lines otherwise, as the allocator
/// puts large vectors 16 bytes after one. (An aligned type would do too, but is not zeroed lazily.)
struct Aligned<E: Element> {
    all: Vec<E::Bits>,
    start: usize,
    length: usize,
}

impl<E: Element> Aligned<E> {
    fn new(all: Vec<E::Bits>, length: usize) -> Self {
        let start = all.as_ptr().align_offset(64);
        // The offset may be unknown in theory; then it is not aligned, and no less right.
        let start = if start <= LINE { start } else { 0 };
        Self { all, start, length }
    }

    fn get(&self, shape: &KvShape) -> &[E::Bits] {
        assert_eq!(self.length, shape.elements(), "a block of this shape");
        &self.all[self.start..][..self.length]
    }

    fn get_mut(&mut self, shape: &KvShape) -> &mut [E::Bits] {
        assert_eq!(self.length, shape.elements(), "a block of this shape");
        &mut self.all[self.start..][..self.length]
    }
}
