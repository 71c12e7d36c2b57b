//! Which worker? One question, [`Pool::acquire`], and the [`Lease`] that is its
//! answer: a worker that serves the base model, with the adapter loaded,
//! proven and pinned there.
//!
//! The choice itself is a pure function ([`pick`]); [`residency`] loads what is
//! missing and proves it ([`prover`]); [`placement`] keeps adapters where they
//! are wanted; the lease gives back the worker's place and the adapter's pin
//! when it is dropped. The pool does not retry: the gateway asks again, without
//! the workers that failed.

mod activity;
mod breaker;
mod demand;
mod load;
mod pick;
mod placement;
mod prefix;
mod probe;
mod prover;
mod rank;
mod residency;
#[cfg(test)]
mod simulation;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::time::Instant;

use crate::adapters::{Artifact, Catalogue};
use crate::telemetry::Metrics;
use crate::types::{AdapterKey, BaseName, GenerateRequest, ModelRoute, TenantId};

use demand::Demand;
use pick::{Candidate, Picked, Presence, Reason};
use prefix::{Before, Conversations};

pub use breaker::Outcome;
pub use residency::Config as ResidencyConfig;
pub use worker::{Config as WorkerConfig, Lease, State as WorkerState, Worker};
// What a lease's generation yields; the gateway knows workers through the pool alone.
pub use crate::worker::{EventSource, Started, WorkerError};

/// All workers, and which base models they serve.
pub struct Pool {
    /// Swapped whole when a worker is added or removed.
    workers: ArcSwap<Vec<Arc<Worker>>>,
    catalogue: Arc<Catalogue>,
    metrics: Arc<Metrics>,
    demand: Mutex<Demand>,
    conversations: Conversations,
    #[cfg(test)]
    policy: simulation::Policy,
}

/// What a worker is wanted for.
#[derive(Clone, Copy)]
pub struct Want<'a> {
    pub tenant: &'a TenantId,
    pub route: &'a ModelRoute,
    pub request: &'a GenerateRequest,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    #[error("no healthy worker serves {base}")]
    NoWorker { base: BaseName },
    #[error("the catalogue has no adapter {key}")]
    NoArtifact { key: AdapterKey },
    #[error("{worker}: {source}")]
    Worker { worker: Arc<str>, source: WorkerError },
    /// Loading the adapter failed lately wherever it could be, and is not
    /// tried again before `left` has passed.
    #[error("{worker}, not tried again for {} s: {source}", left.as_secs_f32())]
    BackingOff { worker: Arc<str>, source: WorkerError, left: Duration },
}

// === impl Pool ===

impl Pool {
    pub fn new(workers: Vec<Arc<Worker>>, catalogue: Arc<Catalogue>, metrics: Arc<Metrics>) -> Self {
        Self {
            workers: ArcSwap::from_pointee(workers),
            catalogue,
            metrics,
            demand: Mutex::default(),
            conversations: Conversations::default(),
            #[cfg(test)]
            policy: simulation::Policy::default(),
        }
    }

    /// From now on the worker takes part in every choice, in the place of one
    /// of the same name.
    pub fn add(&self, worker: &Arc<Worker>) {
        self.workers.rcu(|workers| {
            let others = workers.iter().filter(|other| other.name() != worker.name()).cloned();
            others.chain([worker.clone()]).collect::<Vec<_>>()
        });
    }

    /// From now on these take part in every choice, and before others of their
    /// names, which stay for now.
    pub fn join(&self, newcomers: &[Arc<Worker>]) {
        self.workers.rcu(|workers| newcomers.iter().chain(workers.iter()).cloned().collect::<Vec<_>>());
    }

    /// As `remove`, whatever others have the same names.
    pub fn dismiss(&self, leaving: &[Arc<Worker>]) {
        let stays = |worker: &&Arc<Worker>| !leaving.iter().any(|gone| Arc::ptr_eq(gone, worker));
        self.workers.rcu(|workers| workers.iter().filter(stays).cloned().collect::<Vec<_>>());
    }

    /// No request is given to the worker any more; those that it runs hold it
    /// until they end.
    pub fn remove(&self, name: &str) {
        self.workers
            .rcu(|workers| workers.iter().filter(|worker| &**worker.name() != name).cloned().collect::<Vec<_>>());
    }

    /// Takes a place of the best worker that serves the route's base model and
    /// is not in `except`, and sees to it that the adapter is loaded there.
    pub async fn acquire(&self, want: Want<'_>, except: &[Arc<str>]) -> Result<Lease, PoolError> {
        let Want { tenant, route, request } = want;
        let artifact = match &route.adapter {
            None => None,
            Some(key) => Some(self.catalogue.get(key).ok_or_else(|| PoolError::NoArtifact { key: key.clone() })?),
        };
        let prefixes = self.conversations.prefixes(tenant, route, request);
        let before = self.conversations.before(&prefixes);
        let (worker, reason) = self.choose(want, artifact.as_ref(), before.as_ref(), except)?;
        self.metrics.picked(reason.as_str());
        self.conversations.went(&prefixes, worker.name());
        let lease = Worker::lease(&worker, &route.base, artifact.as_ref(), request).await;
        lease.map_err(|source| PoolError::Worker { worker: worker.name().clone(), source })
    }

