//! How many requests may be tried again. Where workers fail, retries are load
//! on those that do not: they may be no more than a share of the requests.
//! Pure: time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that pay for one retry.
const REQUESTS: f64 = 5.0;
/// Retries that are there anyway, so that few requests are no reason for none:
/// this many at once, and as many again in this time.
const LEAST: f64 = 10.0;
const REFILL: Duration = Duration::from_secs(10);
/// The most that can be saved up.
const MOST: f64 = 100.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RetryBudget {
    left: f64,
    refilled: Instant,
}

// === impl RetryBudget ===

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: LEAST, refilled: now }
    }

    /// A request came, and pays its share.
    pub(super) fn request(&mut self, now: Instant) {
        self.refill(now);
        self.left = (self.left + 1.0 / REQUESTS).min(MOST);
    }

    /// Whether a retry may be made; it is then paid for.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let affordable = self.left >= 1.0;
        if affordable {
            self.left -= 1.0;
        }
        affordable
    }

    /// Up to what is always there; what was saved beyond it stays.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        if self.left < LEAST {
            self.left = (self.left + LEAST * passed.as_secs_f64() / REFILL.as_secs_f64()).min(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_retries_are_always_there_and_come_back_with_time() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        assert_eq!((0..20).filter(|_| budget.take(start)).count(), 10);
        assert_eq!((0..20).filter(|_| budget.take(start + Duration::from_secs(3))).count(), 3);
        assert_eq!((0..20).filter(|_| budget.take(start + Duration::from_secs(100))).count(), 10);
    }

    proptest! {
        /// However requests and retries come, retries stay within their share.
        #[test]
        fn retries_are_no_more_than_a_fifth_of_the_requests_and_what_is_always_there(
            steps in prop::collection::vec((any::<bool>(), 0_u64..200), 0..400),
        ) {
            let start = Instant::now();
            let (mut budget, mut now) = (RetryBudget::new(start), start);
            let (mut requests, mut retries) = (0.0, 0.0);
            for (request, millis) in steps {
                now += Duration::from_millis(millis);
                if request {
                    budget.request(now);
                    requests += 1.0;
                } else if budget.take(now) {
                    retries += 1.0;
                }
                let always = LEAST + LEAST * (now - start).as_secs_f64() / REFILL.as_secs_f64();
                prop_assert!(retries <= requests / REQUESTS + always + 1e-6);
            }
        }
    }
}
