//! Continuous batching: answers are the same alone and in a crowd, whatever
//! joins, leaves, waits, gives its cache up or is left alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;

use super::{Answer, FAST, answers, job, quickstart_adapter};
use tenantry::engine::files::{ModelFiles, SpecialTokens};
use tenantry::engine::kernels::Precision;
use tenantry::engine::{Adapter, Budget, Config, Engine, Job, Model, Output, SubmitError};
use tenantry::types::{FinishReason, Sampling};

fn config() -> Config {
    Config { threads: 2, ..Config::default() }
}

fn engine(config: Config) -> Engine {
    Engine::start(FAST.clone(), &config, Arc::new(Budget::new(0))).expect("threads")
}

fn encode(text: &str) -> Vec<u32> {
    let prompt = format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
    FAST.tokenizer().expect("the model has one").encode(&prompt, SpecialTokens::Parse).expect("text")
}

/// Eight rows: the base and three adapters, prompts of several lengths.
fn mixed(model: &Model) -> Vec<(Vec<u32>, Option<Arc<Adapter>>)> {
    let adapters = ["pirate", "json", "rhyme"].map(|name| quickstart_adapter(model, name));
    let questions = ["What is rain?", "Tell me about bees, at length and with an example.", "Why?"];
    (0..8)
        .map(|index| {
            let prompt = encode(&format!("{} {}", questions[index % 3].repeat(1 + index / 2), index));
            (prompt, adapters.get(index % 4).cloned())
        })
        .collect()
}

