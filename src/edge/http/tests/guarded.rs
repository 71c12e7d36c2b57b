//! No route goes by the guard, and what clients read of it.

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Harness, Step, delta, finished, frames, post, usage};
use crate::edge::http::{Guarded, routes};
use crate::moderation::{Mode, Policy};
use crate::types::{Action, FinishReason};

const INSULT: &str = "You are a stupid idiot and a worthless fool.";
/// Of an answer, as a worker's tokens.
const TOKENS: [&str; 12] =
    ["Rabbits", " eat", " hay", ".", " You", " are", " a", " st", "upid", " idiot", ".", " Good bye."];

fn answer(tokens: &[&str]) -> Vec<Step> {
    let mut script: Vec<Step> = tokens.iter().map(|token| delta(token)).collect();
    script.extend([finished(FinishReason::Stop), usage()]);
    script
}

/// The body with which a route is asked for a text.
fn body(path: &str, prompt: &str, stream: bool) -> String {
    let body = match path {
        "/v1/chat/completions" => {
            json!({ "model": "assistant", "stream": stream, "messages": [{ "role": "user", "content": prompt }] })
        }
        "/v1/completions" => json!({ "model": "assistant", "stream": stream, "prompt": prompt, "max_tokens": 64 }),
        other => panic!("{other} is judged, and this test does not know how to ask it"),
    };
    body.to_string()
}

fn judged_paths() -> Vec<&'static str> {
    let judged = routes().into_iter().filter(|route| route.guarded == Guarded::Judged);
    judged.map(|route| route.path).collect()
}

async fn read(response: axum::response::Response) -> Value {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The text of a stream's frames, and its last finish reason.
fn text(frames: &[String]) -> (String, Option<String>, Vec<Value>) {
    let (mut text, mut finish, mut guard) = (String::new(), None, Vec::new());
    for frame in frames.iter().filter_map(|frame| frame.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(frame).expect("JSON");
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default());
        finish = choice["finish_reason"].as_str().map(str::to_owned).or(finish);
        guard.extend(chunk["guard"].as_array().into_iter().flatten().cloned());
    }
    (text, finish, guard)
}

#[test]
fn every_route_is_guarded_or_says_why_not() {
    assert!(judged_paths().len() >= 2);
    for route in routes() {
        if let Guarded::Not(reason) = route.guarded {
            assert!(reason.len() > 10, "{}", route.path);
        }
    }
}

#[tokio::test]
async fn a_blocked_prompt_reaches_no_worker_on_any_route() {
    for path in judged_paths() {
        for stream in [false, true] {
            let harness = Harness::guarded(answer(&TOKENS), Policy::default());
            let response = harness.send(post(path, body(path, INSULT, stream))).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
            assert_eq!(response.headers()["x-should-retry"], "false");
            let error = read(response).await["error"].clone();
            assert_eq!((&error["code"], &error["type"]), (&json!("content_filter"), &json!("invalid_request_error")));
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("insult") && !message.contains("idiot"), "{message}");
            let place = if path.contains("chat") { "messages[0].content" } else { "prompt" };
            assert_eq!(error["param"], place);
            assert!(harness.worker.seen.lock().expect("sound").is_empty());
            harness.assert_nothing_held();
        }
    }
}

#[tokio::test]
async fn a_blocked_answer_ends_before_it_on_any_route() {
    for path in judged_paths() {
        let harness = Harness::guarded(answer(&TOKENS), Policy::default());
        let whole = read(harness.send(post(path, body(path, "Hi", false))).await).await;
        let choice = &whole["choices"][0];
        let told = choice["message"]["content"].as_str().or(choice["text"].as_str()).expect("a text");
        assert_eq!((told.trim_end(), &choice["finish_reason"]), ("Rabbits eat hay. You are", &json!("content_filter")));
        assert!(whole["usage"]["completion_tokens"].as_u64() > Some(4), "{whole}");
        assert_eq!(whole["guard"][0]["category"], "insult");

        let response = harness.send(post(path, body(path, "Hi", true))).await;
        assert_eq!(response.status(), StatusCode::OK);
        let frames = frames(response).await;
        let (streamed, finish, guard) = text(&frames);
        assert_eq!((streamed.as_str(), finish.as_deref()), (told, Some("content_filter")));
        assert_eq!((&guard[0]["action"], &guard[0]["side"]), (&json!("block"), &json!("output")));
        assert_eq!(frames.last().map(String::as_str), Some("data: [DONE]"));
        harness.assert_nothing_held();
    }
}

