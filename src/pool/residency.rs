//! Which adapters a worker holds now: loaded once however many ask, pinned
//! while a generation uses them, the least recently used ones unloaded when
//! memory is short.
//!
//! The state behind the lock changes at once and never waits; loads and
//! unloads run in tasks of their own, so an asker that goes away disturbs
//! nobody who waits for the same adapter, and one slow load delays no other.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::adapters::{Artifact, Catalogue, FetchError};
use crate::telemetry::Metrics;
use crate::types::AdapterKey;
use crate::worker::{AdapterLoad, Driver, Held, WorkerError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Memory that a worker's loaded adapters may take together, unless more
    /// of them are in use at one time.
    pub adapter_bytes: u64,
}

/// One worker's resident set.
pub(super) struct Residency(Arc<Shared>);

struct Shared {
    worker: Arc<str>,
    driver: Arc<dyn Driver>,
    config: Config,
    catalogue: Arc<Catalogue>,
    metrics: Arc<Metrics>,
    /// Loads and unloads under way.
    tasks: TaskTracker,
    /// Where they run: a pin may be dropped by a thread that has no runtime.
    runtime: Handle,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<AdapterKey, Entry>,
    /// Counts uses; the entry with the lowest stamp was used longest ago.
    clock: u64,
    /// The run of the worker that the entries are of.
    instance: String,
    /// When the account was given that was looked at last.
    reconciled: Option<Instant>,
}

struct Entry {
    /// Tells this entry from a later one of the same key.
    born: u64,
    state: State,
    pins: usize,
    used: u64,
    /// To be unloaded once nobody uses it, whatever memory there is.
    retired: bool,
}

enum State {
    Loading(watch::Receiver<Option<Result<(), WorkerError>>>),
    Resident {
        bytes: u64,
        /// What the worker said of itself before this says nothing of it.
        since: Instant,
        /// An unload has failed. It is not tried again before the next load
        /// is done, or a worker that always refuses would be asked forever.
        stuck: bool,
    },
    /// Being unloaded; who wants it waits and then loads it anew.
    Leaving(watch::Receiver<bool>),
}

/// Keeps an adapter loaded until dropped.
pub(super) struct Pin {
    shared: Arc<Shared>,
    key: AdapterKey,
    born: u64,
}

/// What an asker has to do next, decided under the lock.
enum Next {
    Ready,
    Load(watch::Receiver<Option<Result<(), WorkerError>>>),
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
    ) -> Self {
        let (tasks, runtime, entries) = (TaskTracker::new(), Handle::current(), Mutex::default());
        Self(Arc::new(Shared { worker, driver, config, catalogue, metrics, tasks, runtime, entries }))
    }

    /// Whether the adapter is loaded, or about to be.
    pub(super) fn holds(&self, key: &AdapterKey) -> bool {
        match self.0.entries().by_key.get(key) {
            Some(entry) => !matches!(entry.state, State::Leaving(_)),
            None => false,
        }
    }

    pub(super) fn resident(&self) -> usize {
        let entries = self.0.entries();
        entries.by_key.values().filter(|entry| matches!(entry.state, State::Resident { .. })).count()
    }

    pub(super) fn pins(&self) -> usize {
        self.0.entries().by_key.values().map(|entry| entry.pins).sum()
    }

    /// Loads and unloads under way.
    pub(super) fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    /// Holds what is known against the worker's own account of itself. What an
    /// earlier run of it had is gone, and so is what it no longer lists; what
    /// it had loaded before we asked is there.
    pub(super) fn reconcile(&self, held: &Held) {
        let mut entries = self.0.entries();
        if entries.reconciled == Some(held.as_of) {
            return;
        }
        entries.reconciled = Some(held.as_of);
        let restarted = !entries.instance.is_empty() && entries.instance != held.instance;
        entries.instance.clone_from(&held.instance);
        let listed = |key: &AdapterKey| held.adapters.iter().any(|(other, _)| other == key);
        entries.by_key.retain(|key, entry| match entry.state {
            State::Resident { since, .. } => {
                let gone = since < held.as_of && !listed(key) && (restarted || entry.pins == 0);
                if gone {
                    warn!(worker = %self.0.worker, adapter = %key, "the worker no longer has the adapter");
                }
                !gone
            }
            State::Loading(_) | State::Leaving(_) => true,
        });
        for (key, _) in &held.adapters {
            entries.adopt(key, held.as_of);
        }
    }

    /// Unloads an adapter as soon as nobody uses it.
    pub(super) fn retire(&self, key: &AdapterKey) {
        let mut entries = self.0.entries();
        if let Some(entry) = entries.by_key.get_mut(key) {
            entry.retired = true;
        }
        self.0.make_room(&mut entries);
    }

    /// Waits until the adapter is loaded and pins it. The error reaches only
    /// those who asked for this adapter.
    pub(super) async fn pin(&self, artifact: &Artifact) -> Result<Pin, WorkerError> {
        loop {
            // The pin is counted first, so that the adapter cannot be chosen
            // for unloading between the end of its load and our waking up.
            let (pin, next) = self.0.ask(artifact);
            match next {
                Next::Ready => return Ok(pin),
                Next::Load(mut outcome) => {
                    let outcome = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
                    let Ok(outcome) = outcome else {
                        self.0.entries().remove(&pin.key, pin.born);
                        return Err(WorkerError::AdapterUnavailable("the load was abandoned".to_owned()));
                    };
                    return outcome.expect("waited for it to be there").map(|()| pin);
                }
                Next::Retry(mut left) => {
                    if left.wait_for(|left| *left).await.is_err() {
                        // Nobody is left to remove it, and asking would find it forever.
                        self.0.entries().remove(&pin.key, pin.born);
                    }
                }
            }
        }
    }
}

