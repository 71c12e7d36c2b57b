//! Stop strings, found however the text is cut into tokens.

/// Watches one choice's text for its stop strings. Text that may be the
/// beginning of one is held back until that is decided.
#[derive(Debug)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

// === impl StopStrings ===

impl StopStrings {
    pub(super) fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes new text; returns what may be shown, and whether a stop string was met, which is then not part of it.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        let met = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = met {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let held = self.stops.iter().map(|stop| longest_beginning(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - held);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The last text has come: what was held back, and `text`, can no longer become a stop string.
    pub(super) fn finish(&mut self, text: &str) -> String {
        let (shown, met) = self.push(text);
        if met { shown } else { shown + &std::mem::take(&mut self.held) }
    }
}

/// The length of the longest end of `text` that `stop` begins with but does not end with.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let longest = (stop.len() - 1).min(text.len());
    (1..=longest)
        .rev()
        .find(|&length| stop.as_bytes().starts_with(&text.as_bytes()[text.len() - length..]))
        // Whole characters match whole characters, so the cut is a character's border.
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes the text in pieces; returns what was shown and whether it stopped.
    fn shown(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut watch = StopStrings::new(&stops);
        let mut all = String::new();
        for piece in pieces {
            let (text, met) = watch.push(piece);
            all += &text;
            if met {
                return (all, true);
            }
        }
        all += &watch.finish("");
        (all, false)
    }

    #[test]
    fn a_stop_string_is_found_across_borders_and_not_shown() {
        assert_eq!(shown(&["END"], &["abcE", "N", "Dxyz"]), ("abc".to_owned(), true));
        assert_eq!(shown(&["END"], &["abcE", "N"]), ("abcEN".to_owned(), false));
        assert_eq!(shown(&["\n\n", "x"], &["a\n", "\nb"]), ("a".to_owned(), true));
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(shown(&["cd", "bc"], &["abcd"]), ("a".to_owned(), true));
    }

    proptest! {
        #[test]
        fn cutting_the_text_at_any_place_changes_nothing(
            text in "[abé]{0,24}", stop in "[abé]{1,4}", other in "[abé]{1,3}", cuts in prop::collection::vec(1_usize..4, 0..24),
        ) {
            let characters: Vec<char> = text.chars().collect();
            let (mut pieces, mut rest) = (Vec::new(), characters.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(now.iter().collect::<String>());
                rest = later;
            }
            pieces.push(rest.iter().collect());
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (all, met) = shown(&[&stop, &other], &pieces);
            // What ends first is met first; only then do the beginnings decide.
            let ends = |stop: &str| text.find(stop).map(|at| at + stop.len());
            prop_assert_eq!(met, ends(&stop).or(ends(&other)).is_some());
            prop_assert!(text.starts_with(&all));
            if met {
                let rest = &text[all.len()..];
                prop_assert!(rest.starts_with(&stop) || rest.starts_with(&other));
            } else {
                prop_assert_eq!(all, text);
            }
        }
    }
}
