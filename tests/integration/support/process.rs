//! Tenantry in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tenantry::worker::grpc::pb::worker_client::WorkerClient;
use tenantry::worker::grpc::pb::{StatusRequest, StatusResponse};
use tonic::transport::{Channel, Endpoint};

use super::base_model;

/// What the base model's adapters call it.
pub(crate) const SOURCE: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// One of the binary's long-running commands; ended with this.
pub(crate) struct Process {
    /// What becomes the binary: a command and its first arguments, or nothing.
    through: Vec<String>,
    command: &'static str,
    config: PathBuf,
    child: Child,
    // Holds the configuration file.
    _folder: TempDir,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// The file of a worker that serves the base model as `smollm2`; `more` is of
/// its `[worker]`.
pub(crate) fn worker_config(port: u16, more: &str) -> String {
    let model = base_model();
    format!(
        "[worker]\nlisten = \"127.0.0.1:{port}\"\nthreads = 2\ncontext = 2048\n{more}\
         [bases.smollm2]\npath = {model:?}\nsource = \"{SOURCE}\"\n"
    )
}

pub(crate) async fn worker_client(port: u16) -> WorkerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    WorkerClient::new(endpoint.connect().await.expect("the worker is there"))
}

/// What a worker says of itself.
pub(crate) async fn worker_status(port: u16) -> StatusResponse {
    worker_client(port).await.status(StatusRequest {}).await.expect("it answers").into_inner()
}

// === impl Process ===

impl Process {
    /// Runs `tenantry COMMAND --config FILE`.
    pub(crate) fn start(command: &'static str, config: &str) -> Self {
        Self::start_through(&[], command, config)
    }

    /// The same, begun by a command that becomes the one behind it.
    pub(crate) fn start_through(through: &[&str], command: &'static str, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantry.toml");
        std::fs::write(&file, config).expect("written");
        let through: Vec<String> = through.iter().map(|word| (*word).to_owned()).collect();
        Self { child: spawn(&through, command, &file), through, command, config: file, _folder: folder }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Another one in its place.
    pub(crate) fn restart(&mut self) -> u32 {
        self.end();
        self.begin()
    }

    /// Starts it again after its end.
    pub(crate) fn begin(&mut self) -> u32 {
        self.child = spawn(&self.through, self.command, &self.config);
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the process is there");
    }

    /// Waits for the end that a signal was sent for.
    pub(crate) fn wait(&mut self) {
        self.child.wait().expect("it ends");
    }

    /// Where its configuration is.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// As a crash would.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(through: &[String], command: &str, config: &Path) -> Child {
    const BINARY: &str = env!("CARGO_BIN_EXE_tenantry");
    let mut words = through.iter().map(String::as_str).chain([BINARY]);
    Command::new(words.next().unwrap_or(BINARY))
        .args(words)
        .args([command, "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

/// Waits for a gateway to be ready to serve.
pub(crate) async fn ready(client: &reqwest::Client, ops: u16) {
    let url = format!("http://127.0.0.1:{ops}/readyz");
    let ready = async {
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("it becomes ready");
}
