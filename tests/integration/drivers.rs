//! The conformance suite on the drivers whose engine is ours: in this process,
//! in another one, and behind another gateway's HTTP interface.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tenantry::engine::files::AdapterLimits;
use tenantry::engine::{self, kernels::Precision};
use tenantry::types::{BaseName, Secret};
use tenantry::worker::grpc::convert::key_to_pb;
use tenantry::worker::grpc::pb::load_adapter_request::Part;
use tenantry::worker::grpc::pb::{LoadAdapterHeader, LoadAdapterRequest, StatusRequest};
use tenantry::worker::{
    Driver, Embedded, EmbeddedConfig, Grpc, GrpcConfig, OpenAi, OpenAiConfig, RemoteConfig, ServedBase,
};

use crate::conformance::{self, Adapters, Bench, FIRST, Habits, STALL};
use crate::support::process::{Process, SOURCE, free_port, ready, worker_client, worker_config, worker_status};
use crate::support::{self, base_model, quickstart_like};

/// Rows of the engines here.
const ROWS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let _timed = support::timed().await;
    let engine = engine::Config { threads: 2, context: Some(2048), max_batch_rows: ROWS, ..engine::Config::default() };
    let config = EmbeddedConfig {
        precision: Precision::Fast,
        engine,
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
        places: ROWS as u64,
        habits: Habits::default(),
    };
    conformance::peaceful(&bench).await;
}

pub(crate) fn grpc_config(port: u16, bases: &[&str], key: Option<&str>) -> GrpcConfig {
    GrpcConfig {
        url: format!("http://127.0.0.1:{port}"),
        bases: bases.iter().map(|base| BaseName::new(*base)).collect(),
        key: key.map(Secret::new),
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: FIRST,
        stall_timeout: STALL,
        load_timeout: Duration::from_secs(20),
        poll_interval: Duration::from_millis(100),
    }
}

/// A bench over a worker's process.
fn grpc_bench(driver: Arc<Grpc>, base: &str, port: u16, process: &Process) -> Bench {
    let running = move || {
        async move {
            let status = worker_status(port).await;
            status.batch_rows + status.waiting
        }
        .boxed()
    };
    Bench {
        driver,
        base: BaseName::new(base),
        adapters: Adapters::Loadable,
        running: Box::new(running),
        process: Some(process.id()),
        places: ROWS as u64,
        habits: Habits::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc() {
    let _timed = support::timed().await;
    let port = free_port();
    let process = Process::start("worker", &worker_config(port, &format!("max_batch_rows = {ROWS}\n")));
    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2"], None)).expect("an address"));
    let bench = grpc_bench(driver, "smollm2", port, &process);
    let process = Mutex::new(process);
    conformance::healthy(&bench).await;
    let text = |base: &str, tokens: &'static [u32]| {
        let (driver, base) = (bench.driver.clone(), BaseName::new(base));
        async move { driver.text_of(&base, tokens).await }
    };
    // The special token between them is left out.
    assert_eq!(text("smollm2", &[27275, 0, 15958]).await.as_deref(), Some(" stupid fool"));
    assert_eq!(text("another", &[27275]).await, None);
    conformance::peaceful(&bench).await;
    conformance::violent(&bench, async || process.lock().expect("one test").restart()).await;
}

/// Another gateway, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn openai_to_another_gateway() {
    let _timed = support::timed().await;
    let (public, ops) = (free_port(), free_port());
    let config = quickstart_like("")
        .replacen("127.0.0.1:0", &format!("127.0.0.1:{public}"), 1)
        .replacen("127.0.0.1:0", &format!("127.0.0.1:{ops}"), 1)
        .replacen("context = 2048", &format!("context = 2048\nmax_batch_rows = {ROWS}"), 1);
    // Its guard would cut tokens at words, and what is counted here are tokens.
    let config =
        config + "[guard]\npolicy = \"off\"\n[guard.policies.off]\nprompt.mode = \"off\"\noutput.mode = \"off\"\n";
    let process = Mutex::new(Process::start("serve", &config));
    let client = crate::support::http_client().build().expect("a client");
    ready(&client, ops).await;

    let remote = RemoteConfig {
        url: format!("http://127.0.0.1:{public}/v1"),
        key: Some(Secret::new("sk-demo-acme")),
        models: vec![(BaseName::new("smollm2"), "smollm2-135m".to_owned())],
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: FIRST,
        stall_timeout: STALL,
        load_timeout: Duration::from_secs(2),
        poll_interval: Duration::from_millis(100),
    };
    let watching = client.clone();
    let running = move || sequences(watching.clone(), ops).boxed();
    let bench = Bench {
        driver: Arc::new(OpenAi::start(OpenAiConfig { remote }).expect("an address")),
        base: BaseName::new("smollm2"),
        adapters: Adapters::None,
        running: Box::new(running),
        process: Some(process.lock().expect("one test").id()),
        places: ROWS as u64,
        habits: Habits::default(),
    };
    conformance::peaceful(&bench).await;
    let restart = async || {
        let id = process.lock().expect("one test").restart();
        ready(&client, ops).await;
        id
    };
    conformance::violent(&bench, restart).await;
}

