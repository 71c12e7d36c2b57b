use proptest::prelude::*;

use super::{super::Isa, Numbers, assert_close, bits};

const LENGTHS: [usize; 9] = [1, 2, 15, 16, 17, 31, 64, 100, 577];

/// Runs on every instruction set and returns the result, the same bits from all.
#[track_caller]
fn on_all(length: usize, work: impl Fn(Isa, &mut [f32])) -> Vec<f32> {
    let mut plain = vec![0.0; length];
    work(Isa::plain(), &mut plain);
    for isa in Isa::available() {
        let mut found = vec![0.0; length];
        work(isa, &mut found);
        assert_eq!(bits(&found), bits(&plain), "{isa:?}, length {length}");
    }
    plain
}

#[test]
fn norm_is_near_the_formula() {
    for length in LENGTHS {
        let (x, weight) = (Numbers::new(1).many(length), Numbers::new(2).many(length));
        let found = on_all(length, |isa, out| isa.rms_norm(&x, &weight, 1e-5, out));
        let square: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let root = (square / length as f64 + 1e-5).sqrt();
        let expected: Vec<f64> = x.iter().zip(&weight).map(|(x, w)| f64::from(*x) / root * f64::from(*w)).collect();
        assert_close(&found, &expected, 2e-6);
    }
}

#[test]
fn gate_is_near_the_formula_from_end_to_end() {
    let gate: Vec<f32> = (-1200..1200).map(|i| i as f32 / 10.0).collect();
    let up = vec![1.0; gate.len()];
    let found = on_all(gate.len(), |isa, out| isa.swiglu(&gate, &up, out));
    for (gate, found) in gate.iter().zip(found) {
        let expected = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp());
        let error = (f64::from(found) - expected).abs();
        assert!(error <= expected.abs() * 4e-7 + 1e-35, "{gate}: {found} for {expected}");
    }
}

#[test]
fn gate_of_odd_length_is_complete() {
    for length in LENGTHS {
        let (gate, up) = (Numbers::new(3).many(length), Numbers::new(4).many(length));
        let found = on_all(length, |isa, out| isa.swiglu(&gate, &up, out));
        let formula = |(g, u): (&f32, &f32)| f64::from(*g) / (1.0 + (-f64::from(*g)).exp()) * f64::from(*u);
        let expected: Vec<f64> = gate.iter().zip(&up).map(formula).collect();
        assert_close(&found, &expected, 1e-6);
    }
}

#[test]
fn gate_passes_nan_on() {
    let found = on_all(20, |isa, out| {
        isa.swiglu(&[f32::NAN; 20], &[1.0; 20], out);
        for value in out {
            // Which NaN it is does not matter.
            *value = f32::from(u8::from(value.is_nan()));
        }
    });
    assert_eq!(found, [1.0; 20]);
}

#[test]
fn sum_and_dot_agree_with_the_formula() {
    for length in LENGTHS {
        let (x, y) = (Numbers::new(5).many(length), Numbers::new(6).many(length));
        let sum = on_all(length, |isa, out| {
            out.copy_from_slice(&x);
            isa.add_assign(out, &y);
        });
        assert_eq!(sum, x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<f32>>());
        let dot = on_all(1, |isa, out| out[0] = isa.dot(&x, &y));
        let expected = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        assert_close(&dot, &[expected], 1e-5);
    }
}

#[test]
fn rotation_turns_pairs_of_the_two_halves() {
    for half in [8, 16, 20, 32, 40, 48, 64] {
        let head = Numbers::new(7).many(2 * half);
        let angles = Numbers::new(8).many(half);
        let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let found = on_all(2 * half, |isa, out| {
            out.copy_from_slice(&head);
            isa.rope(out, &cos, &sin);
        });
        for i in 0..half {
            assert_eq!(found[i], head[i] * cos[i] - head[i + half] * sin[i]);
            assert_eq!(found[i + half], head[i + half] * cos[i] + head[i] * sin[i]);
        }
    }
}

#[test]
fn largest_is_the_first_of_equals_and_never_nan() {
    let argmax = |values: &[f32]| {
        let plain = Isa::plain().argmax(values);
        assert!(Isa::available().all(|isa| isa.argmax(values) == plain));
        plain
    };
    assert_eq!(argmax(&[1.0]), 0);
    assert_eq!(argmax(&[f32::NAN; 3]), 0);
    assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY]), 1);
    assert_eq!(argmax(&[f32::NAN, 1.0, f32::NAN, 2.0, 2.0]), 3);
    let mut row = vec![-1.0; 49_152];
    for place in [49_151, 30_000, 513, 511, 17, 0] {
        row[place] = 5.0;
        assert_eq!(argmax(&row), place);
    }
}

proptest! {
    #[test]
    fn largest_is_where_a_scan_finds_it(values in prop::collection::vec(prop_oneof![-3i8..3, Just(100)], 1..1500)) {
        let values: Vec<f32> = values.into_iter().map(|v| if v == 100 { f32::NAN } else { f32::from(v) }).collect();
        let mut best = f32::NEG_INFINITY;
        let mut expected = 0;
        for (index, value) in values.iter().enumerate() {
            if *value > best {
                (best, expected) = (*value, index);
            }
        }
        for isa in Isa::available() {
            prop_assert_eq!(isa.argmax(&values), expected);
        }
    }
}
