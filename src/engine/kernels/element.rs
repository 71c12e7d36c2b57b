//! How numbers are stored where they are many: `f32` on the exact path, 16 bits on the fast one.

use half::{bf16, f16};

use super::simd::{LANES, Simd};

/// A storage format. The formats are types, so that kernels are compiled for each.
pub(super) trait Element {
    /// What a number occupies. Plain integers for the 16-bit formats, so that the allocator can hand out zeroes
    /// that nobody has to write.
    type Bits: Copy;

    fn load<S: Simd>(simd: S, from: &[Self::Bits; LANES]) -> S::F;
    fn encode(value: f32) -> Self::Bits;
}

/// `f32` as it is.
pub(super) struct Full;

/// IEEE half precision, for the cache: more digits, and its values are small.
pub(super) struct Half;

/// The upper half of an `f32`, for adapters: what they are trained in, and no value is out of range.
pub(super) struct Brain;

impl Element for Full {
    type Bits = f32;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32; LANES]) -> S::F {
        simd.load(from)
    }

    fn encode(value: f32) -> f32 {
        value
    }
}

impl Element for Half {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[u16; LANES]) -> S::F {
        simd.load_f16(from)
    }

    fn encode(value: f32) -> u16 {
        f16::from_f32(value).to_bits()
    }
}

impl Element for Brain {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[u16; LANES]) -> S::F {
        simd.load_bf16(from)
    }

    fn encode(value: f32) -> u16 {
        bf16::from_f32(value).to_bits()
    }
}
