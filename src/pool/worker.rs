//! One worker as the pool sees it, and the lease of a place there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::{Activity, Running};
use super::breaker::{Breaker, Outcome};
use super::load::{self, Cost, Load};
use super::pick::{Candidate, Presence, Standing};
use super::prefix::Before;
use super::rank::rank;
use super::residency::{Config as ResidencyConfig, Pin, Residency, Sight};
use crate::adapters::{Artifact, Catalogue};
use crate::telemetry::Metrics;
use crate::types::{AdapterKey, BaseName, GenerateRequest, GenerationId, TenantId, TraceContext};
use crate::worker::{Call, Driver, Started, Status, WorkerError};

/// Loading a base model that the worker serves and does not have in memory.
const COLD_BASE: Duration = Duration::from_secs(2);
/// Sequences that a worker runs at one time, where neither it nor the
/// configuration says: vLLM's own default.
const SLOTS: u64 = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub residency: ResidencyConfig,
    /// Sequences that it runs at one time, where it does not say so itself.
    pub slots: Option<u64>,
}

/// One worker.
pub struct Worker {
    name: Arc<str>,
    /// What it serves, with the requests that it has of each.
    bases: BTreeMap<BaseName, AtomicU32>,
    driver: Arc<dyn Driver>,
    config: Config,
    residency: Residency,
    load: Load,
    activity: Arc<Activity>,
    breaker: Mutex<Breaker>,
    /// An operator has taken it out of service.
    drained: AtomicBool,
    others: Mutex<Others>,
}

/// What a worker runs for other gateways, by its last account.
#[derive(Debug, Default)]
struct Others {
    as_of: Option<Instant>,
    sequences: u64,
    /// The most that we had there since that account.
    own: u64,
}

/// Whether a worker takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Healthy,
    /// It says, or its connection does, that it can serve nothing.
    Unhealthy,
    /// Its generations failed one after the other; it is tried again soon.
    Failing,
    /// It finishes what it runs.
    Draining,
    /// Loading what it held before its restart.
    Restoring,
}

/// A place at a worker, with the adapter pinned; held until dropped.
pub struct Lease {
    worker: Arc<Worker>,
    base: BaseName,
    pin: Option<Pin>,
    held: load::Held,
    running: Option<Running>,
    prompt_tokens: u32,
    answer_tokens: u32,
    outcome: Outcome,
}

// === impl State ===

impl State {
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Unhealthy, Self::Failing, Self::Draining, Self::Restoring];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Restoring => "restoring",
        }
    }
}

// === impl Worker ===

