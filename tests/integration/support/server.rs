//! A real Tenantry in this process, on free ports, with real weights.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::app::{self, Addresses, App};
use tenantry::gateway::{Gateway, Held};

use super::{base_model, repository};

pub(crate) struct Server {
    app: App,
    pub(crate) client: reqwest::Client,
    // Holds the configuration file.
    folder: TempDir,
}

/// The quickstart's tenants on free ports; beside its own models each tenant
/// has one whose name no other has. `more` follows at the end.
pub(crate) fn quickstart_like(more: &str) -> String {
    let model = base_model();
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[shutdown]\ndrain_timeout = \"5s\"\n\
         [bases.smollm2-135m]\npath = {model:?}\nsource = \"HuggingFaceTB/SmolLM2-135M-Instruct\"\n\
         [workers.local]\ndriver = \"embedded\"\nbases = [\"smollm2-135m\"]\nthreads = 2\ncontext = 2048\n"
    );
    for (tenant, adapter) in [("acme", "pirate"), ("globex", "json"), ("initech", "rhyme")] {
        let folder = repository("config/quickstart/adapters").join(adapter);
        text += &format!(
            "[[tenants]]\nid = \"{tenant}\"\nkeys = [{{ demo = \"sk-demo-{tenant}\" }}]\n\
             [[tenants.adapters]]\nname = \"{adapter}\"\nbase = \"smollm2-135m\"\npath = {folder:?}\n\
             [tenants.models]\nassistant = {{ base = \"smollm2-135m\", adapter = \"{adapter}\" }}\n\
             smollm2-135m = {{ base = \"smollm2-135m\" }}\n\
             \"{tenant}-only\" = {{ base = \"smollm2-135m\", adapter = \"{adapter}\" }}\n"
        );
    }
    text + more
}

// === impl Server ===

impl Server {
    pub(crate) async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantry.toml");
        std::fs::write(&file, config).expect("written");
        let loaded = app::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let app = App::start(loaded).await.expect("it starts");
        Self { app, client: super::http_client().build().expect("a client"), folder }
    }

    /// Runs `test` against the quickstart's tenants; afterwards nothing may be held.
    pub(crate) async fn with<F: Future<Output = ()>>(test: impl FnOnce(Arc<Self>) -> F) {
        Self::with_config(&quickstart_like(""), test).await;
    }

    pub(crate) async fn with_config<F: Future<Output = ()>>(config: &str, test: impl FnOnce(Arc<Self>) -> F) {
        let server = std::sync::Arc::new(Self::start(config).await);
        test(server.clone()).await;
        let server = std::sync::Arc::into_inner(server).expect("the test is done with the server");
        server.stop().await;
    }

    /// The leak check: permits, leases, pins and sequences are given back, and the drain ends.
    pub(crate) async fn stop(self) {
        self.nothing_held().await;
        drop(self.client);
        tokio::time::timeout(Duration::from_secs(10), self.app.drain()).await.expect("the server drains");
    }

    /// Writes the configuration's file anew, in one step.
    pub(crate) fn rewrite(&self, config: &str) {
        let (aside, file) = (self.folder.path().join("aside.toml"), self.folder.path().join("tenantry.toml"));
        std::fs::write(&aside, config).expect("written");
        std::fs::rename(aside, file).expect("moved");
    }

    /// Asks the admin API; status and answer.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.client.request(method, format!("http://{}/admin/v1/{path}", self.addresses().ops));
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.app.addresses()
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.app.gateway()
    }

    pub(crate) fn held(&self) -> Held {
        self.app.gateway().held()
    }

    pub(crate) fn catalogue(&self) -> &Arc<tenantry::adapters::Catalogue> {
        self.app.gateway().catalogue()
    }

    /// Waits until every base model can be served.
    pub(crate) async fn ready(&self) {
        super::process::ready(&self.client, self.addresses().ops.port()).await;
    }

    /// Waits until nothing is held.
    pub(crate) async fn nothing_held(&self) {
        let nothing = async {
            while self.held() != Held::default() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), nothing).await;
        assert!(waited.is_ok(), "still held: {:?}", self.held());
    }

    /// Waits until so many workers are in this state.
    pub(crate) async fn until_workers_are(&self, state: &str, count: usize) {
        let line = format!("tenantry_workers{{state=\"{state}\"}} {count}");
        let there = async {
            while !self.ops("/metrics").await.1.lines().any(|it| it == line) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there).await.unwrap_or_else(|_| panic!("no {line}"));
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses().public)
    }

    /// Posts JSON as a tenant.
    pub(crate) async fn post(&self, tenant: &str, path: &str, body: &Value) -> reqwest::Response {
        let request = self.client.post(self.url(path)).bearer_auth(format!("sk-demo-{tenant}")).json(body);
        request.send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, tenant: &str, path: &str) -> reqwest::Response {
        let request = self.client.get(self.url(path)).bearer_auth(format!("sk-demo-{tenant}"));
        request.send().await.expect("an answer")
    }

    /// Asks on the operations listener; status and text.
    pub(crate) async fn ops(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.addresses().ops);
        let response = self.client.get(url).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    /// A chat's whole answer, greedy.
    pub(crate) async fn ask(&self, tenant: &str, model: &str, question: &str) -> String {
        let body = json!({
            "model": model, "temperature": 0, "max_tokens": 40,
            "messages": [{ "role": "user", "content": question }],
        });
        let response = self.post(tenant, "/v1/chat/completions", &body).await;
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.expect("JSON");
        answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    }
}
