//! Tokens of a day or a month, by the calendar of UTC. Pure: time is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{Datelike, Months, NaiveDate};

const DAY: u64 = 24 * 60 * 60;

/// How long a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    Day,
    Month,
}

/// What was used of a budget in its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Budget {
    now: Spent,
    /// In the period it was before, for a clock that goes back there.
    before: Spent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Spent {
    /// Unix time in seconds at which the period began.
    start: u64,
    /// By this process, with what is reserved.
    used: u64,
    /// By other gateways, and by this one before it was started.
    others: u64,
}

// === impl Period ===

impl Period {
    /// Beginning and end of the period that `time` is in, as Unix time in seconds.
    pub fn around(self, time: SystemTime) -> (u64, u64) {
        let day = unix(time) / DAY;
        let month = match self {
            Self::Day => None,
            Self::Month => i64::try_from(day).ok().and_then(month),
        };
        // A time that no calendar has is in a day.
        month.unwrap_or((day * DAY, (day + 1) * DAY))
    }
}

fn month(day: i64) -> Option<(u64, u64)> {
    let first = NaiveDate::from_epoch_days(i32::try_from(day).ok()?)?.with_day(1)?;
    let next = first.checked_add_months(Months::new(1))?;
    let start = |date: NaiveDate| u64::try_from(date.to_epoch_days()).ok().map(|day| day * DAY);
    Some((start(first)?, start(next)?))
}

// === impl Budget ===

impl Budget {
    /// What is left, and the time until all of it is there again.
    pub(super) fn left(mut self, limit: u64, period: Period, time: SystemTime) -> (u64, Duration) {
        self.roll(period, time);
        let (_, end) = period.around(UNIX_EPOCH + Duration::from_secs(self.now.start));
        (
            limit.saturating_sub(self.now.used.saturating_add(self.now.others)),
            Duration::from_secs(end.saturating_sub(unix(time)).max(1)),
        )
    }

    /// The beginning of the period that was charged.
    pub(super) fn charge(&mut self, tokens: u64, period: Period, time: SystemTime) -> u64 {
        self.roll(period, time);
        self.now.used = self.now.used.saturating_add(tokens);
        self.now.start
    }

    /// Gives back what was charged to the period that began at `start`. One
    /// that is over keeps it: what it would be given to is another one's.
    pub(super) fn refund(&mut self, tokens: u64, start: u64) {
        if self.now.start == start {
            self.now.used = self.now.used.saturating_sub(tokens);
        }
    }

    /// So much was used by others in the period that began at `start`.
    pub(super) fn learn(&mut self, others: u64, start: u64, period: Period, time: SystemTime) {
        self.roll(period, time);
        if self.now.start == start {
            // They only ever use more of it.
            self.now.others = self.now.others.max(others);
        }
    }

    /// A clock that steps back to the period before finds it as it was, and one
    /// that steps back further stays where it is: nobody gets a budget twice.
    fn roll(&mut self, period: Period, time: SystemTime) {
        let (start, _) = period.around(time);
        if start == self.before.start && start != self.now.start && start > 0 {
            std::mem::swap(&mut self.now, &mut self.before);
        } else if start > self.now.start {
            *self = Self { now: Spent { start, ..Spent::default() }, before: self.now };
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        // Every day from 1970 to 2199, counted by hand.
        let (mut year, mut month, mut day_of_month) = (1970, 1, 1);
        let mut first = 0;
        for day in 0..84_000 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
            let noon = at(day * DAY + DAY / 2);
            assert_eq!(Period::Day.around(noon), (day * DAY, (day + 1) * DAY));
            assert_eq!(Period::Month.around(noon), (first * DAY, (first + length) * DAY), "{year}-{month}");
            day_of_month += 1;
            if day_of_month > length {
                (day_of_month, month, first) = (1, month + 1, day + 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_budget_is_whole_again_with_its_next_period() {
        let mut budget = Budget::default();
        let noon = at(20_000 * DAY + DAY / 2);
        budget.charge(70, Period::Day, noon);
        assert_eq!(budget.left(100, Period::Day, noon), (30, Duration::from_secs(DAY / 2)));
        budget.charge(50, Period::Day, noon);
        assert_eq!(budget.left(100, Period::Day, noon).0, 0);
        assert_eq!(budget.left(100, Period::Day, at(20_001 * DAY)).0, 100);
    }

    #[test]
    fn what_comes_back_late_is_not_given_to_the_next_period() {
        let mut budget = Budget::default();
        let start = budget.charge(100, Period::Day, at(20_000 * DAY));
        budget.refund(40, start);
        assert_eq!(budget.left(100, Period::Day, at(20_000 * DAY)).0, 40);
        budget.charge(10, Period::Day, at(20_001 * DAY));
        budget.refund(60, start);
        assert_eq!(budget.left(100, Period::Day, at(20_001 * DAY)).0, 90);
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_second_budget() {
        let mut budget = Budget::default();
        budget.charge(100, Period::Day, at(20_001 * DAY + 5));
        for back in [20_000 * DAY, 19_000 * DAY, 0] {
            assert_eq!(budget.left(100, Period::Day, at(back)).0, 0);
            budget.charge(1, Period::Day, at(back));
        }
        assert_eq!(budget.left(100, Period::Day, at(20_002 * DAY)).0, 100);
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_moment_changes_nothing() {
        for wrong in [20_001 * DAY, 47_000 * DAY] {
            let mut budget = Budget::default();
            budget.charge(60, Period::Day, at(20_000 * DAY + 5));
            budget.charge(20, Period::Day, at(wrong));
            let now = at(20_000 * DAY + 7);
            assert_eq!(budget.left(100, Period::Day, now), (40, Duration::from_secs(DAY - 7)));
            budget.learn(30, 20_000 * DAY, Period::Day, now);
            assert_eq!(budget.left(100, Period::Day, now).0, 10);
            // When its day comes, what was used of it is.
            assert_eq!(budget.left(100, Period::Day, at(wrong + 1)).0, 80);
        }
    }

    #[test]
    fn what_others_used_counts_in_its_own_period() {
        let mut budget = Budget::default();
        let now = at(20_000 * DAY + 7);
        budget.charge(10, Period::Day, now);
        budget.learn(60, 20_000 * DAY, Period::Day, now);
        budget.learn(50, 20_000 * DAY, Period::Day, now);
        budget.learn(99, 19_999 * DAY, Period::Day, now);
        assert_eq!(budget.left(100, Period::Day, now).0, 30);
        assert_eq!(budget.left(100, Period::Day, at(20_001 * DAY)).0, 100);
    }
}
