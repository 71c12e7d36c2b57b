//! One limit of so many units in a period, exact over any stretch of time.
//! Pure: time is passed in.
//!
//! A sliding window of two counters: what was used in this period, and of what
//! was used in the one before it the part that has not yet slid out. So after a
//! quiet period all of a limit may be used at once, and a tenant that asks for
//! more all the time is given it evenly.
//!
//! A request is let through while anything is left, since what it will use is
//! not known: so a period may end with more used than was allowed. That is a
//! debt, and the periods that follow pay it. Hence, however requests come and
//! whatever they turn out to cost, `n` periods see no more than `n` limits and
//! what the requests in flight at one time use.

use std::time::Duration;

/// A moment, as the time since the process began to count.
pub(super) type Moment = Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Window {
    start: Moment,
    /// In this period.
    used: u64,
    /// In the one before, up to the limit.
    before: u64,
    /// What earlier ones used over theirs, and this one pays.
    debt: u64,
}

/// What a limit allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is there again, if nothing is used.
    pub reset: Duration,
}

// === impl Window ===

impl Window {
    /// What may still be used, and when all may be.
    pub(super) fn allowance(mut self, limit: u64, period: Duration, now: Moment) -> Allowance {
        self.roll(limit, period, now);
        let remaining = limit.saturating_sub(self.counted(period, now));
        Allowance { limit, remaining, reset: self.reset(limit, period, now) }
    }

    /// Until something may be used; zero where something may be now.
    pub(super) fn wait(mut self, limit: u64, period: Duration, now: Moment) -> Duration {
        self.roll(limit, period, now);
        if self.counted(period, now) < limit {
            return Duration::ZERO;
        }
        let mut at = now;
        let spent = self.used + self.debt;
        if spent >= limit {
            // This period is used up, and so are those that pay debts in full.
            at = self.start + period * u32::try_from(spent / limit).unwrap_or(u32::MAX);
            self.roll(limit, period, at);
            if self.used + self.debt >= limit {
                at = self.start + period;
                self.roll(limit, period, at);
            }
        }
        // As much of the period before has to slide out as is over what this one leaves.
        let slide = self.before.saturating_sub(limit - (self.used + self.debt).min(limit));
        let slid = if self.before == 0 { 0.0 } else { slide as f64 / self.before as f64 };
        let free = self.start + period.mul_f64(slid.min(1.0)) + Duration::from_micros(1);
        free.max(at).saturating_sub(now)
    }

    pub(super) fn charge(&mut self, units: u64, limit: u64, period: Duration, now: Moment) {
        self.roll(limit, period, now);
        if self.is_empty() {
            self.start = now;
        }
        self.used = self.used.saturating_add(units);
    }

    /// Gives back what was charged at `charged` and not used.
    pub(super) fn refund(&mut self, units: u64, charged: Moment, limit: u64, period: Duration, now: Moment) {
        self.roll(limit, period, now);
        let mut left = units;
        let mut take = |from: &mut u64| {
            let taken = left.min(*from);
            *from -= taken;
            left -= taken;
        };
        if charged >= self.start {
            take(&mut self.used);
        }
        take(&mut self.debt);
        take(&mut self.before);
        take(&mut self.used);
    }

    /// What counts against the limit now.
    pub(super) fn used(mut self, limit: u64, period: Duration, now: Moment) -> u64 {
        self.roll(limit, period, now);
        self.counted(period, now)
    }

    /// Held to a part of the limit from now on: what was used of the whole
    /// slides out of the part, and no debt is left.
    pub(super) fn held_to(self, part: u64, limit: u64, period: Duration, now: Moment) -> Self {
        let before = self.used(limit, period, now).min(part);
        Self { start: now, before, ..Self::default() }
    }

    /// All that counts now, and more that does, slides out from now on.
    #[cfg(test)]
    pub(super) fn sliding(self, more: u64, limit: u64, period: Duration, now: Moment) -> Self {
        let all = self.used(limit, period, now) + more;
        Self { start: now, used: 0, before: all.min(limit), debt: all.saturating_sub(limit) }
    }

    fn is_empty(&self) -> bool {
        self.used == 0 && self.before == 0 && self.debt == 0
    }

    /// What counts against the limit now. A unit that has begun to slide out
    /// does not, or a limit of one would be one in two periods.
    fn counted(&self, period: Duration, now: Moment) -> u64 {
        let passed = now.saturating_sub(self.start).as_nanos().min(period.as_nanos());
        let rest = u128::from(self.before) * (period.as_nanos() - passed);
        let sliding = (rest / period.as_nanos().max(1)) as u64;
        sliding.saturating_add(self.used).saturating_add(self.debt)
    }

    fn reset(&self, limit: u64, period: Duration, now: Moment) -> Duration {
        let spent = self.used + self.debt;
        let periods = match (spent, self.before) {
            (0, 0) => return Duration::ZERO,
            (0, _) => 1,
            _ => 1 + spent.div_ceil(limit.max(1)),
        };
        let end = self.start + period * u32::try_from(periods).unwrap_or(u32::MAX);
        end.saturating_sub(now)
    }

    /// Goes on to the period that `now` is in. A clock that steps back stays
    /// where it was.
    fn roll(&mut self, limit: u64, period: Duration, now: Moment) {
        let passed = now.saturating_sub(self.start).as_nanos() / period.as_nanos().max(1);
        let Ok(passed) = u32::try_from(passed) else {
            *self = Self { start: now, ..Self::default() };
            return;
        };
        if passed == 0 {
            return;
        }
        self.start += period * passed;
        let spent = self.used.saturating_add(self.debt);
        // Of the periods that passed, all but the last paid debts alone.
        let paid = limit.saturating_mul(u64::from(passed - 1));
        let last = spent.saturating_sub(paid);
        self.before = last.min(limit);
        self.debt = last.saturating_sub(limit);
        self.used = 0;
    }
}

#[cfg(test)]
mod tests;
