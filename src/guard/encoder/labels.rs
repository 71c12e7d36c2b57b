//! What a classifier's outputs mean to the guard.

use super::EncoderScore;
use super::config::FILE;
use super::error::{EncoderError, Result};
use crate::linear::Category;

/// How outputs become a score, and what each stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    reading: Reading,
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// One label is true: the softmax of those that are toxic, together.
    One,
    /// Each for itself: the greatest of those that are toxic.
    Each,
    /// Ours: `toxic`, and kinds that are likely given that it is.
    GivenToxic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Output {
    toxic: bool,
    category: Option<Category>,
}

/// How words of a harmless label begin, whatever follows: `non-toxic`, `not_hate`,
/// `nothate`, `no_insult`, `normal`, `none`.
const HARMLESS: [&str; 10] =
    ["no", "neutral", "neither", "clean", "safe", "benign", "ok", "acceptable", "appropriate", "civil"];

/// Parts of a toxic label's name.
const TOXIC: [&str; 21] = [
    "toxic",
    "hate",
    "hateful",
    "offens",
    "insult",
    "abus",
    "threat",
    "obscen",
    "profan",
    "swear",
    "vulgar",
    "harass",
    "bully",
    "attack",
    "racis",
    "sexis",
    "homophob",
    "inappropriate",
    "unsafe",
    "harmful",
    "flagged",
];

/// Parts of a label's name, and the category that it is.
const CATEGORIES: [(&str, Category); 12] = [
    ("insult", Category::Insult),
    ("hate", Category::Hate),
    ("identity", Category::Hate),
    ("racis", Category::Hate),
    ("sexis", Category::Hate),
    ("homophob", Category::Hate),
    ("threat", Category::Threat),
    ("violen", Category::Threat),
    ("profan", Category::Profanity),
    ("obscen", Category::Profanity),
    ("swear", Category::Profanity),
    ("vulgar", Category::Profanity),
];

// === impl Labels ===

impl Labels {
    /// Of labels in the order of the outputs; refuses those that do not say which is toxic.
    pub(super) fn of(names: &[String], multi: bool, given_toxic: bool) -> Result<Self> {
        let unfit = |reason: String| Err(EncoderError::unfit(FILE, "id2label", reason));
        if given_toxic {
            let outputs: Vec<Output> =
                names.iter().map(|name| Output { toxic: false, category: category(name) }).collect();
            let sound = names.first().is_some_and(|name| name == "toxic");
            if !sound || outputs[1..].iter().any(|output| output.category.is_none()) {
                return unfit(format!(
                    "with tenantry_kinds_given_toxic, `toxic` and then kinds are expected, not {names:?}"
                ));
            }
            return Ok(Self { reading: Reading::GivenToxic, outputs });
        }
        let unnamed = names.iter().all(|name| name.to_ascii_uppercase().starts_with("LABEL_"));
        let one = names.len() > 1 && !multi;
        let toxic = |(at, name): (usize, &String)| match (unnamed, one, names.len()) {
            // By custom the second of two is what was looked for.
            (true, true, 2) => Some(at == 1),
            (true, _, 1) => Some(true),
            (true, ..) => None,
            _ if harmless(name) => Some(false),
            _ if TOXIC.iter().any(|part| name.to_ascii_lowercase().contains(part)) => Some(true),
            // Beside toxic labels it may be one more (`severe`); of two it decides.
            _ if multi => Some(true),
            _ => None,
        };
        let toxic: Option<Vec<bool>> = names.iter().enumerate().map(toxic).collect();
        let Some(toxic) = toxic else {
            return unfit(format!("which of {names:?} are toxic cannot be told from their names"));
        };
        let (some, all) = (toxic.contains(&true), !toxic.contains(&false));
        if !some || one && all {
            return unfit(format!("of {names:?} {} are toxic", if some { "all" } else { "none" }));
        }
        let output =
            |(toxic, name): (bool, &String)| Output { toxic, category: if toxic { category(name) } else { None } };
        let outputs = toxic.into_iter().zip(names).map(output).collect();
        Ok(Self { reading: if one { Reading::One } else { Reading::Each }, outputs })
    }

