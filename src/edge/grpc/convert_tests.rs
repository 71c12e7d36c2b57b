//! Every range of a request, with the exact words of its refusal; and what
//! events look like on the wire.

use super::*;
use crate::types::{FinishReason, Usage};

fn chat() -> pb::GenerateRequest {
    let message = pb::Message { role: "user".to_owned(), content: "Hi".to_owned() };
    pb::GenerateRequest { model: "assistant".to_owned(), messages: vec![message], ..Default::default() }
}

/// The chat request after `change`.
fn read(change: impl FnOnce(&mut pb::GenerateRequest)) -> Result<GenerateRequest, Error> {
    let mut wire = chat();
    change(&mut wire);
    request(wire, None)
}

#[track_caller]
fn refused(param: &str, message: &str, change: impl FnOnce(&mut pb::GenerateRequest)) {
    let error = read(change).expect_err(message);
    assert_eq!((error.param(), error.message()), (Some(param), message));
}

#[test]
fn a_bare_request_takes_the_defaults() {
    let read = request(chat(), Some(Duration::from_secs(3))).expect("valid");
    let expected = GenerateRequest {
        route: Route::GrpcGenerate,
        model: "assistant".to_owned(),
        input: Input::Chat(vec![Message::text(Role::User, "Hi")]),
        sampling: Sampling::default(),
        stop: Vec::new(),
        max_tokens: None,
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: Some(Duration::from_secs(3)),
        extra: serde_json::Map::new(),
    };
    assert_eq!(read, expected);
}

#[test]
fn every_field_arrives_also_at_the_ends_of_its_range() {
    let read = read(|it| {
        it.messages.clear();
        it.prompt = Some("Once".to_owned());
        it.max_tokens = Some(1);
        it.n = Some(16);
        it.stop = vec!["x".repeat(256); 16];
        it.temperature = Some(0.0);
        it.top_p = Some(1.0);
        it.top_k = Some(40);
        it.min_p = Some(1.0);
        it.repetition_penalty = Some(2.0);
        it.presence_penalty = Some(-2.0);
        it.frequency_penalty = Some(2.0);
        it.seed = Some(-1);
        it.logit_bias = [(9, -100.0), (7, 100.0), (8, 0.5)].into();
        it.logprobs = Some(true);
        it.top_logprobs = Some(20);
        it.ignore_eos = Some(true);
    })
    .expect("valid");
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 40,
        min_p: 1.0,
        repetition_penalty: 2.0,
        presence_penalty: -2.0,
        frequency_penalty: 2.0,
        seed: Some(u64::MAX),
        logit_bias: vec![(7, 100.0), (8, 0.5), (9, -100.0)],
    };
    let expected = GenerateRequest {
        route: Route::GrpcGenerate,
        model: "assistant".to_owned(),
        input: Input::Prompts(vec![Prompt::Text("Once".to_owned())]),
        sampling,
        stop: vec!["x".repeat(256); 16],
        max_tokens: Some(1),
        choices: 16,
        logprobs: Some(20),
        ignore_eos: true,
        timeout: None,
        extra: serde_json::Map::new(),
    };
    assert_eq!(read, expected);
}

#[test]
fn exactly_one_of_messages_and_prompt_is_taken() {
    refused("messages", "Give one of 'messages' and 'prompt'; neither is there.", |it| it.messages.clear());
    refused("prompt", "Give one of 'messages' and 'prompt'; both are there.", |it| it.prompt = Some(String::new()));
    refused("model", "you must provide a model parameter", |it| it.model.clear());
}

#[test]
fn every_role_is_known_and_no_other() {
    for role in Role::ALL {
        let read = read(|it| it.messages[0].role = role.as_str().to_owned()).expect("a known role");
        assert_eq!(read.input, Input::Chat(vec![Message::text(role, "Hi")]));
    }
    let message = "Invalid value for 'messages[1].role': 'User'. Supported values are: 'system', 'developer', 'user', \
                   'assistant', 'tool'.";
    refused("messages[1].role", message, |it| {
        it.messages.push(pb::Message { role: "User".to_owned(), content: String::new() });
    });
}

