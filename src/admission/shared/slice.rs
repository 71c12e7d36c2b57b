//! A gateway's part of one limit that several share. Pure: time is passed in.
//!
//! The whole of it is a window in Redis. A gateway is granted a slice of what
//! is left there, spends it without asking, and at its next report gives back
//! what it has not spent and is granted anew: an equal part of what is left
//! then, or as much as it was asked for of late. So slices are wide while there
//! is much, and narrow towards the end of it.
//!
//! What was granted is counted as used, so no two gateways spend the same unit.
//! Only what comes before the first word of Redis, and what a request turns out
//! to cost beyond its slice, is spent unasked. It is reported with the rest,
//! and the window has it as a debt: over the time, the limit is exact.

use std::time::Duration;

use crate::admission::window::{Allowance, Moment};

/// Reports while there is little left, or requests are refused.
pub(super) const QUICK: Duration = Duration::from_millis(50);
/// A grant is of what is left so much later, by when the next report is there:
/// or what comes back in between would be nobody's.
pub(super) const AHEAD: Duration = Duration::from_millis(100);
/// Reports while there is enough.
const SLOW: Duration = Duration::from_millis(500);
/// A refused request is expected to come again for so long.
const WANTED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default)]
pub(in crate::admission) struct Slice {
    /// Granted with the last word, and counted as used there until the next.
    lease: u64,
    /// Since the last report that was answered, less what came back.
    spent: i64,
    /// What of it the report says that is under way.
    sent: Option<i64>,
    /// Its number; kept until there is an answer.
    report: Option<u64>,
    /// What requests were charged, and would have been, since the last report.
    asked: u64,
    /// What the last one was charged.
    last: u64,
    /// Whether any of it was spent while Redis was away.
    apart: bool,
    /// Requests were refused, and wait for more until then.
    wanted: Moment,
    told: Option<Told>,
}

/// What was left of the whole limit.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Moment,
    /// Apart from what is granted to gateways.
    remaining: u64,
    /// Where nothing is left: from then on there will be.
    some: Moment,
    /// From then on all is there again.
    all: Moment,
    /// The state in Redis that this gateway's use is counted in.
    epoch: u64,
}

/// What a gateway says of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) struct Report {
    /// Names it; the same for one that is sent again since nobody answered.
    pub number: u64,
    /// Spent since the last answer; below zero, what came back.
    pub spent: i64,
    /// What it would like to be granted at least; 0: nothing at all.
    pub wanted: u64,
    /// What was used while Redis was away, and is sliding out of the window.
    pub before: u64,
}

/// The answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) struct Grant {
    pub granted: u64,
    /// Apart from it and what others were granted.
    pub remaining: u64,
    /// Until there is something, where there is nothing.
    pub wait: Duration,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// How much a gateway may spend of a limit that it has not heard of: its share
/// of it, as whole units in so much of the period.
pub(in crate::admission) fn share(limit: u64, period: Duration, gateways: u32) -> (u64, Duration) {
    let gateways = u64::from(gateways.max(1));
    let units = (limit / gateways).max(1);
    (units, period.mul_f64(units as f64 * gateways as f64 / limit.max(1) as f64))
}

// === impl Slice ===

impl Slice {
    /// Until something may be spent; zero where something may be now.
    pub(in crate::admission) fn wait(&self, limit: u64, period: Duration, gateways: u32, now: Moment) -> Duration {
        let room = self.lease.max(self.unasked(limit, period, gateways, now));
        // What comes back where nothing is left may be owed: Redis knows.
        if room > 0 && self.spent < i64::try_from(room).unwrap_or(i64::MAX) {
            return Duration::ZERO;
        }
        self.told.map_or(QUICK, |told| told.some.saturating_sub(now).max(QUICK))
    }

    /// What may be spent before Redis is heard of again.
    fn unasked(&self, limit: u64, period: Duration, gateways: u32, now: Moment) -> u64 {
        match self.told {
            Some(told) if now < told.all => match told.remaining {
                0 => u64::from(now >= told.some),
                remaining => remaining / u64::from(gateways.max(1)),
            },
            _ => share(limit, period, gateways).0,
        }
    }

