//! What good bodies become.

use serde_json::{Value, json};

use super::parsing::{chat, completion};
use crate::edge::http::Api;
use crate::edge::http::parse::{Delivery, Parsed, parse};
use crate::types::{GenerateRequest, Input, Message, More, Prompt, Role, Route, Sampling};

fn parsed(api: Api, body: &Value) -> Parsed {
    parse(api, body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn a_chat_becomes_a_request_field_by_field() {
    let body = chat(json!({
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": null, "annotations": []},
        ],
        "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.25, "repetition_penalty": 1.5,
        "presence_penalty": -2, "frequency_penalty": 2, "seed": -1, "logit_bias": {"7": -100, "5": 1},
        "stop": "END", "max_completion_tokens": 9, "n": 2, "logprobs": true, "top_logprobs": 3,
        "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "user": "u",
        "reasoning_effort": "low",
    }));
    let named = body["messages"][1].as_object().expect("an object");
    let message = |role, content: &str| Message::text(role, content);
    let request = GenerateRequest {
        route: Route::ChatCompletions,
        model: "m".to_owned(),
        input: Input::Chat(vec![
            message(Role::Developer, "Be short."),
            Message {
                more: Some(Box::new(More { as_given: named.clone(), refusal: None })),
                ..message(Role::User, "Hello")
            },
            message(Role::Assistant, ""),
        ]),
        sampling: Sampling {
            temperature: 0.0,
            top_p: 0.5,
            top_k: 0,
            min_p: 0.25,
            repetition_penalty: 1.5,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            seed: Some(u64::MAX),
            logit_bias: vec![(5, 1.0), (7, -100.0)],
        },
        stop: vec!["END".to_owned()],
        max_tokens: Some(9),
        choices: 2,
        logprobs: Some(3),
        ignore_eos: true,
        timeout: None,
        extra: [("reasoning_effort".to_owned(), json!("low"))].into_iter().collect(),
    };
    let delivery = Delivery::Stream { include_usage: true };
    assert_eq!(parsed(Api::Chat, &body), Parsed { request, delivery });
}

#[test]
fn nulls_and_defaults_are_the_same_as_nothing() {
    let bare = parsed(Api::Chat, &chat(json!({})));
    assert_eq!(bare.delivery, Delivery::Whole);
    let spelled_out = chat(json!({
        "temperature": null, "n": null, "stop": null, "stream": false, "stream_options": null, "logit_bias": {},
        "max_tokens": null, "logprobs": false, "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto",
        "modalities": ["text"], "parallel_tool_calls": true, "metadata": {"a": "b"}, "store": false, "user": "u",
        "service_tier": "auto", "functions": null, "unknown_to_us": null,
    }));
    assert_eq!(parsed(Api::Chat, &spelled_out), bare);
    let bare = parsed(Api::Completions, &completion(json!({})));
    assert_eq!(bare.request.max_tokens, Some(16), "OpenAI's default");
    let spelled_out =
        completion(json!({"echo": false, "best_of": 1, "suffix": "", "max_tokens": 16, "logprobs": null}));
    assert_eq!(parsed(Api::Completions, &spelled_out), bare);
}

#[test]
fn what_this_edge_does_not_know_reaches_the_worker_as_it_came() {
    let extra = json!({
        "tools": [{"type": "function"}], "tool_choice": "auto", "response_format": {"type": "json_object"},
        "guided_regex": "a+",
    });
    let Value::Object(expected) = extra.clone() else { panic!("an object") };
    assert_eq!(parsed(Api::Chat, &chat(extra)).request.extra, expected);
    let extra = json!({"echo": true, "best_of": 3, "suffix": "end"});
    let Value::Object(expected) = extra.clone() else { panic!("an object") };
    assert_eq!(parsed(Api::Completions, &completion(extra)).request.extra, expected);
}

#[test]
fn a_prompt_is_a_text_or_texts_or_tokens() {
    let prompts = |prompt: Value| parsed(Api::Completions, &completion(json!({"prompt": prompt}))).request.input;
    let text = |text: &str| Prompt::Text(text.to_owned());
    assert_eq!(prompts(json!("a")), Input::Prompts(vec![text("a")]));
    assert_eq!(prompts(json!(["a", "b"])), Input::Prompts(vec![text("a"), text("b")]));
    assert_eq!(prompts(json!([1, 2])), Input::Prompts(vec![Prompt::Tokens(vec![1, 2])]));
    assert_eq!(
        prompts(json!([[1], [2, 3]])),
        Input::Prompts(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])])
    );
}

#[test]
fn rounding_keeps_a_tiny_top_p_above_zero() {
    let request = parsed(Api::Chat, &chat(json!({"top_p": 1e-60, "seed": u64::MAX, "max_tokens": u64::MAX}))).request;
    assert!(request.sampling.top_p > 0.0);
    assert_eq!(request.sampling.seed, Some(u64::MAX));
    assert_eq!(request.max_tokens, Some(u32::MAX));
}
