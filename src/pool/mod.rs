//! Which worker? One question, [`Pool::acquire`], and the [`Lease`] that is its
//! answer: a worker that serves the base model, with the adapter loaded and
//! pinned there.
//!
//! The choice itself is a pure function ([`pick`]); residency loads what is
//! missing; the lease gives back the worker's slot and the adapter's pin when
//! it is dropped. The pool does not retry: the gateway asks again, without the
//! workers that failed.

mod pick;
mod residency;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::adapters::{Artifact, Catalogue};
use crate::telemetry::Metrics;
use crate::types::{AdapterKey, BaseName, GenerateRequest, GenerationId, ModelRoute, TenantId};
use crate::worker::{Call, Driver, Status};

use pick::Candidate;
use residency::{Pin, Residency};

pub use residency::Config as ResidencyConfig;
// What a lease's generation yields; the gateway knows workers through the pool alone.
pub use crate::worker::{EventSource, Started, WorkerError};

/// All workers, and which base models they serve.
pub struct Pool {
    /// Swapped whole when a worker is added or removed.
    workers: ArcSwap<Vec<Arc<Worker>>>,
    catalogue: Arc<Catalogue>,
}

/// One worker as the pool sees it.
pub struct Worker {
    name: Arc<str>,
    bases: Vec<BaseName>,
    driver: Arc<dyn Driver>,
    residency: Residency,
    leases: AtomicU32,
}

/// A worker's slot and an adapter's pin, held until dropped.
pub struct Lease {
    worker: Arc<Worker>,
    base: BaseName,
    pin: Option<Pin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    #[error("no healthy worker serves {base}")]
    NoWorker { base: BaseName },
    #[error("the catalogue has no adapter {key}")]
    NoArtifact { key: AdapterKey },
    #[error("{worker}: {source}")]
    Worker { worker: Arc<str>, source: WorkerError },
}

// === impl Pool ===

impl Pool {
    pub fn new(workers: Vec<Arc<Worker>>, catalogue: Arc<Catalogue>) -> Self {
        Self { workers: ArcSwap::from_pointee(workers), catalogue }
    }

    /// From now on the worker takes part in every choice, in the place of one
    /// of the same name.
    pub fn add(&self, worker: &Arc<Worker>) {
        self.workers.rcu(|workers| {
            let others = workers.iter().filter(|other| other.name != worker.name).cloned();
            others.chain([worker.clone()]).collect::<Vec<_>>()
        });
    }

    /// No request is given to the worker any more; those that it runs hold it
    /// until they end.
    pub fn remove(&self, name: &str) {
        self.workers
            .rcu(|workers| workers.iter().filter(|worker| &*worker.name != name).cloned().collect::<Vec<_>>());
    }

    /// Takes a slot of the best worker that serves the route's base model and
    /// is not in `except`, and sees to it that the adapter is loaded there.
    pub async fn acquire(&self, route: &ModelRoute, except: &[Arc<str>]) -> Result<Lease, PoolError> {
        let artifact = match &route.adapter {
            None => None,
            Some(key) => Some(self.catalogue.get(key).ok_or_else(|| PoolError::NoArtifact { key: key.clone() })?),
        };
        let workers = self.workers();
        let serving: Vec<&Arc<Worker>> = workers
            .iter()
            .filter(|worker| worker.bases.contains(&route.base) && !except.contains(&worker.name))
            .filter(|worker| route.adapter.as_ref().is_none_or(|key| worker.driver.accepts(key)))
            .collect();
        let candidates: Vec<Candidate> =
            serving.iter().map(|worker| worker.candidate(route.adapter.as_ref())).collect();
        let picked = pick::pick(&candidates).ok_or_else(|| PoolError::NoWorker { base: route.base.clone() })?;
        Worker::lease(serving[picked], &route.base, artifact.as_ref()).await
    }

    /// The workers there are at this moment.
    pub fn workers(&self) -> Arc<Vec<Arc<Worker>>> {
        self.workers.load_full()
    }

    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Unloads what leaves the catalogue, everywhere, as soon as nobody uses
    /// it. Never returns.
    pub async fn follow(&self) {
        let mut changes = self.catalogue.subscribe();
        let mut known = self.catalogue.keys();
        while changes.changed().await.is_ok() {
            let now = self.catalogue.keys();
            for gone in known.difference(&now) {
                self.workers().iter().for_each(|worker| worker.retire(gone));
            }
            known = now;
        }
        std::future::pending().await
    }

