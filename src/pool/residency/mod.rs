//! Which adapters a worker holds now: loaded once however many ask, proven to
//! be what their names say, pinned while a generation uses them, the least
//! recently used ones unloaded when memory or places are short.
//!
//! The state behind the lock ([`entries`]) changes at once and never waits;
//! loads and unloads run in tasks of their own ([`work`]), so an asker that
//! goes away disturbs nobody who waits for the same adapter, and one slow load
//! delays no other. A load that failed is remembered for a while ([`failures`]),
//! and its error reaches only those who ask for that adapter.
//!
//! What is known here is our own: decided from what was loaded and unloaded.
//! What the worker says of itself only corrects it.

mod entries;
mod failures;
mod proving;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::activity::Activity;
use super::pick::Presence;
use crate::adapters::{Artifact, Catalogue};
use crate::telemetry::Metrics;
use crate::types::AdapterKey;
use crate::worker::{Driver, Held, WorkerError};

use entries::{Outcome, State};
use work::Shared;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Memory that a worker's loaded adapters may take together, unless more
    /// of them are in use at one time.
    pub adapter_bytes: u64,
    /// Adapters that it may hold at one time; `None` where their memory alone
    /// counts.
    pub adapter_slots: Option<usize>,
}

/// One worker's resident set.
pub(super) struct Residency(Arc<Shared>);

/// Keeps an adapter loaded until dropped.
pub(super) struct Pin {
    shared: Arc<Shared>,
    key: AdapterKey,
    born: u64,
}

/// What a choice of a worker has to know of one adapter there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sight {
    pub presence: Presence,
    /// Until it is loaded.
    pub ready: Duration,
    /// For how long what would be unloaded for it was not used; `None` where
    /// nothing has to be.
    pub victim_idle: Option<Duration>,
    /// Why it is not to be loaded now, and for how long.
    pub refused: Option<(WorkerError, Duration)>,
}

/// What an asker has to do next, decided under the lock.
enum Next {
    Ready,
    Load(Outcome),
    Retry(watch::Receiver<bool>),
}

// === impl Residency ===

impl Residency {
    /// Loads and unloads run on the current runtime.
    pub(super) fn new(
        worker: Arc<str>,
        driver: Arc<dyn Driver>,
        config: Config,
        catalogue: Arc<Catalogue>,
        metrics: Arc<Metrics>,
        activity: Arc<Activity>,
    ) -> Self {
        Self(Shared::new(worker, driver, config, catalogue, metrics, activity))
    }

    /// What there is of an adapter here.
    pub(super) fn see(&self, key: &AdapterKey) -> Sight {
        let now = Instant::now();
        let entries = self.0.entries();
        let load = self.0.usual_load();
        let (presence, ready) = match entries.get(key).map(entries::Entry::state) {
            Some(State::Resident { .. }) => (Presence::Resident, Duration::ZERO),
            Some(State::Loading { since, .. }) => (Presence::Loading, load.saturating_sub(now - *since)),
            Some(State::Leaving { .. }) | None => (Presence::Absent, load),
        };
        let (mut victim_idle, mut refused) = (None, None);
        if presence == Presence::Absent {
            victim_idle = entries.victim_idle(&self.0.config, now);
        }
        let adopted = |entry: &entries::Entry| matches!(entry.state(), State::Resident { adopted: true, .. });
        if presence == Presence::Absent || entries.get(key).is_some_and(adopted) {
            refused = entries.failures.refuses(key, now);
        }
        Sight { presence, ready, victim_idle, refused }
    }

    /// Whether the adapter is loaded.
    pub(super) fn has(&self, key: &AdapterKey) -> bool {
        self.see(key).presence == Presence::Resident
    }

    pub(super) fn resident(&self) -> usize {
        self.0.entries().resident()
    }

    /// Adapters that gave another's answers here.
    pub(super) fn quarantined(&self) -> usize {
        self.0.entries().failures.quarantined(Instant::now())
    }

