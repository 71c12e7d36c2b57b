//! What an encoder does to a row between two matrices (BERT and its kind: Devlin et al. 2019).

use super::{
    Isa,
    simd::{Kernel, LANES, Simd, exp, load_part, store_part},
};

/// What is done with the sum of a product and its bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Nothing.
    Straight,
    /// `max(x, 0)`
    Relu,
    /// `x · (1 + erf(x / √2)) / 2`, to 5e-7 of x.
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    /// The hyperbolic tangent.
    Tanh,
}

/// What a layer normalisation (Ba et al. 2016) scales with and adds.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// A factor for each value.
    pub scale: &'a [f32],
    /// What is added to each after it.
    pub shift: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

impl Isa {
    /// `row = curve(row + bias)`
    pub fn bend(self, row: &mut [f32], bias: &[f32], curve: Curve) {
        assert_eq!(row.len(), bias.len(), "a bias for each value");
        self.run(Bend { row, bias, curve });
    }

    /// `row = norm(row + before + bias)`: what ends each half of an encoder's layer.
    pub fn layer_norm(self, row: &mut [f32], before: &[f32], bias: &[f32], norm: LayerNorm<'_>) {
        assert!(
            !row.is_empty() && row.len() == before.len() && row.len() == bias.len(),
            "a sum has terms of one length"
        );
        assert!(row.len() == norm.scale.len() && row.len() == norm.shift.len(), "a norm keeps its length");
        let mean = self.run(Join { row, before, bias }) / row.len() as f32;
        let variance = self.run(Centre { row, mean }) / row.len() as f32;
        let inverse = 1.0 / (variance + norm.epsilon).sqrt();
        self.run(Stretch { row, inverse, norm });
    }
}

struct Bend<'a> {
    row: &'a mut [f32],
    bias: &'a [f32],
    curve: Curve,
}

impl Kernel for Bend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.curve {
            Curve::Straight => self.along::<S, Straight>(simd),
            Curve::Relu => self.along::<S, Relu>(simd),
            Curve::Gelu => self.along::<S, Gelu>(simd),
            Curve::GeluTanh => self.along::<S, GeluTanh>(simd),
            Curve::Tanh => self.along::<S, Tanh>(simd),
        }
    }
}

impl Bend<'_> {
    #[inline(always)]
    fn along<S: Simd, F: Function>(self, simd: S) {
        let (row, row_rest) = self.row.as_chunks_mut::<LANES>();
        let (bias, bias_rest) = self.bias.as_chunks::<LANES>();
        for (row, bias) in row.iter_mut().zip(bias) {
            simd.store(F::of(simd, simd.add(simd.load(row), simd.load(bias))), row);
        }
        if !row_rest.is_empty() {
            let sum = simd.add(load_part(simd, row_rest), load_part(simd, bias_rest));
            store_part(simd, F::of(simd, sum), row_rest);
        }
    }
}

/// A [`Curve`] as a type, so that the loop is compiled for each.
trait Function {
    fn of<S: Simd>(simd: S, x: S::F) -> S::F;
}

struct Straight;

impl Function for Straight {
    #[inline(always)]
    fn of<S: Simd>(_: S, x: S::F) -> S::F {
        x
    }
}

struct Relu;

impl Function for Relu {
    /// This way round, a NaN stays one.
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::F) -> S::F {
        simd.max(simd.splat(0.0), x)
    }
}

struct Gelu;

impl Function for Gelu {
    /// `x/2 + |x|/2 · erf(|x|/√2)`, where the error function is that of Abramowitz and Stegun 1964, 7.1.26.
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::F) -> S::F {
        const SERIES: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
        let (zero, half, one) = (simd.splat(0.0), simd.splat(0.5), simd.splat(1.0));
        let size = simd.max(simd.sub(zero, x), x);
        let z = simd.mul(size, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = simd.div(one, simd.fma(z, simd.splat(0.327_591_1), one));
        let mut series = simd.splat(SERIES[0]);
        for coefficient in &SERIES[1..] {
            series = simd.fma(series, t, simd.splat(*coefficient));
        }
        let power = exp(simd, simd.sub(zero, simd.mul(z, z)));
        let erf = simd.sub(one, simd.mul(simd.mul(series, t), power));
        simd.mul(half, simd.fma(size, erf, x))
    }
}

