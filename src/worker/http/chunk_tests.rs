//! Chunks as real engines wrote them.

use serde_json::json;

use super::*;
use crate::types::{Input, Message, Prompt, Role, Route, Sampling};

fn request(chat: bool, prompts: usize, choices: u32) -> GenerateRequest {
    let input = match chat {
        true => Input::Chat(vec![Message::text(Role::User, "Hi")]),
        false => Input::Prompts(vec![Prompt::Text("Hi".to_owned()); prompts]),
    };
    GenerateRequest {
        route: Route::ChatCompletions,
        model: "m".to_owned(),
        input,
        sampling: Sampling::default(),
        stop: Vec::new(),
        max_tokens: None,
        choices,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Map::new(),
    }
}

fn reader(request: &GenerateRequest, running: bool) -> Reader {
    Reader::new(request, ModelCheck::Equal("m".to_owned()), running)
}

fn read(reader: &mut Reader, chunks: &[Value]) -> Result<Vec<Event>, WorkerError> {
    for chunk in chunks {
        let text = chunk.as_str().map_or_else(|| chunk.to_string(), str::to_owned);
        reader.data(text.as_bytes())?;
    }
    Ok(std::iter::from_fn(|| reader.event()).collect())
}

fn delta(choice: u32, text: &str, tokens: u32) -> Event {
    Event::Delta(Delta { choice, text: text.to_owned(), tokens, ..Delta::default() })
}

fn finished(choice: u32, reason: FinishReason) -> Event {
    Event::Finished { choice, reason }
}

fn usage(prompt_tokens: u32, completion_tokens: u32, cached_tokens: u32) -> Event {
    Event::Usage(Usage { prompt_tokens, completion_tokens, cached_tokens })
}

fn chunk(choice: Value, usage: Value) -> Value {
    json!({"id": "x", "object": "o", "created": 1, "model": "m", "choices": [choice], "usage": usage})
}

#[test]
fn a_chat_of_vllm_with_running_usage() {
    let request = request(true, 1, 1);
    let mut reader = reader(&request, true);
    let said = |tokens: u32| json!({"prompt_tokens": 35, "total_tokens": 35 + tokens, "completion_tokens": tokens});
    let role =
        json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null});
    assert_eq!(read(&mut reader, &[chunk(role, said(0))]).expect("read"), [], "it says nothing yet");
    assert_eq!(reader.prompt_tokens(), Some(35));
    let events = read(
        &mut reader,
        &[
            // A stop string may begin with what was held back, so a chunk is not a token.
            chunk(json!({"index": 0, "delta": {"content": "he s"}, "finish_reason": null, "token_ids": null}), said(2)),
            chunk(
                json!({"index": 0, "delta": {"content": "ea"}, "finish_reason": "stop", "stop_reason": " is"}),
                said(3),
            ),
            json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 35, "completion_tokens": 3}}),
            json!("[DONE]"),
        ],
    );
    let mut extra = Extra::default();
    extra.choice.insert("stop_reason".to_owned(), json!(" is"));
    let last = Delta { text: "ea".to_owned(), tokens: 1, extra: Some(Box::new(extra)), ..Delta::default() };
    let expected = [delta(0, "he s", 2), Event::Delta(last), finished(0, FinishReason::Stop), usage(35, 3, 0)];
    assert_eq!(events.expect("read"), expected);
    assert!(reader.done());
}

#[test]
fn completions_of_llamacpp_tell_the_usage_of_each_choice() {
    let request = request(false, 2, 1);
    let mut reader = reader(&request, false);
    let said = json!({"completion_tokens": 1, "prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}});
    let text = |index: u32, text: &str| json!({"index": index, "text": text, "logprobs": null, "finish_reason": null});
    let end = |index: u32| json!({"index": index, "text": "", "logprobs": null, "finish_reason": "length"});
    let events = read(
        &mut reader,
        &[
            Value::Null,
            chunk(text(1, "-"), Value::Null),
            chunk(text(0, " a"), Value::Null),
            chunk(end(1), said.clone()),
            chunk(end(0), said),
            json!("[DONE]"),
        ],
    );
    let length = FinishReason::Length;
    let expected = [delta(1, "-", 1), delta(0, " a", 1), finished(1, length), finished(0, length), usage(6, 2, 4)];
    assert_eq!(events.expect("read"), expected);
}

#[test]
fn a_usage_of_one_choice_is_not_taken_for_that_of_two() {
    let request = request(true, 1, 2);
    let mut reader = reader(&request, false);
    let piece = |index: u32| json!({"index": index, "delta": {"content": "a"}, "finish_reason": "length"});
    let one = json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}});
    let chunks = [chunk(piece(0), Value::Null), chunk(piece(1), Value::Null), one, json!("[DONE]")];
    assert_eq!(read(&mut reader, &chunks).expect("read").last(), Some(&usage(5, 2, 0)));
}