/// That run or wait at a gateway's engine, by its metrics.
async fn sequences(client: reqwest::Client, ops: u16) -> u64 {
    let url = format!("http://127.0.0.1:{ops}/metrics");
    let text = async {
        loop {
            // A connection that is kept may be to a process that has been killed.
            if let Ok(page) = client.get(&url).send().await
                && let Ok(text) = page.text().await
            {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(10), text).await.expect("an answer");
    // Those that the gateway keeps waiting are as good as at its worker.
    let gauges = ["tenantry_engine_batch_rows{", "tenantry_queue_depth{"];
    let lines = text.lines().filter(|line| gauges.iter().any(|gauge| line.starts_with(gauge)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Two base models in one worker, one memory budget, and a key to it.
#[tokio::test(flavor = "multi_thread")]
async fn one_worker_serves_several_bases_under_one_budget_and_asks_for_its_key() {
    let port = free_port();
    let key = tenantry::auth::KeyHash::of(b"worker-key");
    let more = format!("memory_bytes = \"700MiB\"\nadapter_bytes = \"64MiB\"\nkey = {{ sha256 = \"{key}\" }}\n");
    let model = base_model();
    let process =
        Process::start("worker", &(worker_config(port, &more) + &format!("[bases.second]\npath = {model:?}\n")));

    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2", "second"], Some("worker-key"))).expect("started"));
    let stranger = Grpc::start(grpc_config(port, &["smollm2"], Some("wrong"))).expect("started");
    let bench = |base: &str| grpc_bench(driver.clone(), base, port, &process);
    conformance::healthy(&bench("smollm2")).await;
    for base in ["smollm2", "second"] {
        conformance::answers_and_usage(&bench(base)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let why = stranger.status().unhealthy.expect("it is refused");
    assert!(why.contains("asks for its key"), "{why}");
    assert!(!why.contains("wrong"), "the key itself is not told");

    let mut request = tonic::Request::new(StatusRequest {});
    request.metadata_mut().insert("authorization", "Bearer worker-key".parse().expect("ASCII"));
    let status = worker_client(port).await.status(request).await.expect("it answers").into_inner();
    let memory = status.memory.expect("told");
    assert_eq!((memory.limit, memory.adapters_limit), (700 << 20, 64 << 20));
    assert_eq!(memory.weights + memory.kv_limit + memory.adapters_limit, memory.limit);
}

/// As many as its engine keeps waiting, on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_queue_is_full_is_still_told_about_and_loads() {
    const GENERATIONS: usize = 600;
    let port = free_port();
    let more = format!("max_batch_rows = {ROWS}\nqueue = {GENERATIONS}\n");
    let process = Process::start("worker", &worker_config(port, &more));
    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2"], None)).expect("an address"));
    let bench = grpc_bench(driver.clone(), "smollm2", port, &process);
    conformance::healthy(&bench).await;
    let held = bench.hold(GENERATIONS).await;
    let loading = tokio::time::timeout(Duration::from_secs(5), bench.load_one());
    loading.await.expect("a load waits for no generation");
    // Long enough for missed polls to tell.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = driver.status();
    assert_eq!(status.unhealthy, None);
    assert!(status.waiting > 256, "more than a connection usually has room for: {}", status.waiting);
    drop(held);
}

/// Both places for uploads are held by peers that send nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_gives_its_place_to_others() {
    let port = free_port();
    let process = Process::start("worker", &worker_config(port, ""));
    let driver = Arc::new(Grpc::start(grpc_config(port, &["smollm2"], None)).expect("an address"));
    let bench = grpc_bench(driver, "smollm2", port, &process);
    conformance::healthy(&bench).await;
    let mut uploads = Vec::new();
    for revision in 0..2 {
        let mut client = worker_client(port).await;
        let key = key_to_pb(&conformance::key("globex", "pirate", revision));
        let header = Part::Header(LoadAdapterHeader { key: Some(key), base: "smollm2".to_owned() });
        let parts = stream::iter([LoadAdapterRequest { part: Some(header) }]).chain(stream::pending());
        uploads.push(tokio::spawn(async move { client.load_adapter(parts).await }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.load_one().await;
    for upload in uploads {
        let answer = upload.await.expect("no panic").expect("an answer").into_inner();
        assert!(answer.error.expect("it was not loaded").detail.contains("standstill"));
    }
}
