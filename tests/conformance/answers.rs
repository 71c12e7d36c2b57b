//! What is answered, how it ends, and what it is counted as.

use tenantry::types::{ErrorKind, FinishReason, GenerateRequest, Input, Message, Prompt, Role};
use tenantry::worker::WorkerError;

use super::{Bench, question, request};

pub(crate) async fn answers_and_usage(bench: &Bench) {
    let answer = bench.answer(None, question(12)).await.expect("an answer");
    assert!(!answer.text.is_empty());
    assert_eq!(answer.usage.completion_tokens, 12);
    assert_eq!(answer.tokens, answer.usage.completion_tokens, "what is billed is what was counted");
    assert!((25..60).contains(&answer.usage.prompt_tokens), "{}", answer.usage.prompt_tokens);
    assert_eq!(answer.finished, Some(FinishReason::Length));
    let again = bench.answer(None, question(12)).await.expect("an answer");
    assert_eq!(again.text, answer.text, "a greedy answer is the same each time");
}

pub(super) async fn stop_reasons(bench: &Bench) {
    let whole = bench.answer(None, question(12)).await.expect("an answer").text;
    let word = whole.split(' ').nth(2).expect("several words").to_owned();
    let stopped =
        bench.answer(None, GenerateRequest { stop: vec![word.clone()], ..question(40) }).await.expect("an answer");
    assert_eq!(stopped.finished, Some(FinishReason::Stop));
    assert!(!stopped.text.contains(&word) && whole.starts_with(stopped.text.trim_end()), "{}", stopped.text);
    // Weights of another precision go on about one of them.
    let (mut ends, questions) = (Vec::new(), ["What is the capital of France?", "What do rabbits eat?"]);
    for text in questions {
        let asked = request(Input::Chat(vec![Message::text(Role::User, text)]), 300);
        ends.push(bench.answer(None, asked).await.expect("an answer").finished);
    }
    assert!(ends.contains(&Some(FinishReason::Stop)), "the model ends its answer itself");
}

pub(super) async fn prompts_and_refusals(bench: &Bench) {
    let text = request(Input::Prompts(vec![Prompt::Text("The capital of France is".to_owned())]), 3);
    let answer = bench.answer(None, text).await.expect("an answer");
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    assert_eq!(answer.usage.prompt_tokens, 5);
    let endless = "word ".repeat(9_000);
    let refused = bench.answer(None, request(Input::Prompts(vec![Prompt::Text(endless)]), 3)).await.map(|it| it.text);
    let Err(WorkerError::Refused(error)) = refused else { panic!("a prompt beyond the context: {refused:?}") };
    assert_eq!(error.kind(), ErrorKind::ContextTooLong);
}

pub(super) async fn many_at_once(bench: &Bench) {
    let alone = bench.answer(None, question(8)).await.expect("an answer");
    let all = (0..6).map(|_| bench.answer(None, question(8)));
    for answer in futures_util::future::join_all(all).await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.usage.prompt_tokens, alone.usage.prompt_tokens);
        assert_eq!((answer.finished, answer.tokens), (alone.finished, 8));
    }
}
