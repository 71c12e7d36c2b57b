//! Matrices with their bias, and rows that go through them.

use std::fmt;

use tenantry_kernels::{Activation, Curve, Isa, LayerNorm, Matrix, Precision, Team};

use super::config::Config;
use super::error::{EncoderError, Result};
use super::weights::{FILE, Weights};

/// `weight · x`, to which `bias` is still to be added.
pub(super) struct Linear {
    weight: Matrix,
    pub(super) bias: Vec<f32>,
}

/// The scale and shift of a layer normalisation.
#[derive(Debug)]
pub(super) struct Normed {
    scale: Vec<f32>,
    shift: Vec<f32>,
    epsilon: f32,
}

/// Rows of one length, each as a matrix reads it.
pub(super) struct Rows(Vec<Activation>);

// === impl Linear ===

impl Linear {
    /// Of one or several weights, each [outputs, inputs], one below the other.
    pub(super) fn load(
        weights: &Weights<'_>,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        precision: Precision,
    ) -> Result<Self> {
        let of = |kind: &str, shape: &[usize]| {
            let parts = names.iter().map(|name| weights.numbers(&format!("{name}.{kind}"), shape));
            Ok::<_, EncoderError>(parts.collect::<Result<Vec<_>>>()?.concat())
        };
        let weight = Matrix::pack(&of("weight", &[outputs, inputs])?, names.len() * outputs, inputs, precision);
        let weight = weight.map_err(|error| EncoderError::unfit(FILE, names.join(", "), error.to_string()))?;
        Ok(Self { weight, bias: of("bias", &[outputs])? })
    }

    pub(super) fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// The products alone, into one row each.
    pub(super) fn multiply<'out>(&self, team: &mut Team, rows: &mut Rows, out: impl Iterator<Item = &'out mut [f32]>) {
        let isa = team.isa();
        rows.0.iter_mut().for_each(|row| row.quantise(isa));
        let rows: Vec<&Activation> = rows.0.iter().collect();
        team.linear(&self.weight, &rows, &mut out.collect::<Vec<_>>());
    }
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outputs, inputs) = (self.weight.outputs(), self.weight.inputs());
        write!(f, "Linear({outputs} x {inputs}, {:?})", self.precision())
    }
}

// === impl Normed ===

impl Normed {
    pub(super) fn load(config: &Config, weights: &Weights<'_>, name: &str) -> Result<Self> {
        // Older files call them gamma and beta.
        let named = |new: &str, old: &str| {
            let new = format!("{name}.{new}");
            let old = format!("{name}.{old}");
            weights.numbers(if weights.has(&old) { &old } else { &new }, &[config.hidden])
        };
        Ok(Self { scale: named("weight", "gamma")?, shift: named("bias", "beta")?, epsilon: config.epsilon })
    }

    pub(super) fn norm(&self) -> LayerNorm<'_> {
        LayerNorm { scale: &self.scale, shift: &self.shift, epsilon: self.epsilon }
    }
}

// === impl Rows ===

impl Rows {
    pub(super) fn new(count: usize, length: usize, precision: Precision) -> Self {
        Self((0..count).map(|_| Activation::new(length, precision)).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.0.iter().map(Activation::values)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.0.iter_mut().map(Activation::values_mut)
    }

    /// Only those at `chosen`, which ascend.
    pub(super) fn keep(&mut self, chosen: impl Iterator<Item = usize>) {
        let mut count = 0;
        for (to, from) in chosen.enumerate() {
            self.0.swap(to, from);
            count += 1;
        }
        self.0.truncate(count);
    }

    pub(super) fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    pub(super) fn bend(&mut self, isa: Isa, bias: &[f32], curve: Curve) {
        self.iter_mut().for_each(|row| isa.bend(row, bias, curve));
    }
}
