//! Whether a worker that fails is asked again. Pure: time is passed in.
//!
//! Closed: it is asked, and failures in a row are counted. Open: it is not
//! asked until its time is up. Half open: one request is let through. With its
//! first event the worker is asked again, since an answer may take minutes; but
//! what counts is how a generation ends, and one that fails opens it at once.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a worker is left alone.
const FAILURES: u32 = 3;
const SHORTEST: Duration = Duration::from_secs(1);
/// Each time that the trial fails, the next one waits twice as long, up to this.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaker(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32, pause: Duration },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration, since: Instant },
}

/// How a generation ended, as far as it says something of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
    /// The client left, the request was wrong, the worker was full.
    SaysNothing,
}

// === impl Breaker ===

impl Default for Breaker {
    fn default() -> Self {
        Self(State::CLOSED)
    }
}

// === impl State ===

impl State {
    const CLOSED: Self = Self::Closed { failures: 0, pause: SHORTEST };
}

impl Breaker {
    /// Whether a request may go there now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.0 {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            // A trial that never ends must not keep the worker away for ever.
            State::HalfOpen { since, .. } => now >= since + LONGEST,
        }
    }

    /// A request goes there: where the breaker was open, it is the trial.
    pub(super) fn begin(&mut self, now: Instant) {
        match self.0 {
            State::Open { pause, .. } | State::HalfOpen { pause, .. } => {
                self.0 = State::HalfOpen { pause, since: now };
            }
            State::Closed { .. } => {}
        }
    }

    /// A request has its first event.
    pub(super) fn answers(&mut self) {
        if let State::HalfOpen { pause, .. } = self.0 {
            self.0 = State::Closed { failures: FAILURES - 1, pause: (pause * 2).min(LONGEST) };
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome, now: Instant) {
        self.0 = match (self.0, outcome) {
            (_, Outcome::Succeeded) => State::CLOSED,
            (State::Closed { failures, pause }, Outcome::Failed) if failures + 1 < FAILURES => {
                State::Closed { failures: failures + 1, pause }
            }
            (State::Closed { pause, .. }, Outcome::Failed) => State::Open { until: now + pause, pause },
            (State::HalfOpen { pause, .. }, Outcome::Failed) => {
                let pause = (pause * 2).min(LONGEST);
                State::Open { until: now + pause, pause }
            }
            // The trial told nothing: the next request is one.
            (State::HalfOpen { pause, .. }, Outcome::SaysNothing) => State::Open { until: now, pause },
            // One that had begun before: known already.
            (open @ State::Open { .. }, Outcome::Failed | Outcome::SaysNothing)
            | (open @ State::Closed { .. }, Outcome::SaysNothing) => open,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_one_success_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Succeeded, Outcome::Failed, Outcome::Failed] {
            breaker.end(outcome, start);
            assert!(breaker.admits(start));
        }
        breaker.end(Outcome::SaysNothing, start);
        assert!(breaker.admits(start));
        breaker.end(Outcome::Failed, start);
        assert!(!breaker.admits(after(start, 999)));
        assert!(breaker.admits(after(start, 1_000)));

        breaker.begin(after(start, 1_000));
        assert!(!breaker.admits(after(start, 1_001)), "one trial at a time");
        breaker.end(Outcome::Succeeded, after(start, 1_500));
        assert_eq!(breaker.0, State::CLOSED);
    }

    #[test]
    fn each_failed_trial_doubles_the_pause_and_one_that_says_nothing_does_not() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.end(Outcome::Failed, now));
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            now += Duration::from_secs(pause) - Duration::from_millis(1);
            assert!(!breaker.admits(now), "{pause} seconds");
            now += Duration::from_millis(1);
            assert!(breaker.admits(now), "{pause} seconds");
            breaker.begin(now);
            breaker.end(Outcome::SaysNothing, now);
            assert!(breaker.admits(now), "the next one is the trial");
            breaker.begin(now);
            breaker.end(Outcome::Failed, now);
        }
    }

    #[test]
    fn a_trial_that_answers_lets_others_in_and_fails_for_all_of_them() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.end(Outcome::Failed, now));
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            now += Duration::from_secs(pause);
            assert!(breaker.admits(now), "{pause} seconds");
            breaker.begin(now);
            assert!(!breaker.admits(now));
            breaker.answers();
            assert!(breaker.admits(now), "its answer may take minutes");
            breaker.end(Outcome::Failed, now);
            assert!(!breaker.admits(now));
        }
        now += LONGEST;
        breaker.begin(now);
        breaker.answers();
        breaker.end(Outcome::Succeeded, now);
        assert_eq!(breaker.0, State::CLOSED);
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.end(Outcome::Failed, now));
        breaker.begin(now + SHORTEST);
        assert!(!breaker.admits(now + SHORTEST + LONGEST - Duration::from_millis(1)));
        assert!(breaker.admits(now + SHORTEST + LONGEST));
    }

    proptest! {
        /// Whatever happens, a worker that answers again is asked again.
        #[test]
        fn it_never_stays_away_for_longer_than_its_longest_pause(steps in prop::collection::vec((0_u8..5, 0_u64..40_000), 0..60)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            for (step, millis) in steps {
                now = after(now, millis);
                match step {
                    0 => breaker.end(Outcome::Failed, now),
                    1 => breaker.end(Outcome::SaysNothing, now),
                    2 => breaker.end(Outcome::Succeeded, now),
                    3 => breaker.answers(),
                    _ if breaker.admits(now) => breaker.begin(now),
                    _ => {}
                }
                prop_assert!(breaker.admits(now + LONGEST));
            }
        }
    }
}
