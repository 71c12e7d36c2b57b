//! How the next token is drawn from the logits.
//!
//! In order: bias and penalties change the logits; temperature, top-k, top-p
//! and min-p narrow down what is left; one draw decides. At temperature 0 the
//! most probable token is taken.

use std::collections::HashMap;

use tenantry_types::Sampling;

use super::kernels::Isa;

/// Tokens this much less likely than the best, in natural logarithm, add nothing to a sum of `f32`s.
const NEGLIGIBLE: f32 = 25.0;

/// The best token has weight 1; those below this weight are rarely in a nucleus.
const LIKELY: f32 = 1e-3;

/// One sequence's way of drawing.
pub(super) struct Sampler {
    sampling: Sampling,
    logprobs: Option<u8>,
    random: Random,
}

/// Log-probabilities at one position, of the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenDetail {
    pub logprob: f32,
    /// The most probable tokens, best first.
    pub top: Vec<(u32, f32)>,
}

pub(super) struct Sampled {
    pub token: u32,
    pub detail: Option<TokenDetail>,
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

// === impl Sampler ===

impl Sampler {
    pub(super) fn new(sampling: &Sampling, logprobs: Option<u8>, choice: u32) -> Self {
        // Without a seed nobody expects the same draw twice, so a clock-like number would do as well.
        let seed = sampling.seed.unwrap_or_else(|| getrandom::u64().unwrap_or_default());
        let mut random = Random(seed);
        // Choices of one seed draw differently, and each of them reproducibly.
        let random = Random(random.next() ^ u64::from(choice).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { sampling: sampling.clone(), logprobs, random }
    }

    /// Draws the token that follows `tokens`, of which the first `prompt` were given. Uses the logits up.
    pub(super) fn sample(&mut self, isa: Isa, logits: &mut [f32], tokens: &[u32], prompt: usize) -> Sampled {
        let own = self.logprobs.map(|top| Distribution::new(isa, logits, top.into()));
        self.adjust(logits, tokens, prompt);
        let token = if self.sampling.temperature == 0.0 { isa.argmax(logits) } else { self.draw(isa, logits) } as u32;
        Sampled { token, detail: own.map(|own| own.detail(token)) }
    }

    /// Applies bias and penalties.
    fn adjust(&self, logits: &mut [f32], tokens: &[u32], prompt: usize) {
        let sampling = &self.sampling;
        for &(token, bias) in &sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if sampling.repetition_penalty != 1.0 {
            let mut seen: Vec<u32> = tokens.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                let logit = &mut logits[token as usize];
                *logit = if *logit > 0.0 {
                    *logit / sampling.repetition_penalty
                } else {
                    *logit * sampling.repetition_penalty
                };
            }
        }
        if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
            let mut counts: HashMap<u32, f32> = HashMap::new();
            for &token in &tokens[prompt..] {
                *counts.entry(token).or_default() += 1.0;
            }
            for (token, count) in counts {
                logits[token as usize] -= sampling.presence_penalty + sampling.frequency_penalty * count;
            }
        }
    }

    fn draw(&mut self, isa: Isa, logits: &[f32]) -> usize {
        let sampling = &self.sampling;
        let best = logits[isa.argmax(logits)];
        let weight = |logit: f32| ((logit - best) / sampling.temperature).exp();
        // A token this far below the best is dropped by min-p, or will never be drawn.
        let reach = NEGLIGIBLE.min(if sampling.min_p > 0.0 { -sampling.min_p.ln() } else { NEGLIGIBLE });
        let floor = best - reach * sampling.temperature;
        let mut candidates: Vec<(usize, f32)> = logits
            .iter()
            .enumerate()
            .filter(|(_, logit)| **logit >= floor)
            .map(|(token, &logit)| (token, weight(logit)))
            .collect();
        if candidates.is_empty() {
            // Only where no logit is a number.
            return isa.argmax(logits);
        }
        // Equal weights are ordered by token, so that a cut does not depend on the sort.
        let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let top_k = sampling.top_k as usize;
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, order);
            candidates.truncate(top_k);
            // The draw walks them in order, which must not be the selection's.
            candidates.sort_unstable_by(order);
        }
        if sampling.top_p < 1.0 {
            let mass = f64::from(sampling.top_p) * sum(&candidates);
            // Most of a vocabulary is too unlikely to be in the nucleus; sorting the rest of it is what costs.
            let likely: Vec<(usize, f32)> =
                candidates.iter().copied().filter(|(_, weight)| *weight >= LIKELY).collect();
            if sum(&likely) >= mass {
                candidates = likely;
            }
            candidates.sort_unstable_by(order);
            candidates.truncate(nucleus(&candidates, mass));
        }
        let mut left = self.random.unit() * sum(&candidates);
        for &(token, weight) in &candidates {
            left -= f64::from(weight);
            if left < 0.0 {
                return token;
            }
        }
        candidates[candidates.len() - 1].0
    }
}

/// How many of the candidates, best first, make up `mass` (Holtzman et al., "The curious case of neural text
/// degeneration", 2020).
fn nucleus(candidates: &[(usize, f32)], mass: f64) -> usize {
    let mut sum = 0.0;
    for (index, (_, weight)) in candidates.iter().enumerate() {
        sum += f64::from(*weight);
        if sum >= mass {
            return index + 1;
        }
    }
    candidates.len()
}

