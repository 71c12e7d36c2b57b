use proptest::prelude::*;

use super::{
    super::{Activation, BLOCK, Isa, LayoutError, Matrix, Precision, Team},
    Numbers, activation, assert_close, bits, matrix,
};

fn product(team: &mut Team, matrix: &Matrix, rows: &[&Activation]) -> Vec<Vec<u32>> {
    let mut results = vec![vec![f32::NAN; matrix.outputs()]; rows.len()];
    let mut outputs: Vec<&mut [f32]> = results.iter_mut().map(|row| &mut row[..]).collect();
    team.linear(matrix, rows, &mut outputs);
    results.iter().map(|row| bits(row)).collect()
}

#[test]
fn row_is_the_same_alone_and_in_any_crowd_on_any_threads_and_instructions() {
    for (precision, inputs) in [(Precision::Fast, 96), (Precision::Exact, 96), (Precision::Exact, 45)] {
        for outputs in [1, 31, 33, 200] {
            let matrix = matrix(outputs, inputs, precision);
            let mut numbers = Numbers::new(5);
            let rows: Vec<Activation> =
                (0..40).map(|_| activation(Isa::detect(), &numbers.many(inputs), precision)).collect();
            let mut plain = Team::with_isa(1, Isa::plain()).expect("threads");
            let alone: Vec<Vec<u32>> = rows.iter().map(|row| product(&mut plain, &matrix, &[row]).remove(0)).collect();
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let mut team = Team::with_isa(threads, isa).expect("threads");
                    for count in [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 17, 40] {
                        for first in [0, 40 - count] {
                            let crowd: Vec<&Activation> = rows[first..first + count].iter().collect();
                            let found = product(&mut team, &matrix, &crowd);
                            assert!(
                                found == alone[first..first + count],
                                "{count} rows of {precision:?} {outputs}x{inputs}, {isa:?} on {threads}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn exact_product_is_near_the_sum_in_f64() {
    let (outputs, inputs) = (70, 301);
    let weights = Numbers::new(1).many(outputs * inputs);
    let x = Numbers::new(2).many(inputs);
    let matrix = Matrix::pack(&weights, outputs, inputs, Precision::Exact).expect("packed");
    let mut found = vec![0.0; outputs];
    let mut team = Team::new(2).expect("threads");
    team.linear(&matrix, &[&activation(team.isa(), &x, Precision::Exact)], &mut [&mut found]);
    assert_close(&found, &reference(&weights, &x), 1e-4);
}

/// Products of 8-bit numbers are exact, so what is left is the rounding of the two factors.
#[test]
fn fast_product_is_as_near_as_eight_bits_are() {
    let (outputs, inputs) = (70, 320);
    let weights = Numbers::new(1).many(outputs * inputs);
    let x = Numbers::new(2).many(inputs);
    let matrix = Matrix::pack(&weights, outputs, inputs, Precision::Fast).expect("packed");
    let row = activation(Isa::detect(), &x, Precision::Fast);
    let mut found = vec![0.0; outputs];
    Team::new(2).expect("threads").linear(&matrix, &[&row], &mut [&mut found]);
    assert_close(&found, &reference(&weights, &x), 0.2);

    // With the factors as they were rounded, only `f32` rounding remains.
    let mut rounded = vec![0.0; outputs * inputs];
    for (output, row) in rounded.chunks_exact_mut(inputs).enumerate() {
        matrix.row(output, row);
    }
    assert_close(&found, &reference(&rounded, &dequantised(&row)), 2e-5);
}

fn reference(weights: &[f32], x: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    weights.chunks_exact(x.len()).map(dot).collect()
}

/// What a quantised row stands for.
fn dequantised(row: &Activation) -> Vec<f32> {
    let mut values = Vec::new();
    for block in row.blocks() {
        for quad in block.quads {
            for byte in quad.to_le_bytes() {
                values.push(f32::from(byte as i8) * block.scale * 1024.0);
            }
        }
    }
    values
}

#[test]
fn extreme_bytes_neither_saturate_nor_overflow() {
    let inputs = 64;
    for (weight, x) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
        let matrix = Matrix::pack(&vec![weight; 32 * inputs], 32, inputs, Precision::Fast).expect("packed");
        for isa in Isa::available() {
            let row = activation(isa, &vec![x; inputs], Precision::Fast);
            let mut found = vec![0.0; 32];
            Team::with_isa(1, isa).expect("threads").linear(&matrix, &[&row], &mut [&mut found]);
            assert_close(&found, &[f64::from(weight * x) * inputs as f64; 32], 0.05);
        }
    }
}

#[test]
fn value_that_is_not_finite_shows_in_the_result() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for isa in Isa::available() {
            let mut values = vec![1.0; 64];
            values[40] = bad;
            let row = activation(isa, &values, Precision::Fast);
            let mut found = vec![0.0; 5];
            let mut team = Team::with_isa(1, isa).expect("threads");
            team.linear(&matrix(5, 64, Precision::Fast), &[&row], &mut [&mut found]);
            assert!(found.iter().all(|value| value.is_nan()));
        }
    }
}

#[test]
#[should_panic = "a fast matrix needs a quantised row"]
fn row_that_was_written_and_not_quantised_is_refused() {
    let mut row = activation(Isa::detect(), &[1.0; 64], Precision::Fast);
    row.values_mut()[0] = 2.0;
    let mut team = Team::new(1).expect("threads");
    team.linear(&matrix(5, 64, Precision::Fast), &[&row], &mut [&mut [0.0; 5]]);
}

#[test]
fn weights_that_cannot_be_packed_are_refused_with_the_reason() {
    let refused = |weights: &[f32], outputs, inputs, precision| {
        Matrix::pack(weights, outputs, inputs, precision).err().expect("refused")
    };
    let dimension = LayoutError::Dimension { name: "inputs", multiple: BLOCK, found: 33 };
    assert_eq!(refused(&[0.0; 66], 2, 33, Precision::Fast), dimension);
    assert_eq!(refused(&[0.0; 65], 2, 32, Precision::Fast), LayoutError::Length { expected: 64, found: 65 });
    for precision in [Precision::Exact, Precision::Fast] {
        let mut weights = [1.0; 96];
        weights[70] = f32::NAN;
        assert_eq!(refused(&weights, 3, 32, precision), LayoutError::Range { row: 2 });
    }
    assert_eq!(refused(&[1e9; 32], 1, 32, Precision::Fast), LayoutError::Range { row: 0 });
}

#[test]
fn exact_row_is_the_weights_themselves() {
    let weights = Numbers::new(3).many(40 * 21);
    let matrix = Matrix::pack(&weights, 40, 21, Precision::Exact).expect("packed");
    let mut row = [0.0; 21];
    matrix.row(37, &mut row);
    assert_eq!(bits(&row), bits(&weights[37 * 21..38 * 21]));
}

proptest! {
    #[test]
    fn quantised_values_are_the_nearest_and_the_same_on_all_instructions(
        values in prop::collection::vec(prop_oneof![-3f32..3.0, Just(0.0), -1e-38f32..1e-38, -1e30f32..1e30], 64)
    ) {
        let plain = activation(Isa::plain(), &values, Precision::Fast);
        let stands_for = dequantised(&plain);
        for (block, (values, stands_for)) in values.chunks(BLOCK).zip(stands_for.chunks(BLOCK)).enumerate() {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (value, stands_for) in values.iter().zip(stands_for) {
                let half_a_step = f64::from(largest) / 254.0 * 1.0001 + 1e-30;
                prop_assert!((f64::from(*value) - f64::from(*stands_for)).abs() <= half_a_step, "block {block}");
            }
        }
        for isa in Isa::available() {
            let found = activation(isa, &values, Precision::Fast);
            for (found, plain) in found.blocks().iter().zip(plain.blocks()) {
                prop_assert_eq!(found.quads, plain.quads);
                prop_assert_eq!(found.scale.to_bits(), plain.scale.to_bits());
                prop_assert_eq!(found.offset, plain.offset);
            }
        }
    }
}