#[test]
fn counts_out_of_range_are_refused() {
    let at_least_one = "Invalid value for 'max_tokens': expected an integer of at least 1, got 0.";
    refused("max_tokens", at_least_one, |it| it.max_tokens = Some(0));
    refused("n", "Invalid value for 'n': expected an integer from 1 to 16, got 0.", |it| it.n = Some(0));
    refused("n", "Invalid value for 'n': expected an integer from 1 to 16, got 17.", |it| it.n = Some(17));
    refused("stop", "Invalid value for 'stop': expected at most 16 strings, got 17.", |it| {
        it.stop = vec!["x".to_owned(); 17];
    });
    let empty = "Invalid value for 'stop[1]': expected a string of 1 to 256 bytes, got 0 bytes.";
    refused("stop[1]", empty, |it| it.stop = vec!["x".to_owned(), String::new()]);
    let long = "Invalid value for 'stop[0]': expected a string of 1 to 256 bytes, got 257 bytes.";
    refused("stop[0]", long, |it| it.stop = vec!["x".repeat(257)]);
    let biases = "Invalid value for 'logit_bias': expected at most 300 tokens, got 301.";
    refused("logit_bias", biases, |it| it.logit_bias = (0..301).map(|token| (token, 1.0)).collect());
}

#[test]
fn log_probabilities_need_their_switch() {
    let range = "Invalid value for 'top_logprobs': expected an integer from 0 to 20, got 21.";
    refused("top_logprobs", range, |it| (it.logprobs, it.top_logprobs) = (Some(true), Some(21)));
    let switch = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.";
    refused("top_logprobs", switch, |it| it.top_logprobs = Some(1));
    assert_eq!(read(|it| it.logprobs = Some(true)).expect("valid").logprobs, Some(0));
    assert_eq!(read(|it| it.top_logprobs = Some(0)).expect("valid").logprobs, None);
}

#[test]
fn sampling_out_of_range_is_refused() {
    type Set = fn(&mut pb::GenerateRequest, f32);
    let fields: [(&str, &str, Set, &[f32]); 6] = [
        ("temperature", "a number from 0 to 2", |it, value| it.temperature = Some(value), &[-0.1, 2.5]),
        ("top_p", "a number above 0, up to 1", |it, value| it.top_p = Some(value), &[0.0, -1.0, 1.5]),
        ("min_p", "a number from 0 to 1", |it, value| it.min_p = Some(value), &[-0.5, 1.5]),
        (
            "repetition_penalty",
            "a number above 0, up to 2",
            |it, value| it.repetition_penalty = Some(value),
            &[0.0, 2.5],
        ),
        ("presence_penalty", "a number from -2 to 2", |it, value| it.presence_penalty = Some(value), &[-2.5, 2.5]),
        ("frequency_penalty", "a number from -2 to 2", |it, value| it.frequency_penalty = Some(value), &[-2.5, 2.5]),
    ];
    for (field, expected, set, outside) in fields {
        for value in outside.iter().copied().chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let message = format!("Invalid value for '{field}': expected {expected}, got {value}.");
            refused(field, &message, |it| set(it, value));
        }
    }
    for value in [-100.5, 101.0, f32::NAN] {
        let message = format!("Invalid value for 'logit_bias.7': expected a number from -100 to 100, got {value}.");
        refused("logit_bias.7", &message, |it| it.logit_bias = [(3, 1.0), (7, value)].into());
    }
}

#[test]
fn events_keep_all_they_say_and_silent_ones_are_left_out() {
    let header = Header { id: "gen_1".to_owned(), model: "assistant".to_owned(), created: 7 };
    let told = |told: Event| event(&header, told).map(|it| (it.id, it.model, it.created, it.event.expect("set")));
    let with = |event| Some(("gen_1".to_owned(), "assistant".to_owned(), 7, event));
    use pb::generate_event::Event as Told;

    let half = TopLogprob { bytes: vec![0xc3], logprob: -0.5 };
    let logprobs = vec![TokenLogprob { token: half.clone(), top: vec![half] }];
    let top = pb::TopLogprob { token: "\u{fffd}".to_owned(), logprob: -0.5, bytes: vec![0xc3] };
    let token =
        pb::TokenLogprob { token: top.token.clone(), logprob: -0.5, bytes: vec![0xc3], top_logprobs: vec![top] };
    let silent = Delta { choice: 2, text: String::new(), tokens: 1, ..Delta::default() };
    assert_eq!(told(Event::Delta(silent.clone())), None);
    assert_eq!(
        told(Event::Delta(Delta { logprobs, ..silent.clone() })),
        with(Told::Delta(pb::Delta { index: 2, content: String::new(), logprobs: vec![token], guard: Vec::new() }))
    );
    assert_eq!(
        told(Event::Delta(Delta { text: "né".to_owned(), ..silent })),
        with(Told::Delta(pb::Delta { index: 2, content: "né".to_owned(), logprobs: Vec::new(), guard: Vec::new() }))
    );
    assert_eq!(
        told(Event::Finished { choice: 1, reason: FinishReason::Length }),
        with(Told::Finish(pb::Finish { index: 1, finish_reason: "length".to_owned() }))
    );
    assert_eq!(
        told(Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 4, cached_tokens: 2 })),
        with(Told::Usage(pb::Usage { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7, cached_tokens: 2 }))
    );
}
