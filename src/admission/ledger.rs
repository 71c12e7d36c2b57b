//! What one tenant has used: an account of its own, one of each key that has
//! limits, and one of each model name that has. A request is charged to all
//! that apply to it, or to none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::budget::{Budget, Period};
use super::window::{Allowance, Moment, Window};
use super::{Refusal, Standing};
use crate::types::{Caller, Limit, Limits};

/// Both clocks: limits count the time that passes, budgets go by the calendar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub moment: Moment,
    pub time: SystemTime,
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
    others: BTreeMap<Scope, Account>,
}

#[derive(Debug, Default)]
struct Account {
    windows: [Window; WINDOWS.len()],
    day: Budget,
    month: Budget,
    running: u64,
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
    at: Moment,
    day: u64,
    month: u64,
}

/// As many tokens of a prompt are read in the time in which one is written.
const READ_PER_WRITTEN: u64 = 4;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

const WINDOWS: [(Limit, Duration); 4] = [
    (Limit::RequestsPerSecond, SECOND),
    (Limit::RequestsPerMinute, MINUTE),
    (Limit::InputTokensPerMinute, MINUTE),
    (Limit::OutputTokensPerMinute, MINUTE),
];

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
    pub(super) fn check(&self, caller: &Caller, model: Option<&str>, now: Now) -> Result<(), Refusal> {
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
        refusals.max_by_key(Refusal::wait).map_or(Ok(()), Err)
    }

    /// Charges a request, and what it is expected to use.
    pub(super) fn charge(&mut self, caller: &Caller, model: &str, tokens: Tokens, now: Now) -> Charged {
        let mut charged = Charged { at: now.moment, day: 0, month: 0 };
        for (scope, limits) in applying(caller, Some(model)) {
            let account = self.account_mut(scope);
            account.running += 1;
            account.charge(limits, 1, tokens, now);
            (charged.day, charged.month) = account.spend(tokens.input + tokens.output, now);
        }
        charged
    }

    /// A request uses more than was charged.
    pub(super) fn charge_more(&mut self, caller: &Caller, model: &str, tokens: Tokens, now: Now) {
        for (scope, limits) in applying(caller, Some(model)) {
            let account = self.account_mut(scope);
            account.charge(limits, 0, tokens, now);
            account.spend(tokens.input + tokens.output, now);
        }
    }

    /// A request has ended, and used so much less than was charged.
    pub(super) fn settle(&mut self, caller: &Caller, model: &str, left: Tokens, charged: Charged, now: Now) {
        for (scope, limits) in applying(caller, Some(model)) {
            let account = self.account_mut(scope);
            account.running = account.running.saturating_sub(1);
            for (window, (limit, period)) in account.windows.iter_mut().zip(WINDOWS) {
                let units = left.of(limit, 0);
                if let Some(allowed) = limits.of(limit).filter(|_| units > 0) {
                    window.refund(units, charged.at, allowed, period, now.moment);
                }
            }
            account.day.refund(left.input + left.output, charged.day);
            account.month.refund(left.input + left.output, charged.month);
        }
    }

    /// What others have used of a budget.
    pub(super) fn learn(&mut self, scope: Scope, period: Period, start: u64, tokens: u64, now: Now) {
        let account = self.account_mut(scope);
        let budget = match period {
            Period::Day => &mut account.day,
            Period::Month => &mut account.month,
        };
        budget.learn(tokens, start, period, now.time);
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
        let fresh = Account::default();
        let account = self.account(scope).unwrap_or(&fresh);
        let mut left: Vec<_> =
            account.allowances(limits, now).map(|(limit, allowance)| (limit, allowance.remaining)).collect();
        for (limit, period) in [(Limit::TokensPerDay, Period::Day), (Limit::TokensPerMonth, Period::Month)] {
            if let Some(allowed) = limits.of(limit) {
                left.push((limit, account.budget(period).left(allowed, period, now.time).0));
            }
        }
        if let Some(allowed) = limits.concurrent_generations {
            left.push((Limit::Concurrency, allowed.saturating_sub(account.running)));
        }
        left
    }

    pub(super) fn running(&self) -> u64 {
        self.tenant.running
    }

    fn account(&self, scope: &Scope) -> Option<&Account> {
        match scope {
            Scope::Tenant => Some(&self.tenant),
            other => self.others.get(other),
        }
    }

    fn account_mut(&mut self, scope: Scope) -> &mut Account {
        match scope {
            Scope::Tenant => &mut self.tenant,
            other => self.others.entry(other).or_default(),
        }
    }
}

/// The least is told: one that is used up, then the one with the smallest part left.
fn tightness(allowance: Allowance) -> (bool, u64) {
    let part = u128::from(allowance.remaining) * 1_000_000 / u128::from(allowance.limit.max(1));
    (allowance.remaining > 0, part as u64)
}

// === impl Account ===

impl Account {
    /// The limits that say no, what each allows and for how long it says so.
    fn refusals(&self, limits: &Limits, now: Now) -> impl Iterator<Item = (Limit, u64, Option<Duration>)> {
        let windows = self.windows.iter().zip(WINDOWS).filter_map(move |(window, (limit, period))| {
            let allowed = limits.of(limit)?;
            let wait = window.wait(allowed, period, now.moment);
            (!wait.is_zero()).then_some((limit, allowed, Some(wait)))
        });
        let budgets = [(Limit::TokensPerDay, Period::Day), (Limit::TokensPerMonth, Period::Month)];
        let budgets = budgets.into_iter().filter_map(move |(limit, period)| {
            let allowed = limits.of(limit)?;
            let (left, wait) = self.budget(period).left(allowed, period, now.time);
            (left == 0).then_some((limit, allowed, Some(wait)))
        });
        let most = limits.concurrent_generations.filter(|most| self.running >= *most);
        windows.chain(budgets).chain(most.map(|most| (Limit::Concurrency, most, None)))
    }

    fn allowances(&self, limits: &Limits, now: Now) -> impl Iterator<Item = (Limit, Allowance)> {
        self.windows.iter().zip(WINDOWS).filter_map(move |(window, (limit, period))| {
            Some((limit, window.allowance(limits.of(limit)?, period, now.moment)))
        })
    }

    fn charge(&mut self, limits: &Limits, requests: u64, tokens: Tokens, now: Now) {
        for (window, (limit, period)) in self.windows.iter_mut().zip(WINDOWS) {
            if let Some(allowed) = limits.of(limit) {
                window.charge(tokens.of(limit, requests), allowed, period, now.moment);
            }
        }
    }

    /// Takes tokens out of the budgets; the beginnings of their periods.
    fn spend(&mut self, tokens: u64, now: Now) -> (u64, u64) {
        let day = self.day.charge(tokens, Period::Day, now.time);
        (day, self.month.charge(tokens, Period::Month, now.time))
    }

    fn budget(&self, period: Period) -> Budget {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

// === impl Tokens ===

impl Tokens {
    /// What it takes of a worker, in tokens that are written.
    pub(super) fn service(self) -> u64 {
        self.output.saturating_add(self.input / READ_PER_WRITTEN)
    }

    /// What of it a limit counts.
    fn of(self, limit: Limit, requests: u64) -> u64 {
        match limit {
            Limit::RequestsPerSecond | Limit::RequestsPerMinute => requests,
            Limit::InputTokensPerMinute => self.input,
            Limit::OutputTokensPerMinute => self.output,
            Limit::TokensPerDay | Limit::TokensPerMonth => self.input + self.output,
            Limit::Concurrency => 0,
        }
    }
}
