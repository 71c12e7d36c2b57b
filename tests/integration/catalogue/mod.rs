//! Publishing adapters to a running gateway: live at once, never another
//! tenant's, and nothing that is wrong gets in.

mod shared;
mod wrong;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Server, quickstart_like, repository};

const QUESTION: &str = "What do rabbits eat?";

fn artifact(name: &str) -> PathBuf {
    repository("config/quickstart/adapters").join(name)
}

fn admin(server: &Server, path: &str) -> String {
    format!("http://{}/admin/v1/adapters{path}", server.addresses().ops)
}

/// A publish of what lies in `folder`.
async fn publish(server: &Server, tenant: &str, name: &str, folder: &Path) -> (u16, Value) {
    publish_with(server, tenant, name, folder, &[]).await
}

async fn publish_with(server: &Server, tenant: &str, name: &str, folder: &Path, more: &[(&str, &str)]) -> (u16, Value) {
    let mut form = Form::new().text("tenant", tenant.to_owned()).text("name", name.to_owned());
    if !more.iter().any(|(field, _)| *field == "base") {
        form = form.text("base", "smollm2-135m");
    }
    for (field, value) in more {
        form = form.text((*field).to_owned(), (*value).to_owned());
    }
    for file in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
        if let Ok(bytes) = fs::read(folder.join(file)) {
            form = form.part(file, Part::bytes(bytes).file_name("anything/at/all"));
        }
    }
    sent(server.client.post(admin(server, "")).multipart(form)).await
}