    /// Why the adapter is not loaded here, where that failed lately.
    pub(super) fn failure(&self, key: &AdapterKey) -> Option<WorkerError> {
        self.0.entries().failures.refuses(key, Instant::now()).map(|(error, _)| error)
    }

    /// Adapters that are not to be loaded here now.
    pub(super) fn refused(&self) -> HashSet<AdapterKey> {
        self.0.entries().failures.refused(Instant::now())
    }

    pub(super) fn pins(&self) -> usize {
        self.0.entries().pins()
    }

    /// Loads and unloads under way.
    pub(super) fn tasks(&self) -> usize {
        self.0.tasks()
    }

    /// The loaded adapters that nothing has used for so long.
    pub(super) fn unused(&self, idle: Duration) -> Vec<AdapterKey> {
        let now = Instant::now();
        let entries = self.0.entries();
        let unused = entries.keys().filter(|(_, it)| it.is_unused(now, idle));
        unused.map(|(key, _)| key.clone()).collect()
    }

    /// Which adapters are copies beyond those that are wanted: they make room
    /// first.
    pub(super) fn spare(&self, keys: &HashSet<AdapterKey>) {
        self.0.entries().spare(keys);
    }

    /// What is loaded, or about to be, and not to go; with when it was used
    /// last.
    pub(super) fn held(&self) -> Vec<(AdapterKey, Instant)> {
        let entries = self.0.entries();
        let staying = |entry: &entries::Entry| !entry.is_retired() && !matches!(entry.state(), State::Leaving { .. });
        entries.keys().filter(|(_, entry)| staying(entry)).map(|(key, entry)| (key.clone(), entry.used_at())).collect()
    }

    /// Adapters that can be loaded without unloading another, but for spare ones.
    pub(super) fn room(&self) -> usize {
        self.0.entries().room(&self.0.config, Instant::now())
    }

    /// Adapters of the usual size that fit in all.
    pub(super) fn places(&self) -> usize {
        self.0.entries().places(&self.0.config)
    }

    /// Whether what the worker held before its restart is still being loaded.
    pub(super) fn is_restoring(&self) -> bool {
        self.0.is_restoring()
    }

    /// Holds what is known against the worker's own account of itself, and has
    /// a restarted worker load again what it should hold.
    pub(super) fn reconcile(&self, held: &Held) {
        self.0.reconcile(held);
    }

    /// Unloads an adapter as soon as nobody uses it.
    pub(super) fn retire(&self, key: &AdapterKey) {
        let mut entries = self.0.entries();
        entries.retire(key);
        self.0.make_room(&mut entries);
    }

    /// Unloads an adapter that nobody uses; one copy of it too many.
    pub(super) fn release(&self, key: &AdapterKey) {
        self.0.release(key);
    }

    /// Has the adapter loaded, without waiting for it.
    pub(super) fn prefetch(&self, artifact: &Artifact) {
        // The load goes on without its asker.
        let _ = self.0.ask(artifact);
    }

    /// Records what proves a loaded adapter, where nothing does yet and the
    /// worker is idle.
    pub(super) fn prove_later(&self, artifact: &Artifact) {
        self.0.prove_later(artifact);
    }

    /// Waits until the adapter is loaded and pins it. The error reaches only
    /// those who asked for this adapter.
    pub(super) async fn pin(&self, artifact: &Artifact) -> Result<Pin, WorkerError> {
        self.0.pin(artifact).await
    }
}

// === impl Pin ===

impl Pin {
    pub(super) fn key(&self) -> &AdapterKey {
        &self.key
    }

    /// The adapter turned out not to be loaded.
    pub(super) fn forget(&self) {
        let mut entries = self.shared.entries();
        let resident = |entry: &entries::Entry| matches!(entry.state(), State::Resident { .. });
        if entries.get(&self.key).is_some_and(resident) {
            entries.remove(&self.key, self.born);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut entries = self.shared.entries();
        entries.unpin(&self.key, self.born);
        self.shared.make_room(&mut entries);
    }
}
