//! One row of input to a matrix, and its 8-bit form.

use super::{
    BLOCK, Isa, Precision,
    simd::{Kernel, LANES, Simd},
};

/// The largest 8-bit value in use. -128 stays out: the range is symmetric, and AVX2's products fit 16 bits.
pub(super) const LARGEST: f32 = 127.0;

/// Weight scales are stored as f16 times this, or small ones would lose their digits as subnormals. Activation scales
/// are divided by it, so that the product of the two is right.
pub(super) const SCALE_BIAS: f32 = 1024.0;

/// A row of values to multiply with matrices. On the fast path it also holds them in 8 bits.
pub struct Activation {
    values: Vec<f32>,
    /// Empty on the exact path.
    blocks: Vec<QuantBlock>,
    precision: Precision,
    /// The 8-bit form is that of the values.
    quantised: bool,
}

/// [`BLOCK`] activations in 8 bits. All a matrix product needs of them is together, one stream per row.
#[derive(Clone, Copy)]
pub(super) struct QuantBlock {
    /// Four values each, the first in the lowest byte: the operand that is broadcast.
    pub(super) quads: [i32; BLOCK / 4],
    /// What a step of one is worth, divided by [`SCALE_BIAS`].
    pub(super) scale: f32,
    /// -128 times the sum of the values; see `Simd::start`.
    pub(super) offset: i32,
}

impl Activation {
    /// A row of `length` zeroes. On the fast path the length is a multiple of [`BLOCK`], as that of a matrix is.
    pub fn new(length: usize, precision: Precision) -> Self {
        let zero = QuantBlock { quads: [0; BLOCK / 4], scale: 0.0, offset: 0 };
        let blocks = match precision {
            Precision::Exact => Vec::new(),
            Precision::Fast => {
                assert!(length.is_multiple_of(BLOCK), "a fast row has {BLOCK} values per scale, not {length} in all");
                vec![zero; length / BLOCK]
            }
        };
        Self { values: vec![0.0; length], blocks, precision, quantised: true }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, as precise as they were put in.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, to be written. [`Activation::quantise`] must follow before the row goes into a matrix product.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.quantised = self.precision == Precision::Exact;
        &mut self.values
    }

    /// Brings the 8-bit form up to the values; nothing to do on the exact path.
    ///
    /// The largest magnitude of a block becomes 127, the others are rounded to nearest. A block with a value that is
    /// not finite becomes NaN as a whole, so that the fault shows in the result.
    pub fn quantise(&mut self, isa: Isa) {
        if !self.quantised {
            isa.run(Quantise { values: &self.values, blocks: &mut self.blocks });
            self.quantised = true;
        }
    }

    /// The 8-bit form, for a matrix product.
    pub(super) fn blocks(&self) -> &[QuantBlock] {
        assert!(self.precision == Precision::Fast && self.quantised, "a fast matrix needs a quantised row");
        &self.blocks
    }
}

struct Quantise<'a> {
    values: &'a [f32],
    blocks: &'a mut [QuantBlock],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, _) = self.values.as_chunks::<BLOCK>();
        for (values, block) in rows.iter().zip(self.blocks) {
            *block = quantise_block(simd, values);
        }
    }
}

#[inline(always)]
fn quantise_block<S: Simd>(simd: S, values: &[f32; BLOCK]) -> QuantBlock {
    /// Below this a block counts as zero: the reciprocal of its scale would overflow.
    const NOTHING: f32 = 1e-30;

    let largest = largest_magnitude(simd, values);
    let (scale, inverse) = if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < NOTHING {
        (0.0, 0.0)
    } else {
        (largest * (1.0 / (LARGEST * SCALE_BIAS)), LARGEST / largest)
    };
    let (bytes, sum) = if inverse == 0.0 { ([0; BLOCK], 0) } else { to_bytes(simd, values, inverse) };
    let mut quads = [0; BLOCK / 4];
    let (fours, _) = bytes.as_chunks::<4>();
    for (quad, four) in quads.iter_mut().zip(fours) {
        *quad = i32::from_le_bytes(four.map(|byte| byte as u8));
    }
    QuantBlock { quads, scale, offset: -128 * sum }
}

/// The largest magnitude of a block; NaN if there is one, else infinite if there is one.
#[inline(always)]
pub(super) fn largest_magnitude<S: Simd>(simd: S, values: &[f32; BLOCK]) -> f32 {
    let (vectors, _) = values.as_chunks::<LANES>();
    let mut largest = simd.magnitude_bits(simd.load(&vectors[0]));
    for vector in &vectors[1..] {
        largest = simd.max_int(largest, simd.magnitude_bits(simd.load(vector)));
    }
    f32::from_bits(simd.largest_int(largest) as u32)
}

/// A block in units of `1 / inverse`, rounded to nearest, and the sum of what it became.
#[inline(always)]
pub(super) fn to_bytes<S: Simd>(simd: S, values: &[f32; BLOCK], inverse: f32) -> ([i8; BLOCK], i32) {
    let (highest, lowest) = (simd.splat(LARGEST), simd.splat(-LARGEST));
    let mut bytes = [0; BLOCK];
    let mut sum = simd.to_int(simd.splat(0.0));
    let (vectors, _) = values.as_chunks::<LANES>();
    let (narrow, _) = bytes.as_chunks_mut::<LANES>();
    for (vector, narrow) in vectors.iter().zip(narrow) {
        let scaled = simd.mul(simd.load(vector), simd.splat(inverse));
        let whole = simd.to_int(simd.max(lowest, simd.min(highest, scaled)));
        *narrow = simd.narrow(whole);
        sum = simd.add_int(sum, whole);
    }
    (bytes, simd.sum_int(sum))
}
