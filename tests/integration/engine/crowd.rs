//! The law of the batch: a row's logits are the same bits alone and in a crowd,
//! on both numeric paths.

use std::sync::Arc;

use super::{FAST, adapter, quickstart_adapter};
use crate::support::repository;
use tenantry::engine::files::ModelFiles;
use tenantry::engine::kernels::{Precision, Team};
use tenantry::engine::{Adapter, Forward, Model, Slice, Wanted};

/// The bits of each prompt's last logits after a first chunk and a second one, all prompts in one batch.
fn bits(model: &Model, threads: usize, rows: &[(Vec<u32>, Option<Arc<Adapter>>)]) -> Vec<Vec<u32>> {
    let mut team = Team::new(threads).expect("threads");
    let mut forward = Forward::default();
    let mut caches: Vec<_> = rows.iter().map(|(prompt, _)| model.cache(prompt.len())).collect();
    let mut last = Vec::new();
    for second in [false, true] {
        let mut batch: Vec<Slice<'_>> = rows
            .iter()
            .zip(&mut caches)
            .map(|((prompt, adapter), cache)| {
                let (first, rest) = prompt.split_at(prompt.len() - 1);
                let tokens = if second { rest } else { first };
                Slice { cache, tokens, adapter: adapter.as_deref(), wanted: Wanted::Last }
            })
            .collect();
        let logits = forward.run(model, &mut team, &mut batch, || true).expect("wanted");
        last = logits.iter().map(|row| row.iter().map(|logit| logit.to_bits()).collect()).collect();
    }
    last
}

fn same_alone_and_in_a_crowd(model: &Model, adapters: &[Arc<Adapter>], vocabulary: u32) {
    let rows: Vec<(Vec<u32>, Option<Arc<Adapter>>)> = (0..8_u32)
        .map(|index| {
            let prompt = (0..3 + 5 * index).map(|at| (17 + 31 * at + 7 * index) % vocabulary).collect();
            (prompt, adapters.get(index as usize % (adapters.len() + 1)).cloned())
        })
        .collect();
    let alone: Vec<Vec<u32>> = rows.iter().map(|row| bits(model, 1, std::slice::from_ref(row)).remove(0)).collect();
    assert!(alone.windows(2).all(|pair| pair[0] != pair[1]), "the rows say different things");
    assert!(bits(model, 2, &rows) == alone, "eight rows on two threads");
    assert!(bits(model, 1, &rows[2..5]) == alone[2..5], "three rows on one thread");
}

#[test]
fn fast_logits_are_the_same_bits_alone_and_in_a_crowd() {
    let adapters = ["pirate", "json", "rhyme"].map(|name| quickstart_adapter(&FAST, name));
    same_alone_and_in_a_crowd(&FAST, &adapters, 40_000);
}

#[test]
fn exact_logits_are_the_same_bits_alone_and_in_a_crowd() {
    let files = ModelFiles::open(&repository("tests/fixtures/tiny/llama3")).expect("a tiny model");
    let model = Model::load(&files, Precision::Exact).expect("a tiny model");
    let adapters =
        ["all_linear", "rslora_qv"].map(|name| adapter(&model, &format!("tests/fixtures/tiny/adapters/{name}")));
    same_alone_and_in_a_crowd(&model, &adapters, 320);
}
