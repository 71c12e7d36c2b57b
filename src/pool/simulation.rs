//! A fleet in simulated time: the real pool, residency and placement, with
//! workers that only let time pass. 200 tenants with an adapter each, whose
//! demand follows Zipf's law, share 8 workers that hold 16 adapters each.
//!
//! The same arrivals are served by the pool's own choice, by round robin, and
//! by consistent hashing of the adapter alone. Time is paused and all random
//! numbers have seeds, so every run gives the same figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::pick::{self, Candidate, Picked, Standing};
use super::{Pool, ResidencyConfig, Want, Worker, WorkerConfig};
use crate::adapters::{Artifact, Catalogue};
use crate::telemetry::{Metrics, Readings};
use crate::types::{
    AdapterKey, BaseName, Delta, Event, FinishReason, GenerateRequest, Input, ModelRoute, Prompt, Route, Sampling,
    TenantId, Usage,
};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};

const TENANTS: usize = 200;
const WORKERS: usize = 8;
const ADAPTER_SLOTS: usize = 16;
/// Sequences that a worker runs at one time.
const ROWS: usize = 8;
const LOAD: Duration = Duration::from_millis(200);
const TOKEN: Duration = Duration::from_millis(20);
const MEAN_TOKENS: f64 = 64.0;
/// Of what all rows together could serve. Both figures lead about here alone:
/// with less to do round robin waits less, with more hashing hits more often.
const OFFERED: f64 = 0.65;
const SPAN: Duration = Duration::from_secs(900);

/// How a worker is chosen.
#[derive(Debug, Default)]
pub(super) enum Policy {
    #[default]
    Score,
    RoundRobin(AtomicUsize),
    ConsistentHash,
}

impl Policy {
    pub(super) fn pick(&self, candidates: &[Candidate]) -> Option<Picked> {
        let usable = || candidates.iter().enumerate().filter(|(_, it)| it.standing != Standing::Unusable);
        let alone = |worker| Picked { worker, copy_to: None };
        match self {
            Self::Score => pick::pick(candidates),
            Self::RoundRobin(next) => {
                let usable: Vec<usize> = usable().map(|(index, _)| index).collect();
                let turn = next.fetch_add(1, Ordering::Relaxed);
                (!usable.is_empty()).then(|| alone(usable[turn % usable.len()]))
            }
            Self::ConsistentHash => usable().min_by_key(|(_, it)| it.rank).map(|(index, _)| alone(index)),
        }
    }
}

/// A worker that lets time pass.
struct Simulated {
    rows: Arc<Semaphore>,
    running: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
}

struct Running(Arc<AtomicU64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Driver for Simulated {
    fn bases(&self) -> Vec<BaseName> {
        vec![BaseName::new("base")]
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        async move {
            if call.tenant.as_str() == "(probe)" {
                let usage = Event::Usage(Usage::default());
                return Ok(Started { prompt_tokens: None, events: stream::iter([Ok(usage)]).boxed() });
            }
            self.running.fetch_add(1, Ordering::AcqRel);
            let running = Running(self.running.clone());
            let row = self.rows.clone().acquire_owned().await.expect("nobody closes it");
            let tokens = call.request.max_tokens.expect("the test says how many");
            let state = (tokens, row, running);
            let deltas = stream::unfold(state, |(left, row, running)| async move {
                if left == 0 {
                    return None;
                }
                // The first token by itself, the rest in pieces.
                let piece = left.min(16);
                tokio::time::sleep(TOKEN * piece).await;
                let delta = Event::Delta(Delta { tokens: piece, ..Delta::default() });
                Some((Ok(delta), (left - piece, row, running)))
            });
            let first = Event::Delta(Delta { tokens: 0, ..Delta::default() });
            let last = [Event::Finished { choice: 0, reason: FinishReason::Length }, Event::Usage(Usage::default())];
            let events = stream::iter([Ok(first)]).chain(deltas).chain(stream::iter(last.map(Ok)));
            Ok(Started { prompt_tokens: Some(8), events: events.boxed() })
        }
        .boxed()
    }

    fn load_adapter(&self, _: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        self.loads.fetch_add(1, Ordering::AcqRel);
        async {
            tokio::time::sleep(LOAD).await;
            Ok(LoadedAdapter { bytes: 1 })
        }
        .boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async { Ok(()) }.boxed()
    }

    fn batch_invariant(&self) -> bool {
        true
    }

    fn status(&self) -> Status {
        let running = self.running.load(Ordering::Acquire);
        Status { slots: Some(ROWS as u64), batch_rows: running, ..Status::default() }
    }
}

/// Pseudo-random numbers (SplitMix64, Steele et al., 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }
}

/// What a policy made of the arrivals.
#[derive(Debug)]
struct Report {
    requests: usize,
    hit_rate: f64,
    loads_per_minute: f64,
    p50: Duration,
    p99: Duration,
}

fn request(tokens: u32) -> GenerateRequest {
    GenerateRequest {
        route: Route::Completions,
        model: "m".to_owned(),
        input: Input::Prompts(vec![Prompt::Text("Hi".to_owned())]),
        sampling: Sampling::default(),
        stop: Vec::new(),
        max_tokens: Some(tokens),
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Default::default(),
    }
}

fn adapter(number: usize) -> AdapterKey {
    let tenant = TenantId::new(format!("tenant-{number}"));
    AdapterKey { tenant, name: "a".into(), revision: 1, digest: number.to_string().into() }
}

