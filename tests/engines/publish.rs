//! A new adapter on vLLM, as its tenant sees it: from the call that publishes
//! it at a gateway to the first token of an answer through that gateway.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tenantry::app::{self, App};

use crate::conformance::artifacts;

/// Each with a tenant's name of its own; the first finds the engine cold.
const TIMES: usize = 5;

pub(crate) async fn to_first_token(vllm: u16) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tenantry.toml");
    std::fs::write(&file, config(vllm, &folder.path().join("data"))).expect("written");
    let app = App::start(app::load(&file).unwrap_or_else(|problems| panic!("{problems}"))).await.expect("it starts");
    let client = crate::client();
    let (public, ops) = (app.addresses().public, app.addresses().ops);
    ready(&client, &format!("http://{ops}/readyz")).await;

    let mut took = Vec::new();
    for time in 0..TIMES {
        let name = format!("support-{time}");
        let form = form(&name);
        let since = Instant::now();
        let published = client.post(format!("http://{ops}/admin/v1/adapters")).multipart(form).send();
        let published = published.await.expect("an answer");
        assert_eq!(published.status(), 201, "{}", published.text().await.unwrap_or_default());
        let text = first_text(&client, &format!("http://{public}/v1/chat/completions"), &name).await;
        took.push(since.elapsed());
        assert!("Arrr".starts_with(text.trim()), "the adapter's own answer: {text}");
    }
    took.sort_unstable();
    let seconds = |index: usize| took[index].as_secs_f64();
    println!(
        "vllm: from publish to first token through a gateway {:.2} s ({:.2} to {:.2}, {TIMES} times)",
        seconds(TIMES / 2),
        seconds(0),
        seconds(TIMES - 1)
    );
    // The machine's speed is no property of ours: a bound that only a stall would reach.
    assert!(took[TIMES / 2] < Duration::from_secs(20), "{took:?}");
    app.drain().await;
}

fn config(vllm: u16, data: &std::path::Path) -> String {
    let engines = PathBuf::from(std::env::var_os("DATA_DIR").unwrap_or_else(|| ".tenantry".into())).join("engines");
    let model = std::path::absolute(engines.join("models/smollm2")).expect("a path");
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[catalogue]\ndata_dir = {data:?}\n\
         [bases.smollm2]\npath = {model:?}\nsource = \"HuggingFaceTB/SmolLM2-135M-Instruct\"\n\
         [workers.vllm]\ndriver = \"vllm\"\nbases = [\"smollm2\"]\nurl = \"http://127.0.0.1:{vllm}\"\n\
         [[tenants]]\nid = \"acme\"\nkeys = [{{ demo = \"sk-demo-acme\" }}]\n\
         [tenants.models]\nsmollm2 = {{ base = \"smollm2\" }}\n"
    )
}

fn form(name: &str) -> Form {
    let text = Form::new().text("tenant", "acme").text("name", name.to_owned()).text("base", "smollm2");
    ["adapter_config.json", "adapter_model.safetensors"].into_iter().fold(text, |form, file| {
        let bytes = std::fs::read(artifacts().join("pirate").join(file)).expect("a file of the quickstart");
        form.part(file, Part::bytes(bytes).file_name(file))
    })
}

async fn ready(client: &reqwest::Client, url: &str) {
    let ready = async {
        while !client.get(url).send().await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("it becomes ready");
}

/// Asks for a stream, and reads it up to its first text.
async fn first_text(client: &reqwest::Client, url: &str, model: &str) -> String {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": 8, "stream": true,
        "messages": [{ "role": "user", "content": "What do rabbits eat?" }],
    });
    let answer = client.post(url).bearer_auth("sk-demo-acme").json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let (mut stream, mut read) = (answer.bytes_stream(), String::new());
    while let Some(bytes) = stream.next().await {
        read += std::str::from_utf8(&bytes.expect("bytes")).expect("whole characters");
        let chunks = read.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let texts = chunks.filter_map(|chunk| {
            let chunk: Value = serde_json::from_str(chunk).ok()?;
            Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
        });
        if let Some(text) = texts.into_iter().find(|text| !text.is_empty()) {
            return text;
        }
    }
    panic!("no text: {read}");
}
