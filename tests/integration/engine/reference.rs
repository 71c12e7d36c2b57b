//! The quickstart's base model and adapters against transformers and PEFT in
//! float32.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::{FAST, greedy, quickstart_adapter};
use crate::support::{base_model, fixture, scratch};
use tenantry::engine::files::{
    ChatMessage, GenerationPrompt, ModelFiles, SaveDtype, SpecialTokens, Tokenizer, write_hf_folder,
};
use tenantry::engine::kernels::{Precision, Team};
use tenantry::engine::{Forward, Model, Slice, Wanted};

/// How much higher the fast path's perplexity may be than the reference's.
const FAST_PATH_MARGIN: f64 = 0.02;

/// The base model as a Hugging Face folder in float32, written from the GGUF file.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = scratch("hugging-face-f32");
    // Written anew each time: what an earlier run left could hide that writing broke.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    let files = ModelFiles::open(&base_model()).expect("the base model");
    write_hf_folder(&files, &folder, SaveDtype::F32).expect("the folder can be written");
    folder
});

static EXACT: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let files = ModelFiles::open(&FOLDER).expect("the folder that was just written");
    Arc::new(Model::load(&files, Precision::Exact).expect("the folder that was just written"))
});

#[derive(Deserialize)]
struct Case {
    name: String,
    adapter: Option<String>,
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Perplexity {
    tokens: Vec<u32>,
    perplexity: f64,
}

fn prompt_tokens(files: &ModelFiles, case: &Case) -> Vec<u32> {
    let tokenizer: &Tokenizer = files.tokenizer().expect("the model has one");
    match (&case.messages, &case.prompt) {
        (Some(messages), None) => {
            let messages: Vec<ChatMessage> = messages
                .iter()
                .map(|message| ChatMessage { role: message.role.clone(), content: message.content.clone() })
                .collect();
            let template = files.chat_template().expect("the model has one");
            let rendered = template.render(&messages, GenerationPrompt::Add).expect("the template takes it");
            tokenizer.encode_prompt(&rendered).expect("text")
        }
        (None, Some(prompt)) => tokenizer.encode(prompt, SpecialTokens::Plain).expect("text"),
        _ => panic!("{}: has messages or a prompt", case.name),
    }
}

#[test]
fn the_exact_path_takes_the_references_tokens_from_the_hugging_face_folder() {
    let files = ModelFiles::open(&FOLDER).expect("the folder");
    let cases: Vec<Case> = fixture("reference/greedy.json");
    let adapters: std::collections::BTreeSet<_> = cases.iter().map(|case| case.adapter.clone()).collect();
    assert_eq!(adapters.len(), 4, "the base and three adapters");
    let mut team = Team::new(2).expect("threads");
    for case in &cases {
        assert!(case.tokens.len() >= 48, "{}", case.name);
        assert_eq!(prompt_tokens(&files, case), case.prompt_tokens, "{}: prompt", case.name);
        let adapter = case.adapter.as_deref().map(|name| quickstart_adapter(&EXACT, name));
        let tokens = greedy(&EXACT, &mut team, adapter.as_deref(), &case.prompt_tokens, case.tokens.len());
        assert_eq!(tokens, case.tokens, "{}", case.name);
    }
}

/// Perplexity over windows of 512 tokens, of which the first is not scored.
fn perplexity(model: &Model, tokens: &[u32]) -> f64 {
    let mut team = Team::new(2).expect("threads");
    let mut forward = Forward::default();
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks(512) {
        let mut cache = model.cache(window.len());
        for (start, chunk) in window.chunks(64).enumerate().map(|(index, chunk)| (index * 64, chunk)) {
            let mut batch = [Slice { cache: &mut cache, tokens: chunk, adapter: None, wanted: Wanted::All }];
            let logits = forward.run(model, &mut team, &mut batch, || true).expect("wanted");
            for (offset, logits) in logits.iter().enumerate() {
                let Some(&next) = window.get(start + offset + 1) else { continue };
                let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = logits.iter().map(|logit| f64::from(logit - best).exp()).sum();
                sum -= f64::from(logits[next as usize] - best) - total.ln();
                count += 1;
            }
        }
    }
    (sum / f64::from(count)).exp()
}

#[test]
fn perplexity_is_the_references_and_the_fast_paths_within_its_margin() {
    let reference: Perplexity = fixture("reference/perplexity.json");
    let exact = perplexity(&EXACT, &reference.tokens);
    assert!(
        (exact / reference.perplexity - 1.0).abs() < 1e-4,
        "{exact}, and {} in the reference",
        reference.perplexity
    );
    let fast = perplexity(&FAST, &reference.tokens);
    let above = fast / reference.perplexity - 1.0;
    assert!(above.abs() < FAST_PATH_MARGIN, "{fast}, and {} in the reference", reference.perplexity);
}
