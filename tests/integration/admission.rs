//! Limits, budgets, usage and the fair queue, over the real engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Server, quickstart_like};

fn completion(tokens: u32) -> Value {
    json!({ "model": "base", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": true, "temperature": 0 })
}

fn tenant(id: &str, more: &str) -> String {
    format!(
        "[[tenants]]\nid = \"{id}\"\nkeys = [{{ demo = \"sk-demo-{id}\", name = \"main\" }}]\n{more}\n\
         [tenants.models]\nbase = {{ base = \"smollm2-135m\" }}\n"
    )
}

async fn admin(server: &Server, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("http://{}/admin/v1/{path}", server.addresses().ops);
    let request = server.client.request(method, url);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_limited_by_what_was_really_used() {
    let config = quickstart_like(&tenant("small", "limits = { output_tokens_per_minute = 100 }"));
    Server::with_config(&config, |server| async move {
        // What is asked for is reserved, and what was not used comes back.
        let mut total = 0;
        for _ in 0..3 {
            let mut body = completion(60);
            body["stop"] = json!([" ", ",", "\n"]);
            let answer = server.post("small", "/v1/completions", &body).await;
            assert_eq!(answer.status(), 200);
            let limit = answer.headers()["x-ratelimit-limit-tokens"].to_str().expect("text").to_owned();
            let answer: Value = answer.json().await.expect("JSON");
            let used = answer["usage"]["completion_tokens"].as_u64().expect("a count");
            assert!(limit == "100" && used < 20, "{limit} {used}");
            total += used;
        }
        let (_, told) = admin(&server, reqwest::Method::GET, "tenants/small/limits", None).await;
        assert_eq!(told["limits"][0]["remaining"]["output_tokens_per_minute"], json!(100 - total), "{told}");
        // The last one goes over, and those that follow wait for what it owes.
        let long = server.post("small", "/v1/completions", &completion(120)).await;
        assert_eq!(long.status(), 200);
        drop(long);
        let refused = server.post("small", "/v1/completions", &completion(1)).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["x-ratelimit-remaining-tokens"], "0");
        let error: Value = refused.json().await.expect("JSON");
        assert_eq!(error["error"]["type"], "tokens");
        assert!(error["error"]["message"].as_str().expect("text").contains("output_tokens_per_minute: 100"), "{error}");
        assert_eq!(server.post("acme", "/v1/completions", &acme(1)).await.status(), 200, "nobody else waits");
    })
    .await;
}

fn acme(tokens: u32) -> Value {
    json!({ "model": "smollm2-135m", "prompt": "Once", "max_tokens": tokens, "ignore_eos": true })
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_set_limits_while_requests_run() {
    let config = quickstart_like(&tenant("small", ""));
    Server::with_config(&config, |server| async move {
        let ask = async || server.post("small", "/v1/completions", &completion(1)).await.status().as_u16();
        assert_eq!(ask().await, 200);
        let put = reqwest::Method::PUT;
        let (status, told) =
            admin(&server, put.clone(), "tenants/small/keys/main/limits", Some(json!({"requests_per_minute": 2})))
                .await;
        assert_eq!(status, 200, "{told}");
        let key = told["limits"].as_array().expect("a list").iter().find(|card| card["scope"] == "key");
        assert_eq!(key.expect("the key's")["limits"], json!({"requests_per_minute": 2}));
        assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429]);
        let models = "tenants/small/models/base/limits";
        assert_eq!(admin(&server, reqwest::Method::DELETE, "tenants/small/keys/main/limits", None).await.0, 200);
        assert_eq!(ask().await, 200);
        assert_eq!(admin(&server, put.clone(), models, Some(json!({"max_output_tokens": 1}))).await.0, 200);
        assert_eq!(ask().await, 200);
        assert_eq!(server.post("small", "/v1/completions", &completion(2)).await.status(), 400);

        for (path, body, status) in [
            ("tenants/nobody/limits", json!({}), 404),
            ("tenants/small/keys/none/limits", json!({}), 404),
            ("tenants/small/limits", json!({"requests_per_minute": 0}), 400),
            ("tenants/small/limits", json!({"requests_per_hour": 1}), 400),
            ("tenants/small/limits", json!({"tokens_per_day": -1}), 400),
        ] {
            let (got, told) = admin(&server, put.clone(), path, Some(body)).await;
            assert_eq!(got, status, "{path} {told}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_summed_and_budgets_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "{}[catalogue]\ndata_dir = {:?}\n",
        quickstart_like(&tenant("small", "limits = { tokens_per_day = 60 }")),
        folder.path()
    );
    let server = Server::start(&config).await;
    for _ in 0..2 {
        assert_eq!(server.post("small", "/v1/completions", &completion(30)).await.status(), 200);
    }
    let usage: Value = server.get("small", "/v1/usage").await.json().await.expect("JSON");
    assert_eq!(usage["data"].as_array().map(Vec::len), Some(1), "{usage}");
    let line = &usage["data"][0];
    assert_eq!((&line["key"], &line["model"], &line["requests"]), (&json!("main"), &json!("base"), &json!(2)));
    assert_eq!((&line["output_tokens"], &line["input_tokens"]), (&json!(60), &json!(8)), "{line}");
    let others: Value = server.get("acme", "/v1/usage").await.json().await.expect("JSON");
    assert_eq!(others["data"], json!([]), "another tenant's usage is its own");
    let (status, all) = admin(&server, reqwest::Method::GET, "usage?tenant=small", None).await;
    assert_eq!((status, &all["data"][0]["tenant"], &all["total"]["requests"]), (200, &json!("small"), &json!(2)));
    let (status, told) = admin(&server, reqwest::Method::GET, "usage?from=tomorrow", None).await;
    assert_eq!(status, 400, "{told}");
    server.stop().await;

    let server = Server::start(&config).await;
    let refused = server.post("small", "/v1/completions", &completion(1)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["x-should-retry"], "false");
    server.stop().await;
}

/// A client that goes before the first token has had its prompt read.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_read_counts_though_nobody_waits_for_its_answer() {
    let limits = "limits = { input_tokens_per_minute = 100000, output_tokens_per_minute = 100000 }";
    Server::with_config(&quickstart_like(&tenant("small", limits)), |server| async move {
        let prompt: Vec<u32> = (0..1_900).map(|token| 1_000 + token).collect();
        let body = json!({ "model": "base", "prompt": prompt, "max_tokens": 50, "ignore_eos": true });
        let asking = tokio::spawn({
            let server = server.clone();
            async move { server.post("small", "/v1/completions", &body).await.status() }
        });
        let since = Instant::now();
        while server.held().sequences == 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "a worker has it");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asking.abort();
        assert!(asking.await.is_err(), "it has not been answered");
        server.nothing_held().await;
        let (_, told) = admin(&server, reqwest::Method::GET, "tenants/small/limits", None).await;
        let left = &told["limits"][0]["remaining"];
        assert_eq!(left["input_tokens_per_minute"], json!(98_100), "{told}");
        assert_eq!(left["output_tokens_per_minute"], json!(100_000), "{told}");
        let usage: Value = server.get("small", "/v1/usage").await.json().await.expect("JSON");
        let line = &usage["data"][0];
        assert_eq!(
            (&line["requests"], &line["input_tokens"], &line["output_tokens"]),
            (&json!(1), &json!(1_900), &json!(0))
        );
    })
    .await;
}

/// One seat, one tenant that floods it, and one that comes now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_tenant_does_not_keep_another_waiting() {
    let config = quickstart_like(&(tenant("flood", "max_waiting = 40") + &tenant("calm", "")));
    let config = config.replace("context = 2048\n", "context = 2048\nmax_batch_rows = 1\n");
    // However slow the machine is.
    let config = format!("{config}[queue]\nmax_wait = \"10m\"\n");
    Server::with_config(&config, |server: Arc<Server>| async move {
        let flood = (0..30).map(|_| {
            let server = server.clone();
            tokio::spawn(
                async move { server.post("flood", "/v1/completions", &completion(40)).await.status().as_u16() },
            )
        });
        let flood: Vec<_> = flood.collect();
        let waiting = async |count: usize| {
            let metrics = server.ops("/metrics").await.1;
            let line = metrics.lines().find(|line| line.starts_with("tenantry_queue_depth{")).map(str::to_owned);
            line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).is_some_and(|depth| depth >= count)
        };
        let since = Instant::now();
        while !waiting(20).await {
            assert!(since.elapsed() < Duration::from_secs(20), "they wait");
        }
        // Each of the calm one's requests is served after at most two of the others.
        for _ in 0..3 {
            let before = flood.iter().filter(|request| request.is_finished()).count();
            let answer = server.post("calm", "/v1/completions", &completion(10)).await;
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
            let served = flood.iter().filter(|request| request.is_finished()).count() - before;
            assert!(served <= 3, "{served} went before it");
        }
        for request in flood {
            assert_eq!(request.await.expect("no panic"), 200);
        }
        // More than may wait are told so at once.
        let more = (0..60).map(|_| {
            let server = server.clone();
            tokio::spawn(async move {
                let answer = server.post("flood", "/v1/completions", &completion(20)).await;
                (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
            })
        });
        let mut answers = Vec::new();
        for request in more.collect::<Vec<_>>() {
            answers.push(request.await.expect("no panic"));
        }
        assert!(answers.contains(&(503, true)) && answers.contains(&(200, false)), "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer, (503, true) | (200, false))), "{answers:?}");
    })
    .await;
}

/// One request with very many answers leaves places for everybody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_many_choices_does_not_have_the_engine_to_itself() {
    let config = quickstart_like(&(tenant("many", "") + &tenant("calm", "")));
    let config = config.replace("context = 2048\n", "context = 2048\nmax_batch_rows = 4\n");
    Server::with_config(&config, |server| async move {
        let prompts: Vec<String> = (0..24).map(|number| format!("Number {number}")).collect();
        let body = json!({ "model": "base", "prompt": prompts, "max_tokens": 300, "ignore_eos": true });
        let many = tokio::spawn({
            let server = server.clone();
            async move { server.post("many", "/v1/completions", &body).await.status() }
        });
        let since = Instant::now();
        while server.held().sequences < 20 {
            assert!(since.elapsed() < Duration::from_secs(20), "a worker has them");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..3 {
            assert_eq!(server.post("calm", "/v1/completions", &completion(5)).await.status(), 200);
        }
        assert!(!many.is_finished(), "seven thousand tokens take longer than fifteen");
        many.abort();
        let _ = many.await;
    })
    .await;
}