struct GeluTanh;

impl Function for GeluTanh {
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::F) -> S::F {
        let (half, one) = (simd.splat(0.5), simd.splat(1.0));
        let cube = simd.fma(simd.mul(x, x), simd.splat(0.044_715), one);
        let inner = simd.mul(simd.mul(x, simd.splat(0.797_884_6)), cube);
        simd.mul(simd.mul(x, half), simd.add(one, Tanh::of(simd, inner)))
    }
}

struct Tanh;

impl Function for Tanh {
    /// `1 − 2 / (e²ˣ + 1)`
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::F) -> S::F {
        let one = simd.splat(1.0);
        let power = exp(simd, simd.add(x, x));
        simd.sub(one, simd.div(simd.splat(2.0), simd.add(power, one)))
    }
}

/// `row += before + bias`, and the sum of that.
struct Join<'a> {
    row: &'a mut [f32],
    before: &'a [f32],
    bias: &'a [f32],
}

impl Kernel for Join<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (row, row_rest) = self.row.as_chunks_mut::<LANES>();
        let (before, before_rest) = self.before.as_chunks::<LANES>();
        let (bias, bias_rest) = self.bias.as_chunks::<LANES>();
        let mut sum = simd.splat(0.0);
        for ((row, before), bias) in row.iter_mut().zip(before).zip(bias) {
            let joined = simd.add(simd.load(row), simd.add(simd.load(before), simd.load(bias)));
            simd.store(joined, row);
            sum = simd.add(sum, joined);
        }
        if !row_rest.is_empty() {
            let added = simd.add(load_part(simd, before_rest), load_part(simd, bias_rest));
            let joined = simd.add(load_part(simd, row_rest), added);
            store_part(simd, joined, row_rest);
            sum = simd.add(sum, joined);
        }
        simd.sum(sum)
    }
}

/// `row -= mean`, and the sum of the squares of that.
struct Centre<'a> {
    row: &'a mut [f32],
    mean: f32,
}

impl Kernel for Centre<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mean = simd.splat(self.mean);
        let (row, rest) = self.row.as_chunks_mut::<LANES>();
        let mut sum = simd.splat(0.0);
        for row in row {
            let centred = simd.sub(simd.load(row), mean);
            simd.store(centred, row);
            sum = simd.fma(centred, centred, sum);
        }
        if !rest.is_empty() {
            store_part(simd, simd.sub(load_part(simd, rest), mean), rest);
            // Read again: lanes beyond the row are zero then.
            let centred = load_part(simd, rest);
            sum = simd.fma(centred, centred, sum);
        }
        simd.sum(sum)
    }
}

/// `row = row · inverse · scale + shift`
struct Stretch<'a, 'b> {
    row: &'a mut [f32],
    inverse: f32,
    norm: LayerNorm<'b>,
}

impl Kernel for Stretch<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inverse = simd.splat(self.inverse);
        let (row, row_rest) = self.row.as_chunks_mut::<LANES>();
        let (scale, scale_rest) = self.norm.scale.as_chunks::<LANES>();
        let (shift, shift_rest) = self.norm.shift.as_chunks::<LANES>();
        for ((row, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
            let even = simd.mul(simd.load(row), inverse);
            simd.store(simd.fma(even, simd.load(scale), simd.load(shift)), row);
        }
        if !row_rest.is_empty() {
            let even = simd.mul(load_part(simd, row_rest), inverse);
            let stretched = simd.fma(even, load_part(simd, scale_rest), load_part(simd, shift_rest));
            store_part(simd, stretched, row_rest);
        }
    }
}
