//! vLLM's driver against a server that keeps a state as vLLM does: another
//! start, another version, asleep or awake.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::*;
use crate::types::AdapterKey;
use crate::worker::AdapterLoad;
use crate::worker::http::{Vllm, VllmConfig};

#[derive(Clone)]
struct Fake(Arc<Mutex<Engine>>);

struct Engine {
    start: u32,
    version: &'static str,
    models: Vec<String>,
    /// More of what `/metrics` says.
    metrics: String,
    /// `None` where it has no sleep mode.
    asleep: Option<bool>,
    wakes_after: Duration,
    loads_after: Duration,
    /// What it was asked, but for what every look asks.
    asked: Vec<String>,
}

// === impl Fake ===

impl Fake {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Engine {
            start: 1,
            version: "0.32.0",
            models: vec!["m".to_owned()],
            metrics: String::new(),
            asleep: None,
            wakes_after: Duration::ZERO,
            loads_after: Duration::ZERO,
            asked: Vec::new(),
        })))
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.0.lock().expect("no test panics while it holds this")
    }

    fn set(&self, change: impl FnOnce(&mut Engine)) {
        change(&mut self.engine());
    }

    fn asked(&self, what: &str) -> usize {
        self.engine().asked.iter().filter(|asked| *asked == what).count()
    }

    /// Serves it for as long as the test runs.
    async fn driver(&self, sleep_after: Option<Duration>) -> Arc<Vllm> {
        let server = Server::new().await;
        let remote = RemoteConfig {
            first_byte_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_millis(20),
            ..server.remote("")
        };
        let router = axum::Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(server.listener, router).await });
        let driver = Arc::new(Vllm::start(VllmConfig { remote, sleep_after }).expect("a good URL"));
        until(|| driver.status().unhealthy.is_none()).await;
        driver
    }
}

/// The questions of every look, which nobody counts.
fn looked(engine: &Engine, path: &str) -> Option<Response> {
    Some(match path {
        "/health" => StatusCode::OK.into_response(),
        "/metrics" => format!("process_start_time_seconds {}\n{}", engine.start, engine.metrics).into_response(),
        "/v1/models" => {
            let cards: Vec<Value> = engine.models.iter().map(|id| json!({ "id": id })).collect();
            json!({ "data": cards }).to_string().into_response()
        }
        "/is_sleeping" => json!({ "is_sleeping": engine.asleep? }).to_string().into_response(),
        _ => return None,
    })
}

