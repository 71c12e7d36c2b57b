//! Loads that failed at a worker, so that they are not tried again at once:
//! who asks meanwhile is told what went wrong. Pure: time is passed in.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::AdapterKey;
use crate::worker::WorkerError;

/// After the first failure; each further one doubles the pause, up to the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// For a broken artifact, which will not mend itself; the worker's limits may change.
const BROKEN: Duration = Duration::from_secs(300);
/// For an adapter that gave another's answers.
const QUARANTINE: Duration = Duration::from_secs(900);

#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<AdapterKey, Failure>);

#[derive(Debug)]
struct Failure {
    error: WorkerError,
    until: Instant,
    pause: Duration,
    quarantined: bool,
}

// === impl Failures ===

impl Failures {
    /// Why the adapter is not to be loaded now, and how long that holds.
    pub(super) fn refuses(&self, key: &AdapterKey, now: Instant) -> Option<(WorkerError, Duration)> {
        let failure = self.0.get(key).filter(|failure| now < failure.until)?;
        Some((failure.error.clone(), failure.until - now))
    }

    pub(super) fn failed(&mut self, key: &AdapterKey, error: &WorkerError, now: Instant) {
        self.forget_old(now);
        if self.0.get(key).is_some_and(|failure| failure.quarantined && now < failure.until) {
            return;
        }
        let before = self.0.get(key).map(|failure| failure.pause);
        let pause = match error {
            WorkerError::AdapterInvalid(_) => BROKEN,
            _ => before.map_or(SHORTEST, |before| (before * 2).min(LONGEST)),
        };
        self.0.insert(key.clone(), Failure { error: error.clone(), until: now + pause, pause, quarantined: false });
    }

    pub(super) fn quarantine(&mut self, key: &AdapterKey, error: &WorkerError, now: Instant) {
        let failure = Failure { error: error.clone(), until: now + QUARANTINE, pause: QUARANTINE, quarantined: true };
        self.0.insert(key.clone(), failure);
    }

    pub(super) fn refused(&self, now: Instant) -> HashSet<AdapterKey> {
        self.0.iter().filter(|(_, failure)| now < failure.until).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn quarantined(&self, now: Instant) -> usize {
        self.0.values().filter(|failure| failure.quarantined && now < failure.until).count()
    }

    pub(super) fn loaded(&mut self, key: &AdapterKey) {
        self.0.remove(key);
    }

    /// The worker is another process now.
    pub(super) fn restarted(&mut self) {
        self.0.clear();
    }

    /// What was long ago is no reason to wait longer the next time.
    fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, failure| now < failure.until + LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantId;

    fn key(name: &str) -> AdapterKey {
        AdapterKey { tenant: TenantId::new("t"), name: name.into(), revision: 1, digest: "d".into() }
    }

    fn unavailable() -> WorkerError {
        WorkerError::AdapterUnavailable("not now".to_owned())
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_end_with_a_load() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            failures.failed(&key("a"), &unavailable(), now);
            let pause = Duration::from_secs(pause);
            assert_eq!(failures.refuses(&key("a"), now), Some((unavailable(), pause)));
            assert_eq!(failures.refuses(&key("b"), now), None, "of that adapter alone");
            now += pause;
            assert_eq!(failures.refuses(&key("a"), now), None, "it may be tried again");
        }
        failures.loaded(&key("a"));
        failures.failed(&key("a"), &unavailable(), now);
        assert_eq!(failures.refuses(&key("a"), now).map(|(_, left)| left), Some(SHORTEST));
    }

    #[test]
    fn a_broken_artifact_is_not_tried_for_minutes_and_old_failures_are_forgotten() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        failures.failed(&key("a"), &WorkerError::AdapterInvalid("rank 0".to_owned()), now);
        assert!(failures.refuses(&key("a"), now + BROKEN - SHORTEST).is_some());
        failures.failed(&key("b"), &unavailable(), now + BROKEN + LONGEST);
        assert_eq!(failures.0.len(), 1);
        failures.restarted();
        assert_eq!(failures.refuses(&key("b"), now), None);
    }
}
