//! The process's end, watched from outside: the real binary and real signals.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::quickstart_like;

struct Process {
    child: Child,
    public: u16,
    ops: u16,
    client: reqwest::Client,
    _folder: TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    probe.local_addr().expect("an address").port()
}

// === impl Process ===

impl Process {
    async fn start(drain_timeout: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file: PathBuf = folder.path().join("tenantry.toml");
        let (public, ops) = (free_port(), free_port());
        let config = quickstart_like("")
            .replacen("127.0.0.1:0", &format!("127.0.0.1:{public}"), 1)
            .replacen("127.0.0.1:0", &format!("127.0.0.1:{ops}"), 1)
            .replace("drain_timeout = \"5s\"", &format!("drain_timeout = {drain_timeout:?}"));
        std::fs::write(&file, config).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_tenantry"))
            .args(["serve", "--config"])
            .arg(&file)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let process = Self {
            child,
            public,
            ops,
            client: crate::support::http_client().build().expect("a client"),
            _folder: folder,
        };
        let ready = async {
            while process.readiness().await != Some(200) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("it becomes ready");
        process
    }

    /// The status of `/readyz`; `None` when nobody answers.
    async fn readiness(&self) -> Option<u16> {
        let url = format!("http://127.0.0.1:{}/readyz", self.ops);
        Some(self.client.get(url).send().await.ok()?.status().as_u16())
    }

    async fn stream(&self, max_tokens: u32) -> reqwest::Response {
        let body = json!({
            "model": "assistant", "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": true, "stream": true,
        });
        let url = format!("http://127.0.0.1:{}/v1/completions", self.public);
        let request = self.client.post(url).bearer_auth("sk-demo-acme").json(&body);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        response
    }

    fn signal(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    async fn wait(mut self) -> ExitStatus {
        let waited = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        waited.expect("it ends").expect("it was waited for")
    }
}

/// The whole text of a stream.
async fn rest(response: reqwest::Response) -> String {
    let mut text = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.expect("the stream ends properly"));
    }
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn running_streams_finish_and_nothing_new_begins() {
    let process = Process::start("5m").await;
    let running = process.stream(600).await;
    process.signal();
    let draining = async {
        while process.readiness().await != Some(503) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), draining).await.expect("not ready any more");
    let refused = reqwest::get(format!("http://127.0.0.1:{}/", process.public)).await;
    assert!(refused.expect_err("no new connections").is_connect());
    let text = rest(running).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "the running stream finishes");
    assert_eq!(process.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_streams_end_with_a_typed_error() {
    let process = Process::start("200ms").await;
    let running = process.stream(1900).await;
    process.signal();
    let text = rest(running).await;
    let last = text.trim_end().rsplit("\n\n").next().expect("a frame");
    let error: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(error["error"]["code"], "shutting_down");
    assert_eq!(error["error"]["type"], "server_error");
    assert_eq!(process.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let process = Process::start("30s").await;
    let _running = process.stream(1900).await;
    process.signal();
    while process.readiness().await != Some(503) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.signal();
    let ended = tokio::time::timeout(Duration::from_secs(3), process.wait()).await.expect("at once");
    assert_eq!(ended.code(), Some(1));
}
