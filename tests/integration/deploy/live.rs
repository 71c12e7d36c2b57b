//! A real Prometheus that scrapes a running gateway with traffic on it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::routing::{get, post};
use http::StatusCode;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::check;
use crate::support::{Server, Service, quickstart_like, repository};

/// An endpoint that is there and answers nothing.
async fn broken() -> String {
    let router = axum::Router::new()
        .route("/v1/models", get(async || json!({ "object": "list", "data": [{ "id": "broken" }] }).to_string()))
        .route("/v1/chat/completions", post(async || StatusCode::INTERNAL_SERVER_ERROR));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

/// The quickstart with limits that are shared and soon reached, ratings, traces that
/// nobody takes, room for one adapter, so that they take turns, and a base model whose
/// two workers fail.
fn config(folder: &Path, redis: u16, broken: &str) -> String {
    let url = folder.join("redis");
    fs::write(&url, format!("redis://127.0.0.1:{redis}/0")).expect("written");
    let mut more = format!(
        "[redis]\nurl = \"file:{}\"\n[traces]\nendpoint = \"http://127.0.0.1:9\"\ntimeout = \"1s\"\n\
         [bases.broken]\n[ratings]\nfolder = {:?}\n\
         [ratings.sinks.events]\nkind = \"file\"\nfolder = {:?}\n",
        url.display(),
        folder.join("spool"),
        folder.join("events")
    );
    for worker in ["one", "two"] {
        more += &format!("[workers.{worker}]\ndriver = \"openai\"\nbases = [\"broken\"]\nurl = \"{broken}\"\n");
    }
    let initech = "id = \"initech\"\nlimits = { requests_per_minute = 4 }\n";
    let acme = "\"acme-only\" = {";
    let room = "context = 2048\n";
    let one = quickstart_like(&more).replacen(room, &format!("{room}adapter_bytes = \"2MiB\"\n"), 1);
    one.replacen("id = \"initech\"\n", initech, 1).replacen(
        acme,
        &format!("broken = {{ base = \"broken\" }}\n{acme}"),
        1,
    )
}

async fn publish(server: &Server) {
    let mut form = Form::new().text("tenant", "acme").text("name", "published").text("base", "smollm2-135m");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = fs::read(repository("config/quickstart/adapters/json").join(file)).expect("read");
        form = form.part(file, Part::bytes(bytes).file_name(file));
    }
    let url = format!("http://{}/admin/v1/adapters", server.addresses().ops);
    let answer = server.client.post(url).multipart(form).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// Streams and whole answers, a prompt that is blocked, a worker that fails, a
/// limit that is reached, a rating, adapters that give way to each other, and one
/// that is published; again and again, since a rate is one of what happens between
/// two looks.
async fn traffic(server: Arc<Server>) {
    loop {
        for tenant in ["acme", "globex", "initech"] {
            let ask = |model: &'static str, question: &'static str, stream: bool| {
                let messages = json!([{ "role": "user", "content": question }]);
                let body = json!({ "model": model, "max_tokens": 8, "stream": stream, "messages": messages });
                let server = server.clone();
                async move { server.post(tenant, "/v1/chat/completions", &body).await }
            };
            let streamed = ask("assistant", "What is the sea?", true).await;
            let _ = streamed.text().await;
            let whole = ask("assistant", "You are a stupid idiot and a worthless fool.", false).await;
            let _ = whole.text().await;
            let whole = ask("assistant", "What do rabbits eat?", false).await;
            let generation = whole.headers().get("x-generation-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
            let _ = whole.text().await;
            if let Some(generation) = generation {
                let rating = json!({ "generation_id": generation, "thumb": "up" });
                let rated: Value = server.post(tenant, "/v1/ratings", &rating).await.json().await.expect("JSON");
                assert_eq!(rated["status"], "recorded");
            }
            if tenant == "acme" {
                assert_eq!(ask("broken", "What is the sea?", false).await.status().as_u16() / 100, 5);
            }
        }
        publish(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_evaluates_every_rule_and_answers_every_panel() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Service::start("start-redis.sh");
    redis.up().await;
    Server::with_config(&config(folder.path(), redis.port, &broken().await), |server| async move {
        server.ready().await;
        let prometheus = Service::start_with("start-prometheus.sh", vec![server.addresses().ops.to_string()]);
        prometheus.up().await;
        let url = format!("http://127.0.0.1:{}", prometheus.port);
        let checked = tokio::task::spawn_blocking(move || {
            check("live.py", &[url.as_str()]);
        });
        tokio::select! {
            checked = checked => checked.expect("all is answered"),
            () = traffic(server.clone()) => {}
        }
        drop(prometheus);
    })
    .await;
}
