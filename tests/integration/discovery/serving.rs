//! A gateway whose workers are found by DNS: they leave and come while
//! tenants' streams run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::app::{self, WorkerApp};

use crate::support::dns::NameServer;
use crate::support::{Server, base_model, quickstart_like};

const HOST: &str = "workers.internal";

/// A worker at an address of its own on this machine; all have one port.
struct At {
    address: &'static str,
    app: WorkerApp,
    _folder: TempDir,
}

impl At {
    async fn start(address: &'static str, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, model) = (folder.path().join("worker.toml"), base_model());
        let text = format!(
            "[worker]\nlisten = \"{address}:{port}\"\nthreads = 1\ncontext = 2048\nkv_bytes = \"256MiB\"\n\
             [bases.smollm2-135m]\npath = {model:?}\nsource = \"HuggingFaceTB/SmolLM2-135M-Instruct\"\n"
        );
        std::fs::write(&file, text).expect("written");
        let loaded = app::load_worker(&file).unwrap_or_else(|problems| panic!("{problems}"));
        Self { address, app: WorkerApp::start(loaded).await.expect("it starts"), _folder: folder }
    }
}

/// The quickstart's tenants, with workers found by DNS.
fn config(server: &NameServer, port: u16) -> String {
    let text = quickstart_like("");
    let (before, rest) = text.split_once("[workers.local]").expect("a worker");
    let (_, after) = rest.split_once("[[tenants]]").expect("tenants");
    let resolver = server.address;
    format!(
        "{before}[workers.gpu]\ndriver = \"grpc\"\nbases = [\"smollm2-135m\"]\npoll_interval = \"100ms\"\n\
         discover = {{ dns = \"{HOST}:{port}\", resolver = \"{resolver}\", interval = \"1s\" }}\n[[tenants]]{after}"
    )
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

async fn until(what: &str, wanted: impl Fn() -> bool) {
    let waiting = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "{what} did not come");
}

/// Names of the workers that are well.
fn well(server: &Server) -> Vec<String> {
    let workers = server.gateway().pool().workers();
    let well = workers.iter().filter(|worker| worker.status().unhealthy.is_none());
    let mut names: Vec<String> = well.map(|worker| worker.name().to_string()).collect();
    names.sort();
    names
}

async fn stream(server: &Server, max_tokens: u32) -> reqwest::Response {
    let body = json!({
        "model": "assistant", "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": true, "stream": true,
        "stream_options": { "include_usage": true },
    });
    let response = server.post("acme", "/v1/completions", &body).await;
    assert_eq!(response.status(), 200);
    response
}

/// The usage that a stream ends with.
async fn completed(response: reqwest::Response) -> Value {
    let mut text = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.expect("the stream ends properly"));
    }
    let text = String::from_utf8(text).expect("UTF-8");
    let chunks = text.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("it was cut: {text}"));
    let last = chunks.trim_end().rsplit("data: ").next().expect("a chunk");
    serde_json::from_str::<Value>(last).expect("JSON")["usage"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_leave_and_come_while_streams_run() {
    let _timed = crate::support::timed().await;
    let (names, port) = (NameServer::start().await, free_port());
    let workers = [At::start("127.0.0.2", port).await, At::start("127.0.0.3", port).await];
    let server = Server::start(&config(&names, port)).await;
    let name = |at: &At| format!("gpu/{}:{port}", at.address);

    // Nobody is found, and readiness says so.
    let (status, reasons) = server.ops("/readyz").await;
    assert_eq!(status, 503);
    let why = format!("smollm2-135m: no worker of gpu was found yet ({HOST}:{port}): ");
    assert!(reasons.contains(&why), "{reasons}");
    names.addresses(HOST, 1, &["127.0.0.2", "127.0.0.3"]);
    until("both workers", || well(&server) == workers.each_ref().map(name)).await;
    assert_eq!(server.ops("/readyz").await.0, 200);

    // The one that runs the stream leaves.
    let running = stream(&server, 1200).await;
    let pool = server.gateway().pool().workers();
    let busy = pool.iter().find(|worker| worker.leases() == 1).expect("one runs it").clone();
    let (leaving, staying) = if **busy.name() == *name(&workers[0]) { (0, 1) } else { (1, 0) };
    drop(pool);
    names.addresses(HOST, 1, &[workers[staying].address]);
    until("that it leaves", || server.gateway().pool().workers().len() == 1).await;
    assert_eq!(busy.leases(), 1, "the stream runs on");
    let short = completed(stream(&server, 5).await).await;
    assert_eq!(short["completion_tokens"], 5, "the other one serves");
    assert_eq!(busy.leases(), 1, "the stream still runs");
    let left = Arc::downgrade(&busy);
    drop(busy);
    assert!(left.upgrade().is_some(), "the stream holds it");
    assert_eq!(completed(running).await["completion_tokens"], 1200, "untouched");
    until("the end of the one that left, with its driver", || left.upgrade().is_none()).await;

    // A new one comes, and the old one goes: it serves alone.
    let new = At::start("127.0.0.4", port).await;
    names.addresses(HOST, 1, &[new.address]);
    until("the new one", || well(&server) == [name(&new)]).await;
    assert_eq!(completed(stream(&server, 5).await).await["completion_tokens"], 5);

    // One that comes back is taken again.
    names.addresses(HOST, 1, &[new.address, workers[leaving].address]);
    until("the one that comes back", || well(&server).contains(&name(&workers[leaving]))).await;

    server.stop().await;
    let asked = names.asked(HOST, RecordType::A);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(names.asked(HOST, RecordType::A), asked, "nobody asks after the end");
    for At { app, .. } in workers.into_iter().chain([new]) {
        tokio::time::timeout(Duration::from_secs(10), app.drain()).await.expect("it drains");
    }
}
