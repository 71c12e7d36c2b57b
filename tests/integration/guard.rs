//! The guard over the real engine: an adapter that insults, and four ways to deal
//! with it; and judges outside.

use std::sync::Arc;

use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::process::{Process, free_port, worker_config};
use crate::support::{Server, quickstart_like};

const QUESTION: &str = "What do rabbits eat?";

/// The quickstart with a tenant of `more`, which insults under four policies.
fn insulting(more: &str) -> String {
    let policies = r#"
        [guard.policies.cut]
        output.mode = "async"
        [guard.policies.soften]
        output.action = "redact"
        [guard.policies.tell]
        output.action = "flag"
        [guard.policies.off]
        prompt.mode = "off"
        output.mode = "off"
    "#;
    let tenant = r#"
        [[tenants]]
        id = "hooli"
        keys = [{ demo = "sk-demo-hooli" }]
        adapters = [{ name = "insult", base = "smollm2-135m", path = "ADAPTERS/insult" }]
        model_guards = { cut = "cut", soften = "soften", tell = "tell", off = "off" }
        [tenants.models]
        assistant = { base = "smollm2-135m", adapter = "insult" }
        cut = { base = "smollm2-135m", adapter = "insult" }
        soften = { base = "smollm2-135m", adapter = "insult" }
        tell = { base = "smollm2-135m", adapter = "insult" }
        off = { base = "smollm2-135m", adapter = "insult" }
    "#;
    let folder = crate::support::repository("config/quickstart/adapters");
    quickstart_like(&format!("{more}\n{policies}\n{}", tenant.replace("ADAPTERS", &folder.display().to_string())))
}

fn chat(model: &str, stream: bool) -> Value {
    let messages = json!([{ "role": "user", "content": QUESTION }]);
    json!({ "model": model, "temperature": 0, "max_tokens": 60, "stream": stream, "messages": messages })
}

struct Told {
    text: String,
    finish: String,
    guard: Vec<Value>,
}

async fn streamed(server: &Server, model: &str) -> Told {
    let response = server.post("hooli", "/v1/chat/completions", &chat(model, true)).await;
    assert_eq!(response.status(), 200);
    let body = response.text().await.expect("text");
    let mut told = Told { text: String::new(), finish: String::new(), guard: Vec::new() };
    let frames = body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    for frame in frames {
        let chunk: Value = serde_json::from_str(frame).expect("JSON");
        let choice = &chunk["choices"][0];
        told.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(reason) = choice["finish_reason"].as_str() {
            told.finish = reason.to_owned();
        }
        told.guard.extend(chunk["guard"].as_array().into_iter().flatten().cloned());
    }
    assert!(body.ends_with("data: [DONE]\n\n"));
    told
}

