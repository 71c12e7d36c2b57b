//! One score of two stages, and where the second is asked at all.

/// Of the sum of both stages' log-odds.
const WEIGHTS: (f32, f32) = (0.5, 0.5);

/// From here on a text that both stages have read is toxic, where nothing else is
/// configured.
pub const THRESHOLD: f32 = 0.6;

/// How likely a text is toxic, from 0 to 1, by what both stages say of it: the
/// weighted sum of their log-odds. It rises with either.
pub fn combined(stage1: f32, stage2: f32) -> f32 {
    let sum = WEIGHTS.0 * log_odds(stage1) + WEIGHTS.1 * log_odds(stage2);
    1.0 / (1.0 + (-sum).exp())
}

/// Cut where 32-bit floats next to 1 are too far apart.
fn log_odds(likely: f32) -> f32 {
    let likely = likely.clamp(1e-6, 1.0 - 1e-6);
    (likely / (1.0 - likely)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_with_either_stage_and_stays_between_0_and_1() {
        let steps = || (0..=100).map(|step| step as f32 / 100.0);
        for fixed in steps() {
            for (low, high) in steps().zip(steps().skip(1)) {
                assert!(combined(low, fixed) < combined(high, fixed), "{low} {fixed}");
                assert!(combined(fixed, low) < combined(fixed, high), "{low} {fixed}");
            }
        }
        assert!(combined(0.0, 0.0) >= 0.0 && combined(1.0, 1.0) <= 1.0);
    }
}
