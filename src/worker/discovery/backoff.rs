//! Pauses that grow while questions go unanswered.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);

pub(super) struct Backoff {
    most: Duration,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new(most: Duration) -> Self {
        Self { most, failures: 0 }
    }

    /// The pause after one more failure: doubled each time, and up to a half
    /// of it left out by chance, so that many gateways do not ask in step.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - chance() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// From zero to one. Without a source of chance, zero.
pub(super) fn chance() -> f64 {
    getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        for whole in [1, 2, 4, 8, 10, 10] {
            let (pause, whole) = (backoff.pause(), Duration::from_secs(whole));
            assert!(whole / 2 <= pause && pause <= whole, "{pause:?} of {whole:?}");
        }
        for _ in 0..100 {
            backoff.pause();
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
