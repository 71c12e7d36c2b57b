//! The conformance suite on other people's engines, real ones: vLLM and
//! llama.cpp. `make test-engines` installs them and runs this; it is no part
//! of `cargo test`, since they take gigabytes and minutes.

#[path = "../conformance/mod.rs"]
mod conformance;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tenantry::types::{BaseName, TenantId};
use tenantry::worker::{
    AdapterLoad, Driver, FixedAdapter, LlamaCpp, LlamaCppConfig, OpenAi, OpenAiConfig, RemoteConfig, Vllm, VllmConfig,
};

use conformance::{Adapters, Bench, STALL, artifacts, key};

/// Both read a prompt in steps that they do not break off.
const PROMPT_STEP: Duration = Duration::from_secs(5);

/// A server started by one of our scripts, and all that it started.
struct Engine {
    script: &'static str,
    port: u16,
    child: Child,
}

// === impl Engine ===

impl Engine {
    fn start(script: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        Self { script, port, child: Self::spawn(script, port) }
    }

    fn spawn(script: &str, port: u16) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
        Command::new("bash")
            .arg(script)
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the script runs")
    }

    fn restart(&mut self) -> u32 {
        self.end();
        self.child = Self::spawn(self.script, self.port);
        self.child.id()
    }

    /// Ends the process group: an engine may have several processes.
    fn end(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn remote(&self, path: &str) -> RemoteConfig {
        RemoteConfig {
            url: format!("http://127.0.0.1:{}{path}", self.port),
            key: None,
            models: vec![(BaseName::new("smollm2"), "smollm2".to_owned())],
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(30),
            stall_timeout: STALL,
            load_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(200),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

/// A page of the engine's own.
async fn page(url: String) -> String {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let page = reqwest::get(url).await.expect("the engine is there");
    page.text().await.expect("text")
}

fn bench(driver: Arc<dyn Driver>, adapters: Adapters, process: u32, running: Running) -> Bench {
    Bench {
        driver,
        base: BaseName::new("smollm2"),
        adapters,
        running,
        process: Some(process),
        prompt_step: PROMPT_STEP,
    }
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

/// llama.cpp's slots that work.
fn llamacpp_running(port: u16) -> Running {
    Box::new(move || {
        async move {
            let text = page(format!("http://127.0.0.1:{port}/slots")).await;
            text.matches("\"is_processing\":true").count() as u64
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn llamacpp() {
    let engine = Mutex::new(Engine::start("start-llamacpp.sh"));
    let (port, pid) = engine.lock().map(|it| (it.port, it.child.id())).expect("one test");
    let fixed = |name: &str| FixedAdapter {
        tenant: TenantId::new("acme"),
        name: name.into(),
        revision: 1,
        file: format!("{name}.gguf"),
    };
    let remote = engine.lock().expect("one test").remote("");
    let config = LlamaCppConfig { remote, adapters: vec![fixed("pirate"), fixed("json")] };
    let driver = Arc::new(LlamaCpp::start(config).expect("an address"));
    let bench = bench(driver, Adapters::Fixed, pid, llamacpp_running(port));
    conformance::healthy(&bench).await;
    conformance::peaceful(&bench).await;
    conformance::violent(&bench, async || engine.lock().expect("one test").restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm() {
    let started = Instant::now();
    let engine = Mutex::new(Engine::start("start-vllm.sh"));
    let (port, pid) = engine.lock().map(|it| (it.port, it.child.id())).expect("one test");
    let driver =
        Arc::new(Vllm::start(VllmConfig { remote: engine.lock().expect("one test").remote("") }).expect("an address"));
    let bench = bench(driver.clone(), Adapters::Loadable, pid, vllm_running(port));
    conformance::healthy(&bench).await;
    println!("vllm: ready after {:.1} s", started.elapsed().as_secs_f64());
    time_to_first_token(&bench).await;
    conformance::peaceful(&bench).await;

    // Any OpenAI-compatible endpoint, of which this is one.
    let remote = engine.lock().expect("one test").remote("/v1");
    let openai = Arc::new(OpenAi::start(OpenAiConfig { remote }).expect("an address"));
    let plain = Bench {
        driver: openai,
        adapters: Adapters::None,
        running: vllm_running(port),
        base: bench.base.clone(),
        process: None,
        prompt_step: PROMPT_STEP,
    };
    conformance::peaceful(&plain).await;

    conformance::violent(&bench, async || engine.lock().expect("one test").restart()).await;
}

/// How long a new adapter takes from its load to its first token.
async fn time_to_first_token(bench: &Bench) {
    let since = Instant::now();
    let key = key("acme", "pirate", 77);
    let folder: PathBuf = artifacts().join("pirate");
    let load = AdapterLoad { key: key.clone(), base: bench.base.clone(), folder };
    bench.driver.load_adapter(load).await.expect("loaded");
    let loaded = since.elapsed();
    bench.first_event(&key).await;
    let (load, first) = (loaded.as_secs_f64() * 1e3, since.elapsed().as_secs_f64() * 1e3);
    println!("vllm: an adapter loaded in {load:.0} ms, its first token after {first:.0} ms");
    bench.driver.unload_adapter(key).await.expect("unloaded");
}
