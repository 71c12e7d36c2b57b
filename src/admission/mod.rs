//! May it run now? [`Admission::admit`] answers from the limits of the tenant,
//! of the key and of the model name; [`Admission::seat`] then waits until the
//! workers have a place, in a queue that is fair in tokens.
//!
//! What a request will use is not known when it comes. So an estimate is
//! charged with the [`Permit`], what it uses beyond is charged as it runs, and
//! what it leaves is given back when the permit is dropped, that is when the
//! response's body is. Accounts belong to the tenant's id and outlive a reload
//! of the configuration.

mod account;
mod budget;
mod estimate;
mod ledger;
mod line;
mod queue;
mod shared;
mod window;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::types::{BaseName, Caller, Limit, Limits, Priority, QueueOrder, Tenant, TenantId};

pub use budget::Period;
pub use estimate::{Estimate, sequences};
pub use ledger::Scope;
pub use shared::{Sharing, StoreError};
pub use window::Allowance;

use ledger::{Charged, Ledger, Mode, Now, Tokens};
use line::{Line, Patience, Seat};
use queue::{Ask, Bounds};

/// Locks that tenants' accounts are found behind.
const SHARDS: usize = 64;

/// Output that is charged ahead of a generation that goes on past its estimate.
const AHEAD: u64 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The longest that a request waits for a place at the workers.
    pub max_wait: Duration,
    /// Requests that may wait for one base model, of all tenants.
    pub max_waiting: usize,
    pub order: QueueOrder,
    /// Of the workers' places, in percent: the last ones, for tenants that have
    /// few of them while others are about.
    pub headroom_percent: u32,
}

pub struct Admission {
    config: Config,
    lines: Mutex<HashMap<BaseName, Arc<Line>>>,
    shards: [Mutex<HashMap<TenantId, Arc<Mutex<Ledger>>>>; SHARDS],
    hasher: RandomState,
    clock: Clock,
}

/// What accounts go by.
#[derive(Clone)]
struct Clock {
    began: Instant,
    /// `None`: this gateway is the only one.
    sharing: Option<Arc<Sharing>>,
}

/// A request that may run: charged to the accounts that it counts against, and
/// settled with them when this is dropped.
pub struct Permit {
    ledger: Arc<Mutex<Ledger>>,
    caller: Caller,
    model: Arc<str>,
    clock: Clock,
    charged: Charged,
    reserved: Tokens,
    used: Tokens,
    /// Whether a worker reads the prompt, or has.
    read: Arc<AtomicBool>,
    /// Given back first.
    seat: Option<Seat>,
}

/// Why a request may not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Limit {
        limit: Limit,
        scope: Scope,
        allowed: u64,
        /// Until it may be tried again; `None` where that depends on others.
        wait: Option<Duration>,
    },
    /// So many wait already, of the tenant or of all.
    Full { of_tenant: bool, wait: Duration },
    /// It would wait for longer than it may.
    TooLate { wait: Duration },
    /// It has waited for as long as it may.
    Waited,
}

/// What a client is told of its limits, with every answer: of those that count
/// requests and of those that count tokens, the tightest. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub requests: Option<Allowance>,
    pub tokens: Option<Allowance>,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(30), max_waiting: 1024, order: QueueOrder::Fair, headroom_percent: 50 }
    }
}

// === impl Admission ===

impl Default for Admission {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Admission {
    pub fn new(config: Config) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        let clock = Clock { began: Instant::now(), sharing: None };
        Self { config, lines: Mutex::default(), shards, hasher: RandomState::new(), clock }
    }

    /// Shares the limits with other gateways.
    #[must_use]
    pub fn sharing(mut self, sharing: Option<Arc<Sharing>>) -> Self {
        self.clock.sharing = sharing;
        self
    }

    /// Settles with other gateways. Never returns.
    pub async fn keep_shared(&self) {
        match &self.clock.sharing {
            Some(sharing) => sharing.keep(self.clock.began).await,
            None => std::future::pending().await,
        }
    }

    /// Leaves the other gateways what this one does not need any more.
    pub async fn leave(&self) {
        let Some(sharing) = &self.clock.sharing else { return };
        let of_shard = |shard: &Mutex<HashMap<TenantId, Arc<Mutex<Ledger>>>>| {
            lock(shard).iter().map(|(tenant, ledger)| (tenant.clone(), ledger.clone())).collect::<Vec<_>>()
        };
        sharing.leave(self.clock.began, self.shards.iter().flat_map(of_shard).collect()).await;
    }

