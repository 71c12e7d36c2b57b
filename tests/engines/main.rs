//! The conformance suite on other people's engines, real ones: vLLM and
//! llama.cpp. `make test-engines` installs them and runs this; it is no part
//! of `cargo test`, since they take gigabytes and minutes.

#[path = "../conformance/mod.rs"]
mod conformance;
mod engine;
mod publish;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tenantry::types::{BaseName, TenantId};
use tenantry::worker::{Driver, FixedAdapter, LlamaCpp, LlamaCppConfig, OpenAi, OpenAiConfig, Vllm, VllmConfig};

use conformance::{Adapters, Bench, Habits};
use engine::Engine;

/// Both read a prompt in steps that they do not break off, and say nothing of
/// themselves meanwhile; their figures are those of the last step.
const HABITS: Habits = Habits { lag: Duration::from_millis(150), prompt_step: Duration::from_secs(5) };
/// vLLM also ends a step of decoding first, 0.2 s for one row on two cores and longer for six, and gives its account
/// after it.
const VLLM_HABITS: Habits = Habits { lag: Duration::from_millis(700), ..HABITS };

/// llama.cpp is started with as many; vLLM is told to have no more.
const LLAMACPP_PLACES: u64 = 8;
const VLLM_PLACES: u64 = 6;

/// A client, once the process has a provider for its TLS.
fn client() -> reqwest::Client {
    // A second call changes nothing.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// A page of the engine's own.
async fn page(url: String) -> String {
    let page = client().get(url).send().await.expect("the engine is there");
    page.text().await.expect("text")
}

/// A bench of vLLM, by one of the drivers that speak with it.
fn vllm_bench(driver: Arc<dyn Driver>, adapters: Adapters, process: Option<u32>, port: u16) -> Bench {
    let (base, running) = (BaseName::new("smollm2"), vllm_running(port));
    Bench { driver, base, adapters, running, process, places: VLLM_PLACES, habits: VLLM_HABITS }
}

type Running = Box<dyn Fn() -> BoxFuture<'static, u64> + Send + Sync>;

/// The sum of vLLM's gauges of running and waiting requests.
fn vllm_running(port: u16) -> Running {
    Box::new(move || {
        async move {
            let text = page(format!("http://127.0.0.1:{port}/metrics")).await;
            let gauges = ["vllm:num_requests_running{", "vllm:num_requests_waiting{"];
            let lines = text.lines().filter(|line| gauges.iter().any(|gauge| line.starts_with(gauge)));
            let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            lines.filter_map(value).sum::<f64>() as u64
        }
        .boxed()
    })
}

/// llama.cpp's slots that work, and requests that wait for one, there or at the driver.
fn llamacpp_running(port: u16, driver: Arc<LlamaCpp>) -> Running {
    Box::new(move || {
        let driver = driver.clone();
        async move {
            // Its own account of what waits is as old as the last look.
            let waiting = driver.waiting();
            let slots = page(format!("http://127.0.0.1:{port}/slots")).await;
            let metrics = page(format!("http://127.0.0.1:{port}/metrics")).await;
            let deferred = metrics.lines().find_map(|line| line.strip_prefix("llamacpp:requests_deferred "));
            let deferred = deferred.and_then(|count| count.parse::<f64>().ok()).expect("it counts them");
            slots.matches("\"is_processing\":true").count() as u64 + deferred as u64 + waiting
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn llamacpp() {
    let engine = Mutex::new(Engine::start("start-llamacpp.sh", &[]));
    let (port, pid) = engine.lock().map(|it| (it.port(), it.id())).expect("one test");
    let fixed = |name: &str| FixedAdapter {
        tenant: TenantId::new("acme"),
        name: name.into(),
        revision: 1,
        file: format!("{name}.gguf"),
    };
    let remote = engine.lock().expect("one test").remote("");
    let config = LlamaCppConfig { remote, adapters: vec![fixed("pirate"), fixed("json")] };
    let driver = Arc::new(LlamaCpp::start(config).expect("an address"));
    let (base, running) = (BaseName::new("smollm2"), llamacpp_running(port, driver.clone()));
    let (adapters, process) = (Adapters::Fixed, Some(pid));
    let bench = Bench { driver, base, adapters, running, process, places: LLAMACPP_PLACES, habits: HABITS };
    conformance::healthy(&bench).await;
    conformance::peaceful(&bench).await;
    conformance::violent(&bench, async || engine.lock().expect("one test").restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm() {
    let started = Instant::now();
    let engine = Mutex::new(Engine::start("start-vllm.sh", &["--max-num-seqs", "6"]));
    let (port, pid) = engine.lock().map(|it| (it.port(), it.id())).expect("one test");
    let config = VllmConfig { remote: engine.lock().expect("one test").remote(""), sleep_after: None };
    let driver = Arc::new(Vllm::start(config).expect("an address"));
    let bench = vllm_bench(driver, Adapters::Loadable, Some(pid), port);
    conformance::healthy(&bench).await;
    println!("vllm: ready after {:.1} s", started.elapsed().as_secs_f64());
    publish::to_first_token(port).await;
    conformance::peaceful(&bench).await;

    // Any OpenAI-compatible endpoint, of which this is one.
    let remote = engine.lock().expect("one test").remote("/v1");
    let openai = Arc::new(OpenAi::start(OpenAiConfig { remote }).expect("an address"));
    let plain = vllm_bench(openai, Adapters::None, None, port);
    conformance::peaceful(&plain).await;

    conformance::violent(&bench, async || engine.lock().expect("one test").restart()).await;
}
