//! What one tenant has used: an account of its own, one of each key that has
//! limits, and one of each model name that has. A request is charged to all
//! that apply to it, or to none.

use std::sync::Arc;
use std::time::SystemTime;

use super::account::{Account, Answer, Due};
use super::budget::Period;
use super::window::{Allowance, Moment};
use super::{Refusal, Standing};
use crate::types::{Caller, Limit, Limits};

/// Both clocks: limits count the time that passes, budgets go by the calendar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub moment: Moment,
    pub time: SystemTime,
    pub mode: Mode,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// This gateway alone.
    Alone,
    /// All of them, through Redis.
    Shared { gateways: u32 },
    /// Each for itself its share, since Redis is away.
    Apart { gateways: u32 },
}

/// Whose limit it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Tenant,
    /// By the key's name.
    Key(Arc<str>),
    /// By the model's name, as clients write it.
    Model(Arc<str>),
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    tenant: Account,
    /// A few at most, and of very many tenants: no room for more than there are.
    others: Vec<(Scope, Account)>,
    /// Whether it is among those that are looked at for reports.
    listed: bool,
}

/// Tokens that are charged, or may yet be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tokens {
    pub input: u64,
    pub output: u64,
}

/// When a request was charged, so that what it leaves goes back to where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charged {
    pub at: Moment,
    /// The beginnings of the budgets' periods.
    pub day: u64,
    pub month: u64,
}

/// As many tokens of a prompt are read in the time in which one is written.
const READ_PER_WRITTEN: u64 = 4;

/// What applies to a request, the tenant's own first.
pub(super) fn applying<'a>(caller: &'a Caller, model: Option<&str>) -> impl Iterator<Item = (Scope, &'a Limits)> {
    let key = (Scope::Key(caller.key.name.clone()), &caller.key.limits);
    let model = model.and_then(|model| caller.tenant.model_limits.get_key_value(model));
    let model = model.map(|(name, limits)| (Scope::Model(name.clone()), limits));
    let narrower = [Some(key), model].into_iter().flatten().filter(|(_, limits)| limits.count());
    std::iter::once((Scope::Tenant, &caller.tenant.limits)).chain(narrower)
}

// === impl Ledger ===

impl Ledger {
    /// Whether a request may run now; of all limits that say no, the one that
    /// does so for longest.
    pub(super) fn check(&mut self, caller: &Caller, model: Option<&str>, now: Now) -> Result<(), Refusal> {
        let fresh = Account::default();
        let refusals = applying(caller, model).flat_map(|(scope, limits)| {
            let account = self.account(&scope).unwrap_or(&fresh);
            account.refusals(limits, now).map(move |(limit, allowed, wait)| Refusal::Limit {
                limit,
                scope: scope.clone(),
                allowed,
                wait,
            })
        });
        let Some(refusal) = refusals.max_by_key(Refusal::wait) else { return Ok(()) };
        if let Refusal::Limit { limit, scope, .. } = &refusal
            && let Some((scope, limits)) = applying(caller, model).find(|(other, _)| other == scope)
        {
            self.account_mut(scope).refused(limits, *limit, now);
        }
        Err(refusal)
    }

    /// Charges a request, and what it is expected to use.
    pub(super) fn charge(&mut self, caller: &Caller, model: &str, tokens: Tokens, now: Now) -> Charged {
        let mut charged = Charged { at: now.moment, day: 0, month: 0 };
        for (scope, limits) in applying(caller, Some(model)) {
            charged = self.account_mut(scope).begin(limits, tokens, now);
        }
        charged
    }

    /// A request uses more than was charged.
    pub(super) fn charge_more(&mut self, caller: &Caller, model: &str, tokens: Tokens, now: Now) {
        for (scope, limits) in applying(caller, Some(model)) {
            self.account_mut(scope).charge_more(limits, tokens, now);
        }
    }

    /// A request has ended, and used so much less than was charged.
    pub(super) fn settle(&mut self, caller: &Caller, model: &str, left: Tokens, charged: Charged, now: Now) {
        for (scope, limits) in applying(caller, Some(model)) {
            self.account_mut(scope).end(limits, left, charged, now);
        }
    }

    /// What others have used of a budget.
    pub(super) fn learn(&mut self, scope: Scope, period: Period, start: u64, tokens: u64, now: Now) {
        self.account_mut(scope).learn(period, start, tokens, now);
    }

