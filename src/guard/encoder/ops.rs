//! What a layer does besides multiplying, each in one pass over its rows.
//!
//! candle's own operations would read and write every activation several times, and
//! take `exp` and `erf` one number after the other: together longer than the
//! multiplications. Loops here are over slices of known length and free of branches,
//! so that the compiler makes vectors of them.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, bail};

/// What is done with the sum of a row and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Relu,
    /// By the error function.
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    Tanh,
}

/// `activation(x + bias)`; x: `[rows, width]`, bias: `[width]`.
pub(super) struct Bias(pub(super) Activation);

/// `softmax(x · scale)` over the last dimension.
pub(super) struct Softmax {
    pub(super) scale: f32,
}

/// Layer normalisation (Ba et al. 2016) of `x + before + bias`, times gamma, plus
/// beta; x, before: [rows, width]; the third argument is [3, width]: bias, gamma, beta.
pub(super) struct Norm {
    pub(super) epsilon: f32,
}

const LANES: usize = 8;

// === impl Activation ===

impl Activation {
    pub(super) fn apply(self, row: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => row.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Gelu => row.iter_mut().for_each(|x| *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2))),
            Self::GeluTanh => {
                row.iter_mut().for_each(|x| *x *= 0.5 * (1.0 + tanh(0.797_884_6 * (*x + 0.044_715 * *x * *x * *x))));
            }
            Self::Tanh => row.iter_mut().for_each(|x| *x = tanh(*x)),
        }
    }
}

// === the operations ===

impl CustomOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, bias: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (slice(x, lx)?, slice(bias, lb)?);
        let mut out = x.to_vec();
        for row in out.chunks_exact_mut(bias.len()) {
            for (x, bias) in row.iter_mut().zip(bias) {
                *x += bias;
            }
            self.0.apply(row);
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(x, layout)?.to_vec();
        let width = *layout.dims().last().unwrap_or(&1);
        for row in out.chunks_exact_mut(width) {
            let most = row.iter().fold(f32::MIN, |most, x| most.max(*x));
            row.iter_mut().for_each(|x| *x = exp((*x - most) * self.scale));
            let all = 1.0 / sum(row);
            row.iter_mut().for_each(|x| *x *= all);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        before: &CpuStorage,
        lb: &Layout,
        weights: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, before, weights) = (slice(x, lx)?, slice(before, lb)?, slice(weights, lw)?);
        let width = weights.len() / 3;
        let (bias, weights) = weights.split_at(width);
        let (gamma, beta) = weights.split_at(width);
        let mut out = x.to_vec();
        for (row, before) in out.chunks_exact_mut(width).zip(before.chunks_exact(width)) {
            for ((x, before), bias) in row.iter_mut().zip(before).zip(bias) {
                *x += before + bias;
            }
            let mean = sum(row) / width as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            let variance = sum_of_squares(row) / width as f32;
            let scale = 1.0 / (variance + self.epsilon).sqrt();
            for ((x, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
                *x = *x * scale * gamma + beta;
            }
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

fn slice<'storage>(storage: &'storage CpuStorage, layout: &Layout) -> Result<&'storage [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(numbers)) => Ok(&numbers[start..end]),
        _ => bail!("expected contiguous 32-bit floats"),
    }
}

// === arithmetic ===

/// In lanes: one running sum would wait for each addition.
fn sum(row: &[f32]) -> f32 {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for lane in lanes {
        for (sum, x) in sums.iter_mut().zip(lane) {
            *sum += x;
        }
    }
    sums.iter().chain(rest).sum()
}

fn sum_of_squares(row: &[f32]) -> f32 {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for lane in lanes {
        for (sum, x) in sums.iter_mut().zip(lane) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}

/// `eˣ` for x from −87 to 88, cut outside; relative error under 2e-7. The argument is
/// split into a whole power of two and a rest of at most half a one, whose power is a
/// Taylor polynomial.
fn exp(x: f32) -> f32 {
    // Added, it leaves the rounded number in the last bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let series = 1.0
        + rest * (1.0 + rest * (0.5 + rest * (1.0 / 6.0 + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest / 720.0)))));
    f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23))
}

fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The error function: Abramowitz and Stegun 1964, 7.1.26; error under 5e-7.
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - series * exp(-size * size)).copysign(x)
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> impl Iterator<Item = f32> {
        (-4000..=4000).map(|step| step as f32 / 400.0)
    }

    #[test]
    fn exp_tanh_and_erf_are_close() {
        for x in numbers() {
            assert!((exp(x) / x.exp() - 1.0).abs() < 3e-7, "exp {x}: {} {}", exp(x), x.exp());
            assert!((tanh(x) - x.tanh()).abs() < 5e-7, "tanh {x}");
        }
        // Of tables.
        for (x, value) in [(0.0, 0.0), (0.1, 0.112_462_92), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)]
        {
            assert!((erf(x) - value).abs() < 5e-7 && (erf(-x) + value).abs() < 5e-7, "erf {x}: {}", erf(x));
        }
        assert!(exp(-1e9) < 1e-37 && exp(1e9).is_finite() && tanh(1e9) == 1.0 && erf(1e9) == 1.0);
    }

    #[test]
    fn activations_are_what_they_are_called() {
        let of = |activation: Activation| {
            let mut row = [-3.0, -1.0, 0.0, 1.0, 3.0];
            activation.apply(&mut row);
            row
        };
        let near = |a: [f32; 5], b: [f32; 5]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(of(Activation::Gelu), [-0.004_05, -0.158_66, 0.0, 0.841_34, 2.995_95]));
        assert!(near(of(Activation::GeluTanh), [-0.003_64, -0.158_81, 0.0, 0.841_19, 2.996_36]));
        assert!(near(of(Activation::Relu), [0.0, 0.0, 0.0, 1.0, 3.0]));
        assert!(near(of(Activation::Tanh), [-0.995_05, -0.761_59, 0.0, 0.761_59, 0.995_05]));
    }
}
