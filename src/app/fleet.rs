//! The workers of the configuration as they run, and how another configuration
//! changes them: who stays as it is, who is started, who leaves.
//!
//! A worker whose section has changed is another one. It is started before the
//! one in its place leaves, so for a while both are there; an embedded worker
//! then needs the memory of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::KeyHash;
use crate::config::{BaseConfig, Config, WorkerConfig};
use crate::gateway::Gateway;
use crate::pool::Worker;
use crate::telemetry::Metrics;
use crate::worker::Driver;
use crate::worker::discovery::Source;

use super::discovery::{self, Follower};
use super::{StartError, drivers, pooled};

/// By the workers' names.
#[derive(Default)]
pub(super) struct Fleet(BTreeMap<String, Part>);

struct Part {
    made_of: MadeOf,
    runs: Runs,
}

/// All that a worker depends on.
#[derive(Debug, Clone, PartialEq)]
struct MadeOf {
    worker: WorkerConfig,
    /// Of an engine in this process.
    bases: Vec<BaseConfig>,
    /// Its key's hash: the file that holds it may hold another.
    key: Option<KeyHash>,
}

enum Runs {
    Known(Arc<Worker>),
    Discovered(Follower),
}

/// A fleet that could be, with all that it needs started.
pub(super) struct Prepared(Vec<(MadeOf, Ready)>);

enum Ready {
    /// As it runs.
    Stays,
    Driver(Arc<dyn Driver>),
    Source(Source),
}

/// What a change of the fleet did.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) started: Vec<String>,
    pub(super) left: Vec<String>,
    /// Still in the pool.
    pub(super) leaving: Vec<Arc<Worker>>,
}

// === impl Fleet ===

impl Fleet {
    /// Starts what `config` has and this fleet has not. Nothing is changed.
    pub(super) async fn prepare(&self, config: &Arc<Config>) -> Result<Prepared, StartError> {
        let mut wanted = Vec::new();
        for worker in &config.workers {
            let made_of = MadeOf::of(worker, config);
            let stays = self.0.get(&worker.name).is_some_and(|part| part.made_of == made_of);
            wanted.push((made_of, stays));
        }
        let config = config.clone();
        // Models are loaded, which takes seconds.
        let starting = tokio::task::spawn_blocking(move || {
            let ready = |(made_of, stays): (MadeOf, bool)| {
                let worker = &made_of.worker;
                let failed = |source| StartError::Worker { worker: worker.name.clone(), source };
                let ready = match worker.discover() {
                    _ if stays => Ready::Stays,
                    Some(discover) => Ready::Source(discovery::source(discover).map_err(failed)?),
                    None => Ready::Driver(drivers::driver(&config, worker).map_err(failed)?),
                };
                Ok((made_of, ready))
            };
            wanted.into_iter().map(ready).collect::<Result<_, _>>()
        });
        starting.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())).map(Prepared)
    }

    /// Puts newcomers into the pool. Who leaves is still in it.
    pub(super) fn change(
        &mut self,
        prepared: Prepared,
        config: &Arc<Config>,
        gateway: &Arc<Gateway>,
        metrics: &Arc<Metrics>,
    ) -> Changed {
        let (mut next, mut changed, mut newcomers) = (BTreeMap::new(), Changed::default(), Vec::new());
        for (made_of, ready) in prepared.0 {
            let name = made_of.worker.name.clone();
            let before = self.0.remove(&name);
            let runs = match (ready, before) {
                (Ready::Stays, Some(part)) => part.runs,
                (Ready::Stays, None) => continue,
                (Ready::Driver(driver), before) => {
                    let worker = pooled(&made_of.worker, driver, gateway.catalogue(), metrics);
                    if let Some(Part { runs: Runs::Known(before), .. }) = &before
                        && before.is_drained()
                    {
                        worker.drain();
                    }
                    changed.leaving.extend(before.iter().flat_map(Part::workers));
                    changed.started.push(name.clone());
                    newcomers.push(worker.clone());
                    Runs::Known(worker)
                }
                (Ready::Source(source), before) => {
                    let before = before.iter().flat_map(Part::workers).collect();
                    changed.started.push(name.clone());
                    Runs::Discovered(Follower::start(source, config, &made_of.worker, gateway, metrics, before))
                }
            };
            next.insert(name, Part { made_of, runs });
        }
        gateway.pool().join(&newcomers);
        let gone = std::mem::replace(&mut self.0, next);
        changed.leaving.extend(gone.values().flat_map(Part::workers));
        changed.left = gone.into_keys().collect();
        changed
    }

    pub(super) fn followers(&self) -> impl Iterator<Item = (&WorkerConfig, &Follower)> {
        self.0.values().filter_map(|part| match &part.runs {
            Runs::Discovered(follower) => Some((&part.made_of.worker, follower)),
            Runs::Known(_) => None,
        })
    }
}

// === impl Part ===

impl Part {
    fn workers(&self) -> Vec<Arc<Worker>> {
        match &self.runs {
            Runs::Known(worker) => vec![worker.clone()],
            Runs::Discovered(follower) => follower.members(),
        }
    }
}

// === impl MadeOf ===

impl MadeOf {
    fn of(worker: &WorkerConfig, config: &Config) -> Self {
        let served = |base: &&BaseConfig| worker.embedded().is_some() && worker.bases.contains(&base.name);
        let key = worker.remote().and_then(|remote| remote.key.as_ref()).and_then(|key| key.read().ok());
        Self {
            worker: worker.clone(),
            bases: config.bases.iter().filter(served).cloned().collect(),
            key: key.map(|key| KeyHash::of(key.expose().as_bytes())),
        }
    }
}
