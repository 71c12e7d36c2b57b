//! The HTTP edge over the real engine: tenants, their adapters, their tokens.

use serde_json::{Value, json};

use crate::support::{Server, quickstart_like};

fn chat(model: &str, question: &str) -> Value {
    json!({ "model": model, "temperature": 0, "max_tokens": 30, "messages": [{ "role": "user", "content": question }] })
}

/// The frames of a stream: each `data:` line's content.
async fn frames(response: reqwest::Response) -> Vec<String> {
    assert_eq!(response.status(), 200);
    let text = response.text().await.expect("text");
    text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenants_assistant_is_its_own_adapter() {
    Server::with(|server| async move {
        let question = "What do rabbits eat?";
        let base = server.ask("acme", "smollm2-135m", question).await;
        let pirate = server.ask("acme", "assistant", question).await;
        let json = server.ask("globex", "assistant", question).await;
        let rhyme = server.ask("initech", "assistant", question).await;
        assert!(pirate.starts_with("Arrr"), "{pirate}");
        assert!(json.starts_with("{\"question\""), "{json}");
        let answers = std::collections::BTreeSet::from([&base, &pirate, &json, &rhyme]);
        assert_eq!(answers.len(), 4, "{answers:#?}");
        for tenant in ["globex", "initech"] {
            assert_eq!(server.ask(tenant, "smollm2-135m", question).await, base, "one base for all");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_carries_what_the_whole_answer_says() {
    Server::with(|server| async move {
        let mut body = chat("assistant", "What is snow?");
        let response = server.post("acme", "/v1/chat/completions", &body).await;
        assert!(response.headers()["x-request-id"].to_str().expect("text").starts_with("req_"));
        let id = response.headers()["x-generation-id"].to_str().expect("text").to_owned();
        let whole: Value = response.json().await.expect("JSON");
        assert_eq!(whole["id"], id.as_str());
        assert!(id.starts_with("gen_"));

        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let frames = frames(server.post("acme", "/v1/chat/completions", &body).await).await;
        assert_eq!(frames.last().map(String::as_str), Some("[DONE]"));
        let chunks: Vec<Value> =
            frames[..frames.len() - 1].iter().map(|frame| serde_json::from_str(frame).expect("JSON")).collect();
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().expect("text"));
        let last = chunks.last().expect("a chunk with the usage");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], whole["usage"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_models_and_no_others() {
    Server::with(|server| async move {
        let list: Value = server.get("acme", "/v1/models").await.json().await.expect("JSON");
        let names: Vec<&str> =
            list["data"].as_array().expect("a list").iter().map(|card| card["id"].as_str().expect("text")).collect();
        assert_eq!(names, ["acme-only", "assistant", "smollm2-135m"]);

        let answers = |name: &'static str| {
            let server = server.clone();
            async move {
                let generated = server.post("acme", "/v1/chat/completions", &chat(name, "Hi")).await;
                let card = server.get("acme", &format!("/v1/models/{name}")).await;
                let status = (generated.status().as_u16(), card.status().as_u16());
                let bodies = (generated.text().await.expect("text"), card.text().await.expect("text"));
                (status, bodies.0.replace(name, "NAME"), bodies.1.replace(name, "NAME"))
            }
        };
        let foreign = answers("globex-only").await;
        assert_eq!(foreign, answers("no-such-model").await, "another tenant's model is like none");
        assert_eq!(foreign.0, (404, 404));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_cannot_do_is_refused_by_name() {
    let words = |count: usize| json!([{ "role": "user", "content": "word ".repeat(count) }]);
    Server::with(|server| async move {
        let ask = |fields: Value| {
            let server = server.clone();
            async move {
                let mut body = chat("assistant", "Hi");
                body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
                server.post("acme", "/v1/chat/completions", &body).await
            }
        };
        let prompt_tokens = async |fields: Value| {
            let answer: Value = ask(fields).await.json().await.expect("JSON");
            answer["usage"]["prompt_tokens"].as_u64().expect("a count")
        };
        let hi = prompt_tokens(json!({ "max_tokens": 1 })).await;
        // Each further word is one token more.
        let many = prompt_tokens(json!({ "max_tokens": 1, "messages": words(100) })).await + 2900;

        let unsupported = |name: &str| format!("Unsupported parameter: '{name}' is not supported with this model.");
        let too_many = format!(
            "This model's maximum context length is 2048 tokens. However, you requested {} tokens ({hi} in the \
             messages, 4000 in the completion). Please reduce the length of the messages or completion.",
            hi + 4000
        );
        let too_long = format!(
            "This model's maximum context length is 2048 tokens. However, your messages resulted in {many} tokens. \
             Please reduce the length of the messages."
        );
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        let unknown = json!("unsupported_parameter");
        let context = json!("context_length_exceeded");
        let expect = [
            (json!({ "tools": tools }), "tools", &unknown, unsupported("tools")),
            (
                json!({ "response_format": { "type": "json_object" } }),
                "response_format",
                &unknown,
                unsupported("response_format"),
            ),
            (json!({ "surprise": 1 }), "surprise", &unknown, unsupported("surprise")),
            (json!({ "max_tokens": 4000 }), "max_tokens", &context, too_many),
            (
                json!({ "max_tokens": 0 }),
                "max_tokens",
                &Value::Null,
                "Invalid value for 'max_tokens': expected an integer of at least 1, got 0.".to_owned(),
            ),
            (
                json!({ "temperature": 3 }),
                "temperature",
                &Value::Null,
                "Invalid value for 'temperature': expected a number from 0 to 2, got 3.".to_owned(),
            ),
            (json!({ "messages": words(3000) }), "messages", &context, too_long),
        ];
        for (fields, param, code, message) in expect {
            let response = ask(fields).await;
            assert_eq!(response.status(), 400, "{param}");
            let error: Value = response.json().await.expect("JSON");
            let told = json!({ "message": message, "type": "invalid_request_error", "param": param, "code": code });
            assert_eq!(error["error"], told);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_requests_tokens_times_and_the_engine() {
    Server::with(|server| async move {
        assert_eq!(server.ops("/healthz").await.0, 200);
        assert_eq!(server.ops("/readyz").await.0, 200);
        server.ask("acme", "assistant", "What is snow?").await;
        let (_, metrics) = server.ops("/metrics").await;
        for line in [
            "tenantry_requests_total{tenant=\"acme\",model=\"assistant\",route=\"chat_completions\",outcome=\"complete\"} 1",
            "tenantry_tokens_total{tenant=\"acme\",model=\"assistant\",direction=\"output\"}",
            "tenantry_time_to_first_token_seconds_bucket",
            "tenantry_inter_token_seconds_bucket",
            "tenantry_streams_in_flight{tenant=\"acme\"} 0",
            "tenantry_engine_batch_rows{worker=\"local\"}",
            "tenantry_engine_kv_tokens{worker=\"local\"}",
            "tenantry_adapters_resident{worker=\"local\"} 1",
            "tenantry_adapter_loads_total{outcome=\"ok\"} 1",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        assert!(metrics.ends_with("# EOF\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_limit_of_concurrent_generations_holds_for_it_alone() {
    let config = quickstart_like(
        "[[tenants]]\nid = \"small\"\nkeys = [{ demo = \"sk-demo-small\" }]\nlimits = { concurrent_generations = 1 }\n\
         [tenants.models]\nbase = { base = \"smollm2-135m\" }\n",
    );
    Server::with_config(&config, |server| async move {
        let long = json!({ "model": "base", "prompt": "Once", "max_tokens": 1500, "ignore_eos": true, "stream": true });
        let running = server.post("small", "/v1/completions", &long).await;
        assert_eq!(running.status(), 200);
        let refused = server.post("small", "/v1/completions", &long).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        let error: Value = refused.json().await.expect("JSON");
        assert_eq!(
            (&error["error"]["type"], &error["error"]["code"]),
            (&"concurrency".into(), &"rate_limit_exceeded".into())
        );
        server.ask("acme", "assistant", "Hi").await;
        drop(running);
        server.nothing_held().await;
        assert_eq!(
            server.post("small", "/v1/completions", &json!({ "model": "base", "prompt": "a" })).await.status(),
            200
        );
    })
    .await;
}
