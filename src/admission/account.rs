//! What was used of one set of limits: a tenant's, a key's or a model's.

use std::time::Duration;

use super::budget::{Budget, Period};
use super::ledger::{Charged, Mode, Now, Tokens};
use super::shared::{Grant, Places, Report, Slice, share};
use super::window::{Allowance, Window};
use crate::types::{Limit, Limits};

#[derive(Debug, Default)]
pub(super) struct Account {
    windows: [Window; WINDOWS.len()],
    day: Budget,
    month: Budget,
    running: u64,
    /// Where limits are shared between gateways: this one's parts. `None`
    /// while nothing is used of them.
    parts: Option<Box<Parts>>,
    /// Whether the windows are of this gateway's share alone.
    apart: bool,
}

#[derive(Debug, Default)]
struct Parts {
    slices: [Slice; WINDOWS.len()],
    places: Places,
    /// As they were for the request that came last: those that run may know older ones.
    limits: [Option<u64>; WINDOWS.len()],
    most: Option<u64>,
}

/// What is reported of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Window { index: usize, limit: u64, report: Report },
    Places { limit: u64, running: u64, wants: bool },
}

/// What Redis says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Window { index: usize, grant: Grant },
    Places { granted: u64, free: u64 },
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

pub(super) const WINDOWS: [(Limit, Duration); 4] = [
    (Limit::RequestsPerSecond, SECOND),
    (Limit::RequestsPerMinute, MINUTE),
    (Limit::InputTokensPerMinute, MINUTE),
    (Limit::OutputTokensPerMinute, MINUTE),
];

const BUDGETS: [(Limit, Period); 2] = [(Limit::TokensPerDay, Period::Day), (Limit::TokensPerMonth, Period::Month)];

// === impl Account ===

impl Account {
    /// The limits that say no, what each allows and for how long it says so.
    pub(super) fn refusals(&self, limits: &Limits, now: Now) -> impl Iterator<Item = (Limit, u64, Option<Duration>)> {
        let windows = WINDOWS.iter().enumerate().filter_map(move |(index, (limit, period))| {
            let allowed = limits.of(*limit)?;
            let wait = self.wait(index, allowed, *period, now);
            (!wait.is_zero()).then_some((*limit, allowed, Some(wait)))
        });
        let budgets = BUDGETS.into_iter().filter_map(move |(limit, period)| {
            let allowed = limits.of(limit)?;
            let (left, wait) = self.budget(period).left(allowed, period, now.time);
            (left == 0).then_some((limit, allowed, Some(wait)))
        });
        let most = limits.concurrent_generations.filter(|most| self.running >= self.room(*most, now));
        windows.chain(budgets).chain(most.map(|most| (Limit::Concurrency, most, None)))
    }

    fn wait(&self, index: usize, allowed: u64, period: Duration, now: Now) -> Duration {
        let window = self.windows[index];
        match now.mode {
            Mode::Alone => window.wait(allowed, period, now.moment),
            Mode::Shared { gateways } => match &self.parts {
                Some(parts) => parts.slices[index].wait(allowed, period, gateways, now.moment),
                None => Duration::ZERO,
            },
            Mode::Apart { gateways } => {
                let (part, within) = share(allowed, period, gateways);
                let window = if self.apart { window } else { window.held_to(part, allowed, period, now.moment) };
                window.wait(part, within, now.moment)
            }
        }
    }

    /// How many generations may run.
    fn room(&self, most: u64, now: Now) -> u64 {
        match (now.mode, &self.parts) {
            (Mode::Alone, _) => most,
            (Mode::Shared { gateways }, Some(parts)) => parts.places.room(most, gateways, now.moment),
            (Mode::Shared { gateways } | Mode::Apart { gateways }, _) => (most / u64::from(gateways.max(1))).max(1),
        }
    }

    /// A limit said no, and will be asked again.
    pub(super) fn refused(&mut self, limits: &Limits, limit: Limit, now: Now) {
        if now.mode == Mode::Alone {
            return;
        }
        self.follow(limits, now);
        let parts = self.parts(limits);
        parts.hold_to(limits);
        if limit == Limit::Concurrency {
            parts.places.refused(now.moment);
        }
        for (slice, (of, _)) in parts.slices.iter_mut().zip(WINDOWS) {
            if of == limit {
                slice.refused(now.moment);
            }
        }
    }

