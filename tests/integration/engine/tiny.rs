//! Tiny models of every architecture, with random weights, against
//! transformers and PEFT in float32: the exact path takes the same tokens.

use serde::Deserialize;

use super::{fixture, greedy, repository};
use tenantry::engine::files::{AdapterFiles, AdapterLimits, ModelFiles};
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

#[test]
fn every_architecture_agrees_with_its_reference() {
    let mut team = Team::new(2).expect("threads");
    for name in ["llama3", "mistral", "qwen2", "qwen3"] {
        let expected: Expected = fixture(&format!("tiny/{name}/expected.json"));
        let model = tiny(name);
        let mut cache = model.cache(expected.prompt_tokens.len());
        let mut batch =
            [Slice { cache: &mut cache, tokens: &expected.prompt_tokens, adapter: None, wanted: Wanted::Last }];
        let mut forward = Forward::default();
        let logits = &forward.run(&model, &mut team, &mut batch)[0];
        let furthest = logits.iter().zip(&expected.last_prompt_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 2e-3, "{name}: logits are up to {furthest} off");
        let tokens = greedy(&model, &mut team, None, &expected.prompt_tokens, expected.tokens.len());
        assert_eq!(tokens, expected.tokens, "{name}");
    }
}
