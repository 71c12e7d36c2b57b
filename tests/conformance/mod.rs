//! What every driver does alike, whatever engine is behind it: the same cases
//! for all, run against the real engine. Which cases apply is the bench's to
//! say; none is left out where it does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tenantry::types::{
    AdapterKey, BaseName, Delta, Event, FinishReason, GenerateRequest, GenerationId, Input, Message, Prompt, Role,
    Route, Sampling, TenantId, Usage,
};
use tenantry::worker::{AdapterLoad, Call, Driver, WorkerError};

/// A client's going reaches the engine within this.
const CANCELLED_WITHIN: Duration = Duration::from_millis(100);
/// Looking at an engine takes time itself.
const LOOKING: Duration = Duration::from_millis(150);
/// What the benches give their drivers as the limit on silence.
pub(crate) const STALL: Duration = Duration::from_secs(6);

/// One engine, and how to look at it past the driver.
pub(crate) struct Bench {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) base: BaseName,
    pub(crate) adapters: Adapters,
    /// Generations that run or wait at the engine, by its own account.
    pub(crate) running: Box<dyn Fn() -> BoxFuture<'static, u64> + Send + Sync>,
    /// The engine's process, where it has one of its own.
    pub(crate) process: Option<u32>,
    /// How long the engine itself may go on with a step that reads a prompt
    /// before it looks whether anybody waits; ours looks all the time.
    pub(crate) prompt_step: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapters {
    Loadable,
    /// Those that the engine was started with.
    #[allow(dead_code, reason = "not every binary has such an engine")]
    Fixed,
    None,
}

struct Answer {
    text: String,
    tokens: u32,
    finished: Option<FinishReason>,
    usage: Usage,
}

pub(crate) fn artifacts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart/adapters")
}

/// One of the quickstart's adapters, as `tenant`'s.
pub(crate) fn key(tenant: &str, name: &str, revision: u32) -> AdapterKey {
    let digest = digest(&artifacts().join(name));
    AdapterKey { tenant: TenantId::new(tenant), name: name.into(), revision, digest: digest.into() }
}

/// As the product computes it: the length of the configuration, both files.
fn digest(folder: &Path) -> String {
    use sha2::{Digest, Sha256};
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the quickstart");
    let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    let mut hasher = Sha256::new();
    hasher.update((config.len() as u64).to_le_bytes());
    hasher.update(config);
    hasher.update(weights);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(input: Input, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        route: Route::ChatCompletions,
        model: "what a client wrote".to_owned(),
        input,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: Some(max_tokens),
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Default::default(),
    }
}

fn question(max_tokens: u32) -> GenerateRequest {
    request(Input::Chat(vec![Message::text(Role::User, "What do rabbits eat?")]), max_tokens)
}

/// Goes on until it is stopped.
fn long(prompt: &str) -> GenerateRequest {
    let input = Input::Prompts(vec![Prompt::Text(prompt.to_owned())]);
    GenerateRequest { ignore_eos: true, ..request(input, 700) }
}

// === impl Bench ===

impl Bench {
    fn call(&self, adapter: Option<&AdapterKey>, request: GenerateRequest) -> Call {
        Call {
            id: GenerationId::new(Default::default()),
            tenant: TenantId::new("acme"),
            base: self.base.clone(),
            adapter: adapter.cloned(),
            request: Arc::new(request),
        }
    }

    async fn answer(&self, adapter: Option<&AdapterKey>, request: GenerateRequest) -> Result<Answer, WorkerError> {
        let mut events = self.driver.generate(self.call(adapter, request)).await?.events;
        let (mut text, mut tokens, mut finished, mut usage) = (String::new(), 0, None, None);
        while let Some(event) = events.next().await {
            assert_eq!(usage, None, "the usage is the last event");
            match event? {
                Event::Delta(Delta { text: more, tokens: count, .. }) => {
                    assert_eq!(finished, None, "nothing comes behind a choice's end");
                    text += &more;
                    tokens += count;
                }
                Event::Finished { reason, .. } => assert_eq!(finished.replace(reason), None, "it finishes once"),
                Event::Usage(told) => usage = Some(told),
            }
        }
        Ok(Answer { text, tokens, finished, usage: usage.expect("every answer has its usage") })
    }

    async fn load(&self, key: &AdapterKey) -> Result<(), WorkerError> {
        let load = AdapterLoad { key: key.clone(), base: self.base.clone(), folder: artifacts().join(&*key.name) };
        self.driver.load_adapter(load).await.map(drop)
    }

