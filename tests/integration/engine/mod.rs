//! The embedded engine against its references.

mod batching;
mod crowd;
mod reference;
mod tiny;

use std::sync::{Arc, LazyLock};

use futures_util::StreamExt;
use tenantry::engine::files::{AdapterFiles, AdapterLimits, ModelFiles};
use tenantry::engine::kernels::{Precision, Team};
use tenantry::engine::{Adapter, Forward, Generation, Job, Model, Output, Slice, Wanted};
use tenantry::types::{FinishReason, Sampling};

use crate::support::{base_model, repository};

const LIMITS: AdapterLimits = AdapterLimits { max_rank: 64, max_bytes: 64 << 20 };

/// The quickstart's base model, from its GGUF file, on the fast path.
static FAST: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let files = ModelFiles::open(&base_model()).expect("the base model");
    Arc::new(Model::load(&files, Precision::Fast).expect("the base model"))
});

/// One of the quickstart's adapters.
fn quickstart_adapter(model: &Model, name: &str) -> Arc<Adapter> {
    adapter(model, &format!("config/quickstart/adapters/{name}"))
}

fn adapter(model: &Model, folder: &str) -> Arc<Adapter> {
    let files =
        AdapterFiles::open(&repository(folder), model.config(), &["HuggingFaceTB/SmolLM2-135M-Instruct"], LIMITS);
    Arc::new(Adapter::pack(&files.expect(folder), model).expect(folder))
}

/// Reads the prompt as one chunk, then takes the most probable token `count` times.
fn greedy(model: &Model, team: &mut Team, adapter: Option<&Adapter>, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut forward = Forward::default();
    let mut cache = model.cache(prompt.len() + count);
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let next = &tokens[cache.len()..];
        let mut batch = [Slice { cache: &mut cache, tokens: next, adapter, wanted: Wanted::Last }];
        let logits = forward.run(model, team, &mut batch, || true).expect("wanted");
        tokens.push(team.isa().argmax(&logits[0]) as u32);
    }
    tokens.split_off(prompt.len())
}

/// A greedy job of one sequence that does not stop by itself.
fn job(prompt: &[u32], adapter: Option<Arc<Adapter>>, max_tokens: u32) -> Job {
    Job {
        prompts: vec![prompt.to_vec()],
        choices: 1,
        drop_leading_space: false,
        adapter,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_tokens: Some(max_tokens),
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
    }
}

/// What one choice came to.
#[derive(Debug, Clone, PartialEq, Default)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    reason: Option<FinishReason>,
}

/// Reads a generation to its end; one answer a choice.
async fn answers(mut generation: Generation, choices: usize) -> Vec<Answer> {
    let mut answers = vec![Answer::default(); choices];
    while let Some(output) = generation.next().await {
        match output.expect("the engine runs") {
            Output::Token { choice, token, text, .. } => {
                answers[choice as usize].tokens.push(token);
                answers[choice as usize].text += &text;
            }
            Output::Finished { choice, text, reason } => {
                answers[choice as usize].text += &text;
                answers[choice as usize].reason = Some(reason);
            }
        }
    }
    answers
}
