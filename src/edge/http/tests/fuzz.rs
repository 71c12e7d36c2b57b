//! No body makes the parser panic, and what it accepts is in range.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::edge::http::Api;
use crate::edge::http::parse::parse;

fn apis() -> impl Strategy<Value = Api> {
    prop_oneof![Just(Api::Chat), Just(Api::Completions)]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..40_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("text"), Just("user"), Just("auto"), Just("")].prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

const NAMES: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "role",
    "content",
    "type",
    "text",
    "name",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "include_usage",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "7",
    "max_tokens",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "response_format",
    "best_of",
    "echo",
];

fn check(api: Api, body: &[u8]) -> Result<(), TestCaseError> {
    match parse(api, body) {
        Ok(parsed) => {
            let request = parsed.request;
            prop_assert!((1..=64).contains(&(request.choices * request.input.prompts())));
            prop_assert!((0.0..=2.0).contains(&request.sampling.temperature));
            prop_assert!(request.sampling.top_p > 0.0 && request.sampling.top_p <= 1.0);
            prop_assert!(request.max_tokens != Some(0));
            prop_assert!(request.stop.iter().all(|stop| !stop.is_empty()));
            prop_assert!(request.extra.values().all(|value| !value.is_null()));
        }
        Err(error) => prop_assert!(!error.message().is_empty()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes(api in apis(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(api, &body)?;
    }

    #[test]
    fn a_valid_body_with_some_fields_replaced(
        api in apis(),
        replaced in prop::collection::vec((prop::sample::select(NAMES), values()), 0..4),
    ) {
        let mut body = json!({"model": "m", "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in replaced {
            body[name] = value;
        }
        check(api, body.to_string().as_bytes())?;
    }

    #[test]
    fn a_valid_body_with_some_bytes_replaced(
        api in apis(),
        replaced in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = br#"{"model":"m","prompt":["\u00e9"],"messages":[{"role":"user","content":"Hi"}],"n":2,"stop":["x"]}"#.to_vec();
        for (index, byte) in replaced {
            let index = index.index(body.len());
            body[index] = byte;
        }
        check(api, &body)?;
    }

    #[test]
    fn a_valid_body_cut_anywhere(api in apis(), cut in any::<prop::sample::Index>()) {
        let body = br#"{"model":"m","prompt":[[1,2],[3]],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#;
        check(api, &body[..cut.index(body.len())])?;
    }
}
