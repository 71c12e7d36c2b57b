//! When a sink that failed is tried again, and with how much: pure.

use std::time::Duration;

/// The first pause, which doubles with every failure in a row.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// Failures in a row from which on single events are tried.
const OPENS_AT: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row.
    failures: u32,
}

// === impl Breaker ===

impl Breaker {
    /// Whether the sink is tried with single events alone.
    pub(crate) fn is_open(&self) -> bool {
        self.failures >= OPENS_AT
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now. `random` spreads those that failed together; the
    /// sink's own wish is a least.
    pub(crate) fn failed(&mut self, random: u64, wished: Option<Duration>) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // A half, and a part of the other half.
        let half = most / 2;
        let part = random % (half.as_millis() as u64 + 1);
        (half + Duration::from_millis(part)).max(wished.unwrap_or_default().min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_up_to_a_bound(failures in 0_u32..100, random: u64) {
            let mut breaker = Breaker { failures };
            let pause = breaker.failed(random, None);
            let most = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
            prop_assert!(pause >= most / 2 && pause <= most);
            prop_assert_eq!(breaker.is_open(), failures + 1 >= OPENS_AT);
        }
    }

    #[test]
    fn a_success_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..OPENS_AT {
            assert!(!breaker.is_open());
            breaker.failed(0, None);
        }
        assert!(breaker.is_open());
        breaker.succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_sinks_wish_is_kept_up_to_the_longest_pause() {
        let wished = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(Breaker::default().failed(0, wished(7)), Duration::from_secs(7));
        assert_eq!(Breaker::default().failed(0, wished(3600)), LONGEST);
    }
}
