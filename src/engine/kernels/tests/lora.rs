use half::bf16;
use proptest::prelude::*;

use super::{
    super::{Isa, LayoutError, LoraPair, Precision},
    Numbers, assert_close, bits,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn adapter_is_near_the_formula_and_the_same_on_all_instructions(
        rank in 1usize..=128, inputs in 1usize..200, outputs in 1usize..200, seed: u64, fast: bool
    ) {
        let precision = if fast { Precision::Fast } else { Precision::Exact };
        let mut numbers = Numbers::new(seed);
        let (a, b) = (numbers.many(rank * inputs), numbers.many(outputs * rank));
        let (x, y) = (numbers.many(inputs), numbers.many(outputs));
        let pair = LoraPair::pack(&a, &b, rank, inputs, outputs, 1.5, precision).expect("packed");
        let run = |isa| {
            let mut t = vec![f32::NAN; rank];
            let mut sum = y.clone();
            pair.shrink(isa, &x, &mut t);
            pair.expand(isa, &t, &mut sum);
            (t, sum)
        };
        let stored = |value: &f32| f64::from(if fast { bf16::from_f32(*value).to_f32() } else { *value });
        let (t, sum) = run(Isa::plain());
        let t_expected: Vec<f64> = a.chunks_exact(inputs)
            .map(|row| row.iter().zip(&x).map(|(a, x)| stored(a) * f64::from(*x)).sum())
            .collect();
        assert_close(&t, &t_expected, 2e-5);
        let expected: Vec<f64> = b.chunks_exact(rank).zip(&y)
            .map(|(row, y)| {
                let sum: f64 = row.iter().zip(&t).map(|(b, t)| stored(b) * f64::from(*t)).sum();
                f64::from(*y) + 1.5 * sum
            })
            .collect();
        assert_close(&sum, &expected, 2e-4);
        for isa in Isa::available() {
            let found = run(isa);
            prop_assert_eq!(bits(&found.0), bits(&t));
            prop_assert_eq!(bits(&found.1), bits(&sum));
        }
    }
}

#[test]
fn adapter_that_cannot_be_packed_is_refused_with_the_reason() {
    let pack = |a: &[f32], b: &[f32], rank, scale| {
        LoraPair::pack(a, b, rank, 4, 3, scale, Precision::Fast).expect_err("refused")
    };
    assert_eq!(pack(&[0.0; 7], &[0.0; 6], 2, 1.0), LayoutError::Length { expected: 8, found: 7 });
    assert_eq!(pack(&[0.0; 8], &[0.0; 5], 2, 1.0), LayoutError::Length { expected: 6, found: 5 });
    assert_eq!(pack(&[], &[], 0, 1.0), LayoutError::Dimension { name: "rank", multiple: 1, found: 0 });
    assert_eq!(pack(&[f32::INFINITY; 8], &[0.0; 6], 2, 1.0), LayoutError::Range { row: 0 });
    assert_eq!(pack(&[0.0; 8], &[0.0; 6], 2, f32::NAN), LayoutError::Range { row: 0 });
}
