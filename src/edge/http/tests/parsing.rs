//! Each bad input with the exact words that refuse it.

use serde_json::{Value, json};

use crate::edge::http::Api;
use crate::edge::http::parse::parse;
use crate::types::{ErrorKind, Input};

pub(super) fn chat(more: Value) -> Value {
    merged(json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}), more)
}

pub(super) fn completion(more: Value) -> Value {
    merged(json!({"model": "m", "prompt": "Hi"}), more)
}

fn merged(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("the test merges objects") };
    body.as_object_mut().expect("an object").extend(more);
    body
}

#[track_caller]
fn refused(api: Api, body: &[u8], param: Option<&str>, message: &str) {
    let error = parse(api, body).expect_err("the body is refused");
    assert_eq!((error.param(), error.message()), (param, message), "{}", String::from_utf8_lossy(body));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[track_caller]
fn refused_chat(more: Value, param: &str, message: &str) {
    refused(Api::Chat, chat(more).to_string().as_bytes(), Some(param), message);
}

/// A worker that reads texts alone has this to say to the first message.
#[track_caller]
fn text_alone_refuses(more: Value, param: &str, message: &str) {
    let body = chat(more);
    let Input::Chat(messages) = parse(Api::Chat, body.to_string().as_bytes()).expect("read").request.input else {
        panic!("a chat");
    };
    let more = messages[0].more.as_ref().expect("more than a text");
    assert_eq!(Value::Object(more.as_given.clone()), body["messages"][0], "as it came");
    let error = more.refusal.as_ref().expect("refused");
    assert_eq!((error.param(), error.message()), (Some(param), message));
}

#[track_caller]
fn refused_completion(more: Value, param: &str, message: &str) {
    refused(Api::Completions, completion(more).to_string().as_bytes(), Some(param), message);
}

#[test]
fn a_body_that_is_no_json_object_is_refused_with_the_place() {
    let says = |body: &[u8], why: &str| {
        refused(Api::Chat, body, None, &format!("We could not parse the JSON body of your request: {why}"));
    };
    says(b"", "it is empty.");
    says(b" \n", "it is empty.");
    says(b"{\"model\": \"m\",\n  \"messages\" []}", "expected `:` at line 2 column 14.");
    says(b"{\"model\": \"m\"", "EOF while parsing an object at line 1 column 13.");
    says(b"{} x", "trailing characters at line 1 column 4.");
    says(b"[1]", "expected an object, but got an array instead.");
    says(b"{\"model\": \"\xff\"}", "it is not valid UTF-8 at byte 11.");
    let deep = "[".repeat(1000);
    says(deep.as_bytes(), "recursion limit exceeded at line 1 column 128.");
}

#[test]
fn what_is_missing_is_named() {
    refused(Api::Chat, br#"{"messages":[]}"#, Some("model"), "you must provide a model parameter");
    refused(Api::Chat, br#"{"model":"","messages":[]}"#, Some("model"), "you must provide a model parameter");
    refused(Api::Chat, br#"{"model":"m"}"#, Some("messages"), "you must provide a messages parameter");
    refused(Api::Completions, br#"{"model":"m"}"#, Some("prompt"), "you must provide a prompt parameter");
    refused_chat(
        json!({"messages": [{"content": "Hi"}]}),
        "messages[0].role",
        "you must provide a messages[0].role parameter",
    );
    refused_chat(
        json!({"messages": [{"role": "user", "content": null}]}),
        "messages[0].content",
        "you must provide a messages[0].content parameter",
    );
}

#[test]
fn a_wrong_type_is_refused_with_the_fields_path() {
    refused_chat(
        json!({"model": 1}),
        "model",
        "Invalid type for 'model': expected a string, but got an integer instead.",
    );
    refused_chat(
        json!({"messages": "Hi"}),
        "messages",
        "Invalid type for 'messages': expected an array of objects, but got a string instead.",
    );
    refused_chat(
        json!({"messages": [7]}),
        "messages[0]",
        "Invalid type for 'messages[0]': expected an object, but got an integer instead.",
    );
    refused_chat(
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": true}]}),
        "messages[1].content",
        "Invalid type for 'messages[1].content': expected a string or an array of content parts, but got a boolean \
         instead.",
    );
    refused_chat(
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 1.5}]}]}),
        "messages[0].content[0].text",
        "Invalid type for 'messages[0].content[0].text': expected a string, but got a decimal number instead.",
    );
    refused_chat(
        json!({"temperature": "hot"}),
        "temperature",
        "Invalid type for 'temperature': expected a number, but got a string instead.",
    );
    refused_chat(
        json!({"n": 1.5}),
        "n",
        "Invalid type for 'n': expected an integer, but got a decimal number instead.",
    );
    refused_chat(
        json!({"stream": "yes"}),
        "stream",
        "Invalid type for 'stream': expected a boolean, but got a string instead.",
    );
    refused_chat(
        json!({"stop": ["a", 1]}),
        "stop[1]",
        "Invalid type for 'stop[1]': expected a string, but got an integer instead.",
    );
    refused_completion(
        json!({"prompt": [1, "a"]}),
        "prompt[1]",
        "Invalid type for 'prompt[1]': expected an integer, but got a string instead.",
    );
    refused_completion(
        json!({"prompt": [[1], [-1]]}),
        "prompt[1][0]",
        "Invalid value for 'prompt[1][0]': expected an integer from 0 to 4294967295, got -1.",
    );
}

