//! Loads and unloads: each a task of its own, told to whoever waits for it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::entries::{Entries, Left, Reconciled, State};
use super::{Config, Next, Pin};
use crate::adapters::{Artifact, Catalogue, FetchError};
use crate::pool::activity::{Activity, Alone};
use crate::pool::prover::Prover;
use crate::telemetry::Metrics;
use crate::types::AdapterKey;
use crate::worker::{AdapterLoad, Driver, Held, WorkerError};

/// The longest that fetching, loading and proving an adapter may take
/// together. Drivers have limits of their own, which are shorter.
const LIMIT: Duration = Duration::from_secs(600);
/// How long a load is expected to take before one was seen.
const FIRST_GUESS: Duration = Duration::from_millis(50);
/// How long an engine that may load only while it runs nothing is waited for.
const QUIET: Duration = Duration::from_secs(5);
/// So much later an engine that runs something is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a restarted worker is kept from requests while others can serve.
const RESTORE: Duration = Duration::from_secs(60);
pub(super) struct Shared {
    pub(super) worker: Arc<str>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) config: Config,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) activity: Arc<Activity>,
    pub(super) prover: Prover,
    /// Loads and unloads under way.
    pub(super) tasks: TaskTracker,
    /// Where they run: a pin may be dropped by a thread that has no runtime.
    pub(super) runtime: Handle,
    entries: Mutex<Entries>,
    /// What a load takes lately, in microseconds.
    usual_load: AtomicU64,
    /// Tasks that load what a restarted worker had.
    restoring: AtomicUsize,
    /// A probe is being recorded beside the loads.
    pub(super) proving: AtomicBool,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        worker: Arc<str>,
        driver: Arc<dyn Driver>,
        config: Config,
        catalogue: Arc<Catalogue>,
        metrics: Arc<Metrics>,
        activity: Arc<Activity>,
    ) -> Arc<Self> {
        Arc::new(Self {
            prover: Prover::new(driver.clone()),
            worker,
            driver,
            config,
            catalogue,
            metrics,
            activity,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            entries: Mutex::default(),
            usual_load: AtomicU64::new(FIRST_GUESS.as_micros() as u64),
            restoring: AtomicUsize::new(0),
            proving: AtomicBool::new(false),
        })
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn usual_load(&self) -> Duration {
        Duration::from_micros(self.usual_load.load(Ordering::Relaxed))
    }

    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.load(Ordering::Acquire) > 0
    }

    pub(super) async fn pin(self: &Arc<Self>, artifact: &Artifact) -> Result<Pin, WorkerError> {
        loop {
            // The pin is counted first, so that the adapter cannot be chosen
            // for unloading between the end of its load and our waking up.
            let (pin, next) = self.ask(artifact)?;
            match next {
                Next::Ready => return Ok(pin),
                Next::Load(mut outcome) => {
                    let outcome = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
                    let Ok(outcome) = outcome else {
                        self.entries().remove(&pin.key, pin.born);
                        return Err(WorkerError::AdapterUnavailable("the load was abandoned".to_owned()));
                    };
                    return outcome.expect("waited for it to be there").map(|()| pin);
                }
                Next::Retry(mut left) => {
                    if left.wait_for(|left| *left).await.is_err() {
                        // Nobody is left to remove it, and asking would find it forever.
                        self.entries().remove(&pin.key, pin.born);
                    }
                }
            }
        }
    }

    pub(super) fn ask(self: &Arc<Self>, artifact: &Artifact) -> Result<(Pin, Next), WorkerError> {
        let key = &artifact.key;
        let now = Instant::now();
        let mut entries = self.entries();
        let pin = |born| Pin { shared: self.clone(), key: key.clone(), born };
        let (born, adopted) = match entries.pin(key, now) {
            Some((born, State::Resident { adopted: false, .. })) => return Ok((pin(born), Next::Ready)),
            Some((born, State::Loading { outcome, .. })) => {
                let outcome = outcome.clone();
                return Ok((pin(born), Next::Load(outcome)));
            }
            Some((born, State::Leaving { left })) => {
                let left = left.clone();
                return Ok((pin(born), Next::Retry(left)));
            }
            Some((born, State::Resident { adopted: true, bytes, .. })) => {
                let there = (born, Some(*bytes));
                if let Some((error, _)) = entries.failures.refuses(key, now) {
                    entries.unpin(key, born);
                    return Err(error);
                }
                there
            }
            None => {
                if let Some((error, _)) = entries.failures.refuses(key, now) {
                    return Err(error);
                }
                (0, None)
            }
        };
        let (tell, outcome) = watch::channel(None);
        let born = match adopted {
            Some(_) => {
                entries.set(key, born, State::Loading { outcome: outcome.clone(), since: now });
                born
            }
            None => entries.begin(key, outcome.clone(), now),
        };
        // What has to go for it goes while it is fetched.
        self.make_room(&mut entries);
        self.tasks.spawn_on(self.clone().load(artifact.clone(), born, adopted, tell), &self.runtime);
        drop(entries);
        Ok((pin(born), Next::Load(outcome)))
    }

    /// `there` are the bytes of an adapter that the worker has already, and
    /// that only has to be proven.
    async fn load(
        self: Arc<Self>,
        artifact: Artifact,
        born: u64,
        there: Option<u64>,
        tell: watch::Sender<Option<Result<(), WorkerError>>>,
    ) {
        let key = artifact.key.clone();
        let started = Instant::now();
        let late = |_| Err(WorkerError::AdapterUnavailable("loading it took too long".to_owned()));
        // It is large, and there is one of it for a load.
        let loading = tokio::time::timeout(LIMIT, Box::pin(self.load_and_prove(&artifact, there)));
        let loaded = caught(async { loading.await.unwrap_or_else(late) }).await;
        let took = started.elapsed();
        if there.is_none() {
            self.metrics.adapter_loaded(took, loaded.is_ok());
        }
        let mut entries = self.entries();
        let outcome = match loaded {
            Ok(bytes) => {
                info!(worker = %self.worker, adapter = %key, bytes, seconds = took.as_secs_f64(), "adapter loaded");
                self.took(took);
                entries.unstick();
                entries.failures.loaded(&key);
                let since = Instant::now();
                entries.set(&key, born, State::Resident { bytes, since, adopted: false, stuck: None });
                Ok(())
            }
            Err(error) => {
                warn!(worker = %self.worker, adapter = %key, %error, "adapter not loaded");
                entries.remove(&key, born);
                match error {
                    WorkerError::AdapterMismatch(_) => entries.failures.quarantine(&key, &error, Instant::now()),
                    // A full queue says nothing of the adapter.
                    WorkerError::Busy => {}
                    _ => entries.failures.failed(&key, &error, Instant::now()),
                }
                Err(error)
            }
        };
        self.make_room(&mut entries);
        drop(entries);
        tell.send_replace(Some(outcome));
    }

    async fn load_and_prove(self: &Arc<Self>, artifact: &Artifact, there: Option<u64>) -> Result<u64, WorkerError> {
        if let Some(bytes) = there {
            match self.prove_beside(artifact).await {
                // What it said it had has gone meanwhile.
                Err(WorkerError::AdapterMissing(_)) => {}
                Err(error @ WorkerError::AdapterMismatch(_)) => {
                    self.unload_unproven(&artifact.key).await;
                    return Err(error);
                }
                proven => return proven.map(|()| bytes),
            }
        }
        let Artifact { key, base } = artifact;
        let folder = self.catalogue.fetch(key).await.map_err(not_fetched)?;
        self.place_for(key).await;
        // Until it is proven: the probe runs alone too.
        let alone = self.alone(key).await?;
        let load = AdapterLoad { key: key.clone(), base: base.clone(), folder };
        let bytes = self.driver.load_adapter(load).await?.bytes;
        let proven = match alone {
            Some(_) => self.prove(artifact).await,
            None => self.prove_beside(artifact).await,
        };
        if let Err(error) = proven {
            // Nothing that is not proven stays, or the next to ask would find it.
            self.unload_unproven(key).await;
            return Err(error);
        }
        Ok(bytes)
    }

    async fn unload_unproven(&self, key: &AdapterKey) {
        if let Err(error) = self.driver.unload_adapter(key.clone()).await {
            warn!(worker = %self.worker, adapter = %key, %error, "adapter not unloaded");
        }
    }

    /// Waits until the adapter has a place, where places are counted. Where
    /// all are in use it goes beside them: the engine then makes some wait.
    async fn place_for(self: &Arc<Self>, key: &AdapterKey) {
        let Some(slots) = self.config.adapter_slots else { return };
        loop {
            let leaving = {
                let mut entries = self.entries();
                if entries.places_beside(key) < slots {
                    return;
                }
                self.make_room(&mut entries);
                entries.leaving()
            };
            let Some(mut left) = leaving else { return };
            let _ = left.wait_for(|left| *left).await;
        }
    }

    /// Waits until nothing runs, where the engine could mix adapters up while
    /// one is loaded and this one does not fit beside what is there. Not for
    /// long: what comes meanwhile waits behind it.
    async fn alone(&self, key: &AdapterKey) -> Result<Option<Alone>, WorkerError> {
        let fits = self.config.adapter_slots.is_some_and(|slots| self.entries().places_beside(key) < slots);
        if fits || !self.driver.loads_only_when_idle() {
            return Ok(None);
        }
        let busy = |_| WorkerError::AdapterUnavailable("the engine may load only while it runs nothing".to_owned());
        let quiet = async {
            let alone = self.activity.alone().await;
            let since = Instant::now();
            // What it runs for other gateways only its own account tells.
            loop {
                let status = self.driver.status();
                let told = status.held.as_ref().is_none_or(|held| held.as_of > since);
                if told && status.batch_rows + status.waiting == 0 {
                    return alone;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(QUIET, quiet).await.map(Some).map_err(busy)
    }

    fn took(&self, load: Duration) {
        let (before, now) = (self.usual_load.load(Ordering::Relaxed), load.as_micros() as u64);
        self.usual_load.store(((before * 4 + now) / 5).max(1), Ordering::Relaxed);
    }

    /// Starts to unload what is retired, and what was used longest ago and
    /// nobody holds, until the rest fits.
    pub(super) fn make_room(self: &Arc<Self>, entries: &mut Entries) {
        while let Some(key) = entries.to_unload(&self.config, Instant::now()) {
            self.start_unload(entries, key);
        }
    }

    pub(super) fn release(self: &Arc<Self>, key: &AdapterKey) {
        let mut entries = self.entries();
        if entries.get(key).is_some_and(|entry| entry.pins() == 0) {
            self.start_unload(&mut entries, key.clone());
        }
    }

    fn start_unload(self: &Arc<Self>, entries: &mut Entries, key: AdapterKey) {
        let (tell, left) = watch::channel(false);
        let Some(left) = entries.leave(&key, left) else { return };
        self.tasks.spawn_on(self.clone().unload(key, left, tell), &self.runtime);
    }

    async fn unload(self: Arc<Self>, key: AdapterKey, was: Left, tell: watch::Sender<bool>) {
        let Left { born, bytes, adopted } = was;
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
                let since = Instant::now();
                entries.set(&key, born, State::Resident { bytes, since, adopted, stuck: Some(since) });
                // Its memory is still taken; another one may have to go.
                self.make_room(&mut entries);
            }
        }
        drop(entries);
        tell.send_replace(true);
    }

    pub(super) fn reconcile(self: &Arc<Self>, held: &Held) {
        let mut entries = self.entries();
        let Some(Reconciled { restarted, gone }) = entries.reconcile(held) else { return };
        for key in gone {
            warn!(worker = %self.worker, adapter = %key, restarted, "the worker no longer has the adapter");
        }
        let known: Vec<AdapterKey> = entries.keys().map(|(key, _)| key.clone()).collect();
        for key in known.iter().filter(|key| self.catalogue.is_retired(key)) {
            entries.retire(key);
        }
        self.make_room(&mut entries);
        if restarted && !entries.lost.is_empty() {
            info!(worker = %self.worker, adapters = entries.lost.len(), "the worker is another process; loading what it had");
            self.restoring.fetch_add(1, Ordering::AcqRel);
            self.tasks.spawn_on(self.clone().restore(), &self.runtime);
        }
    }

    /// Loads what a restarted worker had, what was used last first.
    async fn restore(self: Arc<Self>) {
        let restoring = async {
            loop {
                let next = self.entries().lost.first().cloned();
                let Some(artifact) = next.as_ref().and_then(|key| self.catalogue.get(key)) else {
                    match next {
                        // It left the catalogue meanwhile.
                        Some(key) => self.entries().lost.retain(|lost| *lost != key),
                        None => return,
                    }
                    continue;
                };
                let held = self.pin(&artifact).await;
                if held.is_err() && self.driver.status().unhealthy.is_some() {
                    // It is gone again: what is left is for its next run.
                    return;
                }
                // What does not fit was used longest ago.
                let mut entries = self.entries();
                entries.lost.retain(|lost| *lost != artifact.key);
                if entries.is_full(&self.config) {
                    entries.lost.clear();
                }
            }
        };
        if tokio::time::timeout(RESTORE, restoring).await.is_err() {
            warn!(worker = %self.worker, "loading what the worker had takes long; it serves meanwhile");
        }
        self.restoring.fetch_sub(1, Ordering::AcqRel);
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
