//! Sixteen lanes as one AVX-512 register, 8-bit products by VNNI (Ice Lake, Zen 4 and later).

use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::*;

use super::simd::{Kernel, LANES, Simd};

/// Proof that the processor has the instructions of this file: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let present = has!("avx512f")
            && has!("avx512bw")
            && has!("avx512dq")
            && has!("avx512vl")
            && has!("avx512vnni")
            && has!("avx2")
            && has!("fma")
            && has!("f16c");
        present.then_some(Self(()))
    }
}

/// Evaluates register-to-register intrinsics. The token is asked for so that the proof is visible at each use;
/// nothing that takes a pointer belongs in here.
macro_rules! proven {
    ($token:ident, $operation:expr) => {{
        let Avx512(()) = $token;
        // SAFETY: an `Avx512` exists only if `detect` saw all instructions used in this file.
        unsafe { $operation }
    }};
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type W = __m512i;

    // 8 rows x 32 outputs are 16 integer accumulators: half of the registers.
    const TILE_ROWS: usize = 8;
    const TILE_HEADS: usize = 4;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inside<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx512` exists only if `detect` saw all the features `inside` enables.
        unsafe { inside(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        proven!(self, _mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: the array is the 64 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut [f32; LANES]) {
        // SAFETY: the array is the 64 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: the array is the 32 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_f16(self, value: __m512, to: &mut [u16; LANES]) {
        // SAFETY: the array is the 32 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: the array is the 32 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(self, _mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(self, _mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proven!(self, _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: __m512) -> __m512 {
        proven!(self, {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        proven!(self, {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn magnitude_bits(self, a: __m512) -> __m512i {
        proven!(self, _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(i32::MAX)))
    }

    #[inline(always)]
    fn max_int(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(self, _mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn largest_int(self, a: __m512i) -> i32 {
        proven!(self, _mm512_reduce_max_epi32(a))
    }

    #[inline(always)]
    fn add_int(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(self, _mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sum_int(self, a: __m512i) -> i32 {
        proven!(self, _mm512_reduce_add_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        proven!(self, _mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn to_int(self, a: __m512) -> __m512i {
        proven!(self, _mm512_cvtps_epi32(a))
    }

    #[inline(always)]
    fn narrow(self, a: __m512i) -> [i8; LANES] {
        let mut bytes = [0i8; LANES];
        let narrow = proven!(self, _mm512_cvtsepi32_epi8(a));
        // SAFETY: the array is the 16 bytes that are written; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow) };
        bytes
    }

    #[inline(always)]
    fn weights(self, from: &[u8; 64]) -> __m512i {
        // SAFETY: the array is the 64 bytes that are read; no alignment is asked for. Instructions as in `proven`.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// VNNI multiplies unsigned by signed, hence weights as `w + 128`; the offset takes the 128 back.
    #[inline(always)]
    fn start(self, offset: i32) -> __m512i {
        proven!(self, _mm512_set1_epi32(offset))
    }

    #[inline(always)]
    fn dot4(self, sum: __m512i, weights: __m512i, quad: i32) -> __m512i {
        proven!(self, _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(quad)))
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