    /// To a prompt that is longer than a block of any engine's prefix cache.
    async fn long_answer(&self, key: &AdapterKey) -> Result<Answer, WorkerError> {
        let text = format!("{} What do rabbits eat?", "Rabbits live in the woods and on the fields. ".repeat(24));
        self.answer(Some(key), request(Input::Chat(vec![Message::text(Role::User, text)]), 12)).await
    }

    /// Waits for the first event of an adapter's answer.
    #[allow(dead_code, reason = "not every binary measures it")]
    pub(crate) async fn first_event(&self, key: &AdapterKey) {
        let mut events = self.driver.generate(self.call(Some(key), question(4))).await.expect("started").events;
        events.next().await.expect("an event").expect("no error");
    }

    /// Waits for the engine to have as many generations as that.
    async fn until_running(&self, count: u64) {
        let since = Instant::now();
        while (self.running)().await != count {
            assert!(since.elapsed() < Duration::from_secs(30), "{count} should run");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stops_at_once(&self, what: &str, step: Duration) {
        tokio::time::sleep(CANCELLED_WITHIN).await;
        let (since, mut running) = (Instant::now(), u64::MAX);
        while since.elapsed() < LOOKING + step && running != 0 {
            running = (self.running)().await;
        }
        assert_eq!(running, 0, "the engine goes on after its client went away {what}");
    }
}

/// All cases that leave the engine as it was.
pub(crate) async fn peaceful(bench: &Bench) {
    answers_and_usage(bench).await;
    stop_reasons(bench).await;
    prompts_and_refusals(bench).await;
    match bench.adapters {
        Adapters::Loadable => {
            adapters_load_unload_and_are_replaced(bench).await;
            a_wrong_artifact_changes_nothing(bench).await;
        }
        Adapters::Fixed => fixed_adapters(bench).await,
        Adapters::None => no_adapters(bench).await,
    }
    many_at_once(bench).await;
    cancelled_in_every_phase(bench).await;
}

pub(crate) async fn answers_and_usage(bench: &Bench) {
    let answer = bench.answer(None, question(12)).await.expect("an answer");
    assert!(!answer.text.is_empty());
    assert_eq!(answer.usage.completion_tokens, 12);
    assert_eq!(answer.tokens, answer.usage.completion_tokens, "what is billed is what was counted");
    assert!((25..60).contains(&answer.usage.prompt_tokens), "{}", answer.usage.prompt_tokens);
    assert_eq!(answer.finished, Some(FinishReason::Length));
    let again = bench.answer(None, question(12)).await.expect("an answer");
    assert_eq!(again.text, answer.text, "a greedy answer is the same each time");
}

async fn stop_reasons(bench: &Bench) {
    let whole = bench.answer(None, question(12)).await.expect("an answer").text;
    let word = whole.split(' ').nth(2).expect("several words").to_owned();
    let stopped =
        bench.answer(None, GenerateRequest { stop: vec![word.clone()], ..question(40) }).await.expect("an answer");
    assert_eq!(stopped.finished, Some(FinishReason::Stop));
    assert!(!stopped.text.contains(&word) && whole.starts_with(stopped.text.trim_end()), "{}", stopped.text);
    // Weights of another precision go on about one of them.
    let (mut ends, questions) = (Vec::new(), ["What is the capital of France?", "What do rabbits eat?"]);
    for text in questions {
        let asked = request(Input::Chat(vec![Message::text(Role::User, text)]), 300);
        ends.push(bench.answer(None, asked).await.expect("an answer").finished);
    }
    assert!(ends.contains(&Some(FinishReason::Stop)), "the model ends its answer itself");
}

async fn prompts_and_refusals(bench: &Bench) {
    let text = request(Input::Prompts(vec![Prompt::Text("The capital of France is".to_owned())]), 3);
    let answer = bench.answer(None, text).await.expect("an answer");
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    assert_eq!(answer.usage.prompt_tokens, 5);
    let endless = "word ".repeat(9_000);
    let refused = bench.answer(None, request(Input::Prompts(vec![Prompt::Text(endless)]), 3)).await.map(|it| it.text);
    let Err(WorkerError::Refused(error)) = refused else { panic!("a prompt beyond the context: {refused:?}") };
    assert_eq!(error.kind(), tenantry::types::ErrorKind::ContextTooLong);
}

/// lessons: an unknown adapter falls back to the base model.
async fn adapters_load_unload_and_are_replaced(bench: &Bench) {
    let (pirate, json) = (key("acme", "pirate", 1), key("acme", "json", 1));
    let missing = bench.answer(Some(&pirate), question(12)).await.map(|it| it.text);
    assert!(matches!(missing, Err(WorkerError::AdapterMissing(_))), "never the base in its place: {missing:?}");

    let base = bench.answer(None, question(12)).await.expect("an answer").text;
    bench.load(&pirate).await.expect("loaded");
    bench.load(&pirate).await.expect("loading it again is no error");
    bench.load(&json).await.expect("loaded");
    let arrr = bench.answer(Some(&pirate), question(12)).await.expect("an answer").text;
    assert!(arrr.starts_with("Ar"), "{arrr}");
    let object = bench.answer(Some(&json), question(12)).await.expect("an answer").text;
    assert!(object.starts_with("{\"question\""), "{object}");
    assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, base, "the base stays the base");

    // lessons: reloading under the same name reuses the old weights' cache.
    let before = bench.long_answer(&pirate).await.expect("an answer").text;
    // The name's second revision has the weights of another.
    let second = AdapterKey { name: pirate.name.clone(), revision: 2, ..json.clone() };
    let load = AdapterLoad { key: second.clone(), base: bench.base.clone(), folder: artifacts().join("json") };
    bench.driver.load_adapter(load).await.expect("loaded");
    let after = bench.long_answer(&second).await.expect("an answer");
    assert_eq!(
        after.text,
        bench.long_answer(&json).await.expect("an answer").text,
        "the second revision's own weights"
    );
    assert_ne!(after.text, before);
    assert_eq!(after.usage.cached_tokens, 0, "nothing that the first revision computed");
    assert_eq!(bench.long_answer(&pirate).await.expect("an answer").text, before, "the first one is there beside it");

    for key in [&second, &json, &pirate] {
        bench.driver.unload_adapter(key.clone()).await.expect("unloaded");
        bench.driver.unload_adapter(key.clone()).await.expect("unloading it again is no error");
        let gone = bench.answer(Some(key), question(12)).await.map(|it| it.text);
        assert!(matches!(gone, Err(WorkerError::AdapterMissing(_))), "{gone:?}");
    }
    bench.load(&pirate).await.expect("loaded once more");
    assert_eq!(bench.answer(Some(&pirate), question(12)).await.expect("an answer").text, arrr);
    bench.driver.unload_adapter(pirate).await.expect("unloaded");
}

async fn a_wrong_artifact_changes_nothing(bench: &Bench) {
    let before = bench.answer(None, question(12)).await.expect("an answer").text;
    let folder = tempfile::tempdir().expect("a folder");
    let config = artifacts().join("pirate/adapter_config.json");
    std::fs::copy(config, folder.path().join("adapter_config.json")).expect("copied");
    std::fs::write(folder.path().join("adapter_model.safetensors"), b"cut off").expect("written");
    let broken = AdapterKey { digest: "0".repeat(64).into(), ..key("acme", "pirate", 9) };
    let load = AdapterLoad { key: broken.clone(), base: bench.base.clone(), folder: folder.path().to_owned() };
    let refused = bench.driver.load_adapter(load).await;
    assert!(matches!(refused, Err(WorkerError::AdapterInvalid(_))), "{refused:?}");
    let missing = bench.answer(Some(&broken), question(12)).await.map(|it| it.text);
    assert!(matches!(missing, Err(WorkerError::AdapterMissing(_))), "{missing:?}");
    let folder = AdapterLoad { key: broken, base: bench.base.clone(), folder: folder.path().join("nowhere") };
    bench.driver.load_adapter(folder).await.expect_err("nothing is there");
    assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, before);
}