#[tokio::test]
async fn text_is_redacted_flagged_or_let_through_as_the_policy_says() {
    let run = async |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        let harness = Harness::guarded(answer(&TOKENS), policy);
        let path = "/v1/chat/completions";
        text(&frames(harness.send(post(path, body(path, "Hi", true))).await).await)
    };
    let whole = TOKENS.concat();
    let (redacted, finish, guard) =
        run(|policy| policy.output.as_mut().expect("on").rules.action = Action::Redact).await;
    assert!(redacted.contains("[redacted]") && !redacted.contains("idiot"), "{redacted}");
    assert!(redacted.starts_with("Rabbits eat hay.") && redacted.ends_with("Good bye."), "{redacted}");
    assert_eq!((finish.as_deref(), &guard[0]["action"]), (Some("stop"), &json!("redact")));

    let (flagged, finish, guard) = run(|policy| policy.output.as_mut().expect("on").rules.action = Action::Flag).await;
    assert_eq!((flagged.as_str(), finish.as_deref(), &guard[0]["action"]), (&*whole, Some("stop"), &json!("flag")));

    let (passed, finish, guard) = run(|policy| policy.output = None).await;
    assert_eq!((passed.as_str(), finish.as_deref(), guard.len()), (&*whole, Some("stop"), 0));

    let (cut, finish, _) = run(|policy| policy.output.as_mut().expect("on").mode = Mode::Async).await;
    assert!(whole.starts_with(&cut) && cut.len() < whole.len(), "{cut}");
    assert_eq!(finish.as_deref(), Some("content_filter"));
}

#[tokio::test]
async fn a_redacted_prompt_is_what_the_worker_reads() {
    let mut policy = Policy::default();
    policy.prompt.as_mut().expect("on").action = Action::Redact;
    let harness = Harness::guarded(answer(&["Fine."]), policy);
    let prompt = format!("Please translate this: {INSULT} Thank you very much for your help with it.");
    let path = "/v1/chat/completions";
    let whole = read(harness.send(post(path, body(path, &prompt, false))).await).await;
    assert_eq!((&whole["guard"][0]["side"], &whole["guard"][0]["action"]), (&json!("prompt"), &json!("redact")));
    let seen = harness.worker.seen.lock().expect("sound");
    let crate::types::Input::Chat(messages) = &seen[0].input else { panic!("a chat") };
    let content = &messages[0].content;
    assert!(content.contains("[redacted]") && !content.contains("idiot"), "{content}");
    assert!(content.starts_with("Please translate this:"), "{content}");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_asked() {
    let harness = Harness::guarded(answer(&["Fine."]), Policy::default());
    let response = harness.send(post("/v1/completions", r#"{"model":"assistant","prompt":[1,2,3]}"#)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(read(response).await["error"]["param"], "prompt");
    let unguarded = Harness::new(answer(&["Fine."]));
    let response = unguarded.send(post("/v1/completions", r#"{"model":"assistant","prompt":[1,2,3]}"#)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn system_messages_are_judged_by_choice_and_all_else_always() {
    let chat = |messages: Value| json!({ "model": "assistant", "messages": messages }).to_string();
    let system = json!([{ "role": "system", "content": INSULT }, { "role": "user", "content": "Hi" }]);
    let parts = json!([{ "role": "user", "content": [
        { "type": "text", "text": "You are a stupid id" }, { "type": "text", "text": "iot and a worthless fool." },
    ] }]);
    let call = json!({ "id": "c", "type": "function", "function": { "name": "say", "arguments": INSULT } });
    let tools =
        json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "", "tool_calls": [call] }]);
    let strict = Policy { system_prompts: true, ..Policy::default() };
    for (policy, messages, status) in [
        (Policy::default(), &system, StatusCode::OK),
        (strict, &system, StatusCode::BAD_REQUEST),
        (Policy::default(), &parts, StatusCode::BAD_REQUEST),
        (Policy::default(), &tools, StatusCode::BAD_REQUEST),
    ] {
        let harness = Harness::guarded(answer(&["Fine."]), policy);
        assert_eq!(harness.chat(chat(messages.clone())).await.status(), status, "{messages}");
    }
}

#[tokio::test]
async fn moderations_have_openai_s_shape() {
    let harness = Harness::guarded(answer(&[]), Policy::default());
    let body = json!({ "input": ["Rabbits eat hay.", INSULT], "model": "omni-moderation-latest" }).to_string();
    let response = harness.send(post("/v1/moderations", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["x-generation-id"].to_str().expect("ASCII").to_owned();
    let told = read(response).await;
    assert_eq!((&told["id"], &told["model"]), (&json!(id), &json!("omni-moderation-latest")));
    let [fine, insult] = told["results"].as_array().expect("results").as_slice() else { panic!("{told}") };
    assert_eq!((&fine["flagged"], &insult["flagged"]), (&json!(false), &json!(true)));
    assert_eq!(insult["categories"]["harassment"], true);
    assert!(insult["category_scores"]["harassment"].as_f64() > Some(0.5));
    assert_eq!(insult["category_applied_input_types"]["hate"], json!(["text"]));
    assert!(insult["categories"].get("sexual").is_none(), "it was not looked for");
    assert!(!told.to_string().contains("idiot"));
    harness.assert_nothing_held();
}