/// Who asks when, and for how much.
fn arrivals(seed: u64) -> Vec<(Duration, usize, u32)> {
    let mut random = Random(seed);
    let weights: Vec<f64> = (1..=TENANTS).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = weights.iter().sum();
    let a_request = MEAN_TOKENS * TOKEN.as_secs_f64();
    let rate = OFFERED * (WORKERS * ROWS) as f64 / a_request;
    let (mut at, mut all) = (0.0, Vec::new());
    loop {
        at += random.exponential(1.0 / rate);
        if at > SPAN.as_secs_f64() {
            return all;
        }
        let mut point = random.uniform() * total;
        let tenant = weights.iter().position(|weight| {
            point -= weight;
            point <= 0.0
        });
        let tokens = random.exponential(MEAN_TOKENS).clamp(1.0, 512.0) as u32;
        all.push((Duration::from_secs_f64(at), tenant.unwrap_or(TENANTS - 1), tokens));
    }
}

async fn simulate(policy: Policy) -> Report {
    let base = BaseName::new("base");
    let listed = (0..TENANTS).map(|number| (Artifact { key: adapter(number), base: base.clone() }, "unused".into()));
    let catalogue = Catalogue::fixed(listed.collect());
    let metrics = Arc::new(Metrics::default());
    let loads = Arc::new(AtomicU64::new(0));
    let workers = (0..WORKERS).map(|number| {
        let driver = Simulated { rows: Arc::new(Semaphore::new(ROWS)), running: Arc::default(), loads: loads.clone() };
        let residency = ResidencyConfig { adapter_bytes: u64::MAX, adapter_slots: Some(ADAPTER_SLOTS) };
        let config = WorkerConfig { residency, slots: None };
        Worker::new(format!("w{number}"), Arc::new(driver), config, catalogue.clone(), metrics.clone())
    });
    let mut pool = Pool::new(workers.collect(), catalogue.clone(), metrics.clone());
    let placed = matches!(policy, Policy::Score);
    pool.policy = policy;
    let pool = Arc::new(pool);
    let placing = pool.clone();
    let placing = placed.then(|| tokio::spawn(async move { placing.keep_placed().await }));

    let started = Instant::now();
    let mut waits = Vec::new();
    for (at, tenant, tokens) in arrivals(7) {
        tokio::time::sleep_until(started + at).await;
        let pool = pool.clone();
        waits.push(tokio::spawn(async move {
            let came = Instant::now();
            let key = adapter(tenant);
            let (tenant, request) = (key.tenant.clone(), request(tokens));
            let route = ModelRoute { base: BaseName::new("base"), adapter: Some(key) };
            let want = Want { tenant: &tenant, route: &route, request: &request };
            let mut lease = pool.acquire(want, &[]).await.expect("a worker");
            let started = lease.generate(
                crate::types::GenerationId::new(Default::default()),
                tenant.clone(),
                Arc::new(request),
                None,
            );
            let mut events = started.await.expect("started").events;
            events.next().await.expect("an event").expect("no error");
            let wait = came.elapsed();
            lease.began(Some(8));
            while let Some(event) = events.next().await {
                if let Event::Delta(delta) = event.expect("no error") {
                    lease.generated(delta.tokens);
                }
            }
            lease.ended(super::Outcome::Succeeded);
            wait
        }));
    }
    let mut sorted = Vec::new();
    for wait in waits {
        sorted.push(wait.await.expect("no panic"));
    }
    sorted.sort_unstable();
    if let Some(placing) = placing {
        placing.abort();
    }
    let of = |share: f64| sorted[(sorted.len() as f64 * share) as usize];
    let text = metrics.render(&Readings::default()).expect("metrics render");
    let picks = |reason: &str| -> f64 {
        let name = format!("tenantry_picks_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0.0, |count| count.parse().expect("a number"))
    };
    Report {
        requests: sorted.len(),
        hit_rate: (picks("resident") + picks("affinity")) / sorted.len() as f64,
        loads_per_minute: loads.load(Ordering::Acquire) as f64 / (SPAN.as_secs_f64() / 60.0),
        p50: of(0.5),
        p99: of(0.99),
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_tenants_over_eight_workers_are_served_better_than_by_either_simpler_policy() {
    let ours = simulate(Policy::Score).await;
    let turns = simulate(Policy::RoundRobin(AtomicUsize::new(0))).await;
    let hashed = simulate(Policy::ConsistentHash).await;
    let table = [("score", &ours), ("round robin", &turns), ("consistent hashing", &hashed)].map(|(name, it)| {
        format!(
            "{name:20} {} requests, hit rate {:.3}, {:.0} loads a minute, wait p50 {:.3} s, p99 {:.3} s",
            it.requests,
            it.hit_rate,
            it.loads_per_minute,
            it.p50.as_secs_f64(),
            it.p99.as_secs_f64()
        )
    });
    let table = table.join("\n");
    for other in [&turns, &hashed] {
        assert!(ours.hit_rate > other.hit_rate, "hit rate\n{table}");
        assert!(ours.p99 < other.p99, "p99\n{table}");
    }
    if std::env::var_os("TENANTRY_TEST_REPORT").is_some() {
        let mut out = std::io::stderr();
        let _ = std::io::Write::write_all(&mut out, format!("{table}\n").as_bytes());
    }
}
