//! What operators see of the gateway and do to its workers.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tenantry_ratings::{Ratings, Reason};

use super::audit::Change;
use super::{Gateway, Held};
use crate::admission::Scope;
use crate::pool::{Worker, WorkerState};
use crate::telemetry::{AdapterReading, RatingReading, Readings, SinkReading, WorkerReading};
use crate::types::{AdapterKey, Error};

/// A limit of which less is in use has no series of its own.
const NEAR: f64 = 0.5;
/// Limits that have one at most.
const NEAREST: usize = 200;

/// A worker as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCard {
    pub name: String,
    pub state: WorkerState,
    /// Why it can serve nothing.
    pub unhealthy: Option<String>,
    pub bases: Vec<String>,
    /// Base models that it serves and does not have in memory.
    pub cold: Vec<String>,
    /// Requests that it has of this gateway.
    pub leases: u32,
    /// Sequences that it runs, of all gateways.
    pub batch_rows: u64,
    pub waiting: u64,
    pub adapters_resident: usize,
    /// Adapters that answered as another, and are not used there for a while.
    pub adapters_quarantined: usize,
}

/// Where an adapter is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whereabouts {
    /// Workers that have it loaded.
    pub resident_on: Vec<String>,
    /// Workers that are loading it.
    pub loading_on: Vec<String>,
    /// Workers where loading it failed lately, each with what went wrong.
    pub failed_on: Vec<(String, String)>,
}

// === impl Gateway ===

impl Gateway {
    pub fn whereabouts(&self, adapter: &AdapterKey) -> Whereabouts {
        let mut found = Whereabouts::default();
        for worker in self.pool.workers().iter() {
            let name = worker.name().to_string();
            if worker.has(adapter) {
                found.resident_on.push(name);
            } else if worker.is_loading(adapter) {
                found.loading_on.push(name);
            } else if let Some(error) = worker.failure(adapter) {
                found.failed_on.push((name, error.to_string()));
            }
        }
        found
    }

    /// The workers, by name.
    pub fn workers(&self) -> Vec<WorkerCard> {
        let card = |worker: &std::sync::Arc<Worker>| {
            let status = worker.status();
            WorkerCard {
                name: worker.name().to_string(),
                state: worker.state(),
                unhealthy: status.unhealthy,
                bases: worker.bases().map(ToString::to_string).collect(),
                cold: status.cold.iter().map(ToString::to_string).collect(),
                leases: worker.leases(),
                batch_rows: status.batch_rows,
                waiting: status.waiting,
                adapters_resident: worker.adapters_resident(),
                adapters_quarantined: worker.adapters_quarantined(),
            }
        };
        let mut cards: Vec<WorkerCard> = self.pool.workers().iter().map(card).collect();
        cards.sort_by(|one, other| one.name.cmp(&other.name));
        cards
    }

    /// Has a worker finish what it runs and take nothing new; `None` where
    /// there is no such worker.
    pub fn drain_worker(&self, who: &str, name: &str) -> Option<WorkerCard> {
        self.change_worker(who, "worker.drained", name, Worker::drain)
    }

    pub fn undrain_worker(&self, who: &str, name: &str) -> Option<WorkerCard> {
        self.change_worker(who, "worker.undrained", name, Worker::undrain)
    }

    fn change_worker(
        &self,
        who: &str,
        action: &'static str,
        name: &str,
        change: impl Fn(&Worker),
    ) -> Option<WorkerCard> {
        let worker = self.pool.worker(name)?;
        let was = worker.is_drained();
        change(&worker);
        let told = |drained: bool| json!({ "drained": drained });
        let (before, after) = (told(was), told(worker.is_drained()));
        if before != after {
            self.audit(Change { who, action, subject: format!("workers/{name}"), tenant: None, before, after });
        }
        self.workers().into_iter().find(|card| card.name == name)
    }

    /// The text of `/metrics`.
    pub fn render_metrics(&self) -> Result<String, Error> {
        let pool = self.pool.workers();
        let mut states: HashMap<WorkerState, usize> = WorkerState::ALL.map(|state| (state, 0)).into();
        for worker in pool.iter() {
            *states.entry(worker.state()).or_default() += 1;
        }
        let workers = pool.iter().map(|worker| {
            let status = worker.status();
            WorkerReading {
                worker: worker.name().to_string(),
                batch_rows: status.batch_rows,
                waiting: status.waiting,
                kv_tokens: status.kv_tokens,
                leases: u64::from(worker.leases()),
                adapters_resident: worker.adapters_resident() as u64,
                adapters_quarantined: worker.adapters_quarantined() as u64,
            }
        });
        let readings = Readings {
            workers: workers.collect(),
            states: states.into_iter().map(|(state, count)| (state.as_str(), count as u64)).collect(),
            queues: self.pool.bases().iter().map(|base| (base.to_string(), self.queued(base))).collect(),
            adapters: self.adapter_reading(),
            ratings: self.rating_reading(),
            limits: self.near_limits(),
        };
        self.metrics.render(&readings).map_err(|_| Error::internal("the metrics could not be written"))
    }

