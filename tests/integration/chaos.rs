//! Workers that die, stand still and come back while requests go on: every
//! request ends in an answer or a typed error, no adapter answers for another,
//! and nothing is held afterwards.
//!
//! How the answers are checked: greedy answers do not depend on what else is
//! in a batch, so an engine of this process, which nothing disturbs, first says
//! what each artifact answers to each question; every answer of the gateway is
//! then compared with that, text for text.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tenantry::engine::files::AdapterLimits;
use tenantry::engine::{self, kernels::Precision};
use tenantry::types::{
    AdapterKey, BaseName, Event, GenerateRequest, GenerationId, Input, Message, Role, Route, Sampling, TenantId,
};
use tenantry::worker::{AdapterLoad, Call, Driver, Embedded, EmbeddedConfig, ServedBase};

use crate::conformance::{artifacts, key};
use crate::support::process::{Process, SOURCE, free_port};
use crate::support::{Server, alone, base_model};

const BASE: &str = "smollm2-135m";
const WORKERS: usize = 3;
const CLIENTS: usize = 12;
const TOKENS: u32 = 4;
/// The chaos lasts as long, and until so many answers were checked.
const SPAN: Duration = Duration::from_secs(120);
const ANSWERS: u64 = 5_000;
/// A slow machine gets more time for them.
const LONGEST: Duration = Duration::from_secs(900);
/// A request that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

const QUESTIONS: [&str; 6] =
    ["What is the sea?", "Who are you?", "What do rabbits eat?", "Where is Paris?", "Why is it dark?", "Say hello."];

/// A model's name, and the artifact behind it.
type Model = (&'static str, Option<&'static str>);

/// Each tenant's models, and the artifact behind each. Names are the same for
/// all tenants: what they lead to is not.
const MODELS: [(&str, [Model; 3]); 3] = [
    ("acme", [("one", Some("pirate")), ("two", Some("json")), (BASE, None)]),
    ("globex", [("one", Some("json")), ("two", Some("rhyme")), (BASE, None)]),
    ("initech", [("one", Some("rhyme")), ("two", Some("pirate")), (BASE, None)]),
];

/// What each artifact, or the base, answers to each question.
type Expected = HashMap<(Option<&'static str>, usize), String>;

#[derive(Default)]
struct Tally {
    answers: AtomicU64,
    errors: AtomicU64,
    left: AtomicU64,
    stop: AtomicBool,
}

/// Pseudo-random numbers (SplitMix64), so that a run can be told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }
}

fn messages(question: usize) -> Vec<(Role, &'static str)> {
    vec![(Role::System, "Be brief."), (Role::User, QUESTIONS[question])]
}

async fn expected() -> Expected {
    let config = EmbeddedConfig {
        precision: Precision::Fast,
        engine: engine::Config { threads: 2, context: Some(2048), ..engine::Config::default() },
        adapters: AdapterLimits { max_rank: 64, max_bytes: 64 << 20 },
        adapter_bytes: None,
        memory_bytes: None,
    };
    let base = BaseName::new(BASE);
    let served = ServedBase { name: base.clone(), path: base_model(), also_known_as: vec![SOURCE.to_owned()] };
    let engine = Embedded::start(&config, vec![served]).expect("it starts");
    let mut all = Expected::new();
    for artifact in [None, Some("pirate"), Some("json"), Some("rhyme")] {
        let adapter = artifact.map(|name| key("reference", name, 1));
        if let Some(key) = &adapter {
            let folder = artifacts().join(&*key.name);
            let load = AdapterLoad { key: key.clone(), base: base.clone(), folder };
            engine.load_adapter(load).await.expect("loaded");
        }
        for question in 0..QUESTIONS.len() {
            all.insert((artifact, question), ask(&engine, &base, adapter.as_ref(), question).await);
        }
    }
    for question in 0..QUESTIONS.len() {
        let texts: Vec<&String> =
            [None, Some("pirate"), Some("json"), Some("rhyme")].iter().map(|it| &all[&(*it, question)]).collect();
        assert_ne!(texts[1], texts[2], "the artifacts can be told apart by {question}");
        assert_ne!(texts[1], texts[0]);
        assert_ne!(texts[2], texts[0]);
    }
    all
}