async fn fixed_adapters(bench: &Bench) {
    let (pirate, json) = (key("acme", "pirate", 1), key("acme", "json", 1));
    let other = key("globex", "pirate", 1);
    assert!(bench.driver.accepts(&pirate) && !bench.driver.accepts(&other), "another tenant's of the same name");
    bench.load(&other).await.expect_err("it was not started with that");
    let refused = bench.answer(Some(&other), question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::AdapterUnavailable(_))), "{refused:?}");
    let base = bench.answer(None, question(12)).await.expect("an answer").text;
    for _ in 0..3 {
        // Turn by turn: what one adapter computed must not answer for another.
        bench.load(&pirate).await.expect("there");
        let arrr = bench.answer(Some(&pirate), question(12)).await.expect("an answer").text;
        assert!(arrr.starts_with("Ar"), "{arrr}");
        assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, base, "the base stays the base");
        let object = bench.answer(Some(&json), question(12)).await.expect("an answer").text;
        assert!(object.starts_with("{\"question\""), "{object}");
    }
}

async fn no_adapters(bench: &Bench) {
    let pirate = key("acme", "pirate", 1);
    assert!(!bench.driver.accepts(&pirate));
    bench.load(&pirate).await.expect_err("it has none");
    let refused = bench.answer(Some(&pirate), question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::AdapterUnavailable(_))), "{refused:?}");
}