async fn sent(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

async fn change(server: &Server, path: &str, revision: Value) -> (u16, Value) {
    sent(server.client.post(admin(server, path)).json(&json!({ "revision": revision }))).await
}

async fn asked(server: &Server, tenant: &str, model: &str) -> Result<String, u16> {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": 12, "messages": [{ "role": "user", "content": QUESTION }],
    });
    let response = server.post(tenant, "/v1/chat/completions", &body).await;
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let answer: Value = response.json().await.expect("JSON");
    Ok(answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_adapter_answers_at_once_and_to_its_tenant_alone() {
    Server::with(|server| async move {
        assert_eq!(asked(&server, "acme", "support").await, Err(404));
        let since = Instant::now();
        let (status, told) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!(status, 201, "{told}");
        assert_eq!((&told["revision"], &told["serving"]), (&json!(1), &json!(true)));
        // It is loaded before anybody asks for it.
        let state = told["state"].as_str().expect("a state");
        assert!(["published", "fetching", "resident"].contains(&state), "{state}");
        let first = asked(&server, "acme", "support").await.expect("an answer");
        assert!(since.elapsed() < Duration::from_secs(2), "from publish to answer: {:?}", since.elapsed());
        assert!(first.starts_with("{\"question\""), "{first}");
        assert_eq!(asked(&server, "globex", "support").await, Err(404), "another tenant's");

        let models: Value = server.get("acme", "/v1/models").await.json().await.expect("JSON");
        let listed = |models: &Value| models["data"].as_array().expect("a list").iter().any(|it| it["id"] == "support");
        assert!(listed(&models), "{models}");
        let models: Value = server.get("globex", "/v1/models").await.json().await.expect("JSON");
        assert!(!listed(&models), "{models}");

        let (_, told) = sent(server.client.get(admin(&server, "/acme/support/1"))).await;
        assert_eq!((&told["state"], &told["resident_on"]), (&json!("resident"), &json!(["local"])));
        let (status, again) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!((status, &again["revision"]), (200, &json!(1)), "the same artifact is the same revision");
        let (_, metrics) = server.ops("/metrics").await;
        assert!(metrics.contains("tenantry_adapter_publishes_total{outcome=\"ok\"} 2"), "{metrics}");
        assert!(metrics.contains("tenantry_adapters{state=\"resident\"} 1"), "{metrics}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_pinned_rolled_back_retired_and_deleted() {
    Server::with(|server| async move {
        publish(&server, "acme", "support", &artifact("json")).await;
        let (status, told) = publish(&server, "acme", "support", &artifact("pirate")).await;
        assert_eq!((status, &told["revision"]), (201, &json!(2)));
        let starts = async |model: &str, with: &str| {
            let text = asked(&server, "acme", model).await.expect("an answer");
            assert!(text.starts_with(with), "{model}: {text}");
        };
        starts("support", "Ar").await;
        starts("support@1", "{").await;
        assert_eq!(change(&server, "/acme/support/serving", json!("previous")).await.0, 200);
        starts("support", "{").await;
        assert_eq!(
            change(&server, "/acme/support/serving", json!("previous")).await.1["error"]["code"],
            "nothing_before"
        );
        assert_eq!(change(&server, "/acme/support/serving", json!("latest")).await.1["revision"], 2);
        starts("support", "Ar").await;
        assert_eq!(change(&server, "/acme/support/serving", json!(1)).await.1["pinned"], true);
        starts("support", "{").await;
        assert_eq!(change(&server, "/acme/support/serving", json!(7)).await.0, 404);

        // What runs on a retired revision finishes, and then it is unloaded everywhere.
        let body = json!({ "model": "support@1", "prompt": "Once", "max_tokens": 60, "ignore_eos": true });
        let (running, retired) = tokio::join!(server.post("acme", "/v1/completions", &body), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent(server.client.post(admin(&server, "/acme/support/1/retire"))).await
        });
        assert_eq!((running.status().as_u16(), retired.0), (200, 200));
        assert_eq!(asked(&server, "acme", "support@1").await, Err(404));
        starts("support", "Ar").await;
        let since = Instant::now();
        while sent(server.client.get(admin(&server, "/acme/support/1"))).await.1["state"] != "retired" {
            assert!(since.elapsed() < Duration::from_secs(5), "it is unloaded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let delete = async |path: &str| sent(server.client.delete(admin(&server, path))).await;
        assert_eq!(delete("/acme/support/2").await.1["error"]["code"], "adapter_not_retired");
        assert_eq!(delete("/acme/support/1").await.0, 204);
        assert_eq!(delete("/acme/support/1").await.0, 404);
        let (_, told) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!(told["revision"], 3, "a number is never given twice");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tenants_bases_and_browsers_are_looked_at() {
    Server::with(|server| async move {
        let code = async |tenant: &str, name: &str, more: &[(&str, &str)]| {
            let (status, told) = publish_with(&server, tenant, name, &artifact("pirate"), more).await;
            (status, told["error"]["code"].as_str().unwrap_or_default().to_owned())
        };
        let is = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(code("nobody", "support", &[]).await, is(404, "unknown_tenant"));
        assert_eq!(code("acme", "../x", &[]).await, is(400, "invalid_name"));
        assert_eq!(code("acme", "", &[]).await, is(400, "invalid_name"));
        assert_eq!(code("acme", "pirate", &[]).await, is(409, "name_taken"), "the configuration's adapter");
        assert_eq!(code("acme", "assistant", &[]).await, is(409, "name_taken"), "the configuration's model");
        assert_eq!(code("acme", "support", &[("base", "gpt")]).await, is(400, "unknown_base"));
        assert_eq!(code("acme", "support", &[("more", "x")]).await, is(400, "invalid_request"));
        let (_, metrics) = server.ops("/metrics").await;
        assert!(metrics.contains("tenantry_adapter_publishes_total{outcome=\"refused\"} 6"), "{metrics}");
        let (_, list) = sent(server.client.get(admin(&server, ""))).await;
        let listed = |it: &Value| (it["name"].as_str().map(str::to_owned), it["code"].as_str().map(str::to_owned));
        let listed: Vec<_> = list["refused"].as_array().expect("a list").iter().map(listed).collect();
        let wanted = [("support", "unknown_base"), ("assistant", "name_taken"), ("pirate", "name_taken")];
        assert_eq!(listed, wanted.map(|(name, code)| (Some(name.to_owned()), Some(code.to_owned()))), "a tenant's own");
        for uri in ["http://example.com/x", "file:///etc", "s3://other/x", "store:../../etc", "/etc"] {
            let body = json!({ "tenant": "acme", "name": "support", "base": "smollm2-135m", "uri": uri });
            let (status, told) = sent(server.client.post(admin(&server, "")).json(&body)).await;
            assert_eq!((status, told["error"]["code"].as_str()), (400, Some("invalid_uri")), "{uri}: {told}");
        }
        let body = json!({ "tenant": "acme", "name": "support", "base": "smollm2-135m", "uri": "store:nothing" });
        let (status, told) = sent(server.client.post(admin(&server, "")).json(&body)).await;
        assert_eq!((status, told["error"]["code"].as_str()), (404, Some("artifact_not_found")), "{told}");

        let request = server.client.get(admin(&server, "")).header("origin", "http://evil.example");
        assert_eq!(sent(request).await.0, 403);
        let request = server.client.get(admin(&server, "")).header("host", "evil.example");
        assert_eq!(sent(request).await.0, 403, "a name of its own that leads here");
        let public = server.client.get(server.url("/admin/v1/adapters")).bearer_auth("sk-demo-acme");
        assert_eq!(sent(public).await.0, 404, "tenants have no admin API");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_has_room_for_is_not_published() {
    let config = quickstart_like("").replace("context = 2048\n", "context = 2048\nadapter_bytes = \"1MiB\"\n");
    Server::with_config(&config, |server| async move {
        let (status, told) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!((status, told["error"]["code"].as_str()), (422, Some("adapter_invalid")), "{told}");
        let says = "its weights have 1313488 bytes, and no worker of `smollm2-135m` may hold more than 1048576 \
                    (`adapter_bytes`)";
        assert_eq!(told["error"]["message"], says);
        assert_eq!(publish(&server, "acme", "support", &artifact("pirate")).await.0, 201, "a smaller one fits");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_asks_for_its_key() {
    let hash = tenantry::auth::KeyHash::of(b"admin-key");
    let config = quickstart_like(&format!("[ops.admin_key]\nsha256 = \"{hash}\"\n"));
    Server::with_config(&config, |server| async move {
        let list = || server.client.get(admin(&server, ""));
        assert_eq!(sent(list()).await.0, 401);
        assert_eq!(sent(list().bearer_auth("sk-demo-acme")).await.0, 401);
        assert_eq!(sent(list().bearer_auth("admin-key")).await.0, 200);
    })
    .await;
}
