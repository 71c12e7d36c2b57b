//! The conformance suite on the drivers whose engine is ours: in this process,
//! in another one, and behind another gateway's HTTP interface.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tenantry::engine::files::AdapterLimits;
use tenantry::engine::{self, kernels::Precision};
use tenantry::types::{BaseName, Secret};
use tenantry::worker::grpc::pb::StatusRequest;
use tenantry::worker::grpc::pb::worker_client::WorkerClient;
use tenantry::worker::{
    Driver, Embedded, EmbeddedConfig, Grpc, GrpcConfig, OpenAi, OpenAiConfig, RemoteConfig, ServedBase,
};

use tonic::transport::{Channel, Endpoint};

use crate::conformance::{self, Adapters, Bench, STALL};
use crate::support::{Server, base_model, quickstart_like};

pub(crate) const SOURCE: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let config = EmbeddedConfig {
        precision: Precision::Fast,
        engine: engine::Config { threads: 2, context: Some(2048), ..engine::Config::default() },
        adapters: AdapterLimits { max_rank: 64, max_bytes: 64 << 20 },
        adapter_bytes: None,
        memory_bytes: None,
    };
    let base = BaseName::new("smollm2");
    let served = ServedBase { name: base.clone(), path: base_model(), also_known_as: vec![SOURCE.to_owned()] };
    let driver = Arc::new(Embedded::start(&config, vec![served]).expect("it starts"));
    let watched = driver.clone();
    let running = move || {
        let status = watched.status();
        std::future::ready(status.batch_rows + status.waiting).boxed()
    };
    let bench = Bench {
        driver,
        base,
        adapters: Adapters::Loadable,
        running: Box::new(running),
        process: None,
        prompt_step: Duration::ZERO,
    };
    conformance::peaceful(&bench).await;
}

/// A worker's process; ended with this.
pub(crate) struct Process {
    child: Child,
    config: std::path::PathBuf,
}

impl Process {
    pub(crate) fn start(config: &std::path::Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tenantry"))
            .args(["worker", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        Self { child, config: config.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn restart(&mut self) -> u32 {
        self.child.kill().expect("it was there");
        self.child.wait().expect("it ends");
        *self = Self::start(&self.config.clone());
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

pub(crate) async fn client(port: u16) -> WorkerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    WorkerClient::new(endpoint.connect().await.expect("the worker is there"))
}

fn worker_config(port: u16, more: &str) -> String {
    let model = base_model();
    format!(
        "[worker]\nlisten = \"127.0.0.1:{port}\"\nthreads = 2\ncontext = 2048\n{more}\
         [bases.smollm2]\npath = {model:?}\nsource = \"{SOURCE}\"\n"
    )
}

pub(crate) fn grpc_config(port: u16, bases: &[&str], key: Option<&str>) -> GrpcConfig {
    GrpcConfig {
        url: format!("http://127.0.0.1:{port}"),
        bases: bases.iter().map(|base| BaseName::new(*base)).collect(),
        key: key.map(Secret::new),
        connect_timeout: Duration::from_secs(2),
        stall_timeout: STALL,
        load_timeout: Duration::from_secs(20),
        poll_interval: Duration::from_millis(100),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, port) = (folder.path().join("worker.toml"), free_port());
    std::fs::write(&file, worker_config(port, "")).expect("written");
    let process = Mutex::new(Process::start(&file));
    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2"], None)).expect("an address"));
    let running = move || {
        async move {
            let mut client = client(port).await;
            let status = client.status(StatusRequest {}).await.expect("it answers").into_inner();
            status.batch_rows + status.waiting
        }
        .boxed()
    };
    let pid = process.lock().expect("one test").child.id();
    let bench = Bench {
        driver,
        base: BaseName::new("smollm2"),
        adapters: Adapters::Loadable,
        running: Box::new(running),
        process: Some(pid),
        prompt_step: Duration::ZERO,
    };
    conformance::healthy(&bench).await;
    conformance::peaceful(&bench).await;
    conformance::violent(&bench, async || process.lock().expect("one test").restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_to_another_gateway() {
    Server::with_config(&quickstart_like(""), |server| async move {
        let watched = server.clone();
        let running = move || std::future::ready(watched.held().sequences).boxed();
        let remote = RemoteConfig {
            url: server.url("/v1"),
            key: Some(Secret::new("sk-demo-acme")),
            models: vec![(BaseName::new("smollm2"), "smollm2-135m".to_owned())],
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(30),
            stall_timeout: STALL,
            load_timeout: Duration::from_secs(2),
            poll_interval: Duration::from_millis(100),
        };
        let bench = Bench {
            driver: Arc::new(OpenAi::start(OpenAiConfig { remote }).expect("an address")),
            base: BaseName::new("smollm2"),
            adapters: Adapters::None,
            running: Box::new(running),
            process: None,
            prompt_step: Duration::ZERO,
        };
        conformance::peaceful(&bench).await;
    })
    .await;
}

/// Two base models in one worker, one memory budget, and a key to it.
#[tokio::test(flavor = "multi_thread")]
async fn one_worker_serves_several_bases_under_one_budget_and_asks_for_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, port) = (folder.path().join("worker.toml"), free_port());
    let key = tenantry::auth::KeyHash::of(b"worker-key");
    let more = format!("memory_bytes = \"700MiB\"\nadapter_bytes = \"64MiB\"\nkey = {{ sha256 = \"{key}\" }}\n");
    let model = base_model();
    let text = worker_config(port, &more) + &format!("[bases.second]\npath = {model:?}\n");
    std::fs::write(&file, text).expect("written");
    let _process = Process::start(&file);

    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2", "second"], Some("worker-key"))).expect("started"));
    let stranger = Grpc::start(grpc_config(port, &["smollm2"], Some("wrong"))).expect("started");
    let bench = |base: &str| Bench {
        driver: driver.clone(),
        base: BaseName::new(base),
        adapters: Adapters::Loadable,
        running: Box::new(|| std::future::ready(0).boxed()),
        process: None,
        prompt_step: Duration::ZERO,
    };
    conformance::healthy(&bench("smollm2")).await;
    for base in ["smollm2", "second"] {
        conformance::answers_and_usage(&bench(base)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let why = stranger.status().unhealthy.expect("it is refused");
    assert!(why.contains("asks for its key"), "{why}");
    assert!(!why.contains("wrong"), "the key itself is not told");

    let mut client = client(port).await;
    let mut request = tonic::Request::new(StatusRequest {});
    request.metadata_mut().insert("authorization", "Bearer worker-key".parse().expect("ASCII"));
    let status = client.status(request).await.expect("it answers").into_inner();
    let memory = status.memory.expect("told");
    assert_eq!((memory.limit, memory.adapters_limit), (700 << 20, 64 << 20));
    assert_eq!(memory.weights + memory.kv_limit + memory.adapters_limit, memory.limit);
}