    /// Whether the caller may send a request at all, before it has been read.
    /// Charges nothing.
    pub fn check(&self, caller: &Caller) -> Result<(), Refusal> {
        let ledger = self.ledger(&caller.tenant.id);
        self.clock.with(&caller.tenant.id, &ledger, |ledger, now| ledger.check(caller, None, now))
    }

    /// Charges a request that may run.
    pub fn admit(&self, caller: &Caller, model: &Arc<str>, estimate: Estimate) -> Result<Permit, Refusal> {
        let ledger = self.ledger(&caller.tenant.id);
        let reserved = Tokens { input: estimate.input, output: estimate.output };
        let charged = self.clock.with(&caller.tenant.id, &ledger, |ledger, now| {
            ledger.check(caller, Some(model), now)?;
            Ok(ledger.charge(caller, model, reserved, now))
        })?;
        Ok(Permit {
            ledger,
            caller: caller.clone(),
            model: model.clone(),
            clock: self.clock.clone(),
            charged,
            reserved,
            used: Tokens::default(),
            read: Arc::default(),
            seat: None,
        })
    }

    /// Waits for a place of `sequences` at the workers of a base model, which
    /// have `seats` of them: not beyond `deadline`, and not for longer than the
    /// configuration allows. Dropping the future leaves the line.
    pub async fn seat(
        &self,
        permit: &mut Permit,
        base: &BaseName,
        sequences: u32,
        seats: u32,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let line = self.line(base);
        line.resize(seats);
        // As many as the workers give to one request: the others' have the rest.
        let most = seats.saturating_sub((seats / 4).max(1)).max(1);
        let sequences = if seats == 0 { sequences } else { sequences.min(most) };
        let share = &permit.caller.tenant.share;
        let ask = match self.config.order {
            QueueOrder::Fair => Ask {
                tenant: permit.caller.tenant.id.clone(),
                class: permit.caller.priority(),
                weight: share.weight,
                tokens: permit.reserved.service(),
                seats: sequences,
            },
            QueueOrder::Arrival => Ask {
                tenant: TenantId::new(""),
                class: Priority::Interactive,
                weight: 1,
                tokens: permit.reserved.service(),
                seats: sequences,
            },
        };
        let of_tenant = match self.config.order {
            QueueOrder::Fair => share.max_waiting,
            QueueOrder::Arrival => self.config.max_waiting,
        };
        let patience = Patience {
            until: deadline.min(Instant::now() + self.config.max_wait),
            bounds: Bounds { of_tenant, of_all: self.config.max_waiting },
        };
        permit.seat = Some(line.enter(ask, patience).await?);
        Ok(())
    }

    /// The workers of a base model have so many places now.
    pub fn resize(&self, base: &BaseName, seats: u32) {
        self.line(base).resize(seats);
    }

    /// Holds those who wait to a tenant's new limits.
    pub fn changed(&self, tenant: &Tenant) {
        let lines: Vec<Arc<Line>> = lock(&self.lines).values().cloned().collect();
        let allowed = tenant.limits.concurrent_generations.unwrap_or(u64::MAX);
        let most = usize::try_from(allowed).unwrap_or(usize::MAX);
        let why = Refusal::Limit { limit: Limit::Concurrency, scope: Scope::Tenant, allowed, wait: None };
        for line in lines {
            line.keep(&tenant.id, most, &why);
        }
    }

    /// Requests that wait for a place at the workers of a base model.
    pub fn waiting(&self, base: &BaseName) -> usize {
        self.line(base).waiting()
    }

    /// Places that are taken at the workers of all base models.
    pub fn seats_taken(&self) -> u32 {
        lock(&self.lines).values().map(|line| line.taken()).sum()
    }

