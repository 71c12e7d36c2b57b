//! The configuration read again while requests run, over the real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::process::{Process, free_port, ready};
use crate::support::{Server, quickstart_like, repository};

/// As the quickstart, read again when it is asked for.
fn unwatched(more: &str) -> String {
    quickstart_like(&format!("{more}\n[reload]\nwatch = false\n"))
}

fn tenant(id: &str) -> String {
    format!(
        "[[tenants]]\nid = \"{id}\"\nkeys = [{{ demo = \"sk-demo-{id}\" }}]\n\
         [tenants.models]\nbase = {{ base = \"smollm2-135m\" }}\n"
    )
}

fn second_worker(name: &str) -> String {
    format!("[workers.{name}]\ndriver = \"embedded\"\nbases = [\"smollm2-135m\"]\nthreads = 1\ncontext = 512\n")
}

fn completion(model: &str, tokens: u32) -> Value {
    json!({ "model": model, "prompt": "Once", "max_tokens": tokens, "ignore_eos": true, "temperature": 0 })
}

async fn status(server: &Server, tenant: &str, model: &str) -> u16 {
    server.post(tenant, "/v1/completions", &completion(model, 1)).await.status().as_u16()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_lose_no_request() {
    Server::with_config(&unwatched(""), |server: Arc<Server>| async move {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..6).map(|number: usize| {
            let (server, stop, answered) = (server.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let asked = [("acme", "assistant"), ("globex", "globex-only"), ("initech", "smollm2-135m")];
                let (tenant, model) = asked[number % 3];
                while !stop.load(Ordering::Relaxed) {
                    let mut body = completion(model, 12);
                    body["stream"] = json!(number.is_multiple_of(2));
                    let response = server.post(tenant, "/v1/completions", &body).await;
                    let (status, text) = (response.status(), response.text().await.expect("to its end"));
                    assert_eq!(status, 200, "{text}");
                    if number.is_multiple_of(2) {
                        assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("\"error\""), "{text}");
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut reloads = 0;
        while reloads < 8 || answered.load(Ordering::Relaxed) < 40 {
            // Everything that is live: a tenant comes and goes, workers change and are replaced, a policy and
            // limits change, an adapter leaves that nobody uses.
            let more = match reloads % 4 {
                0 => tenant("newcomer") + &second_worker("second"),
                1 => second_worker("second").replace("context = 512", "context = 256"),
                2 => "[guard.policies.other]\nprompt = { action = \"flag\" }\n".to_owned(),
                _ => String::new(),
            };
            let config = unwatched(&more);
            let config = match reloads % 4 {
                1 => config.replace("threads = 2\ncontext = 2048", "threads = 2\ncontext = 1024"),
                _ => config,
            };
            server.rewrite(&config);
            let (status, told) = server.admin("POST", "config/reload", None).await;
            assert_eq!((status, &told["applied"]), (200, &json!(true)), "{told}");
            reloads += 1;
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("every request was answered");
        }
        until("who was replaced has left", async || {
            let (_, workers) = server.admin("GET", "workers", None).await;
            workers["workers"].as_array().is_some_and(|workers| workers.len() == 1)
        })
        .await;
        assert_eq!(self::status(&server, "newcomer", "base").await, 401, "its key has gone with it");
    })
    .await;
}

/// Each has a new tenant too, which must not be there.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_says_why() {
    let server = Server::start(&unwatched("")).await;
    let pirate = repository("config/quickstart/adapters/pirate");
    let good = unwatched(&tenant("newcomer"));
    let broken = [
        (good.replace("[reload]", "[reload"), "tenantry.toml:"),
        (format!("{good}color = \"red\"\n"), "reload.color: unknown key"),
        (good.replace("demo = \"sk-demo-newcomer\"", "demo = \"sk-demo-acme\""), "the same key as"),
        (good.replace(&format!("{pirate:?}"), "\"nowhere\""), "tenants[0].adapters[0].path"),
        (good.replace("[workers.local]", "[workers.other]\ndriver = \"grpc\"\nbases = [\"none\"]\nurl = \"http://127.0.0.1:1\"\n[workers.local]"), "there is no base model `none`"),
        (good.replace("[workers.local]", "[workers.other]\ndriver = \"vllm\"\nbases = [\"smollm2-135m\"]\nurl = \"http://127.0.0.1:1\"\nkey = \"file:/nowhere\"\n[workers.local]"), "workers.other.key"),
        // Found only when it is started.
        (good.replace("threads = 2", "threads = 2\nmemory_bytes = \"1MiB\""), "worker"),
    ];
    let before = server.admin("GET", "config", None).await.1;
    for (number, (config, why)) in broken.into_iter().enumerate() {
        assert_ne!(config, good, "{why}");
        server.rewrite(&config);
        let (status, told) = server.admin("POST", "config/reload", None).await;
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, &told["error"]["code"]), (422, &json!("configuration_refused")), "{why}: {told}");
        assert!(message.contains(why), "{why}: {message}");
        let now = server.admin("GET", "config", None).await.1;
        let last = &now["last_reload"];
        assert_eq!((&last["applied"], &last["trigger"]), (&json!(false), &json!("operator")));
        assert!(last["problems"].to_string().contains(&why.replace('"', "\\\"")), "{last}");
        assert_eq!((&now["loaded"], &now["waiting_for_restart"]), (&before["loaded"], &json!([])));
        assert_eq!(self::status(&server, "newcomer", "base").await, 401, "{why}");
        assert_eq!(self::status(&server, "acme", "assistant").await, 200, "{why}");
        let metrics = server.ops("/metrics").await.1;
        let counted = format!("tenantry_config_reloads_total{{outcome=\"refused\"}} {}", number + 1);
        assert!(metrics.contains(&counted), "{why}");
    }
    server.rewrite(&good);
    assert_eq!(server.admin("POST", "config/reload", None).await.0, 200);
    assert_eq!(self::status(&server, "newcomer", "base").await, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_read_by_itself_and_boot_keys_wait() {
    let watched = |more: &str| quickstart_like(&format!("{more}[reload]\ninterval = \"20ms\"\n"));
    let server = Server::start(&watched(&tenant("early"))).await;
    assert_eq!(status(&server, "early", "base").await, 200);
    // A running stream goes on with the key that is taken away.
    let mut body = completion("base", 400);
    body["stream"] = json!(true);
    let mut running = server.post("early", "/v1/completions", &body).await.bytes_stream();
    running.next().await.expect("a chunk").expect("of the stream");
    server.rewrite(&watched(&tenant("late")).replace("drain_timeout = \"5s\"", "drain_timeout = \"6s\""));
    until("the new key is known", async || status(&server, "late", "base").await == 200).await;
    assert_eq!(status(&server, "early", "base").await, 401);
    let config = server.admin("GET", "config", None).await.1;
    assert_eq!(config["waiting_for_restart"], json!(["shutdown.drain_timeout"]), "{config}");
    assert_eq!((&config["last_reload"]["trigger"], &config["watched"]), (&json!("file"), &json!(true)));
    assert!(server.ops("/metrics").await.1.contains("tenantry_config_keys_waiting_for_restart 1"));
    let mut text = Vec::new();
    while let Some(chunk) = running.next().await {
        text.extend_from_slice(&chunk.expect("the stream goes on"));
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_removed_finishes_what_it_runs() {
    let with = unwatched(&second_worker("second"));
    let server = Server::start(&with).await;
    // All that runs is at the one that leaves.
    assert_eq!(server.admin("POST", "workers/local/drain", None).await.0, 200);
    let mut body = completion("smollm2-135m", 300);
    body["stream"] = json!(true);
    let mut running = server.post("acme", "/v1/completions", &body).await.bytes_stream();
    running.next().await.expect("a chunk").expect("of the stream");
    assert_eq!(server.admin("POST", "workers/local/undrain", None).await.0, 200);
    server.rewrite(&unwatched(""));
    let (status, told) = server.admin("POST", "config/reload", None).await;
    assert_eq!((status, &told["workers_left"]), (200, &json!(["second"])), "{told}");
    until("it has left", async || !server.admin("GET", "workers", None).await.1.to_string().contains("second")).await;
    let mut text = Vec::new();
    while let Some(chunk) = running.next().await {
        text.extend_from_slice(&chunk.expect("the stream goes on"));
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_reads_its_file_again_on_sighup() {
    let (public, ops) = (free_port(), free_port());
    let config = |more: &str| {
        let text = unwatched(more).replacen("127.0.0.1:0", &format!("127.0.0.1:{public}"), 1);
        text.replacen("127.0.0.1:0", &format!("127.0.0.1:{ops}"), 1)
    };
    let process = Process::start("serve", &config(&tenant("early")));
    let client = crate::support::http_client().build().expect("a client");
    ready(&client, ops).await;
    let ask = async |tenant: &str| {
        let url = format!("http://127.0.0.1:{public}/v1/completions");
        let request = client.post(url).bearer_auth(format!("sk-demo-{tenant}")).json(&completion("base", 1));
        request.send().await.expect("an answer").status().as_u16()
    };
    std::fs::write(process.config(), config(&tenant("late"))).expect("written");
    assert_eq!((ask("early").await, ask("late").await), (200, 401), "nobody looks at the file");
    process.signal("HUP");
    until("the new key is known", async || ask("late").await == 200).await;
    assert_eq!(ask("early").await, 401);

    // The log's filter is the process's own.
    let url = format!("http://127.0.0.1:{ops}/admin/v1/log");
    let told = async |request: reqwest::RequestBuilder| -> Value {
        request.send().await.expect("an answer").json().await.expect("JSON")
    };
    let set = told(client.put(&url).json(&json!({"filter": "warn,tenantry::pool=debug", "lasts_seconds": 1}))).await;
    assert_eq!((&set["filter"], &set["set"]), (&json!("warn,tenantry::pool=debug"), &json!(true)), "{set}");
    assert_eq!((&set["configured"], set["until"].is_u64()), (&json!("info"), true));
    let wrong = told(client.put(&url).json(&json!({"filter": "loud=="}))).await;
    assert_eq!(wrong["error"]["code"], "invalid_request");
    until("its time is over", async || told(client.get(&url)).await["filter"] == "info").await;
    told(client.put(&url).json(&json!({"filter": "debug"}))).await;
    let reset = told(client.delete(&url)).await;
    assert_eq!((&reset["filter"], &reset["set"]), (&json!("info"), &json!(false)));
}
