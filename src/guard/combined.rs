//! One score of two stages, and where the second is asked at all.

/// Of the sum of both stages' log-odds. Stage 2 alone orders texts as well; some of
/// stage 1 steadies it where the two learnt different things.
const WEIGHTS: (f32, f32) = (0.3, 0.7);

/// From here on a text that both stages have read is toxic, where nothing else is
/// configured. By `scripts/guard/measure.py`, see stage 2's model card.
///
/// Who has asked stage 1 alone compares with [`Linear::THRESHOLD`](crate::Linear::THRESHOLD).
/// Under [`Linear::DOUBTFUL`](crate::Linear::DOUBTFUL) stage 2 is not asked. There is no such bound
/// above: stage 1 is as sure of some questions that only sound bad as of abuse.
pub const THRESHOLD: f32 = 0.7;

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
