//! The vocabulary every kernel is written in: sixteen lanes of `f32`, whatever the processor.
//!
//! A kernel is written once, generic over [`Simd`], and compiled once per instruction set. Because the order of
//! operations is in the shared source and every operation is exactly rounded, the instruction sets agree bit for
//! bit, and the plain twin is a real reference rather than an approximation of one.
//!
//! An implementor of [`Simd`] is a token: it can only be obtained on a processor that has the instructions, so its
//! methods are safe. They are all `#[inline(always)]`, as are the kernels, so that everything ends up inside the one
//! function that carries the `#[target_feature]` attribute. Closures and iterator adaptors are avoided in hot loops
//! because they would stand between a kernel and that function.

/// Lanes of a vector, on every instruction set (AVX2 pairs two registers).
pub(super) const LANES: usize = 16;

/// A piece of work that can be compiled for any instruction set.
pub(super) trait Kernel {
    type Output;

    /// Implementations must be `#[inline(always)]`; see the module docs.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Sixteen-lane arithmetic of one instruction set.
pub(super) trait Simd: Copy {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sixteen `i32`.
    type I: Copy;
    /// Sixty-four 8-bit weights, as [`Simd::dot4`] wants them.
    type W: Copy;

    /// Rows of a matrix product worth computing together: what the registers hold.
    const TILE_ROWS: usize;
    /// Query heads worth computing together in attention.
    const TILE_HEADS: usize;

    /// Runs a kernel compiled for this instruction set, behind a function call of its own.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, value: Self::F, to: &mut [f32; LANES]);
    fn load_f16(self, from: &[u16; LANES]) -> Self::F;
    /// Rounds to nearest even; what is too large becomes infinite.
    fn store_f16(self, value: Self::F, to: &mut [u16; LANES]);
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: a NaN in either makes it `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: a NaN in either makes it `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// Two to the power of `a`, which must be an integer from -126 to 127 (any other lane gives any number).
    fn power_of_two(self, a: Self::F) -> Self::F;
    /// Sum of the lanes in a fixed tree: lanes eight apart, then four, two, one.
    fn sum(self, a: Self::F) -> f32;

    /// The bits of the absolute values, whose order as integers is that of the magnitudes, NaN above all.
    fn magnitude_bits(self, a: Self::F) -> Self::I;
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn largest_int(self, a: Self::I) -> i32;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn sum_int(self, a: Self::I) -> i32;
    fn to_float(self, a: Self::I) -> Self::F;
    /// To the nearest integer, ties to even. Lanes beyond the range of `i32` give any number.
    fn to_int(self, a: Self::F) -> Self::I;
    /// Saturates to 8 bits.
    fn narrow(self, a: Self::I) -> [i8; LANES];

    /// Loads 16 outputs x 4 inputs of weights stored as `w + 128`.
    fn weights(self, from: &[u8; 64]) -> Self::W;
    /// The accumulator to begin a block with, so that [`Simd::dot4`] ends at the plain sum of products. `offset` is
    /// -128 times the sum of the block's activations: what an implementation needs that multiplies by `w + 128`.
    fn start(self, offset: i32) -> Self::I;
    /// Adds, for each of the 16 outputs, the products of 4 weights with the 4 activations packed in `quad`.
    fn dot4(self, sum: Self::I, weights: Self::W, quad: i32) -> Self::I;

    /// Asks for the cache line at `address`. Any address may be given; nothing is read that the program can see.
    fn prefetch(self, address: *const u8);
    /// Like [`Simd::prefetch`], but only as near as the second-level cache.
    fn prefetch_far(self, address: *const u8);
}

/// Loads fewer than sixteen values; the other lanes are zero.
#[inline(always)]
pub(super) fn load_part<S: Simd>(simd: S, part: &[f32]) -> S::F {
    let mut lanes = [0.0; LANES];
    lanes[..part.len()].copy_from_slice(part);
    simd.load(&lanes)
}

/// Stores the first `part.len()` lanes.
#[inline(always)]
pub(super) fn store_part<S: Simd>(simd: S, value: S::F, part: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    simd.store(value, &mut lanes);
    part.copy_from_slice(&lanes[..part.len()]);
}

/// `e` to the power of `x`, to about one unit in the last place for -87 to 88; beyond that the value at the limit.
///
/// The series is Taylor's up to the seventh power: on ±ln 2 / 2 its remainder is 5e-9, below half a unit.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    // Ln 2 in two parts, the first with enough trailing zeros for n * LN2_HIGH to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = simd.max(simd.splat(-87.0), simd.min(simd.splat(88.0), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-LN2_HIGH), x);
    let r = simd.fma(n, simd.splat(-LN2_LOW), r);
    let mut value = simd.splat(SERIES[0]);
    for coefficient in &SERIES[1..] {
        value = simd.fma(value, r, simd.splat(*coefficient));
    }
    simd.mul(value, simd.power_of_two(n))
}