    /// Of the spool and the sinks; `None` where ratings are not taken.
    pub(super) fn rating_reading(&self) -> Option<RatingReading> {
        self.ratings().map(rating_reading)
    }

    /// Limits by tenant of which more than half is in use, the nearest first.
    pub fn near_limits(&self) -> Vec<(String, &'static str, f64)> {
        let live = self.live.load();
        let mut near = Vec::new();
        for id in self.admission.tenants() {
            let Some(tenant) = live.keyring().tenant(&id) else { continue };
            for (limit, left) in self.admission.left(&id, &Scope::Tenant, &tenant.limits) {
                let allowed = tenant.limits.of(limit).unwrap_or(0).max(1);
                let used = 1.0 - left.min(allowed) as f64 / allowed as f64;
                if used >= NEAR {
                    near.push((id.to_string(), limit.as_str(), used));
                }
            }
        }
        near.sort_by(|one, other| other.2.total_cmp(&one.2));
        near.truncate(NEAREST);
        near
    }

    fn adapter_reading(&self) -> AdapterReading {
        let mut reading = AdapterReading::default();
        for listed in self.catalogue().list(None) {
            let found = self.whereabouts(&listed.record.key);
            *match state(&listed, &found) {
                AdapterState::Published => &mut reading.published,
                AdapterState::Fetching => &mut reading.fetching,
                AdapterState::Resident => &mut reading.resident,
                AdapterState::Idle => &mut reading.idle,
                AdapterState::Failed => &mut reading.failed,
                AdapterState::Draining => &mut reading.draining,
                AdapterState::Retired => &mut reading.retired,
            } += 1;
        }
        reading
    }

    /// What running requests hold; the leak check of tests reads it.
    pub fn held(&self) -> Held {
        let workers = self.pool.workers();
        Held {
            permits: self.admission.permits_held(),
            seats: self.admission.seats_taken(),
            leases: workers.iter().map(|worker| worker.leases()).sum(),
            pins: workers.iter().map(|worker| worker.pins()).sum(),
            sequences: workers.iter().map(|worker| worker.status()).map(|it| it.batch_rows + it.waiting).sum(),
            tasks: self.tasks.len() + workers.iter().map(|worker| worker.adapter_tasks()).sum::<usize>(),
        }
    }
}

/// Where a published adapter is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterState {
    /// Nobody has asked for it here.
    Published,
    /// A worker is loading it.
    Fetching,
    Resident,
    /// It was loaded before.
    Idle,
    /// Loading it failed, and is tried again.
    Failed,
    /// Retired, and still in use.
    Draining,
    Retired,
}

// === impl AdapterState ===

impl AdapterState {
    /// What an operator looks at comes first.
    pub const BY_USE: [Self; 7] =
        [Self::Failed, Self::Fetching, Self::Resident, Self::Draining, Self::Idle, Self::Published, Self::Retired];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Fetching => "fetching",
            Self::Resident => "resident",
            Self::Idle => "idle",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Retired => "retired",
        }
    }
}

/// A revision's state at this gateway.
pub fn state(listed: &crate::adapters::Listed, found: &Whereabouts) -> AdapterState {
    let resident = !found.resident_on.is_empty();
    match listed.record.retired {
        Some(_) if resident => AdapterState::Draining,
        Some(_) => AdapterState::Retired,
        None if resident => AdapterState::Resident,
        None if !found.loading_on.is_empty() || listed.fetching => AdapterState::Fetching,
        None if !found.failed_on.is_empty() => AdapterState::Failed,
        None if listed.fetched => AdapterState::Idle,
        None => AdapterState::Published,
    }
}

fn rating_reading(ratings: &Ratings) -> RatingReading {
    let metrics = ratings.metrics();
    let refused = Reason::ALL.map(|reason| (reason.as_str(), metrics.refused(reason)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    RatingReading {
        ratings: [("recorded", metrics.accepted()), ("duplicate", metrics.duplicates())]
            .into_iter()
            .chain(refused)
            .collect(),
        events: vec![("noted", metrics.events_noted()), ("dropped", metrics.events_dropped())],
        spool_bytes: metrics.spool_bytes(),
        spool_events: metrics.spool_events(),
        spool_oldest_seconds: metrics.spool_oldest().map_or(0, |oldest| (now - oldest).max(0).unsigned_abs() / 1000),
        sinks: metrics
            .sinks()
            .iter()
            .map(|sink| SinkReading {
                sink: sink.name().to_owned(),
                delivered: sink.delivered(),
                retried: sink.retried(),
                dead_lettered: sink.dead_lettered(),
                restarts: sink.restarts(),
            })
            .collect(),
    }
}