async fn ask(engine: &Embedded, base: &BaseName, adapter: Option<&AdapterKey>, question: usize) -> String {
    let messages = messages(question).into_iter().map(|(role, text)| Message::text(role, text)).collect();
    let request = GenerateRequest {
        route: Route::ChatCompletions,
        model: "m".to_owned(),
        input: Input::Chat(messages),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: Some(TOKENS),
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Default::default(),
    };
    let call = Call {
        id: GenerationId::new(Default::default()),
        tenant: TenantId::new("reference"),
        base: base.clone(),
        adapter: adapter.cloned(),
        request: Arc::new(request),
        trace: None,
    };
    let mut events = engine.generate(call).await.expect("started").events;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let Event::Delta(delta) = event.expect("no error") {
            text += &delta.text;
        }
    }
    text
}

fn gateway_config(ports: &[u16]) -> String {
    let model = base_model();
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[shutdown]\ndrain_timeout = \"5s\"\n\
         [gateway]\nattempts = 3\n\
         [bases.{BASE}]\npath = {model:?}\nsource = \"{SOURCE}\"\n"
    );
    for (number, port) in ports.iter().enumerate() {
        // Fewer places than there are adapters, so that they come and go all the time.
        text += &format!(
            "[workers.w{number}]\ndriver = \"grpc\"\nbases = [\"{BASE}\"]\nurl = \"http://127.0.0.1:{port}\"\n\
             poll_interval = \"100ms\"\nstall_timeout = \"5s\"\nload_timeout = \"10s\"\nadapter_slots = 3\n"
        );
    }
    for (tenant, models) in MODELS {
        text += &format!("[[tenants]]\nid = \"{tenant}\"\nkeys = [{{ demo = \"sk-demo-{tenant}\" }}]\n");
        let adapters = models.iter().filter_map(|(name, artifact)| Some((name, (*artifact)?)));
        for (name, artifact) in adapters.clone() {
            let folder = artifacts().join(artifact);
            text += &format!("[[tenants.adapters]]\nname = \"{name}\"\nbase = \"{BASE}\"\npath = {folder:?}\n");
        }
        text += &format!("[tenants.models]\n{BASE} = {{ base = \"{BASE}\" }}\n");
        for (name, _) in adapters {
            text += &format!("{name} = {{ base = \"{BASE}\", adapter = \"{name}\" }}\n");
        }
    }
    text
}

