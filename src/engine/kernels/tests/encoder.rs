use super::{
    super::{Curve, Isa, LayerNorm},
    Numbers, assert_close, bits,
};

const LENGTHS: [usize; 9] = [1, 2, 15, 16, 17, 31, 64, 100, 577];

/// Runs on every instruction set and returns the result, the same bits from all.
#[track_caller]
fn on_all(row: &[f32], work: impl Fn(Isa, &mut [f32])) -> Vec<f32> {
    let mut plain = row.to_vec();
    work(Isa::plain(), &mut plain);
    for isa in Isa::available() {
        let mut found = row.to_vec();
        work(isa, &mut found);
        assert_eq!(bits(&found), bits(&plain), "{isa:?}, length {}", row.len());
    }
    plain
}

/// By its series, which converges for all x that are looked at.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    if x.abs() > 4.0 { x.signum() } else { sum * std::f64::consts::FRAC_2_SQRT_PI }
}

fn formula(curve: Curve, x: f64) -> f64 {
    match curve {
        Curve::Straight => x,
        Curve::Relu => x.max(0.0),
        Curve::Gelu => x / 2.0 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Curve::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x / 2.0 * (1.0 + inner.tanh())
        }
        Curve::Tanh => x.tanh(),
    }
}

const CURVES: [Curve; 5] = [Curve::Straight, Curve::Relu, Curve::Gelu, Curve::GeluTanh, Curve::Tanh];

#[test]
fn curves_are_near_their_formulas_from_end_to_end() {
    let x: Vec<f32> = (-4000..=4000).map(|step| step as f32 / 400.0).collect();
    for curve in CURVES {
        let found = on_all(&x, |isa, row| isa.bend(row, &vec![0.25; row.len()], curve));
        for (x, found) in x.iter().zip(found) {
            let x = f64::from(*x) + 0.25;
            let error = (f64::from(found) - formula(curve, x)).abs();
            assert!(error <= 1e-6 * (1.0 + x.abs()), "{curve:?} {x}: {found}, {error:e} apart");
        }
    }
    for curve in CURVES {
        let ends = on_all(&[-1e30, 1e30], |isa, row| isa.bend(row, &[0.0; 2], curve));
        let expected = match curve {
            Curve::Straight => [-1e30, 1e30],
            Curve::Tanh => [-1.0, 1.0],
            _ => [0.0, 1e30],
        };
        assert!(ends[0] == expected[0] && ends[1] == expected[1], "{curve:?}: {ends:?}");
    }
}

#[test]
fn curves_take_rows_of_any_length_and_pass_nan_on() {
    for (length, curve) in LENGTHS.into_iter().flat_map(|length| CURVES.map(|curve| (length, curve))) {
        let (x, bias) = (Numbers::new(1).many(length), Numbers::new(2).many(length));
        let found = on_all(&x, |isa, row| isa.bend(row, &bias, curve));
        let expected: Vec<f64> =
            x.iter().zip(&bias).map(|(x, bias)| formula(curve, f64::from(*x) + f64::from(*bias))).collect();
        assert_close(&found, &expected, 2e-6);
        for isa in Isa::available() {
            let mut row = x.clone();
            row[length / 2] = f32::NAN;
            isa.bend(&mut row, &bias, curve);
            assert!(row[length / 2].is_nan(), "{isa:?} {curve:?}");
            assert_eq!(row.iter().filter(|x| x.is_nan()).count(), 1, "{isa:?} {curve:?}");
        }
    }
}

#[test]
fn layer_norm_is_near_the_formula() {
    for length in LENGTHS {
        let [x, before, bias, scale, shift] = [1, 2, 3, 4, 5].map(|seed| Numbers::new(seed).many(length));
        let norm = LayerNorm { scale: &scale, shift: &shift, epsilon: 1e-5 };
        let found = on_all(&x, |isa, row| isa.layer_norm(row, &before, &bias, norm));
        let sums: Vec<f64> =
            (0..length).map(|at| f64::from(x[at]) + f64::from(before[at]) + f64::from(bias[at])).collect();
        let mean = sums.iter().sum::<f64>() / length as f64;
        let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length as f64;
        let root = (variance + 1e-5).sqrt();
        let expected: Vec<f64> =
            (0..length).map(|at| (sums[at] - mean) / root * f64::from(scale[at]) + f64::from(shift[at])).collect();
        // Of one value the mean is the value, to rounding; the small epsilon makes much of that.
        assert_close(&found, &expected, if length < 3 { 2e-4 } else { 1e-5 });
    }
}
