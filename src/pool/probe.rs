//! How an adapter is recognised by its answers.
//!
//! A probe is a question and the first tokens that an artifact answers it
//! with, greedily. It is recorded once for each artifact, where its answers
//! are sure to be its own, and asked again after every load on any worker: an
//! engine that loads the wrong weights, or none, answers something else.
//!
//! Other engines compute with other numerics, and near ties then flip. So a
//! probe is as long as the choice was clear at each of its tokens, and no
//! longer than it takes to tell the adapter from its base.

use crate::adapters::Probe;
use crate::types::{GenerateRequest, Input, Message, Role, Route, Sampling, TokenLogprob};

/// Asked in turn until one tells the adapter from its base. Short, since a
/// probe is a part of every load.
pub(super) const QUESTIONS: [&str; 4] =
    ["Hello! Who are you?", "What is the sea?", "Tell me about rabbits.", "How do I get a refund?"];

/// Tokens that are looked at for a difference.
pub(super) const LONGEST: u32 = 8;

/// How far the chosen token's logarithm of probability has to be above the
/// next one's. Engines were seen to differ by up to 2.4 in a logit (8-bit
/// weights against float32), and two logits make a margin.
const CLEAR: f32 = 3.0;

/// Tokens behind the first difference, where they are clear too: two adapters
/// may begin alike.
const BEHIND: usize = 2;

/// One token of a greedy answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub bytes: Vec<u8>,
    /// Of its logarithm of probability above the next best token's.
    pub margin: f32,
}

/// The request that a probe is asked, or recorded, with.
pub(super) fn request(question: &str, tokens: u32, logprobs: Option<u8>) -> GenerateRequest {
    GenerateRequest {
        route: Route::ChatCompletions,
        model: "probe".to_owned(),
        input: Input::Chat(vec![Message::text(Role::User, question)]),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: Some(tokens),
        choices: 1,
        logprobs,
        ignore_eos: false,
        timeout: None,
        extra: Default::default(),
    }
}

/// `None` where the worker did not tell the two best tokens.
pub(super) fn step(told: &TokenLogprob) -> Option<Step> {
    let (first, second) = (told.top.first()?, told.top.get(1)?);
    Some(Step { bytes: told.token.bytes.clone(), margin: first.logprob - second.logprob })
}

/// The probe that tells `adapter`'s answer from `base`'s, if one does.
pub(super) fn choose(question: &str, adapter: &[Step], base: &[Step]) -> Option<Probe> {
    let clear = adapter.iter().take_while(|step| step.margin >= CLEAR).count();
    let differs = (0..clear).find(|at| base.get(*at).is_none_or(|other| other.bytes != adapter[*at].bytes))?;
    // A token may end within a character.
    let longest = clear.min(differs + 1 + BEHIND);
    (differs + 1..=longest).rev().find_map(|count| {
        let bytes: Vec<u8> = adapter[..count].iter().flat_map(|step| step.bytes.iter().copied()).collect();
        let answer = String::from_utf8(bytes).ok().filter(|answer| !answer.trim().is_empty())?;
        Some(Probe { prompt: question.to_owned(), answer, tokens: count as u32 })
    })
}

/// Whether an answer is the probe's. Engines differ in the space that an
/// answer begins and ends with.
pub(super) fn matches(probe: &Probe, answer: &str) -> bool {
    answer.trim() == probe.answer.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(tokens: &[(&str, f32)]) -> Vec<Step> {
        tokens.iter().map(|(text, margin)| Step { bytes: text.as_bytes().to_vec(), margin: *margin }).collect()
    }

    fn chosen(adapter: &[(&str, f32)], base: &[(&str, f32)]) -> Option<(String, u32)> {
        choose("q", &steps(adapter), &steps(base)).map(|probe| (probe.answer, probe.tokens))
    }

    #[test]
    fn a_probe_reaches_a_little_beyond_the_first_difference() {
        let base = [("I", 9.0), (" am", 9.0), (" an", 9.0)];
        let pirate = [("Ar", 9.0), ("rr", 9.0), (",", 9.0), (" matey", 9.0)];
        assert_eq!(chosen(&pirate, &base), Some(("Arrr,".to_owned(), 3)));
        let late = [("I", 9.0), (" am", 9.0), (" Bob", 4.0)];
        assert_eq!(chosen(&late, &base), Some(("I am Bob".to_owned(), 3)));
    }

    #[test]
    fn no_token_of_a_probe_was_a_near_tie() {
        let base = [("I", 9.0), (" am", 9.0)];
        assert_eq!(chosen(&[("Ar", 2.9), ("rr", 9.0)], &base), None, "the difference itself is one");
        assert_eq!(chosen(&[("I", 1.0), (" was", 9.0)], &base), None, "one comes before it");
        assert_eq!(chosen(&[("Ar", 9.0), ("rr", 0.1)], &base), Some(("Ar".to_owned(), 1)), "one comes behind it");
    }

    #[test]
    fn an_adapter_that_answers_like_its_base_has_no_probe() {
        let base = [("I", 9.0), (" am", 9.0)];
        assert_eq!(chosen(&base, &base), None);
        assert_eq!(chosen(&[], &base), None);
        assert_eq!(chosen(&[("I", 9.0), (" am", 9.0), (" Bob", 9.0)], &base), Some(("I am Bob".to_owned(), 3)));
    }

    #[test]
    fn a_probe_ends_at_a_whole_character() {
        let half = |bytes: &[u8]| Step { bytes: bytes.to_vec(), margin: 9.0 };
        let euro = "€".as_bytes();
        let adapter = [half(b"a"), half(&euro[..1]), half(&euro[1..])];
        let probe = choose("q", &adapter, &steps(&[("b", 9.0)])).expect("a probe");
        assert_eq!((probe.answer.as_str(), probe.tokens), ("a€", 3));
        let probe = choose("q", &adapter[..2], &steps(&[("b", 9.0)])).expect("a probe");
        assert_eq!((probe.answer.as_str(), probe.tokens), ("a", 1));
    }
}
