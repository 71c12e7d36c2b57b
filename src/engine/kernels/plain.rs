//! The portable twin: the same operations on plain arrays.
//!
//! It runs where there is no AVX2, and it is what every test compares the other instruction sets with. It is written
//! to be read; how fast it is depends on what the compiler makes of it (fused multiply-add is a library call on
//! x86 processors of before 2013).

use half::f16;

use super::simd::{Kernel, LANES, Simd};

/// Needs nothing of the processor.
#[derive(Clone, Copy)]
pub(super) struct Plain;

/// Applies `$operation` to each lane number.
macro_rules! lanes {
    ($lane:ident => $operation:expr) => {{
        let mut result = [Default::default(); LANES];
        for $lane in 0..LANES {
            result[$lane] = $operation;
        }
        result
    }};
}

impl Simd for Plain {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type W = [i8; 64];

    const TILE_ROWS: usize = 2;
    const TILE_HEADS: usize = 2;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }

    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        lanes!(i => f16::from_bits(from[i]).to_f32())
    }

    #[inline(always)]
    fn store_f16(self, value: Self::F, to: &mut [u16; LANES]) {
        *to = lanes!(i => f16::from_f32(value[i]).to_bits());
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        lanes!(i => f32::from_bits(u32::from(from[i]) << 16))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanes!(i => a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        lanes!(i => a[i].round_ties_even())
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::F) -> Self::F {
        lanes!(i => f32::from_bits((a[i] as i32).wrapping_add(127).wrapping_shl(23) as u32))
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        let mut lanes = a;
        let mut apart = LANES / 2;
        while apart > 0 {
            for i in 0..apart {
                lanes[i] += lanes[i + apart];
            }
            apart /= 2;
        }
        lanes[0]
    }

    #[inline(always)]
    fn magnitude_bits(self, a: Self::F) -> Self::I {
        lanes!(i => a[i].abs().to_bits() as i32)
    }

    #[inline(always)]
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I {
        lanes!(i => a[i].max(b[i]))
    }

    #[inline(always)]
    fn largest_int(self, a: Self::I) -> i32 {
        let mut largest = i32::MIN;
        for lane in a {
            largest = largest.max(lane);
        }
        largest
    }

    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        lanes!(i => a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sum_int(self, a: Self::I) -> i32 {
        let mut sum = 0i32;
        for lane in a {
            sum = sum.wrapping_add(lane);
        }
        sum
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        lanes!(i => a[i] as f32)
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        lanes!(i => a[i].round_ties_even() as i32)
    }

    #[inline(always)]
    fn narrow(self, a: Self::I) -> [i8; LANES] {
        lanes!(i => a[i].clamp(-128, 127) as i8)
    }

    #[inline(always)]
    fn weights(self, from: &[u8; 64]) -> Self::W {
        let mut weights = [0; 64];
        for (weight, stored) in weights.iter_mut().zip(from) {
            *weight = (stored ^ 0x80) as i8;
        }
        weights
    }

    #[inline(always)]
    fn start(self, _offset: i32) -> Self::I {
        [0; LANES]
    }

    #[inline(always)]
    fn dot4(self, sum: Self::I, weights: Self::W, quad: i32) -> Self::I {
        let mut sum = sum;
        let quad = quad.to_le_bytes();
        for (lane, sum) in sum.iter_mut().enumerate() {
            for (i, activation) in quad.iter().enumerate() {
                *sum += i32::from(weights[lane * 4 + i]) * i32::from(*activation as i8);
            }
        }
        sum
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    #[inline(always)]
    fn prefetch_far(self, _address: *const u8) {}
}
