//! A whole text, as the stages read it together.

use crate::linear::{Linear, Score, Window};
use crate::normalise::Normalised;

/// What stage 1 says of a text, and what of it stage 2 should look at.
#[derive(Debug, Clone)]
pub struct Whole {
    stage1: Score,
    doubts: Vec<Window>,
    /// The greatest score of a doubtful window that is not among the doubts.
    rest: f32,
}

// === impl Whole ===

impl Whole {
    /// Parts of one text that stage 2 looks at; there may be more in a long one, and
    /// of these stage 1 alone decides. They are the ones that it doubts least.
    pub const MAX_DOUBTS: usize = 16;

    /// What stands before `from`, a byte of the original, is context alone.
    pub fn read(model: &Linear, text: &Normalised, from: usize) -> Self {
        let stage1 = model.score_from(text, from);
        if stage1.toxic < Linear::DOUBTFUL {
            return Self { stage1, doubts: Vec::new(), rest: 0.0 };
        }
        let mut windows = model.windows(text, Linear::DOUBTFUL);
        windows.retain(|window| window.span.end > from);
        windows.sort_by(|one, other| other.toxic.total_cmp(&one.toxic));
        let mut doubts: Vec<Window> = Vec::new();
        let mut rest = 0_f32;
        for window in windows {
            // Stage 2 sees it with its neighbour.
            let seen = |doubt: &Window| doubt.around.start <= window.span.start && window.span.end <= doubt.around.end;
            if doubts.iter().any(seen) {
                continue;
            }
            match doubts.len() < Self::MAX_DOUBTS {
                true => doubts.push(window),
                false => rest = rest.max(window.toxic),
            }
        }
        Self { stage1, doubts, rest }
    }

    pub fn stage1(&self) -> &Score {
        &self.stage1
    }

    /// The parts for stage 2, the worst first; it reads a part's `around`.
    pub fn doubts(&self) -> &[Window] {
        &self.doubts
    }

    /// How likely the text is toxic, 0 to 1, by both stages: `stage2` has what stage 2
    /// said of each of the doubts, in their order. Without one of them stage 1 decides.
    pub fn toxic(&self, stage2: &[f32]) -> f32 {
        if stage2.len() < self.doubts.len() || self.doubts.is_empty() {
            return self.stage1.toxic;
        }
        let both = self.doubts.iter().zip(stage2).map(|(doubt, stage2)| crate::combined(doubt.toxic, *stage2));
        both.fold(self.rest, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Whole {
        Whole::read(&Linear::embedded(), &Normalised::of(text), 0)
    }

    #[test]
    fn harmless_text_raises_no_doubt() {
        let read = whole("The library opens at nine, and the reading room closes in the afternoon.");
        assert!(read.doubts().is_empty());
        assert_eq!(read.toxic(&[]), read.stage1().toxic);
    }

    #[test]
    fn a_doubt_is_decided_by_both_stages() {
        let read = whole("You are a stupid idiot.");
        assert_eq!(read.doubts().len(), 1);
        assert!(read.toxic(&[0.99]) > read.toxic(&[0.01]));
        assert!(read.toxic(&[0.01]) < read.stage1().toxic);
        assert_eq!(read.toxic(&[]), read.stage1().toxic, "nobody else has looked");
    }

    #[test]
    fn context_raises_no_doubt_of_its_own() {
        let text = "You are a stupid idiot. ";
        let harmless =
            "The garden was lovely in the morning light and we walked along the river for a while. ".repeat(2);
        let long = format!("{text}{harmless}");
        let read = Whole::read(&Linear::embedded(), &Normalised::of(&long), long.len() - 30);
        assert!(read.stage1().toxic < Linear::DOUBTFUL && read.doubts().is_empty(), "{read:?}");
    }

    #[test]
    fn a_long_text_has_bounded_doubts_and_each_place_one() {
        let harmless =
            "The garden was lovely in the morning light and we walked along the river for a while. ".repeat(8);
        let read = whole(&format!("{harmless}You stupid idiot. {harmless}"));
        assert_eq!(read.doubts().len(), 1, "{:?}", read.doubts());
        let many = whole(&format!("{harmless}You stupid idiot. ").repeat(40));
        assert_eq!(many.doubts().len(), Whole::MAX_DOUBTS);
        assert!(
            many.toxic(&[0.001; Whole::MAX_DOUBTS]) > Linear::THRESHOLD,
            "the rest is as bad and was not looked at"
        );
    }
}