    /// Of the limits over time, how each stands.
    pub(super) fn allowances(&self, limits: &Limits, now: Now) -> impl Iterator<Item = (Limit, Allowance)> {
        WINDOWS.iter().enumerate().filter_map(move |(index, (limit, period))| {
            let allowed = limits.of(*limit)?;
            let allowance = match (now.mode, &self.parts) {
                (Mode::Shared { .. }, Some(parts)) => parts.slices[index].allowance(allowed, now.moment),
                (Mode::Apart { gateways }, _) if self.apart => {
                    let (part, within) = share(allowed, *period, gateways);
                    let own = self.windows[index].allowance(part, within, now.moment);
                    Allowance { limit: allowed, ..own }
                }
                _ => self.windows[index].allowance(allowed, *period, now.moment),
            };
            Some((*limit, allowance))
        })
    }

    /// Of each limit that is set, what is left.
    pub(super) fn left(&self, limits: &Limits, now: Now) -> Vec<(Limit, u64)> {
        let mut left: Vec<_> =
            self.allowances(limits, now).map(|(limit, allowance)| (limit, allowance.remaining)).collect();
        for (limit, period) in BUDGETS {
            if let Some(allowed) = limits.of(limit) {
                left.push((limit, self.budget(period).left(allowed, period, now.time).0));
            }
        }
        if let Some(allowed) = limits.concurrent_generations {
            let there = match (now.mode, &self.parts) {
                (Mode::Alone, _) => allowed,
                (_, Some(parts)) => parts.places.there(allowed, now.moment),
                (_, None) => allowed,
            };
            left.push((Limit::Concurrency, there.saturating_sub(self.running)));
        }
        left
    }

    /// Charges a request that begins.
    pub(super) fn begin(&mut self, limits: &Limits, tokens: Tokens, now: Now) -> Charged {
        self.running += 1;
        if now.mode != Mode::Alone {
            self.parts(limits).hold_to(limits);
        }
        self.charge(limits, 1, tokens, now);
        let (day, month) = self.spend(tokens.input + tokens.output, now);
        Charged { at: now.moment, day, month }
    }

    /// Charges what it uses beyond.
    pub(super) fn charge_more(&mut self, limits: &Limits, tokens: Tokens, now: Now) {
        self.charge(limits, 0, tokens, now);
        self.spend(tokens.input + tokens.output, now);
    }

    /// It has ended, and used so much less than was charged.
    pub(super) fn end(&mut self, limits: &Limits, left: Tokens, charged: Charged, now: Now) {
        self.running = self.running.saturating_sub(1);
        self.follow(limits, now);
        for (index, (limit, period)) in WINDOWS.into_iter().enumerate() {
            let units = left.of(limit, 0);
            let Some(allowed) = limits.of(limit).filter(|_| units > 0) else { continue };
            let (part, within) = self.measure(allowed, period, now);
            self.windows[index].refund(units, charged.at, part, within, now.moment);
            if let Some(parts) = &mut self.parts {
                parts.slices[index].give_back(units);
            }
        }
        self.day.refund(left.input + left.output, charged.day);
        self.month.refund(left.input + left.output, charged.month);
    }

    fn charge(&mut self, limits: &Limits, requests: u64, tokens: Tokens, now: Now) {
        self.follow(limits, now);
        for (index, (limit, period)) in WINDOWS.into_iter().enumerate() {
            let Some(allowed) = limits.of(limit) else { continue };
            let units = tokens.of(limit, requests);
            let (part, within) = self.measure(allowed, period, now);
            self.windows[index].charge(units, part, within, now.moment);
            if let Some(parts) = &mut self.parts {
                parts.slices[index].spend(units);
                if self.apart {
                    parts.slices[index].away();
                }
            }
        }
    }

    /// Takes tokens out of the budgets; the beginnings of their periods.
    fn spend(&mut self, tokens: u64, now: Now) -> (u64, u64) {
        let day = self.day.charge(tokens, Period::Day, now.time);
        (day, self.month.charge(tokens, Period::Month, now.time))
    }