fn sum(candidates: &[(usize, f32)]) -> f64 {
    candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// The model's own distribution, before anything changes the logits.
struct Distribution {
    logits: Vec<f32>,
    /// The logarithm of the sum of all exponentials.
    normaliser: f32,
    top: usize,
}

// === impl Distribution ===

impl Distribution {
    fn new(isa: Isa, logits: &[f32], top: usize) -> Self {
        let best = logits[isa.argmax(logits)];
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - best).exp()).sum();
        Self { logits: logits.to_vec(), normaliser: best + sum.ln() as f32, top }
    }

    fn detail(self, token: u32) -> TokenDetail {
        let Self { logits, normaliser, top } = self;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, better);
        }
        order.truncate(top);
        order.sort_unstable_by(better);
        TokenDetail {
            logprob: logits[token as usize] - normaliser,
            top: order.into_iter().map(|token| (token, logits[token as usize] - normaliser)).collect(),
        }
    }
}

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(&Sampling { seed: Some(7), ..sampling }, None, 0)
    }

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = sampler(sampling);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            let token = sampler.sample(Isa::plain(), &mut logits.to_vec(), &[0], 1).token;
            counts[token as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_distribution() {
        let probabilities = [0.5_f32, 0.3, 0.15, 0.05];
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        for (count, probability) in counts(Sampling::default(), &logits, 20_000).iter().zip(probabilities) {
            let share = *count as f32 / 20_000.0;
            assert!((share - probability).abs() < 0.015, "{share} for {probability}");
        }
    }

    #[test]
    fn truncation_keeps_only_what_it_says() {
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let kept = |sampling| counts(sampling, &logits, 2_000).iter().filter(|count| **count > 0).count();
        assert_eq!(kept(Sampling { top_k: 2, ..Sampling::default() }), 2);
        assert_eq!(kept(Sampling { top_p: 0.75, ..Sampling::default() }), 2);
        assert_eq!(kept(Sampling { top_p: 0.85, ..Sampling::default() }), 3);
        assert_eq!(kept(Sampling { min_p: 0.2, ..Sampling::default() }), 3);
        assert_eq!(kept(Sampling { top_k: 3, top_p: 0.5, ..Sampling::default() }), 1);
        assert_eq!(kept(Sampling { temperature: 0.0, ..Sampling::default() }), 1);
        assert_eq!(kept(Sampling::default()), 4);
    }

    #[test]
    fn a_low_temperature_sharpens_and_a_high_one_flattens() {
        let logits = [1.0, 0.0];
        let first = |temperature| counts(Sampling { temperature, ..Sampling::default() }, &logits, 4_000)[0];
        assert!(first(0.5) > first(1.0) && first(1.0) > first(2.0));
    }

    #[test]
    fn the_same_seed_draws_the_same_and_choices_differ() {
        let logits = [0.0_f32; 64];
        let draws = |seed, choice| -> Vec<u32> {
            let mut sampler = Sampler::new(&Sampling { seed: Some(seed), ..Sampling::default() }, None, choice);
            (0..16).map(|_| sampler.sample(Isa::plain(), &mut logits.to_vec(), &[0], 1).token).collect()
        };
        assert_eq!(draws(1, 0), draws(1, 0));
        assert_ne!(draws(1, 0), draws(2, 0));
        assert_ne!(draws(1, 0), draws(1, 1));
    }

    #[test]
    fn penalties_and_bias_change_the_logits_they_should() {
        let adjusted = |sampling: Sampling, tokens: &[u32], prompt| {
            let mut logits = [2.0, -2.0, 1.0];
            sampler(sampling).adjust(&mut logits, tokens, prompt);
            logits
        };
        let base = Sampling::default;
        assert_eq!(adjusted(Sampling { repetition_penalty: 2.0, ..base() }, &[0, 1, 0], 1), [1.0, -4.0, 1.0]);
        assert_eq!(adjusted(Sampling { presence_penalty: 0.5, ..base() }, &[2, 0, 0], 1), [1.5, -2.0, 1.0]);
        assert_eq!(adjusted(Sampling { frequency_penalty: 0.5, ..base() }, &[2, 0, 0], 1), [1.0, -2.0, 1.0]);
        assert_eq!(adjusted(Sampling { logit_bias: vec![(1, 5.0), (9, 1.0)], ..base() }, &[0], 1), [2.0, 3.0, 1.0]);
    }

    #[test]
    fn log_probabilities_are_those_of_the_model_itself() {
        let probabilities = [0.5_f32, 0.3, 0.2];
        let mut logits: Vec<f32> = probabilities.iter().map(|p| p.ln() + 3.0).collect();
        let sampling = Sampling { temperature: 0.0, logit_bias: vec![(2, 50.0)], ..Sampling::default() };
        let sampled = Sampler::new(&sampling, Some(2), 0).sample(Isa::plain(), &mut logits, &[0], 1);
        let detail = sampled.detail.expect("asked for");
        assert_eq!(sampled.token, 2);
        assert!((detail.logprob - 0.2_f32.ln()).abs() < 1e-5);
        assert_eq!(detail.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
        assert!((detail.top[0].1 - 0.5_f32.ln()).abs() < 1e-5);
    }
}
