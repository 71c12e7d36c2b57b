//! The life of a request, told in one place: [`Gateway::generate`].
//!
//! Each step asks one other room one question and comes back: resolve the
//! model name inside the tenant, admit, acquire a worker that has the adapter,
//! generate, await the first event. `Ok` means that the first event exists, so
//! whatever fails before it is a true status of the caller's protocol.
//!
//! Everything a request holds (permit, lease, pin, the worker's work) lives in
//! the [`EventStream`] and is given back when that is dropped: dropping is
//! cancelling.

mod assemble;
mod attempt;
mod audit;
mod budget;
mod failure;
mod insight;
mod judge;
mod keys;
mod limits;
mod live;
mod moderate;
mod overview;
mod policies;
mod rating;
mod record;
mod sizes;
mod stream;
mod tenants;
mod traced;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tenantry_ratings::Ratings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::Catalogue;
use crate::admission::{self, Admission, Estimate, Refusal};
use crate::moderation::{Guard, Policy};
use crate::pool::Pool;
use crate::telemetry::{Metrics, Step, Traces, Trail};
use crate::types::{
    BaseName, Caller, Error, GenerateRequest, GenerationId, Input, ModelRoute, Prompt, Tenant, TenantId,
};

pub use crate::adapters::{Days, LimitsOf, Sum as UsageSum};
pub use crate::admission::{Allowance, Config as AdmissionConfig, Standing};
pub use crate::moderation::Judgement;
pub use audit::Change;
pub use insight::{AdapterState, Whereabouts, WorkerCard, state as adapter_state};
pub use judge::PoolJudge;
pub use keys::{KeyCard, Wanted};
pub use limits::LimitsCard;
pub use live::{Live, Replaced};
pub use overview::Overview;
pub use policies::{GivenPolicy, PolicyCard};
pub use stream::EventStream;
pub use tenants::{AliasCard, Origin, TenantCard};

use assemble::Assembly;
use attempt::{Asked, Retries};
use keys::Uses;
use record::Record;
use stream::Limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The longest a generation may take, from arrival to last event.
    pub request_timeout: Duration,
    /// How many workers a request may try before its first event.
    pub attempts: u32,
    pub admission: AdmissionConfig,
}

/// Composes the rooms; the edges talk to this and to nothing behind it.
pub struct Gateway {
    config: Config,
    live: ArcSwap<Live>,
    /// What that was made of.
    assembly: Mutex<Assembly>,
    admission: Admission,
    guard: Guard,
    ratings: Option<Ratings>,
    pool: Arc<Pool>,
    uses: Uses,
    retries: Retries,
    metrics: Arc<Metrics>,
    /// Turned when running generations have had their time to finish.
    cut_off: CancellationToken,
    /// One task a running stream, which keeps its limits.
    tasks: TaskTracker,
}

/// A request that has come in.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub id: GenerationId,
    /// Of this request alone; whoever ends it tells its trace.
    pub trail: Arc<Trail>,
}

/// A generation whose first event exists.
pub struct Generation {
    pub id: GenerationId,
    /// Unix time in seconds.
    pub created: u64,
    /// The model's name as the client wrote it.
    pub model: Arc<str>,
    pub stream: EventStream,
}

/// What a tenant may learn of one of its models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    pub name: Arc<str>,
    /// Unix time in seconds at which the model's configuration was loaded.
    pub created: u64,
}

/// What is held now; all zero when nothing runs and nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub permits: u32,
    /// Places at the workers.
    pub seats: u32,
    pub leases: u32,
    pub pins: usize,
    /// Sequences that the workers run or keep waiting.
    pub sequences: u64,
    /// Tasks of running streams, and loads and unloads of adapters.
    pub tasks: usize,
}

/// How often it is looked how many places the workers have, for those who wait.
const LOOK: Duration = Duration::from_millis(250);

// === impl Arrival ===

impl From<GenerationId> for Arrival {
    /// Of a request that nobody traces.
    fn from(id: GenerationId) -> Self {
        Self { id, trail: Arc::default() }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(600), attempts: 2, admission: AdmissionConfig::default() }
    }
}

// === impl Gateway ===

impl Gateway {
    pub fn new(
        config: Config,
        live: Live,
        admission: Admission,
        pool: impl Into<Arc<Pool>>,
        metrics: Arc<Metrics>,
        cut_off: CancellationToken,
    ) -> Self {
        let gateway = Self {
            retries: Retries::new(config.attempts, metrics.clone()),
            guard: Guard::new(None, HashMap::new(), metrics.clone()),
            ratings: None,
            admission,
            config,
            live: ArcSwap::from_pointee(live.clone()),
            assembly: Mutex::new(Assembly::of(live)),
            pool: pool.into(),
            uses: Uses::default(),
            metrics,
            cut_off,
            tasks: TaskTracker::new(),
        };
        gateway.assemble();
        gateway
    }