/// One client: asks until told to stop, checks every answer.
async fn client(server: Arc<Server>, expected: Arc<Expected>, tally: Arc<Tally>, seed: u64) {
    let mut random = Random(seed);
    while !tally.stop.load(Ordering::Acquire) {
        let (tenant, models) = MODELS[random.below(MODELS.len())];
        let (model, artifact) = models[random.below(models.len())];
        let question = random.below(QUESTIONS.len());
        let stream = random.below(2) == 0;
        let messages: Vec<Value> = messages(question)
            .into_iter()
            .map(|(role, text)| json!({ "role": role.as_str(), "content": text }))
            .collect();
        let body = json!({
            "model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0, "stream": stream,
        });
        let asking = server.post(tenant, "/v1/chat/completions", &body);
        if random.below(20) == 0 {
            // A client that goes away at some moment.
            let patience = Duration::from_millis(random.below(60) as u64);
            let _ = tokio::time::timeout(patience, asking).await;
            tally.left.fetch_add(1, Ordering::AcqRel);
            continue;
        }
        let answered = tokio::time::timeout(HANGS, async { answer(asking.await).await }).await;
        match answered.unwrap_or_else(|_| panic!("a request of {tenant} for {model} hangs")) {
            Ok(text) => {
                let right = &expected[&(artifact, question)];
                assert_eq!(&text, right, "{tenant}'s {model} ({artifact:?}) to `{}`", QUESTIONS[question]);
                tally.answers.fetch_add(1, Ordering::AcqRel);
            }
            Err(kind) => {
                let typed = ["server_error", "overloaded_error", "rate_limit_exceeded"];
                assert!(typed.contains(&kind.as_str()), "an error of type {kind}");
                tally.errors.fetch_add(1, Ordering::AcqRel);
                // As a client would.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The answer's text, or the type of the error that it ended in.
async fn answer(response: reqwest::Response) -> Result<String, String> {
    let kind = |body: &Value| body["error"]["type"].as_str().expect("every error has a type").to_owned();
    let (status, streamed) = (response.status(), is_stream(&response));
    let body = response.text().await.expect("the body ends as it should");
    if !streamed {
        let body: Value = serde_json::from_str(&body).expect("JSON");
        if !status.is_success() {
            return Err(kind(&body));
        }
        return Ok(body["choices"][0]["message"]["content"].as_str().expect("text").to_owned());
    }
    let (mut text, mut done) = (String::new(), false);
    for data in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(kind(&chunk));
        }
        text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    assert!(done, "a stream ends with [DONE] or an error: {body}");
    Ok(text)
}

fn is_stream(response: &reqwest::Response) -> bool {
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("text/event-stream"))
}

/// Something happens to one of the workers, and is over again.
async fn strike(workers: &mut [Process], random: &mut Random) {
    let pause = async |millis: usize| tokio::time::sleep(Duration::from_millis(millis as u64)).await;
    let victim = random.below(workers.len());
    let worker = &mut workers[victim];
    match random.below(3) {
        0 => {
            worker.signal("KILL");
            pause(random.below(1_500)).await;
            worker.restart();
        }
        1 => {
            worker.signal("STOP");
            pause(500 + random.below(7_000)).await;
            worker.signal("CONT");
        }
        _ => {
            // As a deployment does.
            worker.signal("TERM");
            worker.wait();
            worker.restart();
        }
    }
    pause(1_000 + random.below(3_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_die_stand_still_and_come_back_lose_no_request_and_mix_up_no_adapter() {
    let _alone = alone().await;
    let expected = Arc::new(expected().await);
    let ports: Vec<u16> = (0..WORKERS).map(|_| free_port()).collect();
    let mut workers: Vec<Process> = ports
        .iter()
        .map(|port| {
            let model = base_model();
            let config = format!(
                "[worker]\nlisten = \"127.0.0.1:{port}\"\nthreads = 1\ncontext = 2048\nkv_bytes = \"256MiB\"\n\
                 [shutdown]\ndrain_timeout = \"3s\"\n[bases.{BASE}]\npath = {model:?}\nsource = \"{SOURCE}\"\n"
            );
            Process::start("worker", &config)
        })
        .collect();
    let tally = Arc::new(Tally::default());
    Server::with_config(&gateway_config(&ports), |server| {
        let (tally, expected, workers) = (tally.clone(), expected, &mut workers);
        async move {
            server.ready().await;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let client = client(server.clone(), expected.clone(), tally.clone(), number as u64);
                    tokio::spawn(client)
                })
                .collect();
            let (started, mut random) = (Instant::now(), Random(20_261_127));
            while started.elapsed() < SPAN
                || (tally.answers.load(Ordering::Acquire) < ANSWERS && started.elapsed() < LONGEST)
            {
                strike(workers, &mut random).await;
                assert!(clients.iter().all(|client| !client.is_finished()), "a client found something wrong");
            }
            tally.stop.store(true, Ordering::Release);
            for client in clients {
                client.await.expect("no answer was wrong");
            }
            // All of them come back into service.
            server.until_workers_are("healthy", WORKERS).await;
            let (_, metrics) = server.ops("/metrics").await;
            assert!(!metrics.contains("tenantry_adapter_probes_total{outcome=\"mismatch\"}"), "{metrics}");
        }
    })
    .await;
    let (answers, errors) = (tally.answers.load(Ordering::Acquire), tally.errors.load(Ordering::Acquire));
    assert!(answers >= ANSWERS, "{answers} answers were checked, {errors} errors");
    assert!(errors * 10 < answers, "{errors} errors to {answers} answers");
}