    /// What clients are told of their limits.
    pub(super) fn standing(&self, caller: &Caller, model: Option<&str>, now: Now) -> Standing {
        let fresh = Account::default();
        let mut standing = Standing::default();
        for (scope, limits) in applying(caller, model) {
            let account = self.account(&scope).unwrap_or(&fresh);
            for (limit, allowance) in account.allowances(limits, now) {
                let place = if limit.unit() == "requests" { &mut standing.requests } else { &mut standing.tokens };
                if place.is_none_or(|told| tightness(allowance) < tightness(told)) {
                    *place = Some(allowance);
                }
            }
        }
        standing
    }

    /// Of each limit that is set, what is left.
    pub(super) fn left(&self, scope: &Scope, limits: &Limits, now: Now) -> Vec<(Limit, u64)> {
        self.account(scope).unwrap_or(&Account::default()).left(limits, now)
    }

    pub(super) fn running(&self) -> u64 {
        self.tenant.running()
    }

    fn account(&self, scope: &Scope) -> Option<&Account> {
        match scope {
            Scope::Tenant => Some(&self.tenant),
            other => self.others.iter().find(|(scope, _)| scope == other).map(|(_, account)| account),
        }
    }

    fn account_mut(&mut self, scope: Scope) -> &mut Account {
        match scope {
            Scope::Tenant => &mut self.tenant,
            other => {
                let place = self.others.iter().position(|(scope, _)| *scope == other).unwrap_or_else(|| {
                    self.others.reserve_exact(1);
                    self.others.push((other, Account::default()));
                    self.others.len() - 1
                });
                &mut self.others[place].1
            }
        }
    }

    // --- shared between gateways ---

    /// Whether it has to be looked at for reports, and is not yet.
    pub(super) fn enlist(&mut self) -> bool {
        let has_parts = self.tenant.has_parts() || self.others.iter().any(|(_, account)| account.has_parts());
        has_parts && !std::mem::replace(&mut self.listed, true)
    }

    /// Begins the reports that are due, or all where the gateway takes its leave.
    pub(super) fn due(&mut self, epoch: u64, leaving: bool, now: Now, mut tell: impl FnMut(&Scope, Due)) {
        for (scope, account) in self.accounts_mut() {
            account.due(epoch, leaving, now, |due| tell(scope, due));
        }
    }

    pub(super) fn answered(&mut self, scope: &Scope, answer: Answer, epoch: u64, now: Now) {
        self.account_mut(scope.clone()).answered(answer, epoch, now);
    }

    /// The reports that are under way are not answered.
    pub(super) fn unanswered(&mut self) {
        self.accounts_mut().for_each(|(_, account)| account.unanswered());
    }

    /// Whether there is something still to be reported, sooner or later.
    pub(super) fn tidy(&mut self, now: Now) -> bool {
        self.listed = self.accounts_mut().fold(false, |left, (_, account)| account.tidy(now) || left);
        self.listed
    }

    fn accounts_mut(&mut self) -> impl Iterator<Item = (&Scope, &mut Account)> {
        let others = self.others.iter_mut().map(|(scope, account)| (&*scope, account));
        std::iter::once((&Scope::Tenant, &mut self.tenant)).chain(others)
    }
}

/// The least is told: one that is used up, then the one with the smallest part left.
fn tightness(allowance: Allowance) -> (bool, u64) {
    let part = u128::from(allowance.remaining) * 1_000_000 / u128::from(allowance.limit.max(1));
    (allowance.remaining > 0, part as u64)
}

// === impl Tokens ===

impl Tokens {
    /// What it takes of a worker, in tokens that are written.
    pub(super) fn service(self) -> u64 {
        self.output.saturating_add(self.input / READ_PER_WRITTEN)
    }

    /// What of it a limit counts.
    pub(super) fn of(self, limit: Limit, requests: u64) -> u64 {
        match limit {
            Limit::RequestsPerSecond | Limit::RequestsPerMinute => requests,
            Limit::InputTokensPerMinute => self.input,
            Limit::OutputTokensPerMinute => self.output,
            Limit::TokensPerDay | Limit::TokensPerMonth => self.input + self.output,
            Limit::Concurrency => 0,
        }
    }
}
