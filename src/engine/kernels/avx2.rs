//! Sixteen lanes as a pair of AVX2 registers (Haswell, Zen and later).
//!
//! AVX2 has no 8-bit dot product that sums in 32 bits. `maddubs` adds two products in 16 bits and saturates, which
//! unsigned weights up to 255 would overrun. So the weights are taken back to signed, their signs are moved over to
//! the activations, and the largest pair is 2 x 127 x 127 = 32 258: it fits, and the sums are the exact integers of
//! the other instruction sets.

use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::*;

use super::simd::{Kernel, LANES, Simd};

/// Proof that the processor has the instructions of this file: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let present = has!("avx2") && has!("fma") && has!("f16c");
        present.then_some(Self(()))
    }
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(super) struct Floats(__m256, __m256);

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(super) struct Ints(__m256i, __m256i);

/// Signed weights of outputs 0 to 7 and 8 to 15. Their absolute values are formed where they are used: kept
/// alongside they would take registers that AVX2 does not have.
#[derive(Clone, Copy)]
pub(super) struct Weights(__m256i, __m256i);

/// Evaluates register-to-register intrinsics. The token is asked for so that the proof is visible at each use;
/// nothing that takes a pointer belongs in here.
macro_rules! proven {
    ($token:ident, $operation:expr) => {{
        let Avx2(()) = $token;
        // SAFETY: an `Avx2` exists only if `detect` saw all instructions used in this file.
        unsafe { $operation }
    }};
}

impl Simd for Avx2 {
    type F = Floats;
    type I = Ints;
    type W = Weights;

    // 2 rows x 32 outputs are 8 accumulators, half of the registers.
    const TILE_ROWS: usize = 2;
    const TILE_HEADS: usize = 2;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inside<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx2` exists only if `detect` saw all the features `inside` enables.
        unsafe { inside(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Floats {
        let all = proven!(self, _mm256_set1_ps(value));
        Floats(all, all)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Floats {
        let from = from.as_ptr();
        // SAFETY: the array is the 64 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe { Floats(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    fn store(self, value: Floats, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: the array is the 64 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            _mm256_storeu_ps(to, value.0);
            _mm256_storeu_ps(to.add(8), value.1);
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Floats {
        let from = from.as_ptr();
        // SAFETY: the array is the 32 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            Floats(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())))
        }
    }

    #[inline(always)]
    fn store_f16(self, value: Floats, to: &mut [u16; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: the array is the 32 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.1);
            _mm_storeu_si128(to.cast(), low);
            _mm_storeu_si128(to.add(8).cast(), high);
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Floats {
        let from = from.as_ptr();
        // SAFETY: the array is the 32 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            Floats(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn sub(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn div(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats {
        proven!(self, Floats(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)))
    }

    #[inline(always)]
    fn max(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn min(self, a: Floats, b: Floats) -> Floats {
        proven!(self, Floats(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn round(self, a: Floats) -> Floats {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        proven!(self, Floats(_mm256_round_ps::<NEAREST>(a.0), _mm256_round_ps::<NEAREST>(a.1)))
    }

    #[inline(always)]
    fn power_of_two(self, a: Floats) -> Floats {
        let n = self.to_int(a);
        proven!(self, {
            let bias = _mm256_set1_epi32(127);
            Floats(
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n.0, bias))),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n.1, bias))),
            )
        })
    }

    #[inline(always)]
    fn sum(self, a: Floats) -> f32 {
        proven!(self, {
            let eight = _mm256_add_ps(a.0, a.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn magnitude_bits(self, a: Floats) -> Ints {
        proven!(self, {
            let mask = _mm256_set1_epi32(i32::MAX);
            Ints(_mm256_and_si256(_mm256_castps_si256(a.0), mask), _mm256_and_si256(_mm256_castps_si256(a.1), mask))
        })
    }

    #[inline(always)]
    fn max_int(self, a: Ints, b: Ints) -> Ints {
        proven!(self, Ints(_mm256_max_epi32(a.0, b.0), _mm256_max_epi32(a.1, b.1)))
    }

    #[inline(always)]
    fn largest_int(self, a: Ints) -> i32 {
        proven!(self, {
            let eight = _mm256_max_epi32(a.0, a.1);
            let four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        })
    }

    #[inline(always)]
    fn add_int(self, a: Ints, b: Ints) -> Ints {
        proven!(self, Ints(_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)))
    }

    #[inline(always)]
    fn sum_int(self, a: Ints) -> i32 {
        proven!(self, {
            let eight = _mm256_add_epi32(a.0, a.1);
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        })
    }

    #[inline(always)]
    fn to_float(self, a: Ints) -> Floats {
        proven!(self, Floats(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)))
    }

    #[inline(always)]
    fn to_int(self, a: Floats) -> Ints {
        proven!(self, Ints(_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1)))
    }

    #[inline(always)]
    fn narrow(self, a: Ints) -> [i8; LANES] {
        let mut bytes = [0i8; LANES];
        let narrow = proven!(self, {
            // Packing works within halves of a register and leaves the middle quarters swapped.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a.0, a.1));
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        });
        // SAFETY: the array is the 16 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow) };
        bytes
    }

    #[inline(always)]
    fn weights(self, from: &[u8; 64]) -> Weights {
        let from = from.as_ptr();
        // SAFETY: the array is the 64 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            let bias = _mm256_set1_epi8(i8::MIN);
            Weights(
                _mm256_xor_si256(_mm256_loadu_si256(from.cast()), bias),
                _mm256_xor_si256(_mm256_loadu_si256(from.add(32).cast()), bias),
            )
        }
    }

    /// The weights are signed here, so there is nothing to take back.
    #[inline(always)]
    fn start(self, _offset: i32) -> Ints {
        let zero = proven!(self, _mm256_setzero_si256());
        Ints(zero, zero)
    }

    #[inline(always)]
    fn dot4(self, sum: Ints, weights: Weights, quad: i32) -> Ints {
        proven!(self, {
            let activations = _mm256_set1_epi32(quad);
            let ones = _mm256_set1_epi16(1);
            let low = _mm256_maddubs_epi16(_mm256_abs_epi8(weights.0), _mm256_sign_epi8(activations, weights.0));
            let high = _mm256_maddubs_epi16(_mm256_abs_epi8(weights.1), _mm256_sign_epi8(activations, weights.1));
            Ints(
                _mm256_add_epi32(sum.0, _mm256_madd_epi16(low, ones)),
                _mm256_add_epi32(sum.1, _mm256_madd_epi16(high, ones)),
            )
        })
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch is a hint and does not access memory; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, address: *const u8) {
        // SAFETY: a prefetch is a hint and does not access memory; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
}