    pub(in crate::admission) fn allowance(&self, limit: u64, now: Moment) -> Allowance {
        let Some(told) = self.told.filter(|told| now < told.all) else {
            let remaining = limit.saturating_sub(u64::try_from(self.spent).unwrap_or(0));
            return Allowance { limit, remaining, reset: Duration::ZERO };
        };
        let left = i128::from(told.remaining) + i128::from(self.lease) - i128::from(self.spent);
        let remaining = u64::try_from(left.max(0)).unwrap_or(u64::MAX).min(limit);
        Allowance { limit, remaining, reset: told.all - now }
    }

    pub(in crate::admission) fn spend(&mut self, units: u64) {
        self.spent = self.spent.saturating_add_unsigned(units);
        self.asked = self.asked.saturating_add(units);
        if units > 0 {
            self.last = units;
        }
    }

    /// What is spent now is for this gateway's own window.
    pub(in crate::admission) fn away(&mut self) {
        self.apart = true;
    }

    /// Spent before, and not used.
    pub(in crate::admission) fn give_back(&mut self, units: u64) {
        self.spent = self.spent.saturating_sub_unsigned(units);
    }

    /// A request was refused that will want it again.
    pub(in crate::admission) fn refused(&mut self, now: Moment) {
        self.wanted = now + WANTED;
        self.asked = self.asked.saturating_add(self.last.max(1));
    }

    /// When it is to be reported next; `None` where there is nothing to say.
    pub(in crate::admission) fn due(&self, now: Moment) -> Option<Moment> {
        let wanted = now < self.wanted;
        if self.sent.is_some() || (self.spent == 0 && self.lease == 0 && !wanted) {
            return None;
        }
        let Some(told) = self.told else { return Some(now) };
        let little = self.spent.saturating_mul(2) >= i64::try_from(self.lease).unwrap_or(i64::MAX);
        let quick = told.at + QUICK;
        Some(match (self.spent != 0, wanted) {
            (true, _) if little => quick,
            // Nothing to say but that more is wanted: once there is more.
            (false, true) if self.lease == 0 => quick.max(told.some.saturating_sub(QUICK)),
            (_, true) => quick,
            _ => told.at + SLOW,
        })
    }

    /// Begins a report. `counted` is what this gateway used and the window
    /// still counts: all there is to say to a state that has not heard of it.
    pub(in crate::admission) fn report(&mut self, counted: u64, epoch: u64, now: Moment) -> Report {
        let wants = self.asked > 0 || now < self.wanted;
        let wanted = if wants { std::mem::take(&mut self.asked).max(1) } else { 0 };
        let apart = u64::try_from(self.spent).unwrap_or(0).min(counted);
        let (spent, before) = match self.told {
            Some(told) if told.epoch == epoch && !self.apart => (self.spent, 0),
            Some(told) if told.epoch == epoch => (0, apart),
            None if !self.apart => (self.spent, 0),
            _ => (0, counted),
        };
        self.sent = Some(self.spent);
        // Of this run of the gateway, no two reports of a limit begin at one time.
        let number = *self.report.get_or_insert(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        Report { number, spent, wanted, before }
    }

    pub(in crate::admission) fn granted(&mut self, grant: Grant, epoch: u64, now: Moment) {
        self.spent -= self.sent.take().unwrap_or(0);
        self.report = None;
        self.lease = grant.granted;
        self.apart = false;
        self.told =
            Some(Told { at: now, remaining: grant.remaining, some: now + grant.wait, all: now + grant.reset, epoch });
    }

    /// There was no answer, and it will be said again.
    pub(in crate::admission) fn unanswered(&mut self) {
        self.sent = None;
    }

    /// Whether nothing is lost with it.
    pub(in crate::admission) fn is_spent(&self, now: Moment) -> bool {
        let known = self.told.is_some_and(|told| now < told.all);
        self.sent.is_none() && self.spent == 0 && self.lease == 0 && now >= self.wanted && !known
    }
}
