//! What every driver does alike, whatever engine is behind it: the same cases
//! for all, run against the real engine. Which cases apply is the bench's to
//! say; none is left out where it does.

mod adapters;
mod answers;
mod cancelled;
mod pooled;
mod violent;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tenantry::types::{
    AdapterKey, BaseName, Delta, Event, FinishReason, GenerateRequest, GenerationId, Input, Message, Prompt, Role,
    Route, Sampling, TenantId, Usage,
};
use tenantry::worker::{AdapterLoad, Call, Driver, EventSource, WorkerError};

#[allow(unused_imports, reason = "not every binary asks for it alone")]
pub(crate) use answers::answers_and_usage;
pub(crate) use violent::violent;

/// A client's going reaches the engine within this.
const CANCELLED_WITHIN: Duration = Duration::from_millis(100);
/// What a machine that runs other tests beside may be late by.
const LATE: Duration = Duration::from_millis(150);
/// What the benches give their drivers as the limit on silence,
pub(crate) const STALL: Duration = Duration::from_secs(6);
/// and on the wait for an answer's first event.
pub(crate) const FIRST: Duration = Duration::from_secs(20);

/// One engine, and how to look at it past the driver.
pub(crate) struct Bench {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) base: BaseName,
    pub(crate) adapters: Adapters,
    /// Generations that run or wait at the engine, by its own account.
    pub(crate) running: Box<dyn Fn() -> BoxFuture<'static, u64> + Send + Sync>,
    /// The engine's process, where it has one of its own.
    pub(crate) process: Option<u32>,
    /// Generations that the engine runs at one time; the next one waits.
    pub(crate) places: u64,
    pub(crate) habits: Habits,
}

/// What another's engine does that ours does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// How late its account of what it runs may be.
    pub(crate) lag: Duration,
    /// How long it may go on with a step that reads a prompt before it looks
    /// whether anybody waits. In such a step it gives no account of itself either.
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

/// That takes an engine a while to read.
fn long_prompt() -> String {
    "All work and no play makes a dull day. ".repeat(85)
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
            trace: None,
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

    /// Has the engine take as many long generations, and reads none of them.
    #[allow(dead_code, reason = "not every binary measures it")]
    pub(crate) async fn hold(&self, count: usize) -> Vec<EventSource> {
        let started = (0..count).map(|_| self.driver.generate(self.call(None, long("Once upon a time"))));
        let started = futures_util::future::join_all(started).await;
        started.into_iter().map(|started| started.expect("started").events).collect()
    }

    #[allow(dead_code, reason = "not every binary measures it")]
    pub(crate) async fn load_one(&self) {
        self.load(&key("acme", "pirate", 1)).await.expect("loaded");
    }

    /// Waits for the engine to have as many generations as that.
    async fn until_running(&self, count: u64) {
        let since = Instant::now();
        while (self.running)().await != count {
            assert!(since.elapsed() < Duration::from_secs(30), "{count} should run");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The engine has that many left within the time that is promised: no look
    /// that begins later finds more.
    async fn left_at_once(&self, count: u64, what: &str, more: Duration) {
        let since = Instant::now();
        loop {
            let asked = since.elapsed();
            let running = (self.running)().await;
            if running == count {
                return;
            }
            let limit = CANCELLED_WITHIN + LATE + self.habits.lag + more;
            assert!(
                asked < limit,
                "{what}: {asked:?} after its client went away the engine has {running}, not {count}"
            );
        }
    }

    /// Whether an answer among others is the one that was given alone. Where a
    /// row's numbers depend on the batch, its beginning tells the adapters apart.
    fn is_right(&self, answer: &str, alone: &str) -> bool {
        let beginning = |text: &str| text.chars().take(6).collect::<String>();
        match self.driver.batch_invariant() {
            true => answer == alone,
            false => beginning(answer) == beginning(alone),
        }
    }
}

/// All cases that leave the engine as it was.
pub(crate) async fn peaceful(bench: &Bench) {
    answers::answers_and_usage(bench).await;
    answers::stop_reasons(bench).await;
    answers::prompts_and_refusals(bench).await;
    match bench.adapters {
        Adapters::Loadable => {
            adapters::they_load_unload_and_are_replaced(bench).await;
            adapters::a_wrong_artifact_changes_nothing(bench).await;
            adapters::running_requests_keep_theirs_while_others_come_and_go(bench).await;
            adapters::one_in_use_is_unloaded_behind_its_last_answer(bench).await;
            adapters::two_take_turns_over_a_shared_prefix(bench).await;
            pooled::the_asker_leaves_during_a_load(bench).await;
        }
        Adapters::Fixed => {
            adapters::fixed_ones(bench).await;
            adapters::two_take_turns_over_a_shared_prefix(bench).await;
        }
        Adapters::None => adapters::none(bench).await,
    }
    answers::many_at_once(bench).await;
    cancelled::in_every_phase(bench).await;
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