async fn run(engine: &Engine, job: Job) -> Answer {
    answers(engine.submit(job).expect("there is room"), 1).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_batch_answers_as_each_row_alone() {
    const NEW: u32 = 24;
    let rows = mixed(&FAST);
    let one_by_one = engine(config());
    let mut alone = Vec::new();
    for (prompt, adapter) in &rows {
        alone.push(run(&one_by_one, job(prompt, adapter.clone(), NEW)).await);
    }
    let crowd = engine(Config { prefill_chunk: 37, ..config() });
    // Others join and leave all the while, some of them in the middle of their prompt.
    let disturb = async {
        for round in 0..6_u32 {
            let mut passing = crowd.submit(job(&rows[round as usize].0, None, 40)).expect("there is room");
            for _ in 0..round {
                passing.next().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let together = join_all(rows.iter().map(|(prompt, adapter)| run(&crowd, job(prompt, adapter.clone(), NEW))));
    let (together, ()) = tokio::join!(together, disturb);
    assert_eq!(together, alone);
    let different: std::collections::HashSet<_> = alone.iter().take(4).map(|answer| &answer.tokens).collect();
    assert_eq!(different.len(), 4, "base and adapters answer differently");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_path_answers_the_same_in_a_crowd_too() {
    let files = ModelFiles::open(&crate::support::base_model()).expect("the base model");
    let model = Arc::new(Model::load(&files, Precision::Exact).expect("the base model"));
    let rows = mixed(&model);
    let engine = Engine::start(model, &config(), Arc::new(Budget::new(0))).expect("threads");
    let mut alone = Vec::new();
    for (prompt, adapter) in &rows {
        alone.push(run(&engine, job(prompt, adapter.clone(), 6)).await);
    }
    let together = join_all(rows.iter().map(|(prompt, adapter)| run(&engine, job(prompt, adapter.clone(), 6)))).await;
    assert_eq!(together, alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_makes_the_youngest_wait_and_changes_no_answer() {
    const NEW: u32 = 60;
    let prompts: Vec<Vec<u32>> = (0..4).map(|index| encode(&format!("Count to {index}."))).collect();
    let roomy = engine(config());
    let expected = join_all(prompts.iter().map(|prompt| run(&roomy, job(prompt, None, NEW)))).await;
    // Room for all four prompts, but not for all four answers.
    let longest = prompts.iter().map(Vec::len).max().expect("four") + NEW as usize;
    let block = config().kv_bytes / config().context(&FAST, 0).blocks as u64;
    let blocks = longest.div_ceil(16) as u64 * 2 + 2;
    let narrow = engine(Config { kv_bytes: blocks * block, ..config() });
    assert_eq!(narrow.context().blocks as u64, blocks);
    let answers = join_all(prompts.iter().map(|prompt| run(&narrow, job(prompt, None, NEW)))).await;
    assert_eq!(answers, expected);
    assert!(narrow.stats().preempted > 0, "the cache was too small for all at once");
    assert_eq!(roomy.stats().preempted, 0);
    assert_eq!(narrow.stats().generated, u64::from(4 * NEW), "no token is made twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_refused_up_front() {
    let engine = engine(Config { context: Some(64), ..config() });
    let refused = |prompt: &[u32], max_tokens| engine.submit(Job { max_tokens, ..job(prompt, None, 1) }).err();
    assert_eq!(refused(&[5; 64], None), Some(SubmitError::PromptTooLong { prompt: 64, context: 64 }));
    assert_eq!(refused(&[5; 70], Some(1)), Some(SubmitError::PromptTooLong { prompt: 70, context: 64 }));
    assert_eq!(refused(&[5; 60], Some(5)), Some(SubmitError::TooManyTokens { prompt: 60, max_tokens: 5, context: 64 }));
    assert_eq!(refused(&[], Some(5)), Some(SubmitError::EmptyPrompt));
    assert_eq!(refused(&[49_152], Some(5)), Some(SubmitError::UnknownToken { token: 49_152, vocabulary: 49_152 }));
    let last = run(&engine, Job { max_tokens: None, ..job(&[5; 60], None, 1) }).await;
    assert_eq!((last.tokens.len(), last.reason), (4, Some(FinishReason::Length)), "up to the context");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_takes_again() {
    let engine = engine(Config { max_batch_rows: 1, queue: 2, ..config() });
    let prompt = encode("Hi");
    let mut held = Vec::new();
    let refused = loop {
        match engine.submit(job(&prompt, None, 2_000)) {
            Ok(generation) => held.push(generation),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SubmitError::QueueFull);
    assert!((2..=3).contains(&held.len()), "one runs and two wait: {}", held.len());
    drop(held);
    settled(&engine).await;
    run(&engine, job(&prompt, None, 1)).await;
}

/// Waits until nothing runs or waits.
async fn settled(engine: &Engine) {
    let nothing = async {
        while engine.stats().running + engine.stats().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), nothing).await.expect("the engine lets go of what nobody reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_takes_its_sequence_with_it() {
    let engine = engine(config());
    let mut generation = engine.submit(job(&encode("Tell me a long story."), None, 4_000)).expect("there is room");
    for _ in 0..3 {
        generation.next().await;
    }
    assert_eq!(engine.stats().running, 1);
    drop(generation);
    settled(&engine).await;
    let steps = engine.stats().steps;
    assert!(steps < 400, "{steps} steps for three tokens");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(engine.stats().steps, steps, "nothing is computed for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lags_holds_up_itself_alone() {
    let engine = engine(config());
    let prompt = encode("Tell me a long story.");
    let expected = run(&engine, job(&prompt, None, 120)).await;
    let lagging = engine.submit(job(&prompt, None, 120)).expect("there is room");
    assert_eq!(run(&engine, job(&prompt, None, 120)).await, expected, "others go on");
    let others_left = async {
        while engine.stats().running > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), others_left).await.expect("they are done");
    assert_eq!(engine.stats().running, 1, "the lagging one waits for its reader");
    assert_eq!(answers(lagging, 1).await, [expected], "and loses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_strings_end_the_text_before_them() {
    let engine = engine(config());
    let prompt = encode("Name three animals.");
    let whole = run(&engine, job(&prompt, None, 60)).await.text;
    let at = whole.char_indices().nth(whole.chars().count() / 2).expect("some text").0;
    let stop: String = whole[at..].chars().take(6).collect();
    let cut = whole.find(&stop).expect("it is in there");
    let answer = run(&engine, Job { stop: vec![stop.clone()], ..job(&prompt, None, 60) }).await;
    assert_eq!((answer.text.as_str(), answer.reason), (&whole[..cut], Some(FinishReason::Stop)), "{stop:?}");
    settled(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_of_one_seed_differ_and_can_be_repeated() {
    let engine = engine(config());
    let sampling = Sampling { temperature: 1.2, seed: Some(11), ..Sampling::default() };
    let several = || Job { choices: 3, sampling: sampling.clone(), ..job(&encode("Say something."), None, 12) };
    let first = answers(engine.submit(several()).expect("there is room"), 3).await;
    let again = answers(engine.submit(several()).expect("there is room"), 3).await;
    assert_eq!(first, again);
    assert_ne!(first[0].tokens, first[1].tokens);
    assert_ne!(first[1].tokens, first[2].tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_of_the_token_taken_and_its_rivals() {
    let engine = engine(config());
    let mut generation =
        engine.submit(Job { logprobs: Some(5), ..job(&encode("Hello"), None, 8) }).expect("there is room");
    let mut seen = 0;
    while let Some(output) = generation.next().await {
        let Output::Token { token, detail, .. } = output.expect("the engine runs") else { continue };
        let detail = detail.expect("asked for");
        assert_eq!(detail.top.len(), 5);
        assert_eq!(detail.top[0], (token, detail.logprob), "greedy takes the best");
        assert!(detail.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert!(detail.top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() <= 1.0 + 1e-4);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_that_fit_no_queue_and_unknown_biases_are_refused_for_good() {
    let engine = engine(Config { max_batch_rows: 2, queue: 1, ..config() });
    let several = Job { choices: 4, ..job(&encode("Hi"), None, 1) };
    assert_eq!(engine.submit(several).err(), Some(SubmitError::TooManySequences { sequences: 4, most: 3 }));
    let sampling = Sampling { logit_bias: vec![(5, 1.0), (49_152, 1.0)], ..Sampling::default() };
    let biased = Job { sampling, ..job(&encode("Hi"), None, 1) };
    assert_eq!(engine.submit(biased).err(), Some(SubmitError::UnknownBias { token: 49_152, vocabulary: 49_152 }));
    let all = answers(engine.submit(Job { choices: 3, ..job(&encode("Hi"), None, 1) }).expect("they fit"), 3).await;
    assert_eq!(all.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_lag_give_their_places_to_others_and_lose_nothing() {
    let engine = engine(Config { max_batch_rows: 2, ..config() });
    let prompt = encode("Tell me a long story.");
    let expected = run(&engine, job(&prompt, None, 120)).await;
    let lagging: Vec<_> = (0..3).map(|_| engine.submit(job(&prompt, None, 120)).expect("there is room")).collect();
    let others = async { run(&engine, job(&prompt, None, 120)).await };
    let other = tokio::time::timeout(Duration::from_secs(60), others).await.expect("a place becomes free");
    assert_eq!(other, expected);
    for generation in lagging {
        assert_eq!(answers(generation, 1).await, std::slice::from_ref(&expected));
    }
    settled(&engine).await;
}