    /// What others have used of a budget.
    pub(super) fn learn(&mut self, period: Period, start: u64, tokens: u64, now: Now) {
        let budget = match period {
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
        };
        budget.learn(tokens, start, period, now.time);
    }

    fn budget(&self, period: Period) -> Budget {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }

    pub(super) fn running(&self) -> u64 {
        self.running
    }

    // --- shared between gateways ---

    /// What the windows are counted by: the limit, or this gateway's share.
    fn measure(&self, allowed: u64, period: Duration, now: Now) -> (u64, Duration) {
        match now.mode {
            Mode::Apart { gateways } => share(allowed, period, gateways),
            Mode::Alone | Mode::Shared { .. } => (allowed, period),
        }
    }

    /// Goes over to counting by itself, or together with others.
    fn follow(&mut self, limits: &Limits, now: Now) {
        if now.mode == Mode::Alone {
            return;
        }
        self.parts(limits);
        let Mode::Apart { gateways } = now.mode else {
            self.apart = false;
            return;
        };
        if !std::mem::replace(&mut self.apart, true) {
            for (window, (limit, period)) in self.windows.iter_mut().zip(WINDOWS) {
                if let Some(allowed) = limits.of(limit) {
                    let (part, _) = share(allowed, period, gateways);
                    *window = window.held_to(part, allowed, period, now.moment);
                }
            }
        }
    }

    fn parts(&mut self, limits: &Limits) -> &mut Parts {
        self.parts.get_or_insert_with(|| {
            let mut parts = Box::<Parts>::default();
            parts.hold_to(limits);
            parts
        })
    }

    /// Whether anything may have to be reported.
    pub(super) fn has_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Begins the reports that are due, or all where the gateway takes its leave.
    pub(super) fn due(&mut self, epoch: u64, leaving: bool, now: Now, mut tell: impl FnMut(Due)) {
        let (running, windows) = (self.running, self.windows);
        let Some(parts) = &mut self.parts else { return };
        let is_due = |at: Option<Duration>| at.is_some_and(|at| leaving || at <= now.moment);
        for (index, slice) in parts.slices.iter_mut().enumerate() {
            let Some(limit) = parts.limits[index] else { continue };
            if is_due(slice.due(now.moment)) {
                let used = windows[index].used(limit, WINDOWS[index].1, now.moment);
                let report = slice.report(used, epoch, now.moment);
                tell(Due::Window {
                    index,
                    limit,
                    report: if leaving { Report { wanted: 0, ..report } } else { report },
                });
            }
        }
        if let Some(limit) = parts.most
            && is_due(parts.places.due(running, now.moment))
        {
            let wants = parts.places.report(running, now.moment);
            tell(Due::Places { limit, running, wants: wants && !leaving });
        }
    }

    pub(super) fn answered(&mut self, answer: Answer, epoch: u64, now: Now) {
        let Some(parts) = &mut self.parts else { return };
        match answer {
            Answer::Window { index, grant } => parts.slices[index].granted(grant, epoch, now.moment),
            Answer::Places { granted, free } => parts.places.granted(granted, free, now.moment),
        }
    }

    /// The reports that are under way are not answered.
    pub(super) fn unanswered(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        parts.slices.iter_mut().for_each(Slice::unanswered);
        parts.places.unanswered();
    }

    /// Forgets the parts where nothing is known or to be said of them. Whether
    /// there is something still to be said.
    pub(super) fn tidy(&mut self, now: Now) -> bool {
        let running = self.running;
        let Some(parts) = &self.parts else { return false };
        let spent = |(slice, limit): (&Slice, &Option<u64>)| limit.is_none() || slice.is_spent(now.moment);
        let places = parts.most.is_none() || parts.places.is_spent(running, now.moment);
        if places && parts.slices.iter().zip(&parts.limits).all(spent) {
            self.parts = None;
        }
        self.parts.is_some()
    }
}

// === impl Parts ===

impl Parts {
    fn hold_to(&mut self, limits: &Limits) {
        self.limits = WINDOWS.map(|(limit, _)| limits.of(limit));
        self.most = limits.concurrent_generations;
    }
}
