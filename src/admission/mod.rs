//! May it run now? [`Admission::admit`] answers from the limits of the tenant,
//! of the key and of the model name; [`Admission::seat`] then waits until the
//! workers have a place, in a queue that is fair in tokens.
//!
//! What a request will use is not known when it comes. So an estimate is
//! charged with the [`Permit`], what it uses beyond is charged as it runs, and
//! what it leaves is given back when the permit is dropped, that is when the
//! response's body is. Accounts belong to the tenant's id and outlive a reload
//! of the configuration.

mod budget;
mod estimate;
mod ledger;
mod line;
mod queue;
mod window;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::types::{BaseName, Caller, Limit, Limits, Priority, QueueOrder, Tenant, TenantId};

pub use budget::Period;
pub use estimate::{Estimate, sequences};
pub use ledger::Scope;
pub use window::Allowance;

use ledger::{Charged, Ledger, Now, Tokens};
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
}

pub struct Admission {
    config: Config,
    lines: Mutex<HashMap<BaseName, Arc<Line>>>,
    shards: [Mutex<HashMap<TenantId, Arc<Mutex<Ledger>>>>; SHARDS],
    hasher: RandomState,
    began: Instant,
}

/// A request that may run: charged to the accounts that it counts against, and
/// settled with them when this is dropped.
pub struct Permit {
    ledger: Arc<Mutex<Ledger>>,
    caller: Caller,
    model: Arc<str>,
    began: Instant,
    charged: Charged,
    reserved: Tokens,
    used: Tokens,
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
        Self { max_wait: Duration::from_secs(30), max_waiting: 1024, order: QueueOrder::Fair }
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
        Self { config, lines: Mutex::default(), shards, hasher: RandomState::new(), began: Instant::now() }
    }

    /// Whether the caller may send a request at all, before it has been read.
    /// Charges nothing.
    pub fn check(&self, caller: &Caller) -> Result<(), Refusal> {
        lock(&self.ledger(&caller.tenant.id)).check(caller, None, self.now())
    }

    /// Charges a request that may run.
    pub fn admit(&self, caller: &Caller, model: &Arc<str>, estimate: Estimate) -> Result<Permit, Refusal> {
        let (ledger, now) = (self.ledger(&caller.tenant.id), self.now());
        let reserved = Tokens { input: estimate.input, output: estimate.output };
        let charged = {
            let mut ledger = lock(&ledger);
            ledger.check(caller, Some(model), now)?;
            ledger.charge(caller, model, reserved, now)
        };
        Ok(Permit {
            ledger,
            caller: caller.clone(),
            model: model.clone(),
            began: self.began,
            charged,
            reserved,
            used: Tokens::default(),
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
        let most = tenant.limits.concurrent_generations.map_or(usize::MAX, |most| most as usize);
        for line in lines {
            line.keep(&tenant.id, tenant.share.max_waiting.min(most));
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
        lines.entry(base.clone()).or_default().clone()
    }

    /// How the caller stands with its limits.
    pub fn standing(&self, caller: &Caller, model: Option<&str>) -> Standing {
        lock(&self.ledger(&caller.tenant.id)).standing(caller, model, self.now())
    }

    /// What is left of each limit of a tenant, one of its keys or models.
    pub fn left(&self, tenant: &TenantId, scope: &Scope, limits: &Limits) -> Vec<(Limit, u64)> {
        lock(&self.ledger(tenant)).left(scope, limits, self.now())
    }

    /// Tokens of a budget that other gateways have used, or this one before
    /// it was started, in the period that began at the Unix time `start`.
    pub fn learn(&self, tenant: &TenantId, scope: Scope, period: Period, start: u64, tokens: u64) {
        lock(&self.ledger(tenant)).learn(scope, period, start, tokens, self.now());
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

    fn now(&self) -> Now {
        now(self.began)
    }
}

fn now(began: Instant) -> Now {
    Now { moment: began.elapsed(), time: SystemTime::now() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Permit ===

impl Permit {
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
            lock(&self.ledger).charge_more(&self.caller, &self.model, more, now(self.began));
        }
        if let Some(seat) = &mut self.seat {
            seat.took = Some(self.used.service());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.seat = None;
        let left =
            Tokens { input: self.reserved.input - self.used.input, output: self.reserved.output - self.used.output };
        lock(&self.ledger).settle(&self.caller, &self.model, left, self.charged, now(self.began));
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