async fn answer(State(fake): State<Fake>, method: Method, uri: Uri) -> Response {
    let path = uri.path_and_query().map_or("", |it| it.as_str());
    if let Some(answer) = looked(&fake.engine(), path) {
        return answer;
    }
    fake.set(|engine| engine.asked.push(path.to_owned()));
    let (asleep, wakes_after, loads_after) = {
        let engine = fake.engine();
        (engine.asleep, engine.wakes_after, engine.loads_after)
    };
    match (method, path) {
        (_, "/version") => json!({ "version": fake.engine().version }).to_string().into_response(),
        (Method::POST, "/sleep?level=1&mode=wait") => {
            fake.set(|engine| engine.asleep = Some(true));
            StatusCode::OK.into_response()
        }
        (Method::POST, "/wake_up") => {
            tokio::time::sleep(wakes_after).await;
            fake.set(|engine| engine.asleep = Some(false));
            StatusCode::OK.into_response()
        }
        (Method::POST, "/v1/load_lora_adapter") if asleep != Some(true) => {
            tokio::time::sleep(loads_after).await;
            StatusCode::OK.into_response()
        }
        (Method::POST, "/v1/chat/completions") if asleep != Some(true) => {
            let end = r#"{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
            format!("data: {}\n\ndata: {end}\n\ndata: [DONE]\n\n", piece("Hello", "\"stop\"")).into_response()
        }
        (_, "/is_sleeping") => StatusCode::NOT_FOUND.into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An adapter whose files are in `folder`.
fn load(folder: &Path) -> AdapterLoad {
    std::fs::write(folder.join("adapter_model.safetensors"), [0; 7]).expect("written");
    let digest = "d".repeat(64).into();
    let key = AdapterKey { tenant: TenantId::new("acme"), name: "a".into(), revision: 1, digest };
    AdapterLoad { key, base: BaseName::new("base"), folder: folder.to_owned() }
}

async fn until(holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(5), "it should come to hold");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn another_run_of_the_engine_is_asked_anew_for_its_version() {
    let fake = Fake::new();
    fake.engine().version = "0.24.0";
    let driver = fake.driver(None).await;
    assert!(driver.loads_only_when_idle(), "it mixes up adapters while one is loaded");

    fake.set(|engine| {
        (engine.start, engine.version) = (2, "0.25.0");
    });
    until(|| !driver.loads_only_when_idle()).await;
    assert_eq!(fake.asked("/version"), 2, "once of each");

    fake.set(|engine| {
        (engine.start, engine.version) = (3, "0.9.2");
    });
    until(|| driver.loads_only_when_idle()).await;
}

/// lessons 3: `vllm:lora_requests_info` lists adapters with requests under way;
/// idle ones look absent. Resident is what `/v1/models` lists.
#[tokio::test]
async fn an_idle_adapter_that_is_listed_stays_resident() {
    let fake = Fake::new();
    let digest = "d".repeat(64);
    let of = |name: &str| format!("acme/{name}@1-{digest}");
    let info = |running: &str| {
        format!(
            "vllm:lora_requests_info{{max_lora=\"2\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}} 1.7e9\n"
        )
    };
    fake.set(|engine| {
        engine.models.extend([of("busy"), of("idle")]);
        engine.metrics = info(&of("busy")) + &info(&of("gone")) + "vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\n";
    });
    let driver = fake.driver(None).await;
    let status = driver.status();
    assert_eq!(status.kv_used, Some(0.5));
    let held = status.held.expect("it says what it holds");
    let mut names: Vec<&str> = held.adapters.iter().map(|(key, _)| &*key.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["busy", "idle"], "by what is listed, and not by what is busy");
}

/// lessons 9: a load has a time limit of its own.
#[tokio::test]
async fn a_load_that_does_not_end_is_given_up_and_nobody_else_waits_for_it() {
    let fake = Fake::new();
    fake.engine().loads_after = Duration::from_secs(60);
    let driver = fake.driver(None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let since = Instant::now();
    let (loaded, answered) = tokio::join!(driver.load_adapter(load(folder.path())), async {
        let answered = run(&*driver).await.map(|events| text(&events));
        assert!(since.elapsed() < Duration::from_secs(1));
        answered
    });
    assert_eq!(loaded, Err(WorkerError::AdapterUnavailable("it did not answer in time".to_owned())));
    assert_eq!(answered.as_deref(), Ok("Hello"));
}

#[tokio::test]
async fn a_sleeping_engine_is_healthy_and_cold_and_is_woken_once_for_all() {
    let fake = Fake::new();
    fake.set(|engine| {
        (engine.asleep, engine.wakes_after) = (Some(true), Duration::from_millis(300));
    });
    let driver = fake.driver(None).await;
    until(|| driver.status().cold == [BaseName::new("base")]).await;
    assert_eq!(driver.status().unhealthy, None);

    let asking = |driver: Arc<Vllm>| tokio::spawn(async move { run(&*driver).await.map(|events| text(&events)) });
    // The first to ask leaves; what it began goes on for the others.
    let first = asking(driver.clone());
    until(|| fake.asked("/wake_up") == 1).await;
    first.abort();
    let others = [asking(driver.clone()), asking(driver.clone())];
    for other in others {
        assert_eq!(other.await.expect("no panic").as_deref(), Ok("Hello"));
    }
    assert_eq!(fake.asked("/wake_up"), 1);
    until(|| driver.status().cold.is_empty()).await;

    // And nobody waits for one that has left.
    fake.engine().asleep = Some(true);
    until(|| !driver.status().cold.is_empty()).await;
    let alone = asking(driver.clone());
    until(|| fake.asked("/wake_up") == 2).await;
    alone.abort();
    until(|| driver.status().cold.is_empty()).await;
}

#[tokio::test]
async fn an_engine_that_does_not_wake_up_is_not_waited_for_without_end() {
    let fake = Fake::new();
    fake.set(|engine| {
        (engine.asleep, engine.wakes_after) = (Some(true), Duration::from_secs(60));
    });
    let driver = fake.driver(None).await;
    until(|| !driver.status().cold.is_empty()).await;
    let failed = run(&*driver).await;
    let Err(WorkerError::Unavailable(why)) = failed else { panic!("{failed:?}") };
    assert_eq!(why, "it sleeps and does not wake up: it takes longer than 2 seconds");
}

#[tokio::test]
async fn an_engine_that_nobody_needs_is_put_to_sleep_and_a_load_wakes_it() {
    const AFTER: Duration = Duration::from_millis(200);
    let fake = Fake::new();
    fake.set(|engine| {
        engine.asleep = Some(false);
        engine.metrics = "vllm:num_requests_running 1\n".to_owned();
    });
    let driver = fake.driver(Some(AFTER)).await;
    tokio::time::sleep(AFTER * 2).await;
    assert_eq!(fake.asked("/sleep?level=1&mode=wait"), 0, "another's request runs");

    // A call of ours that is not read to its end.
    let held = driver.generate(call(request())).await.expect("started");
    fake.engine().metrics.clear();
    tokio::time::sleep(AFTER * 2).await;
    assert_eq!(fake.asked("/sleep?level=1&mode=wait"), 0, "a call of ours is there");
    let since = Instant::now();
    drop(held);
    until(|| !driver.status().cold.is_empty()).await;
    assert!(since.elapsed() >= AFTER);

    until(|| fake.engine().asleep == Some(true)).await;
    let folder = tempfile::tempdir().expect("a folder");
    driver.load_adapter(load(folder.path())).await.expect("its memory is there");
    assert_eq!((fake.asked("/wake_up"), fake.asked("/sleep?level=1&mode=wait")), (1, 1));
}

#[tokio::test]
async fn an_engine_without_a_sleep_mode_is_asked_once() {
    let fake = Fake::new();
    let driver = fake.driver(Some(Duration::from_millis(1))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fake.asked("/is_sleeping"), 1);
    assert!(driver.status().cold.is_empty());
    fake.engine().start = 2;
    until(|| fake.asked("/is_sleeping") == 2).await;
    assert_eq!(fake.asked("/sleep?level=1&mode=wait"), 0);
}
