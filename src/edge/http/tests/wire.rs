//! The bytes of every kind of frame and answer.

use ulid::Ulid;

use crate::edge::http::Api;
use crate::edge::http::openai::{Answer, ChunkEncoder, Form, Identity};
use crate::types::{Delta, Event, FinishReason, GenerationId, TokenLogprob, TopLogprob, Usage};

const HEAD: &str = r#"data: {"id":"gen_00000000000000000000000000","object":"OBJECT","created":7,"model":"a\"b","system_fingerprint":null,"choices":["#;
const USAGE: &str = r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

fn identity() -> Identity {
    Identity { id: GenerationId::new(Ulid::from(0_u128)), created: 7, model: "a\"b".into() }
}

fn text(choice: u32, text: &str) -> Event {
    Event::Delta(Delta { choice, text: text.to_owned(), tokens: 1, ..Delta::default() })
}

fn top(bytes: &[u8], logprob: f32) -> TopLogprob {
    TopLogprob { bytes: bytes.to_vec(), logprob }
}

fn with_logprobs(text: &str, logprobs: Vec<TokenLogprob>) -> Event {
    Event::Delta(Delta {
        choice: 0,
        text: text.to_owned(),
        tokens: logprobs.len() as u32,
        logprobs,
        extra: None,
        findings: Vec::new(),
    })
}

fn stop(choice: u32) -> Event {
    Event::Finished { choice, reason: FinishReason::Stop }
}

fn usage() -> Event {
    Event::Usage(Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 1 })
}

fn frames(form: Form, include_usage: bool, events: &[Event]) -> Vec<String> {
    let mut encoder = ChunkEncoder::new(form, &identity(), include_usage);
    let object = if form.api == Api::Chat { "chat.completion.chunk" } else { "text_completion" };
    let head = HEAD.replace("OBJECT", object);
    let frame = |event| encoder.event(event).map(|frame| String::from_utf8(frame.to_vec()).expect("UTF-8"));
    events
        .iter()
        .filter_map(frame)
        .map(|frame| {
            frame.strip_prefix(&head).expect("the common head").strip_suffix("\n\n").expect("the end").to_owned()
        })
        .collect()
}

#[test]
fn chat_frames_name_the_role_once_a_choice_and_skip_what_says_nothing() {
    let form = Form { api: Api::Chat, choices: 2, logprobs: None };
    let events =
        [text(0, ""), text(0, ""), text(1, "Hé\n"), text(0, "Ho"), stop(1), stop(0), text(2, "not asked for"), usage()];
    assert_eq!(
        frames(form, false, &events),
        [
            r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#,
            r#"{"index":1,"delta":{"role":"assistant","content":"Hé\n"},"logprobs":null,"finish_reason":null}]}"#,
            r#"{"index":0,"delta":{"content":"Ho"},"logprobs":null,"finish_reason":null}]}"#,
            r#"{"index":1,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#,
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#,
        ]
    );
}

#[test]
fn with_include_usage_every_frame_has_the_field_and_the_last_its_value() {
    let form = Form { api: Api::Chat, choices: 1, logprobs: None };
    assert_eq!(
        frames(form, true, &[text(0, "Hi"), stop(0), usage()]),
        [
            r#"{"index":0,"delta":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}"#,
            &format!("],\"usage\":{USAGE}}}"),
        ]
    );
}

#[test]
fn chat_logprobs_are_an_object_a_token() {
    let form = Form { api: Api::Chat, choices: 1, logprobs: Some(1) };
    let tokens = vec![TokenLogprob { token: top(b"\xe2\x80", -0.5), top: vec![top(b"Hi", f32::NEG_INFINITY)] }];
    assert_eq!(
        frames(form, false, &[with_logprobs("", tokens)]),
        [concat!(
            r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":{"content":[{"token":"\\xe2\\x80","#,
            r#""logprob":-0.5,"bytes":[226,128],"top_logprobs":[{"token":"Hi","logprob":-9999.0,"bytes":[72,105]}]}],"#,
            r#""refusal":null},"finish_reason":null}]}"#
        )]
    );
}

#[test]
fn completion_frames_carry_text_and_offsets_that_run_through_the_stream() {
    let form = Form { api: Api::Completions, choices: 1, logprobs: Some(1) };
    let first = vec![TokenLogprob { token: top("é".as_bytes(), -0.5), top: vec![top(b"e", -0.25)] }];
    let second = vec![TokenLogprob { token: top(b"x", -1.0), top: vec![top(b"x", -1.0)] }];
    assert_eq!(
        frames(form, false, &[with_logprobs("é", first), with_logprobs("x", second), stop(0)]),
        [
            concat!(
                r#"{"text":"é","index":0,"logprobs":{"tokens":["é"],"token_logprobs":[-0.5],"#,
                r#""top_logprobs":[{"e":-0.25,"é":-0.5}],"text_offset":[0]},"finish_reason":null}]}"#
            ),
            concat!(
                r#"{"text":"x","index":0,"logprobs":{"tokens":["x"],"token_logprobs":[-1.0],"#,
                r#""top_logprobs":[{"x":-1.0}],"text_offset":[1]},"finish_reason":null}]}"#
            ),
            r#"{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}]}"#,
        ]
    );
}

fn whole(form: Form, events: Vec<Event>) -> String {
    let mut answer = Answer::new(form);
    events.into_iter().for_each(|event| answer.add(event));
    String::from_utf8(answer.encode(&identity()).to_vec()).expect("UTF-8")
}

#[test]
fn a_whole_chat_is_one_object() {
    let form = Form { api: Api::Chat, choices: 2, logprobs: None };
    let events = vec![text(1, "B"), text(0, "A"), text(0, "a"), stop(0), stop(1), usage()];
    let choice = |index: u32, text: &str| {
        format!(
            r#"{{"index":{index},"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}"#
        )
    };
    assert_eq!(
        whole(form, events),
        format!(
            r#"{{"id":"gen_00000000000000000000000000","object":"chat.completion","created":7,"model":"a\"b","choices":[{},{}],"usage":{USAGE},"system_fingerprint":null}}"#,
            choice(0, "Aa"),
            choice(1, "B"),
        )
    );
}

#[test]
fn a_whole_completion_is_one_object() {
    let form = Form { api: Api::Completions, choices: 1, logprobs: Some(0) };
    let tokens = vec![TokenLogprob { token: top(b"A", -0.5), top: Vec::new() }];
    assert_eq!(
        whole(form, vec![with_logprobs("A", tokens), stop(0), usage()]),
        format!(
            concat!(
                r#"{{"id":"gen_00000000000000000000000000","object":"text_completion","created":7,"model":"a\"b","#,
                r#""choices":[{{"text":"A","index":0,"logprobs":{{"tokens":["A"],"token_logprobs":[-0.5],"#,
                r#""top_logprobs":null,"text_offset":[0]}},"finish_reason":"stop"}}],"usage":{},"system_fingerprint":null}}"#
            ),
            USAGE
        )
    );
}
