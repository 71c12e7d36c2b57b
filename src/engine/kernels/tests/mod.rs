//! Tests of the three laws (rows, threads and instruction sets make no difference) and of the arithmetic itself
//! against naive sums in `f64`.

mod attention;
mod encoder;
mod linear;
mod lora;
mod team;
mod vector;

use super::{Activation, Isa, Matrix, Precision};

/// Reproducible numbers, roughly normal around zero. The tests need variety, not randomness.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn next(&mut self) -> f32 {
        self.uniform() + self.uniform() + self.uniform() - 1.5
    }

    fn many(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn matrix(outputs: usize, inputs: usize, precision: Precision) -> Matrix {
    let weights = Numbers::new((outputs * 7 + inputs) as u64).many(outputs * inputs);
    Matrix::pack(&weights, outputs, inputs, precision).expect("a shape that can be packed")
}

fn activation(isa: Isa, values: &[f32], precision: Precision) -> Activation {
    let mut activation = Activation::new(values.len(), precision);
    activation.values_mut().copy_from_slice(values);
    activation.quantise(isa);
    activation
}

/// Asserts that two results agree to a few units in the last place of the magnitudes involved.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], magnitude: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= magnitude, "at {index}: {found} for {expected}, {error:e} apart");
    }
}