    /// Whether some worker can serve `base` now; the reason where none can.
    pub fn ready(&self, base: &BaseName) -> Result<(), String> {
        let mut reasons = Vec::new();
        for worker in self.workers().iter().filter(|worker| worker.bases.contains(base)) {
            match worker.driver.status().unhealthy {
                None => return Ok(()),
                Some(reason) => reasons.push(format!("{}: {reason}", worker.name)),
            }
        }
        Err(if reasons.is_empty() { "no worker serves it".to_owned() } else { reasons.join("; ") })
    }

    /// Base models that the workers serve, each once.
    pub fn bases(&self) -> Vec<BaseName> {
        let mut bases: Vec<BaseName> = self.workers().iter().flat_map(|worker| worker.bases.clone()).collect();
        bases.sort();
        bases.dedup();
        bases
    }
}

// === impl Worker ===

impl Worker {
    /// Called inside a Tokio runtime: adapters are loaded and unloaded there.
    pub fn new(
        name: impl Into<Arc<str>>,
        driver: Arc<dyn Driver>,
        residency: ResidencyConfig,
        catalogue: Arc<Catalogue>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let name: Arc<str> = name.into();
        Arc::new(Self {
            bases: driver.bases(),
            residency: Residency::new(name.clone(), driver.clone(), residency, catalogue, metrics),
            name,
            driver,
            leases: AtomicU32::new(0),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn status(&self) -> Status {
        self.driver.status()
    }

    /// Generations that run or wait at this worker for us.
    pub fn leases(&self) -> u32 {
        self.leases.load(Ordering::Acquire)
    }

    /// Adapters that are loaded.
    pub fn adapters_resident(&self) -> usize {
        self.residency.resident()
    }

    /// Adapters that running generations hold.
    pub fn pins(&self) -> usize {
        self.residency.pins()
    }

    /// Loads and unloads of adapters under way.
    pub fn adapter_tasks(&self) -> usize {
        self.residency.tasks()
    }

    /// Unloads an adapter as soon as nobody uses it.
    pub fn retire(&self, adapter: &AdapterKey) {
        self.residency.retire(adapter);
    }

    /// Whether the adapter is loaded here, or about to be.
    pub fn holds(&self, adapter: &AdapterKey) -> bool {
        self.residency.holds(adapter)
    }

    fn candidate(&self, adapter: Option<&AdapterKey>) -> Candidate {
        let status = self.driver.status();
        if let Some(held) = &status.held {
            self.residency.reconcile(held);
        }
        Candidate {
            healthy: status.unhealthy.is_none(),
            resident: adapter.is_none_or(|key| self.residency.holds(key)),
            leases: self.leases(),
        }
    }

    async fn lease(worker: &Arc<Self>, base: &BaseName, artifact: Option<&Artifact>) -> Result<Lease, PoolError> {
        // The slot is taken before the load, so that a burst sees its own weight.
        worker.leases.fetch_add(1, Ordering::AcqRel);
        let mut lease = Lease { worker: worker.clone(), base: base.clone(), pin: None };
        if let Some(artifact) = artifact {
            let pin = worker.residency.pin(artifact).await;
            lease.pin = Some(pin.map_err(|source| PoolError::Worker { worker: worker.name.clone(), source })?);
        }
        Ok(lease)
    }
}

// === impl Lease ===

impl Lease {
    pub fn worker(&self) -> &Arc<str> {
        &self.worker.name
    }

    /// The worker has lost the adapter, against what was known of it: whoever
    /// asks next has it loaded anew.
    pub fn adapter_missing(&self) {
        if let Some(pin) = &self.pin {
            pin.forget();
        }
    }

    pub async fn generate(
        &self,
        id: GenerationId,
        tenant: TenantId,
        request: Arc<GenerateRequest>,
    ) -> Result<Started, WorkerError> {
        let adapter = self.pin.as_ref().map(|pin| pin.key().clone());
        self.worker.driver.generate(Call { id, tenant, base: self.base.clone(), adapter, request }).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.worker.leases.fetch_sub(1, Ordering::AcqRel);
    }
}
