//! Tiny models of every architecture, with random weights, against
//! transformers and PEFT in float32: the exact path takes the same tokens.

use std::collections::HashMap;

use serde::Deserialize;

use super::{adapter, greedy};
use crate::support::{fixture, repository};
use tenantry::engine::files::ModelFiles;
use tenantry::engine::kernels::{Precision, Team};
use tenantry::engine::{Adapter, Forward, Model, Slice, Wanted};

#[derive(Deserialize)]
struct Expected {
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    last_prompt_logits: Vec<f32>,
}

fn tiny(name: &str) -> Model {
    let files = ModelFiles::open(&repository("tests/fixtures/tiny").join(name)).expect(name);
    Model::load(&files, Precision::Exact).expect(name)
}

fn agrees(name: &str, model: &Model, adapter: Option<&Adapter>, expected: &Expected) {
    let mut team = Team::new(2).expect("threads");
    let mut cache = model.cache(expected.prompt_tokens.len());
    let mut batch = [Slice { cache: &mut cache, tokens: &expected.prompt_tokens, adapter, wanted: Wanted::Last }];
    let mut forward = Forward::default();
    let logits = &forward.run(model, &mut team, &mut batch, || true).expect("wanted")[0];
    let furthest = logits.iter().zip(&expected.last_prompt_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 2e-3, "{name}: logits are up to {furthest} off");
    let tokens = greedy(model, &mut team, adapter, &expected.prompt_tokens, expected.tokens.len());
    assert_eq!(tokens, expected.tokens, "{name}");
}

#[test]
fn every_architecture_agrees_with_its_reference() {
    for name in ["llama3", "mistral", "qwen2", "qwen3"] {
        agrees(name, &tiny(name), None, &fixture(&format!("tiny/{name}/expected.json")));
    }
}

#[test]
fn adapters_of_all_modules_and_scalings_agree_with_their_reference() {
    let model = tiny("llama3");
    let expected: HashMap<String, Expected> = fixture("tiny/adapters/expected.json");
    assert_eq!(expected.len(), 2);
    for (name, expected) in &expected {
        let adapter = adapter(&model, &format!("tests/fixtures/tiny/adapters/{name}"));
        agrees(name, &model, Some(&adapter), expected);
    }
}

#[test]
fn a_models_rows_do_not_depend_on_how_its_prompt_was_cut() {
    let expected: Expected = fixture("tiny/qwen3/expected.json");
    let model = tiny("qwen3");
    let logits_of = |chunks: &[usize]| -> Vec<u32> {
        let mut team = Team::new(2).expect("threads");
        let mut forward = Forward::default();
        let mut cache = model.cache(expected.prompt_tokens.len());
        let (mut rest, mut last) = (expected.prompt_tokens.as_slice(), Vec::new());
        for &chunk in chunks {
            let (tokens, later) = rest.split_at(chunk);
            rest = later;
            let mut batch = [Slice { cache: &mut cache, tokens, adapter: None, wanted: Wanted::Last }];
            last = forward.run(&model, &mut team, &mut batch, || true).expect("wanted")[0]
                .iter()
                .map(|logit| logit.to_bits())
                .collect();
        }
        assert!(rest.is_empty());
        last
    };
    assert_eq!(expected.prompt_tokens.len(), 20);
    let whole = logits_of(&[20]);
    assert_eq!(logits_of(&[7, 13]), whole);
    assert_eq!(logits_of(&[16, 3, 1]), whole);
    assert_eq!(logits_of(&[1; 20]), whole);
}
