//! More base models than a worker has memory for: each answers all the same,
//! in this process and in another one.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tenantry::engine::files::{AdapterLimits, ModelFiles};
use tenantry::engine::{self, Footprint, kernels::Precision};
use tenantry::types::{
    AdapterKey, BaseName, Event, GenerateRequest, GenerationId, Input, Prompt, Route, Sampling, TenantId,
};
use tenantry::worker::grpc::pb::{MemoryUse, StatusRequest, StatusResponse};
use tenantry::worker::{
    AdapterLoad, Call, Driver, Embedded, EmbeddedConfig, EventSource, Grpc, Memory, ServedBase, WorkerError,
};

use crate::conformance::{artifacts, key};
use crate::drivers::grpc_config;
use crate::support::base_model;
use crate::support::process::{Process, SOURCE, free_port, worker_client};

const ADAPTERS: u64 = 64 << 20;
const CONTEXT: usize = 512;

/// What the base model takes on the fast path.
fn footprint() -> Footprint {
    let config = ModelFiles::read_config(&base_model()).expect("it opens");
    Footprint::of(&config, Precision::Fast).expect("it fits")
}

/// Room for `bases` at one time, with a context's keys and values to borrow beside those that each has of its own.
fn memory_for(bases: u64) -> u64 {
    let kv = footprint().kv(CONTEXT);
    ADAPTERS + bases * (footprint().weights + kv) + kv
}

fn config(memory_bytes: u64) -> EmbeddedConfig {
    EmbeddedConfig {
        precision: Precision::Fast,
        engine: engine::Config { threads: 2, context: Some(CONTEXT), ..engine::Config::default() },
        adapters: AdapterLimits { max_rank: 64, max_bytes: 64 << 20 },
        adapter_bytes: Some(ADAPTERS),
        memory_bytes: Some(memory_bytes),
    }
}

fn served(name: &str, path: PathBuf) -> ServedBase {
    ServedBase { name: BaseName::new(name), path, also_known_as: vec![SOURCE.to_owned()] }
}

/// `a`, `b` and `c`, all of them the same model.
fn worker(memory_bytes: u64) -> Embedded {
    let bases = ["a", "b", "c"].map(|name| served(name, base_model()));
    Embedded::start(&config(memory_bytes), bases.into()).expect("it starts")
}

fn call(base: &str, adapter: Option<&AdapterKey>, max_tokens: u32) -> Call {
    let request = GenerateRequest {
        route: Route::Completions,
        model: "any".to_owned(),
        input: Input::Prompts(vec![Prompt::Text("The sea is".to_owned())]),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: Some(max_tokens),
        choices: 1,
        logprobs: None,
        ignore_eos: true,
        timeout: None,
        extra: Default::default(),
    };
    Call {
        id: GenerationId::new(Default::default()),
        tenant: TenantId::new("acme"),
        base: BaseName::new(base),
        adapter: adapter.cloned(),
        request: Arc::new(request),
        trace: None,
    }
}

async fn rest(mut events: EventSource) -> Result<String, WorkerError> {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let Event::Delta(delta) = event? {
            text += &delta.text;
        }
    }
    Ok(text)
}

async fn text(driver: &dyn Driver, base: &str, adapter: Option<&AdapterKey>) -> Result<String, WorkerError> {
    rest(driver.generate(call(base, adapter, 12)).await?.events).await
}

fn load(key: &AdapterKey, base: &str) -> AdapterLoad {
    AdapterLoad { key: key.clone(), base: BaseName::new(base), folder: artifacts().join(&*key.name) }
}