    /// The same with these judges.
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Whose key a request's `authorization` value carries.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, Error> {
        let caller = self.live.load().keyring().authenticate(authorization).map_err(failure::unauthenticated)?;
        self.uses.note(&caller);
        Ok(caller)
    }

    /// Whether the caller may ask for a generation at all, before its request
    /// is read. The answer costs nothing of its limits.
    pub fn check(&self, caller: &Caller) -> Result<(), Error> {
        self.admission.check(caller).map_err(|refusal| self.refused(caller, &refusal))
    }

    /// How the caller stands with its limits, and with those of the model.
    pub fn standing(&self, caller: &Caller, model: Option<&str>) -> Standing {
        self.admission.standing(caller, model)
    }

    fn refused(&self, caller: &Caller, refusal: &Refusal) -> Error {
        if let Some(limit) = refusal.limit() {
            self.metrics.limited(caller.tenant.id.as_str(), limit.as_str());
        }
        failure::refused(refusal)
    }

    /// Runs a request up to its first event. Dropping the future, or later the
    /// stream, ends the work wherever it is.
    pub async fn generate(
        &self,
        arrival: impl Into<Arrival>,
        caller: &Caller,
        mut request: GenerateRequest,
    ) -> Result<Generation, Error> {
        let arrival = arrival.into();
        let Arrival { id, trail } = arrival.clone();
        let tenant = &*caller.tenant;
        let started = Instant::now();
        let created = unix_seconds(SystemTime::now());
        let timeout = request.timeout.map_or(self.config.request_timeout, |own| own.min(self.config.request_timeout));
        let deadline = started + timeout;
        let mut record = Record::new(arrival, caller, &request, started, self.catalogue(), self.metrics.clone());

        // Held to the first event: what it names stays in the pool for so long.
        let live = self.live.load_full();

        let steps = async {
            let (model, route) = self.resolve(tenant, &request.model)?;
            record.resolved(model.clone(), &route);
            let refused = |refusal| self.refused(caller, &refusal);
            let estimate = Estimate::of(&request);
            let sizes = sizes::hold(&mut request, caller, &model, estimate)?;
            let mut permit = self.admission.admit(caller, &model, Estimate::of(&request)).map_err(refused)?;
            let policy = live.policies().of(&tenant.id, &model).clone();
            let guard = live.guard().unwrap_or(&self.guard);
            let outside = policy.prompt.as_ref().is_some_and(|rules| rules.judge.is_some());
            trail.enter(if outside { Step::Judge } else { Step::Prompt });
            let decoded = self.decoded(&policy, &route.base, &request).await;
            record.noted(self.noted(caller, &request));
            let checked = guard.check_prompt(&policy, &mut request, decoded).await;
            let flags = checked.map_err(|blocked| {
                record.blocked(&blocked);
                failure::blocked(blocked)
            })?;
            record.found(&flags);
            trail.enter(Step::Queue);
            let (sequences, seats) = (admission::sequences(&request), self.pool.seats(&route.base));
            let seat = self.admission.seat(&mut permit, &route.base, sequences, seats, deadline);
            seat.await.map_err(refused)?;
            record.seated();
            let gauge = self.metrics.model(tenant.id.as_str(), &model).stream();
            let request = Arc::new(request);
            let read = permit.read();
            record.asked(read.clone(), estimate.input);
            let asked = Asked { id, tenant: &tenant.id, route: &route, request: &request, read: &read, trail: &trail };
            let attempt = attempt::first_event(&self.pool, &self.retries, &asked).await?;
            sizes.read(attempt.prompt_tokens)?;
            let guard = guard.output(&policy, sequences, flags);
            Ok((model, permit, gauge, attempt, estimate.input, guard))
        };
        let outcome = tokio::select! {
            biased;
            () = self.cut_off.cancelled() => Err(failure::shutting_down()),
            outcome = tokio::time::timeout_at(deadline, steps) => outcome.unwrap_or_else(|_| Err(failure::deadline(timeout))),
        };

        match outcome {
            Ok((model, permit, gauge, attempt, expected, guard)) => {
                let prompt_tokens = attempt.prompt_tokens.unwrap_or(u32::try_from(expected).unwrap_or(u32::MAX));
                record.first_event(attempt.lease.worker().clone(), prompt_tokens);
                let limits = Limits { deadline, timeout, cut_off: self.cut_off.clone() };
                let stream = EventStream::new(attempt, permit, gauge, record, guard, limits, &self.tasks);
                Ok(Generation { id, created, model, stream })
            }
            Err(error) => {
                record.refused(&error);
                Err(error)
            }
        }
    }

    /// The texts of prompts that are given as tokens, where somebody has to read them.
    async fn decoded(&self, policy: &Policy, base: &BaseName, request: &GenerateRequest) -> Vec<Option<String>> {
        let Input::Prompts(prompts) = &request.input else { return Vec::new() };
        let mut decoded = Vec::new();
        if policy.prompt.is_some() {
            for prompt in prompts {
                decoded.push(match prompt {
                    Prompt::Tokens(tokens) => self.pool.text_of(base, tokens).await,
                    Prompt::Text(_) => None,
                });
            }
        }
        decoded
    }

    /// What a model name stands for in this tenant: what the configuration
    /// says, or else what was published.
    fn resolve(&self, tenant: &Tenant, model: &str) -> Result<(Arc<str>, ModelRoute), Error> {
        if let Some((name, route)) = tenant.models.get_key_value(model) {
            return Ok((name.clone(), route.clone()));
        }
        let published = self.catalogue().resolve(&tenant.id, model);
        published.map(|route| (model.into(), route)).ok_or_else(|| Error::model_not_found(model))
    }

    /// The models that the tenant may use, by name.
    pub fn models(&self, tenant: &Tenant) -> Vec<ModelCard> {
        let created = self.live.load().loaded();
        let configured = tenant.models.keys().map(|name| ModelCard { name: name.clone(), created });
        let published = self.catalogue().models(&tenant.id).into_iter();
        let published = published.filter(|(name, _)| !tenant.models.contains_key(name));
        let mut cards: Vec<ModelCard> =
            configured.chain(published.map(|(name, created)| ModelCard { name, created })).collect();
        cards.sort_by(|one, other| one.name.cmp(&other.name));
        cards
    }

    /// One of the tenant's models; another tenant's is answered like one that
    /// does not exist.
    pub fn model(&self, tenant: &Tenant, name: &str) -> Result<ModelCard, Error> {
        let (name, _) = self.resolve(tenant, name)?;
        let published = self.catalogue().models(&tenant.id).into_iter().find(|(other, _)| *other == name);
        let created = published.map_or_else(|| self.live.load().loaded(), |(_, created)| created);
        Ok(ModelCard { name, created })
    }

    pub fn traces(&self) -> &Traces {
        self.metrics.traces()
    }

    /// The workers, for whoever adds and removes them.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The same, for judges that ask it.
    pub fn shared_pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The adapters there are.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        self.pool.catalogue()
    }

    /// A tenant of the configuration.
    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.live.load().keyring().tenant(id)
    }

    /// Keeps adapters where they are wanted. Never returns.
    pub async fn keep_placed(&self) {
        self.pool.keep_placed().await;
    }

    /// Keeps the lines of those who wait as wide as the workers are, limits as
    /// they are set, and all of them up to what other gateways use. Never returns.
    pub async fn keep_limits(&self) {
        let widths = async {
            loop {
                tokio::time::sleep(LOOK).await;
                for base in self.pool.bases() {
                    self.admission.resize(&base, self.pool.seats(&base));
                }
            }
        };
        tokio::join!(
            widths,
            self.keep_budgets(),
            self.follow_changes(),
            self.note_key_uses(),
            self.admission.keep_shared()
        );
    }

    /// Leaves the other gateways what this one does not need any more of the limits.
    pub async fn leave(&self) {
        self.admission.leave().await;
    }

    /// Requests that wait: for a place at the workers, and at them.
    fn queued(&self, base: &BaseName) -> u64 {
        let at_workers: u64 = self.pool.workers().iter().map(|worker| worker.queued(base)).sum();
        self.admission.waiting(base) as u64 + at_workers
    }

    /// Counts a request that is no generation and came to a good end.
    pub fn record_success(&self, tenant: &Tenant, route: &'static str) {
        self.metrics.request(Some(tenant.id.as_str()), None, route, "complete");
    }

    /// Logs and counts a request that was refused before [`Gateway::generate`].
    pub fn record_refusal(&self, tenant: Option<&Tenant>, route: &'static str, error: &Error) {
        record::refusal(&self.metrics, tenant, route, error);
    }

    /// What keeps the gateway from serving; empty when it can.
    pub fn not_ready(&self) -> Vec<String> {
        let bases = self.live.load();
        bases.bases().filter_map(|base| self.pool.ready(base).err().map(|why| format!("{base}: {why}"))).collect()
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