/// lessons 14: streams without a usage chunk bill zero; explicit zeros are taken
/// for missing.
#[test]
fn streams_without_a_usage_bill_what_was_counted_and_zeros_are_zeros() {
    let request = request(true, 1, 1);
    let whole = |end: &[Value]| {
        let mut reader = reader(&request, false);
        let piece = |reason: Value| json!({"index": 0, "delta": {"content": "a"}, "finish_reason": reason});
        let pieces = [chunk(piece(Value::Null), Value::Null), chunk(piece(json!("stop")), Value::Null)];
        let chunks: Vec<Value> = pieces.iter().chain(end).cloned().collect();
        read(&mut reader, &chunks).expect("read").pop()
    };
    assert_eq!(whole(&[json!("[DONE]")]), Some(usage(0, 2, 0)), "counted by its deltas");
    let zero = json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}});
    assert_eq!(whole(&[zero, json!("[DONE]")]), Some(usage(0, 0, 0)), "that was said");
    let nothing = json!({"model": "m", "choices": [], "usage": null});
    assert_eq!(whole(&[nothing, json!("[DONE]")]), Some(usage(0, 2, 0)), "that was not");
}

/// lessons 14: usage on other terminal events is lost.
#[test]
fn a_usage_on_the_chunk_that_finishes_counts() {
    let request = request(true, 1, 1);
    let said = json!({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}});
    let piece = |reason: Value| json!({"index": 0, "delta": {"content": "a"}, "finish_reason": reason});
    let chunks = [chunk(piece(Value::Null), Value::Null), chunk(piece(json!("stop")), said), json!("[DONE]")];
    let events = read(&mut reader(&request, false), &chunks).expect("read");
    assert_eq!(events.last(), Some(&usage(7, 3, 2)));
}

#[test]
fn tool_calls_and_unknown_fields_pass_through() {
    let request = request(true, 1, 1);
    let mut reader = reader(&request, false);
    let call = json!([{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]);
    let choice = json!({"index": 0, "delta": {"tool_calls": call}, "finish_reason": "tool_calls"});
    let mut first = chunk(choice, Value::Null);
    first["timings"] = json!({"n": 1});
    let events = read(&mut reader, &[first]).expect("read");
    let Event::Delta(Delta { extra: Some(extra), .. }) = &events[0] else { panic!("{events:?}") };
    assert_eq!(extra.delta["tool_calls"], call);
    assert_eq!(extra.chunk["timings"], json!({"n": 1}));
    assert_eq!(events[1], finished(0, FinishReason::ToolCalls));
}

#[test]
fn log_probabilities_of_both_forms() {
    let request = request(false, 1, 1);
    let forms = [
        json!({"tokens": [" a"], "token_logprobs": [-0.5], "top_logprobs": [{" b": -1.5, " a": -0.5}]}),
        json!({"content": [{"token": " a", "bytes": [32, 97], "logprob": -0.5, "top_logprobs": [
            {"token": " a", "logprob": -0.5}, {"token": " b", "logprob": -1.5}]}]}),
    ];
    for logprobs in forms {
        let choice = json!({"index": 0, "text": " a", "logprobs": logprobs, "finish_reason": null});
        let events = read(&mut reader(&request, false), &[chunk(choice, Value::Null)]).expect("read");
        let Event::Delta(Delta { logprobs, .. }) = &events[0] else { panic!("{events:?}") };
        let top = |text: &str, logprob| TopLogprob { bytes: text.into(), logprob };
        assert_eq!(*logprobs, [TokenLogprob { token: top(" a", -0.5), top: vec![top(" a", -0.5), top(" b", -1.5)] }]);
    }
}

#[test]
fn what_is_no_answer_to_the_question_fails() {
    let request = request(true, 1, 1);
    let fails = |chunks: &[Value]| match read(&mut reader(&request, false), chunks) {
        Err(WorkerError::Failed(why)) => why,
        other => panic!("{other:?}"),
    };
    let piece = json!({"index": 0, "delta": {"content": "a"}, "finish_reason": null});
    let mut base = chunk(piece.clone(), Value::Null);
    base["model"] = json!("base");
    assert_eq!(fails(&[base]), "it answered with the model `base`, not `m`");
    assert_eq!(fails(&[json!("[DONE]")]), "it ended its answer before all choices had finished");
    let odd = json!({"index": 0, "delta": {}, "finish_reason": "abort"});
    assert_eq!(fails(&[chunk(odd, Value::Null)]), "a choice finished for the reason `abort`");
    assert_eq!(fails(&[json!({"error": {"message": "out of memory"}})]), r#"it said: {"message":"out of memory"}"#);
    let other = json!({"index": 1, "delta": {"content": "a"}});
    assert_eq!(fails(&[chunk(other, Value::Null)]), "it told more of choice 1 than there is");
    assert_eq!(fails(&[json!("{")]), "a chunk of its answer is not a JSON object");
}

#[test]
fn a_dated_model_is_the_one_that_was_asked_for_and_a_sibling_is_not() {
    let check = |model: Option<&str>| ModelCheck::Dated("gpt-x".to_owned()).check(model).is_ok();
    assert!(check(Some("gpt-x")) && check(Some("gpt-x-2025-01-31")) && check(None));
    assert!(!check(Some("gpt-x-mini")) && !check(Some("gpt-x5")) && !check(Some("gpt")) && !check(Some("gpt-x-")));
}

#[test]
fn an_error_within_a_stream_is_the_requests_or_the_workers() {
    let request = request(true, 1, 1);
    let said = |code: u32| json!({"error": {"code": code, "message": "no such thing", "type": "x"}});
    let told = |code: u32| read(&mut reader(&request, false), &[said(code)]).expect_err("an error");
    assert!(matches!(told(400), WorkerError::Refused(_)));
    assert!(matches!(told(500), WorkerError::Failed(_)));
}