fn cold(driver: &dyn Driver) -> Vec<String> {
    driver.status().cold.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_under_a_budget_for_two_answer_in_turn_and_never_take_more() {
    let memory = memory_for(2);
    let worker = worker(memory);
    assert_eq!(cold(&worker), ["c"], "the first that fit are loaded first");
    let expected = Memory {
        weights: 2 * footprint().weights,
        kv_limit: memory - ADAPTERS - 2 * footprint().weights,
        adapters: 0,
        adapters_limit: Some(ADAPTERS),
    };
    assert_eq!(worker.memory(), expected);
    let sea = text(&worker, "a", None).await.expect("it is loaded");
    assert!(!sea.is_empty());
    for (base, leaves) in [("b", "c"), ("c", "a"), ("a", "b"), ("b", "c"), ("c", "a")] {
        assert_eq!(text(&worker, base, None).await.expect("it is loaded"), sea, "the same model by another name");
        assert_eq!((cold(&worker), worker.memory()), (vec![leaves.to_owned()], expected));
    }
    assert_eq!(worker.status().unhealthy, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_generation_keeps_its_base_model() {
    let worker = worker(memory_for(2));
    let mut running = worker.generate(call("a", None, 400)).await.expect("it is loaded").events;
    running.next().await.expect("it begins").expect("it runs");
    text(&worker, "b", None).await.expect("it is loaded");
    text(&worker, "c", None).await.expect("it is loaded");
    assert_eq!(cold(&worker), ["b"], "though it was called before the other");
    let begun = rest(running).await.expect("it goes on to its end");
    assert!(begun.len() > 400, "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_one_that_is_not_loaded_wait_for_one_load() {
    let worker = Arc::new(worker(memory_for(1)));
    assert_eq!(cold(&*worker), ["b", "c"]);
    // Goes while it is being loaded.
    let asker = tokio::spawn({
        let worker = worker.clone();
        async move { text(&*worker, "b", None).await }
    });
    while cold(&*worker).len() < 3 {
        tokio::task::yield_now().await;
    }
    asker.abort();
    let answers = futures_util::future::join_all((0..8).map(|_| text(&*worker, "b", None))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|text| !text.is_empty())), "{answers:?}");
    assert_eq!(worker.memory().weights, footprint().weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_leave_with_their_base_model_and_are_loaded_again() {
    let worker = worker(memory_for(1));
    let pirate = key("acme", "pirate", 1);
    // The base model that it is for is loaded for it.
    worker.load_adapter(load(&pirate, "b")).await.expect("it is loaded");
    assert_eq!(cold(&worker), ["a", "c"]);
    let ahoy = text(&worker, "b", Some(&pirate)).await.expect("it is loaded");
    let held = worker.status().held.expect("told");
    assert_eq!(held.adapters, worker.adapters());
    assert_eq!((held.adapters.len(), &held.adapters[0].0), (1, &pirate));
    let missing = WorkerError::AdapterMissing(format!("{pirate} is not loaded here"));
    assert_eq!(text(&worker, "a", Some(&pirate)).await, Err(missing.clone()), "it is not that one's");

    let plain = text(&worker, "a", None).await.expect("it is loaded");
    assert_ne!(plain, ahoy);
    assert_eq!((worker.adapters(), worker.memory().adapters), (Vec::new(), 0));
    assert_eq!(worker.status().held.expect("told").adapters, []);
    assert_eq!(text(&worker, "b", Some(&pirate)).await, Err(missing));
    worker.load_adapter(load(&pirate, "b")).await.expect("it is loaded");
    assert_eq!(text(&worker, "b", Some(&pirate)).await, Ok(ahoy));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_base_models_that_want_one_place_for_their_adapters_both_get_it() {
    let worker = worker(memory_for(1));
    let use_it = async |base: &str, adapter: &str| {
        let adapter = key("acme", adapter, 1);
        worker.load_adapter(load(&adapter, base)).await?;
        text(&worker, base, Some(&adapter)).await
    };
    let (one, other) = tokio::join!(use_it("b", "pirate"), use_it("c", "json"));
    for answer in [one, other] {
        assert!(!answer.expect("both get it").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gives_way_for_an_adapter_that_does_not_fit() {
    let (pirate, rhyme) = (key("acme", "pirate", 1), key("acme", "rhyme", 1));
    let of = async |limit: u64| {
        let config = EmbeddedConfig { adapter_bytes: Some(limit), memory_bytes: None, ..config(0) };
        let worker = Embedded::start(&config, vec![served("a", base_model())]).expect("it starts");
        let loaded = worker.load_adapter(load(&pirate, "a")).await.map(|loaded| loaded.bytes);
        (worker, loaded)
    };
    let (worker, bytes) = of(1 << 30).await;
    let small = bytes.expect("it fits");
    let large = worker.load_adapter(load(&rhyme, "a")).await.expect("it fits").bytes;

    let limit = large - 1;
    let (worker, _) = of(limit).await;
    let why = format!("it takes {large} bytes, and all adapters together may take {limit} here");
    assert_eq!(worker.load_adapter(load(&rhyme, "a")).await, Err(WorkerError::AdapterInvalid(why)));
    assert_eq!(worker.adapters(), [(pirate.clone(), small)], "nothing has left for it");

    let (worker, _) = of(large).await;
    let mut running = worker.generate(call("a", Some(&pirate), 400)).await.expect("it is loaded").events;
    running.next().await.expect("it begins").expect("it runs");
    let why = format!("it takes {large} bytes, and of {large} those in use take {small}");
    assert_eq!(worker.load_adapter(load(&rhyme, "a")).await, Err(WorkerError::AdapterUnavailable(why)));
    assert_eq!(worker.adapters(), [(pirate, small)]);
    drop(running);
    // The batch lets go of it at its next step.
    let loaded = async {
        while worker.load_adapter(load(&rhyme, "a")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), loaded).await.expect("there is room");
    assert_eq!(worker.adapters(), [(rhyme, large)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_model_whose_file_is_gone_fails_alone_and_comes_back_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    symlink(base_model(), &path).expect("linked");
    let bases = vec![served("a", base_model()), served("b", path.clone())];
    let worker = Embedded::start(&config(memory_for(1)), bases).expect("it starts");
    std::fs::remove_file(&path).expect("it was there");
    let Err(WorkerError::Unavailable(why)) = text(&worker, "b", None).await else { panic!("it is gone") };
    assert!(why.starts_with("b cannot be loaded: ") && why.contains("model.gguf"), "{why}");
    assert_eq!(worker.status().unhealthy, None);
    text(&worker, "a", None).await.expect("it is loaded again");

    let tiny = crate::support::repository("tests/fixtures/tiny/llama3");
    symlink(tiny, &path).expect("linked");
    let replaced = async {
        loop {
            match text(&worker, "b", None).await {
                Err(WorkerError::Unavailable(why)) if why.contains("another model") => return,
                Err(WorkerError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), replaced).await.expect("it is tried again");
    std::fs::remove_file(&path).expect("it was there");
    symlink(base_model(), &path).expect("linked");
    let back = async {
        while text(&worker, "b", None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it is tried again");
}

#[test]
fn one_that_can_never_fit_is_named_at_the_start() {
    let bases = vec![served("a", base_model())];
    let Err(error) = Embedded::start(&config(memory_for(1) - footprint().kv(CONTEXT) - 1), bases) else {
        panic!("it is too large by one byte")
    };
    let told = error.to_string();
    assert!(told.contains("base model a needs 1 more: its weights take"), "{told}");
}

/// Threads of the process by the beginning of their names.
fn threads(process: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|task| task.starts_with(name)).count()
}

/// In bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_serves_more_than_it_has_memory_for() {
    let (port, memory) = (free_port(), memory_for(2));
    let mut toml = format!(
        "[worker]\nlisten = \"127.0.0.1:{port}\"\nthreads = 2\ncontext = {CONTEXT}\nmemory_bytes = {memory}\n\
         adapter_bytes = {ADAPTERS}\n"
    );
    for base in ["a", "b", "c"] {
        toml += &format!("[bases.{base}]\npath = {:?}\nsource = \"{SOURCE}\"\n", base_model());
    }
    let process = Process::start("worker", &toml);
    let driver = Grpc::start(grpc_config(port, &["a", "b", "c"], None)).expect("an address");
    let there = async {
        while driver.status().unhealthy.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), there).await.expect("it starts");
    assert_eq!(cold(&driver), ["c"]);
    let mut client = worker_client(port).await;
    let mut status = async || -> StatusResponse { client.status(StatusRequest {}).await.expect("told").into_inner() };

    let pirate = key("acme", "pirate", 1);
    driver.load_adapter(load(&pirate, "a")).await.expect("it is loaded");
    let ahoy = text(&driver, "a", Some(&pirate)).await.expect("it is loaded");
    assert_eq!(status().await.adapters.len(), 1);
    // A base keeps its place for a moment after an adapter was loaded for it.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let sea = text(&driver, "b", None).await.expect("it is loaded");
    for (base, leaves) in [("c", "a"), ("a", "b"), ("b", "c"), ("c", "a")] {
        assert_eq!(text(&driver, base, None).await, Ok(sea.clone()));
        let told = status().await;
        assert_eq!((told.cold, told.adapters.len(), told.unhealthy), (vec![leaves.to_owned()], 0, None));
        let MemoryUse { limit, weights, kv_limit, adapters, adapters_limit } = told.memory.expect("told");
        assert_eq!((limit, adapters), (memory, 0));
        assert_eq!((weights, weights + kv_limit + adapters_limit), (2 * footprint().weights, memory));
        assert_eq!(threads(process.id(), "tenantry-engine"), 2, "those of the one that left have ended");
        assert_eq!(threads(process.id(), "tenantry-comput"), 2);
    }
    // What left was given back; the allocator takes a moment, and the process has memory of its own.
    let most = memory + footprint().weights / 2;
    let settles = async {
        while resident(process.id()) > most {
            let _ = status().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(20), settles).await;
    assert!(settled.is_ok(), "{} resident, {most} allowed", resident(process.id()));

    let missing = text(&driver, "a", Some(&pirate)).await;
    assert!(matches!(missing, Err(WorkerError::AdapterMissing(_))), "{missing:?}");
    driver.load_adapter(load(&pirate, "a")).await.expect("it is loaded");
    assert_eq!(text(&driver, "a", Some(&pirate)).await, Ok(ahoy));
}