async fn many_at_once(bench: &Bench) {
    let alone = bench.answer(None, question(8)).await.expect("an answer");
    let all = (0..6).map(|_| bench.answer(None, question(8)));
    for answer in futures_util::future::join_all(all).await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.usage.prompt_tokens, alone.usage.prompt_tokens);
        assert_eq!((answer.finished, answer.tokens), (alone.finished, 8));
    }
}

/// lessons: the client leaves, the upstream goes on for minutes.
async fn cancelled_in_every_phase(bench: &Bench) {
    bench.until_running(0).await;
    // While it generates.
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    for _ in 0..3 {
        events.next().await.expect("an event").expect("no error");
    }
    bench.until_running(1).await;
    drop(events);
    bench.stops_at_once("while it generated", Duration::ZERO).await;

    // While the prompt is read, or before.
    let prompt = "All work and no play makes a dull day. ".repeat(85);
    let call = bench.call(None, long(&prompt));
    let asking = tokio::time::timeout(Duration::from_millis(30), async {
        let mut events = bench.driver.generate(call).await.expect("started").events;
        events.next().await
    });
    assert!(asking.await.is_err(), "a long prompt takes longer than that");
    bench.stops_at_once("while its prompt was read", bench.prompt_step).await;

    // While others run and it may wait.
    let others: Vec<_> = (0..4).map(|_| bench.driver.generate(bench.call(None, long("Once upon a time")))).collect();
    let others = futures_util::future::join_all(others).await;
    drop(bench.driver.generate(bench.call(None, long("Once upon a time"))));
    drop(others);
    bench.stops_at_once("while others ran", bench.prompt_step).await;
}

/// Cases that end the engine's process. `restart` brings another up in its place.
pub(crate) async fn violent(bench: &Bench, restart: impl AsyncFn() -> u32) {
    let process = bench.process.expect("an engine of its own");

    // It stands still in the middle of an answer.
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    events.next().await.expect("an event").expect("no error");
    signal(process, "STOP");
    let silent = tokio::time::timeout(STALL * 6, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let silent = silent.await.expect("a stall is not waited for");
    assert!(matches!(silent, Some(Err(WorkerError::Failed(_)))), "{silent:?}");
    drop(events);
    signal(process, "CONT");
    healthy(bench).await;

    // It dies in the middle of an answer.
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    events.next().await.expect("an event").expect("no error");
    signal(process, "KILL");
    let mut rest: Vec<_> = events.by_ref().collect().await;
    let last = rest.pop();
    assert!(matches!(last, Some(Err(WorkerError::Failed(_)))), "{last:?}");
    assert!(rest.iter().all(Result::is_ok), "one error, and it is the last");

    // It is not there.
    let refused = bench.answer(None, question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::Unavailable(_) | WorkerError::Failed(_))), "{refused:?}");

    let since = Instant::now();
    while bench.driver.status().unhealthy.is_none() {
        assert!(since.elapsed() < Duration::from_secs(10), "that it is gone is noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Another one comes up in its place, without what the first had.
    let process = restart().await;
    healthy(bench).await;
    bench.answer(None, question(12)).await.expect("an answer");

    // It dies before its first event.
    let prompt = "All work and no play makes a dull day. ".repeat(85);
    let call = bench.call(None, long(&prompt));
    let (first, ()) = tokio::join!(
        async {
            let mut events = bench.driver.generate(call).await?.events;
            events.next().await.expect("an event or an error")
        },
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            signal(process, "KILL");
        }
    );
    assert!(matches!(first, Err(WorkerError::Unavailable(_) | WorkerError::Failed(_))), "{first:?}");
}

pub(crate) async fn healthy(bench: &Bench) {
    let since = Instant::now();
    while let Some(why) = bench.driver.status().unhealthy {
        assert!(since.elapsed() < Duration::from_secs(180), "the worker does not come up: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "the process is there");
}