#[test]
fn messages_hold_roles_that_are_known() {
    refused_chat(
        json!({"messages": []}),
        "messages",
        "Invalid 'messages': expected at least one element, but got an empty array instead.",
    );
    refused_chat(
        json!({"messages": [{"role": "robot", "content": "Hi"}]}),
        "messages[0].role",
        "Invalid value for 'messages[0].role': 'robot'. Supported values are: 'system', 'developer', 'user', \
         'assistant', 'tool'.",
    );
}

#[test]
fn what_is_more_than_a_text_comes_with_its_refusal_by_workers_that_read_texts() {
    text_alone_refuses(
        json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:"}},
        ]}]}),
        "messages[0].content[1].type",
        "Unsupported content part 'image_url' in 'messages[0].content[1].type': only 'text' is supported.",
    );
    text_alone_refuses(
        json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}),
        "messages[0].tool_calls",
        "Unsupported parameter: 'messages[0].tool_calls' is not supported.",
    );
    text_alone_refuses(
        json!({"messages": [{"role": "tool", "content": "7", "tool_call_id": "1"}]}),
        "messages[0].tool_call_id",
        "Unsupported parameter: 'messages[0].tool_call_id' is not supported.",
    );
    text_alone_refuses(
        json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "Hi", "foo": null},
            {"type": "text", "text": "Hi", "foo": 1},
        ]}]}),
        "messages[0].content[1].foo",
        "Unsupported parameter: 'messages[0].content[1].foo' is not supported.",
    );
}

#[test]
fn a_prompt_that_holds_nothing_is_refused() {
    let empty = |path: &str, prompt: Value| {
        let message = format!("Invalid '{path}': expected at least one element, but got an empty array instead.");
        refused_completion(json!({"prompt": prompt}), path, &message);
    };
    empty("prompt", json!([]));
    empty("prompt[1]", json!([[1], []]));
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    let from = |name: &str, value: Value, range: &str| {
        let message = format!("Invalid value for '{name}': expected {range}, got {value}.");
        refused_chat(json!({name: value}), name, &message);
    };
    from("temperature", json!(2.1), "a number from 0 to 2");
    from("temperature", json!(-1), "a number from 0 to 2");
    from("top_p", json!(0), "a number above 0, up to 1");
    from("top_p", json!(1.01), "a number above 0, up to 1");
    from("min_p", json!(1.5), "a number from 0 to 1");
    from("repetition_penalty", json!(0), "a number above 0, up to 2");
    from("presence_penalty", json!(-2.5), "a number from -2 to 2");
    from("frequency_penalty", json!(3), "a number from -2 to 2");
    from("n", json!(0), "an integer from 1 to 16");
    from("n", json!(17), "an integer from 1 to 16");
    from("top_k", json!(-2), "an integer from -1 to 4294967295");
    from("max_tokens", json!(0), "an integer of at least 1");
    from("max_completion_tokens", json!(-5), "an integer of at least 1");
    from("top_logprobs", json!(21), "an integer from 0 to 20");
    refused_completion(
        json!({"logprobs": 6}),
        "logprobs",
        "Invalid value for 'logprobs': expected an integer from 0 to 5, got 6.",
    );
    refused_chat(
        json!({"logit_bias": {"7": 101}}),
        "logit_bias.7",
        "Invalid value for 'logit_bias.7': expected a number from -100 to 100, got 101.",
    );
    let biases: serde_json::Map<String, Value> = (0..301).map(|token: u32| (token.to_string(), json!(1))).collect();
    refused_chat(
        json!({"logit_bias": biases}),
        "logit_bias",
        "Invalid value for 'logit_bias': expected at most 300 tokens, got 301.",
    );
    for key in ["x", "", "01", "+1", "-1", " 1", "1.0", "4294967296"] {
        let message = format!("Invalid key in 'logit_bias': '{key}' is not a token id.");
        refused_chat(json!({"logit_bias": {key: 1}}), "logit_bias", &message);
    }
}