    fn choose(
        &self,
        want: Want<'_>,
        artifact: Option<&Artifact>,
        before: Option<&Before>,
        except: &[Arc<str>],
    ) -> Result<(Arc<Worker>, Reason), PoolError> {
        let Want { tenant, route, request } = want;
        let adapter = route.adapter.as_ref();
        if let Some(artifact) = artifact {
            let tokens = request.max_tokens.unwrap_or(load::USUAL_ANSWER).min(load::USUAL_ANSWER);
            self.demand().asked(artifact, tokens.saturating_mul(request.choices), Instant::now());
        }
        let salt = adapter.map_or_else(|| tenant.to_string(), ToString::to_string);
        let workers = self.workers();
        let serving: Vec<&Arc<Worker>> = workers
            .iter()
            .filter(|worker| worker.serves(&route.base) && !except.contains(worker.name()))
            .filter(|worker| adapter.is_none_or(|key| worker.driver().accepts(key)))
            .collect();
        let (mut candidates, mut refused) = (Vec::with_capacity(serving.len()), None);
        for worker in &serving {
            let (candidate, refusal) = worker.candidate(&route.base, adapter, before, &salt);
            candidates.push(candidate);
            if let Some((source, left)) = refusal {
                refused.get_or_insert(PoolError::BackingOff { worker: worker.name().clone(), source, left });
            }
        }
        #[cfg(test)]
        let picked = self.policy.pick(&candidates);
        #[cfg(not(test))]
        let picked = pick::pick(&candidates);
        let nobody = || refused.unwrap_or_else(|| PoolError::NoWorker { base: route.base.clone() });
        let Picked { worker: picked, copy_to } = picked.ok_or_else(nobody)?;
        if let (Some(copy_to), Some(artifact)) = (copy_to, artifact) {
            serving[copy_to].residency().prefetch(artifact);
        }
        let returns = before.is_some_and(|before| before.worker == *serving[picked].name());
        Ok((serving[picked].clone(), reason(&candidates, picked, adapter.is_some(), returns)))
    }

    /// The text of a prompt's tokens, by the first worker of the base model that can
    /// tell it; `None` where none can.
    pub async fn text_of(&self, base: &BaseName, tokens: &[u32]) -> Option<String> {
        for worker in self.workers().iter().filter(|worker| worker.serves(base)) {
            if let Some(text) = worker.driver().text_of(base, tokens).await {
                return Some(text);
            }
        }
        None
    }

    /// The workers there are at this moment.
    pub fn workers(&self) -> Arc<Vec<Arc<Worker>>> {
        self.workers.load_full()
    }

    pub fn worker(&self, name: &str) -> Option<Arc<Worker>> {
        self.workers().iter().find(|worker| &**worker.name() == name).cloned()
    }

    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Whether some worker can serve `base` now; the reason where none can.
    pub fn ready(&self, base: &BaseName) -> Result<(), String> {
        let mut reasons = Vec::new();
        for worker in self.workers().iter().filter(|worker| worker.serves(base)) {
            match (worker.state(), worker.status().unhealthy) {
                (WorkerState::Healthy | WorkerState::Restoring, _) => return Ok(()),
                (_, Some(reason)) => reasons.push(format!("{}: {reason}", worker.name())),
                (state, None) => reasons.push(format!("{}: it is {}", worker.name(), state.as_str())),
            }
        }
        Err(if reasons.is_empty() { "no worker serves it".to_owned() } else { reasons.join("; ") })
    }

    /// Sequences of a base model that the workers, as far as they take any,
    /// run at one time for this gateway; 0 where none can.
    pub fn seats(&self, base: &BaseName) -> u32 {
        let workers = self.workers();
        let serving = workers.iter().filter(|worker| worker.serves(base));
        let seats: u64 = serving.map(|worker| worker.seats()).fold(0, u64::saturating_add);
        u32::try_from(seats).unwrap_or(u32::MAX)
    }

    /// Base models that the workers serve, each once.
    pub fn bases(&self) -> Vec<BaseName> {
        let mut bases: Vec<BaseName> =
            self.workers().iter().flat_map(|worker| worker.bases().cloned().collect::<Vec<_>>()).collect();
        bases.sort();
        bases.dedup();
        bases
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why this one of the candidates was picked.
fn reason(candidates: &[Candidate], picked: usize, adapter: bool, returns: bool) -> Reason {
    let having = |it: &Candidate| matches!(it.presence, Presence::Resident | Presence::Loading);
    match candidates[picked].presence {
        Presence::Resident if returns => Reason::Affinity,
        Presence::Resident if !adapter => Reason::Base,
        Presence::Resident => Reason::Resident,
        Presence::Loading => Reason::Loading,
        Presence::Absent if candidates.iter().any(having) => Reason::Spread,
        Presence::Absent => Reason::Load,
    }
}