    fn line(&self, base: &BaseName) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(base) {
            return line.clone();
        }
        let headroom = match self.config.order {
            QueueOrder::Fair => self.config.headroom_percent,
            QueueOrder::Arrival => 0,
        };
        lines.entry(base.clone()).or_insert_with(|| Arc::new(Line::new(headroom))).clone()
    }

    /// How the caller stands with its limits.
    pub fn standing(&self, caller: &Caller, model: Option<&str>) -> Standing {
        lock(&self.ledger(&caller.tenant.id)).standing(caller, model, self.clock.now())
    }

    /// What is left of each limit of a tenant, one of its keys or models.
    pub fn left(&self, tenant: &TenantId, scope: &Scope, limits: &Limits) -> Vec<(Limit, u64)> {
        lock(&self.ledger(tenant)).left(scope, limits, self.clock.now())
    }

    /// Tokens of a budget that other gateways have used, or this one before
    /// it was started, in the period that began at the Unix time `start`.
    pub fn learn(&self, tenant: &TenantId, scope: Scope, period: Period, start: u64, tokens: u64) {
        lock(&self.ledger(tenant)).learn(scope, period, start, tokens, self.clock.now());
    }

    /// Those who have asked for something.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.shards.iter().flat_map(|shard| lock(shard).keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Permits that are held now, of all tenants.
    pub fn permits_held(&self) -> u32 {
        let of_shard = |shard: &Mutex<HashMap<_, Arc<Mutex<Ledger>>>>| -> u64 {
            lock(shard).values().map(|ledger| lock(ledger).running()).sum()
        };
        u32::try_from(self.shards.iter().map(of_shard).sum::<u64>()).unwrap_or(u32::MAX)
    }

    fn ledger(&self, tenant: &TenantId) -> Arc<Mutex<Ledger>> {
        let shard = self.hasher.hash_one(tenant) as usize % SHARDS;
        let mut shard = lock(&self.shards[shard]);
        if let Some(ledger) = shard.get(tenant) {
            return ledger.clone();
        }
        shard.entry(tenant.clone()).or_default().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Clock ===

impl Clock {
    fn now(&self) -> Now {
        let mode = self.sharing.as_ref().map_or(Mode::Alone, |sharing| sharing.mode());
        Now { moment: self.began.elapsed(), time: SystemTime::now(), mode }
    }

    /// Changes a tenant's accounts; what other gateways should know of it they will.
    fn with<T>(&self, tenant: &TenantId, ledger: &Arc<Mutex<Ledger>>, change: impl FnOnce(&mut Ledger, Now) -> T) -> T {
        let mut locked = lock(ledger);
        let changed = change(&mut locked, self.now());
        let enlisted = self.sharing.is_some() && locked.enlist();
        drop(locked);
        if enlisted && let Some(sharing) = &self.sharing {
            sharing.touch(tenant, ledger);
        }
        changed
    }
}

// === impl Permit ===

impl Permit {
    /// To be set once a worker has begun with the prompt: who leaves before its
    /// first token has been served all the same.
    pub fn read(&self) -> Arc<AtomicBool> {
        self.read.clone()
    }

    /// Its place at the workers is free for another: nobody reads the answer.
    pub fn leave_place(&mut self) {
        self.seat = None;
    }

    /// What the request has used so far, of both kinds, as far as it is known
    /// now. What is more than was charged is charged.
    pub fn used(&mut self, input: u64, output: u64) {
        self.used = Tokens { input, output };
        let over = |used: u64, reserved: u64, ahead: u64| match used > reserved {
            true => used - reserved + ahead,
            false => 0,
        };
        let more = Tokens {
            input: over(self.used.input, self.reserved.input, 0),
            output: over(self.used.output, self.reserved.output, AHEAD),
        };
        if more != Tokens::default() {
            self.reserved.input += more.input;
            self.reserved.output += more.output;
            let (caller, model) = (&self.caller, &self.model);
            self.clock
                .with(&caller.tenant.id, &self.ledger, |ledger, now| ledger.charge_more(caller, model, more, now));
        }
        if let Some(seat) = &mut self.seat {
            seat.took = Some(self.used.service());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.used == Tokens::default() && self.read.load(Ordering::Relaxed) {
            self.used(self.reserved.input, 0);
        }
        self.seat = None;
        let left =
            Tokens { input: self.reserved.input - self.used.input, output: self.reserved.output - self.used.output };
        let (caller, model, charged) = (&self.caller, &self.model, self.charged);
        self.clock
            .with(&caller.tenant.id, &self.ledger, |ledger, now| ledger.settle(caller, model, left, charged, now));
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::Limit { limit, .. } => Some(*limit),
            Self::Full { .. } | Self::TooLate { .. } | Self::Waited => None,
        }
    }

    /// Until it may be tried again, where that can be told.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Limit { wait, .. } => *wait,
            Self::Full { wait, .. } | Self::TooLate { wait } => Some(*wait),
            Self::Waited => None,
        }
    }
}

#[cfg(test)]
mod tests;