// === impl Entries ===

impl Entries {
    /// The entry that was born then, not a later one of the same key.
    fn get_mut(&mut self, key: &AdapterKey, born: u64) -> Option<&mut Entry> {
        self.by_key.get_mut(key).filter(|entry| entry.born == born)
    }

    /// Takes an adapter for loaded that the worker lists and nobody asked for
    /// here. Its memory is minded by whoever had it loaded, or by the worker.
    fn adopt(&mut self, key: &AdapterKey, since: Instant) {
        if self.by_key.contains_key(key) {
            return;
        }
        self.clock += 1;
        let (state, born) = (State::Resident { bytes: 0, since, stuck: false }, self.clock);
        // As if it had been used longest ago.
        self.by_key.insert(key.clone(), Entry { born, state, pins: 0, used: 0, retired: false });
    }

    fn remove(&mut self, key: &AdapterKey, born: u64) {
        if self.get_mut(key, born).is_some() {
            self.by_key.remove(key);
        }
    }

    /// What may be tried again after a load, is.
    fn unstick(&mut self) {
        for entry in self.by_key.values_mut() {
            if let State::Resident { stuck, .. } = &mut entry.state {
                *stuck = false;
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Loaded, and may be unloaded.
    fn is_free(&self) -> bool {
        matches!(self.state, State::Resident { stuck: false, .. })
    }
}

// === impl Shared ===

impl Shared {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, artifact: &Artifact) -> (Pin, Next) {
        let key = &artifact.key;
        let mut entries = self.entries();
        entries.clock += 1;
        let used = entries.clock;
        let (born, next) = match entries.by_key.get_mut(key) {
            Some(entry) => {
                entry.pins += 1;
                entry.used = used;
                let next = match &entry.state {
                    State::Resident { .. } => Next::Ready,
                    State::Loading(outcome) => Next::Load(outcome.clone()),
                    State::Leaving(left) => Next::Retry(left.clone()),
                };
                (entry.born, next)
            }
            None => {
                let (tell, outcome) = watch::channel(None);
                let state = State::Loading(outcome.clone());
                entries.by_key.insert(key.clone(), Entry { born: used, state, pins: 1, used, retired: false });
                self.tasks.spawn_on(self.clone().load(artifact.clone(), used, tell), &self.runtime);
                (used, Next::Load(outcome))
            }
        };
        drop(entries);
        (Pin { shared: self.clone(), key: key.clone(), born }, next)
    }

    async fn load(
        self: Arc<Self>,
        artifact: Artifact,
        born: u64,
        tell: watch::Sender<Option<Result<(), WorkerError>>>,
    ) {
        let Artifact { key, base } = artifact;
        let started = Instant::now();
        let loaded = caught(async {
            let folder = self.catalogue.fetch(&key).await.map_err(not_fetched)?;
            self.driver.load_adapter(AdapterLoad { key: key.clone(), base, folder }).await
        });
        let loaded = loaded.await;
        let took = started.elapsed();
        self.metrics.adapter_loaded(took, loaded.is_ok());
        let outcome = match loaded {
            Ok(loaded) => {
                info!(worker = %self.worker, adapter = %key, bytes = loaded.bytes, seconds = took.as_secs_f64(), "adapter loaded");
                let mut entries = self.entries();
                entries.unstick();
                if let Some(entry) = entries.get_mut(&key, born) {
                    entry.state = State::Resident { bytes: loaded.bytes, since: Instant::now(), stuck: false };
                }
                self.make_room(&mut entries);
                Ok(())
            }
            Err(error) => {
                warn!(worker = %self.worker, adapter = %key, %error, "adapter not loaded");
                self.entries().remove(&key, born);
                Err(error)
            }
        };
        tell.send_replace(Some(outcome));
    }

    /// Starts to unload what was used longest ago and nobody holds, until the
    /// rest fits into the budget.
    fn make_room(self: &Arc<Self>, entries: &mut Entries) {
        loop {
            let retired = entries.by_key.iter().find(|(_, entry)| entry.retired && entry.pins == 0 && entry.is_free());
            if let Some(key) = retired.map(|(key, _)| key.clone()) {
                self.start_unload(entries, key);
                continue;
            }
            let (mut held, mut oldest) = (0, None::<(u64, AdapterKey)>);
            for (key, entry) in &entries.by_key {
                let State::Resident { bytes, stuck, .. } = entry.state else { continue };
                held += bytes;
                let free = entry.pins == 0 && !stuck;
                if free && oldest.as_ref().is_none_or(|(used, _)| entry.used < *used) {
                    oldest = Some((entry.used, key.clone()));
                }
            }
            if held <= self.config.adapter_bytes {
                return;
            }
            let Some((_, key)) = oldest else { return };
            self.start_unload(entries, key);
        }
    }

    fn start_unload(self: &Arc<Self>, entries: &mut Entries, key: AdapterKey) {
        let Some(entry) = entries.by_key.get_mut(&key) else { return };
        let State::Resident { bytes, .. } = entry.state else { return };
        let (tell, left) = watch::channel(false);
        entry.state = State::Leaving(left);
        self.tasks.spawn_on(self.clone().unload(key, entry.born, bytes, tell), &self.runtime);
    }

    async fn unload(self: Arc<Self>, key: AdapterKey, born: u64, bytes: u64, tell: watch::Sender<bool>) {
        let unloaded = caught(async { self.driver.unload_adapter(key.clone()).await }).await;
        let mut entries = self.entries();
        match unloaded {
            Ok(()) => {
                info!(worker = %self.worker, adapter = %key, "adapter unloaded");
                self.metrics.adapter_evicted();
                entries.remove(&key, born);
            }
            Err(error) => {
                warn!(worker = %self.worker, adapter = %key, %error, "adapter not unloaded");
                if let Some(entry) = entries.get_mut(&key, born) {
                    entry.state = State::Resident { bytes, since: Instant::now(), stuck: true };
                }
                // Its memory is still taken; another one may have to go.
                self.make_room(&mut entries);
            }
        }
        tell.send_replace(true);
    }
}

fn not_fetched(error: FetchError) -> WorkerError {
    match error {
        FetchError::Invalid(why) => WorkerError::AdapterInvalid(why),
        FetchError::Unavailable(why) => WorkerError::AdapterUnavailable(why),
    }
}

/// A driver's panic as an error, so that it ends this work and not the
/// adapter's entry.
async fn caught<T>(work: impl Future<Output = Result<T, WorkerError>>) -> Result<T, WorkerError> {
    let panicked = |_| Err(WorkerError::AdapterUnavailable("the driver panicked".to_owned()));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)
}

// === impl Pin ===

impl Pin {
    pub(super) fn key(&self) -> &AdapterKey {
        &self.key
    }

    /// The adapter turned out not to be loaded.
    pub(super) fn forget(&self) {
        let mut entries = self.shared.entries();
        if entries.get_mut(&self.key, self.born).is_some_and(|entry| matches!(entry.state, State::Resident { .. })) {
            entries.remove(&self.key, self.born);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get_mut(&self.key, self.born) {
            entry.pins -= 1;
        }
        self.shared.make_room(&mut entries);
    }
}