    /// How many outputs there are.
    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// `logits`: one number for each output.
    pub(super) fn score(&self, logits: &[f32]) -> EncoderScore {
        let likely: Vec<f32> = match self.reading {
            Reading::One => softmax(logits),
            Reading::Each => logits.iter().map(|logit| sigmoid(*logit)).collect(),
            Reading::GivenToxic => {
                let toxic = sigmoid(logits[0]);
                let given = |(at, logit): (usize, &f32)| if at == 0 { toxic } else { toxic * sigmoid(*logit) };
                logits.iter().enumerate().map(given).collect()
            }
        };
        let toxic = self.outputs.iter().zip(&likely).filter(|(output, _)| output.toxic).map(|(_, likely)| *likely);
        let toxic = match self.reading {
            Reading::One => toxic.sum::<f32>().min(1.0),
            Reading::Each => toxic.fold(0.0, f32::max),
            Reading::GivenToxic => likely[0],
        };
        let mut score = EncoderScore { toxic, categories: [None; Category::ALL.len()], whole: true };
        for (output, likely) in self.outputs.iter().zip(&likely) {
            if let Some(category) = output.category {
                let known = &mut score.categories[category as usize];
                *known = Some(known.unwrap_or(0.0).max(*likely));
            }
        }
        score
    }
}

fn harmless(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let first = name.split(|ch: char| !ch.is_ascii_alphanumeric()).find(|word| !word.is_empty());
    first.is_some_and(|word| HARMLESS.iter().any(|start| word.starts_with(start)))
}

fn category(name: &str) -> Option<Category> {
    let name = name.to_ascii_lowercase();
    CATEGORIES.iter().find(|(part, _)| name.contains(part)).map(|(_, category)| *category)
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().fold(f32::MIN, |most, x| most.max(*x));
    let powers: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
    let all: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / all).collect()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str], multi: bool) -> Result<Labels> {
        Labels::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), multi, false)
    }

    #[test]
    fn the_toxic_one_of_two_is_told_by_its_name() {
        for (names, toxic) in [
            (["non-toxic", "toxic"], 1),
            (["toxic", "neutral"], 0),
            (["LABEL_0", "LABEL_1"], 1),
            (["nothate", "hate"], 1),
            (["HATE", "NON_HATE"], 0),
            (["not offensive", "offensive"], 1),
            (["safe", "unsafe"], 1),
            (["appropriate", "inappropriate"], 1),
        ] {
            let mut logits = [0.0; 2];
            logits[toxic] = 3.0;
            let score = labels(&names, false).expect("it is clear").score(&logits);
            assert!((score.toxic - sigmoid(3.0)).abs() < 1e-6, "{names:?}: {score:?}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for names in [
            &["NEGATIVE", "POSITIVE"][..],
            &["hate", "offensive"],
            &["clean", "ok"],
            &["LABEL_0", "LABEL_1", "LABEL_2"],
        ] {
            let error = labels(names, false).expect_err("it is not clear").to_string();
            assert!(error.starts_with("config.json: id2label: ") && error.contains(names[0]), "{error}");
        }
        assert!(labels(&["neutral"], true).is_err());
    }

    #[test]
    fn of_many_labels_the_toxic_ones_count() {
        let three = labels(&["hate", "offensive", "neither"], false).expect("it is clear").score(&[1.0, 1.0, 1.0]);
        assert!((three.toxic - 2.0 / 3.0).abs() < 1e-6);
        assert!(
            (three.of(Category::Hate).expect("named") - 1.0 / 3.0).abs() < 1e-6 && three.of(Category::Threat).is_none()
        );

        let each = labels(&["toxicity", "severe", "obscene", "identity_attack", "neutral"], true).expect("it is clear");
        let score = each.score(&[-1.0, -9.0, 2.0, 0.0, 9.0]);
        assert_eq!(score.toxic, sigmoid(2.0));
        assert_eq!((score.of(Category::Profanity), score.of(Category::Hate)), (Some(sigmoid(2.0)), Some(0.5)));
        let single = labels(&["toxic"], false).expect("it is clear").score(&[0.7]);
        assert_eq!(single.toxic, sigmoid(0.7));
    }

    #[test]
    fn kinds_given_toxic_are_never_likelier_than_it() {
        let names: Vec<String> = ["toxic", "insult", "hate", "threat", "profanity"].map(str::to_owned).into();
        let labels = Labels::of(&names, true, true).expect("ours");
        let score = labels.score(&[0.0, 9.0, 0.0, -9.0, 1.0]);
        assert_eq!((score.toxic, score.of(Category::Hate)), (0.5, Some(0.25)));
        assert!(score.categories().all(|(_, likely)| likely <= score.toxic) && score.categories().count() == 4);
        assert!(Labels::of(&names[1..], true, true).is_err());
    }
}