impl Worker {
    /// Called inside a Tokio runtime: adapters are loaded and unloaded there.
    pub fn new(
        name: impl Into<Arc<str>>,
        driver: Arc<dyn Driver>,
        config: Config,
        catalogue: Arc<Catalogue>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let name: Arc<str> = name.into();
        let activity = Arc::new(Activity::default());
        let (shared, of) = (config.residency.clone(), driver.clone());
        Arc::new(Self {
            bases: driver.bases().into_iter().map(|base| (base, AtomicU32::new(0))).collect(),
            residency: Residency::new(name.clone(), of, shared, catalogue, metrics, activity.clone()),
            name,
            driver,
            config,
            load: Load::default(),
            activity,
            breaker: Mutex::default(),
            drained: AtomicBool::new(false),
            others: Mutex::default(),
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn status(&self) -> Status {
        self.driver.status()
    }

    pub fn state(&self) -> State {
        self.state_of(&self.status())
    }

    /// Generations that run or wait at this worker for us.
    pub fn leases(&self) -> u32 {
        self.load.leases()
    }

    /// Adapters that are loaded.
    pub fn adapters_resident(&self) -> usize {
        self.residency.resident()
    }

    /// Adapters that answered as another, and are not used here for a while.
    pub fn adapters_quarantined(&self) -> usize {
        self.residency.quarantined()
    }

    /// Adapters that running generations hold.
    pub fn pins(&self) -> usize {
        self.residency.pins()
    }

    /// Loads and unloads of adapters under way.
    pub fn adapter_tasks(&self) -> usize {
        self.residency.tasks()
    }

    /// Whether the adapter is loaded here.
    pub fn has(&self, adapter: &AdapterKey) -> bool {
        self.residency.has(adapter)
    }

    /// Whether the adapter is being loaded here.
    pub fn is_loading(&self, adapter: &AdapterKey) -> bool {
        self.residency.see(adapter).presence == Presence::Loading
    }

    /// Why the adapter could not be loaded here, where that was lately.
    pub fn failure(&self, adapter: &AdapterKey) -> Option<WorkerError> {
        self.residency.failure(adapter)
    }

    /// Unloads an adapter as soon as nobody uses it.
    pub fn retire(&self, adapter: &AdapterKey) {
        self.residency.retire(adapter);
    }

    /// Takes no new requests; those that run finish.
    pub fn drain(&self) {
        self.drained.store(true, Ordering::Release);
    }

    pub fn undrain(&self) {
        self.drained.store(false, Ordering::Release);
    }

    /// An operator has taken it out of service.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// The base models that it serves.
    pub fn bases(&self) -> impl Iterator<Item = &BaseName> {
        self.bases.keys()
    }

    /// Requests for a base model that wait for a place.
    pub fn queued(&self, base: &BaseName) -> u64 {
        let leases = self.bases.get(base).map_or(0, |leases| leases.load(Ordering::Acquire));
        u64::from(leases).saturating_sub(self.slots(&self.status()))
    }

    /// Sequences that it runs for us at one time, where it takes any.
    pub(super) fn seats(&self) -> u64 {
        let status = self.look();
        match self.state_of(&status) {
            State::Healthy | State::Restoring => self.slots(&status).saturating_sub(self.others().sequences).max(1),
            State::Unhealthy | State::Failing | State::Draining => 0,
        }
    }

    pub(super) fn serves(&self, base: &BaseName) -> bool {
        self.bases.contains_key(base)
    }

    pub(super) fn residency(&self) -> &Residency {
        &self.residency
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Tokens a second.
    pub(super) fn rate(&self) -> f64 {
        self.load.rate()
    }

    /// Reads what the worker says of itself.
    pub(super) fn look(&self) -> Status {
        let status = self.driver.status();
        if let Some(held) = &status.held {
            self.residency.reconcile(held);
            let mut others = self.others();
            if others.as_of != Some(held.as_of) {
                let leases = u64::from(self.leases());
                others.sequences = (status.batch_rows + status.waiting).saturating_sub(others.own.max(leases));
                (others.as_of, others.own) = (Some(held.as_of), leases);
            }
        }
        status
    }

    fn state_of(&self, status: &Status) -> State {
        if status.unhealthy.is_some() {
            State::Unhealthy
        } else if status.draining || self.drained.load(Ordering::Acquire) {
            State::Draining
        } else if !self.breaker().admits(Instant::now()) {
            State::Failing
        } else if self.residency.is_restoring() {
            State::Restoring
        } else {
            State::Healthy
        }
    }

    /// What a choice depends on, and why the adapter cannot be loaded here now.
    pub(super) fn candidate(
        &self,
        base: &BaseName,
        adapter: Option<&AdapterKey>,
        before: Option<&Before>,
        salt: &str,
    ) -> (Candidate, Option<(WorkerError, Duration)>) {
        let status = self.look();
        let nothing =
            || Sight { presence: Presence::Resident, ready: Duration::ZERO, victim_idle: None, refused: None };
        let sight = adapter.map_or_else(nothing, |key| self.residency.see(key));
        let standing = match self.state_of(&status) {
            _ if sight.refused.is_some() => Standing::Unusable,
            State::Healthy => Standing::Ready,
            State::Restoring => Standing::Restoring,
            State::Unhealthy | State::Failing | State::Draining => Standing::Unusable,
        };
        let others = self.others().sequences;
        let cold = if status.cold.contains(base) { COLD_BASE } else { Duration::ZERO };
        let candidate = Candidate {
            standing,
            presence: sight.presence,
            queue: self.load.queue(others, self.slots(&status)),
            work: self.load.work(others),
            idle: self.leases() == 0 && others == 0,
            ready: (sight.ready + cold).as_secs_f64(),
            victim_idle: sight.victim_idle.map_or(f64::INFINITY, |idle| idle.as_secs_f64()),
            saved: before.map_or(0.0, |before| self.saved(before, sight.presence, adapter)),
            rank: rank(salt, &self.name),
        };
        (candidate, sight.refused)
    }

    /// Seconds that the worker does not spend on what it has seen before.
    fn saved(&self, before: &Before, presence: Presence, adapter: Option<&AdapterKey>) -> f64 {
        match (before.worker == self.name && presence == Presence::Resident, self.driver.caches_prefixes(adapter)) {
            (true, true) => self.load.reading(before.bytes),
            // It saves nothing, but is as good as any other.
            (true, false) => 1e-6,
            (false, _) => 0.0,
        }
    }

    fn slots(&self, status: &Status) -> u64 {
        status.slots.or(self.config.slots).unwrap_or(SLOTS)
    }

    pub(super) async fn lease(
        worker: &Arc<Self>,
        base: &BaseName,
        artifact: Option<&Artifact>,
        request: &GenerateRequest,
    ) -> Result<Lease, WorkerError> {
        let cost = Cost::of(request, worker.load.lengths());
        // Taken before the load, so that a burst sees its own weight.
        let held = worker.load.take(cost);
        worker.count(base, 1);
        worker.breaker().begin(Instant::now());
        let mut lease = Lease {
            worker: worker.clone(),
            base: base.clone(),
            pin: None,
            held,
            running: None,
            prompt_tokens: cost.prompt_tokens,
            answer_tokens: 0,
            outcome: Outcome::SaysNothing,
        };
        if let Some(artifact) = artifact {
            lease.pin = Some(worker.residency.pin(artifact).await?);
        }
        Ok(lease)
    }

    fn count(&self, base: &BaseName, change: i32) {
        if let Some(leases) = self.bases.get(base) {
            leases.fetch_add(change as u32, Ordering::AcqRel);
        }
        let mut others = self.others();
        others.own = others.own.max(u64::from(self.leases()));
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lease ===

impl Lease {
    pub fn worker(&self) -> &Arc<str> {
        &self.worker.name
    }

    /// The worker has lost the adapter, against what was known of it: whoever
    /// asks next has it loaded anew.
    pub fn adapter_missing(&self) {
        if let Some(pin) = &self.pin {
            pin.forget();
        }
    }

    pub async fn generate(
        &mut self,
        id: GenerationId,
        tenant: TenantId,
        request: Arc<GenerateRequest>,
        trace: Option<TraceContext>,
    ) -> Result<Started, WorkerError> {
        let gated = self.worker.driver.loads_only_when_idle();
        self.running = Some(self.worker.activity.run(gated).await);
        let adapter = self.pin.as_ref().map(|pin| pin.key().clone());
        self.worker.driver.generate(Call { id, tenant, base: self.base.clone(), adapter, request, trace }).await
    }

    /// The prompt was read: the first event is there.
    pub fn began(&mut self, prompt_tokens: Option<u32>) {
        self.prompt_tokens = prompt_tokens.unwrap_or(self.prompt_tokens);
        self.worker.load.prompt_read(&mut self.held);
        self.worker.breaker().answers();
    }

    /// So many more tokens were generated.
    pub fn generated(&mut self, tokens: u32) {
        self.answer_tokens = self.answer_tokens.saturating_add(tokens);
        self.worker.load.generated(&mut self.held, tokens);
    }

    /// How the generation ended, which decides whether the worker is asked
    /// again. Without it the end says nothing of the worker.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        if outcome == Outcome::Succeeded {
            self.worker.load.lengths().saw(self.answer_tokens);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The worker is free of it before its place is given away.
        self.running = None;
        let read = if self.held.is_prompt_read() { self.prompt_tokens } else { 0 };
        self.worker.load.give_back(self.held, read, self.answer_tokens);
        self.worker.count(&self.base, -1);
        self.worker.breaker().end(self.outcome, Instant::now());
    }
}