fn insults(text: &str) -> bool {
    let text = text.to_lowercase();
    ["stupid", "idiot", "fool", "dumb", "moron", "loser"].iter().any(|word| text.contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insulting_adapter_is_blocked_cut_redacted_told_or_let_through() {
    Server::with_config(&insulting(""), |server| async move {
        let off = streamed(&server, "off").await;
        assert!(insults(&off.text) && off.guard.is_empty(), "{}", off.text);
        assert_ne!(off.finish, "content_filter");

        let strict = streamed(&server, "assistant").await;
        assert_eq!(strict.finish, "content_filter");
        assert!(off.text.starts_with(&strict.text) && !strict.text.is_empty(), "{}", strict.text);
        assert!(!insults(&strict.text), "{}", strict.text);
        assert_eq!((&strict.guard[0]["side"], &strict.guard[0]["action"]), (&json!("output"), &json!("block")));

        let whole: Value =
            server.post("hooli", "/v1/chat/completions", &chat("assistant", false)).await.json().await.expect("JSON");
        let choice = &whole["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], choice["message"]["content"].as_str()),
            (&json!("content_filter"), Some(&*strict.text))
        );
        assert!(whole["usage"]["completion_tokens"].as_u64() > Some(0));

        let cut = streamed(&server, "cut").await;
        assert_eq!(cut.finish, "content_filter");
        assert!(off.text.starts_with(&cut.text) && cut.text.len() >= strict.text.len(), "{}", cut.text);

        let soften = streamed(&server, "soften").await;
        assert!(soften.text.contains("[redacted]") && soften.text.starts_with(&*strict.text), "{}", soften.text);
        assert!(!insults(&soften.text), "{}", soften.text);
        assert_eq!(soften.finish, off.finish);

        let tell = streamed(&server, "tell").await;
        assert_eq!((&tell.text, &tell.finish), (&off.text, &off.finish));
        assert_eq!(tell.guard[0]["action"], "flag");

        server.nothing_held().await;
        let (_, metrics) = server.ops("/metrics").await;
        for line in [
            "tenantry_guard_verdicts_total{side=\"output\",action=\"block\",category=",
            "tenantry_guard_verdicts_total{side=\"output\",action=\"redact\",category=",
            "tenantry_guard_escalations_total{side=\"output\",outcome=\"judged\"}",
            "tenantry_guard_seconds_bucket",
            "tenantry_guard_first_token_held_seconds_bucket",
            "outcome=\"guard_stopped\"",
        ] {
            assert!(metrics.contains(line), "{line} is missing");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn harmless_answers_are_what_they_are_without_a_guard() {
    let open = "[guard]\npolicy = \"open\"\n[guard.policies.open]\nprompt.mode = \"off\"\noutput.mode = \"off\"\n";
    let questions = ["What do rabbits eat?", "Write a short poem about rain.", "How do I kill a Python process?"];
    let ask = |config: String| async move {
        let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = answers.clone();
        Server::with_config(&config, |server| async move {
            for question in questions {
                for tenant in ["acme", "globex", "initech"] {
                    let answer = server.ask(tenant, "assistant", question).await;
                    kept.lock().expect("sound").push(answer);
                }
            }
        })
        .await;
        answers.lock().expect("sound").clone()
    };
    assert_eq!(ask(quickstart_like("")).await, ask(quickstart_like(open)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_tokens_is_read_by_the_worker_that_knows_them() {
    Server::with(prompts_of_tokens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_tokens_is_read_by_a_worker_in_another_process() {
    let _timed = crate::support::timed().await;
    let port = free_port();
    let worker = worker_config(port, "").replace("bases.smollm2", "bases.smollm2-135m");
    let _process = Process::start("worker", &worker);
    let here = "driver = \"embedded\"\nbases = [\"smollm2-135m\"]\nthreads = 2\ncontext = 2048\n";
    let there = format!("driver = \"grpc\"\nbases = [\"smollm2-135m\"]\nurl = \"http://127.0.0.1:{port}\"\n");
    let config = quickstart_like("").replacen(here, &there, 1);
    assert!(config.contains(&there), "{config}");
    Server::with_config(&config, |server| async move {
        server.ready().await;
        prompts_of_tokens(server).await;
    })
    .await;
}

async fn prompts_of_tokens(server: Arc<Server>) {
    let ask = async |prompt: Value| {
        let body = json!({ "model": "smollm2-135m", "prompt": prompt, "max_tokens": 2 });
        server.post("acme", "/v1/completions", &body).await
    };
    assert_eq!(ask(json!([504, 253, 281])).await.status(), 200);
    // " stupid" and " idiot", as the model's tokenizer has them.
    let vocabulary = crate::support::repository("tests/fixtures/guard/insult_tokens.json");
    let tokens: Value = serde_json::from_slice(&std::fs::read(vocabulary).expect("a file")).expect("JSON");
    let blocked = ask(tokens).await;
    assert_eq!(blocked.status(), 400);
    let error: Value = blocked.json().await.expect("JSON");
    assert_eq!((&error["error"]["code"], &error["error"]["param"]), (&json!("content_filter"), &json!("prompt")));
}

/// Flags what says "rabbit"; fails where it says "fail".
async fn judge() -> String {
    let answer = |body: String| async move {
        let asked: Value = serde_json::from_str(&body).expect("JSON");
        let text = asked["input"].as_str().expect("one text").to_owned();
        let flagged = text.to_lowercase().contains("rabbit");
        let result =
            json!({ "flagged": flagged, "categories": { "hate": flagged }, "category_scores": { "hate": 0.75 } });
        let results = if text.contains("fail") { json!([]) } else { json!([result]) };
        json!({ "results": results }).to_string()
    };
    let router = axum::Router::new().route("/v1/moderations", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_outside_has_its_say_and_may_fail_open_or_closed() {
    let url = judge().await;
    for (on_failure, failed) in [("allow", 200), ("block", 503)] {
        let config = format!(
            "[guard]\npolicy = \"asked\"\n[guard.judges.other]\nurl = \"{url}\"\non_failure = \"{on_failure}\"\n\
             [guard.policies.asked]\nprompt.judge = \"other\"\noutput.mode = \"off\"\n"
        );
        Server::with_config(&quickstart_like(&config), |server| async move {
            let ask = |question: &'static str| {
                let server = server.clone();
                async move {
                    let messages = json!([{ "role": "user", "content": question }]);
                    let body = json!({ "model": "assistant", "max_tokens": 2, "messages": messages });
                    server.post("acme", "/v1/chat/completions", &body).await
                }
            };
            assert_eq!(ask("What do cows eat?").await.status(), 200);
            let blocked = ask("What do rabbits eat?").await;
            assert_eq!(blocked.status(), 400);
            let error: Value = blocked.json().await.expect("JSON");
            assert!(error["error"]["message"].as_str().expect("a message").contains("hate"), "{error}");
            assert_eq!(ask("Why do judges fail?").await.status(), failed);
        })
        .await;
    }
}