#[test]
fn a_refusal_repeats_only_the_beginning_of_a_long_text() {
    let long = "é".repeat(500_000);
    let cut = format!("{}…", "é".repeat(100));
    let user = |more: Value| merged(json!({"role": "user", "content": "Hi"}), more);
    let unsupported = |path: &str| format!("Unsupported parameter: '{path}' is not supported.");
    refused_chat(
        json!({"messages": [user(json!({"role": long}))]}),
        "messages[0].role",
        &format!(
            "Invalid value for 'messages[0].role': '{cut}'. Supported values are: 'system', 'developer', 'user', \
             'assistant', 'tool'."
        ),
    );
    text_alone_refuses(
        json!({"messages": [user(json!({"content": [{"type": long}]}))]}),
        "messages[0].content[0].type",
        &format!("Unsupported content part '{cut}' in 'messages[0].content[0].type': only 'text' is supported."),
    );
    let path = format!("messages[0].{cut}");
    text_alone_refuses(json!({"messages": [user(json!({&long: 1}))]}), &path, &unsupported(&path));
    let path = format!("stream_options.{cut}");
    refused_chat(json!({"stream": true, "stream_options": {&long: 1}}), &path, &unsupported(&path));
    refused_chat(json!({&long: 1}), &cut, &unsupported(&cut));
    refused_chat(
        json!({"logit_bias": {&long: 1}}),
        "logit_bias",
        &format!("Invalid key in 'logit_bias': '{cut}' is not a token id."),
    );
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    refused_chat(
        json!({"stream_options": {"include_usage": true}}),
        "stream_options",
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
    );
    refused_chat(
        json!({"stream": true, "stream_options": {"continuous_usage_stats": true}}),
        "stream_options.continuous_usage_stats",
        "Unsupported parameter: 'stream_options.continuous_usage_stats' is not supported.",
    );
    refused_chat(
        json!({"top_logprobs": 2}),
        "top_logprobs",
        "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
    );
    refused_chat(
        json!({"max_tokens": 5, "max_completion_tokens": 6}),
        "max_completion_tokens",
        "'max_tokens' and 'max_completion_tokens' mean the same, but have different values.",
    );
    refused_completion(
        json!({"prompt": ["a", "b", "c", "d", "e"], "n": 16}),
        "n",
        "Invalid 'n': a request may ask for at most 64 choices, but 5 prompts with 'n' = 16 ask for more.",
    );
    refused_completion(
        json!({"prompt": vec!["a"; 65]}),
        "prompt",
        "Invalid 'prompt': a request may ask for at most 64 choices, but 65 prompts with 'n' = 1 ask for more.",
    );
    refused_chat(
        json!({"stop": vec!["a"; 17]}),
        "stop",
        "Invalid value for 'stop': expected at most 16 strings, got 17.",
    );
    refused_chat(
        json!({"stop": ["a", ""]}),
        "stop[1]",
        "Invalid value for 'stop[1]': expected a string of 1 to 256 bytes, got 0 bytes.",
    );
    refused_chat(
        json!({"stop": "x".repeat(257)}),
        "stop",
        "Invalid value for 'stop': expected a string of 1 to 256 bytes, got 257 bytes.",
    );
}
