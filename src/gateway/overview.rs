//! The whole gateway at one moment, as operators look at it.

use std::collections::HashSet;

use serde::Serialize;

use super::insight::state;
use super::{AdapterState, Gateway, Whereabouts, WorkerCard};
use crate::telemetry::SinkReading;
use crate::types::{AdapterKey, BaseName, ModelRoute};

/// Adapters that are told of at most.
const MOST_ADAPTERS: usize = 200;
/// Model names, likewise.
const MOST_MODELS: usize = 500;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    pub version: &'static str,
    /// What keeps the gateway from serving.
    pub not_ready: Vec<String>,
    /// Generations that were admitted and have not ended.
    pub running: u32,
    pub bases: Vec<BaseOverview>,
    pub workers: Vec<WorkerOverview>,
    pub models: Vec<ModelOverview>,
    pub models_total: usize,
    /// Those that are used come first.
    pub adapters: Vec<AdapterOverview>,
    pub adapters_total: usize,
    /// Limits of which more than half is in use, the nearest first.
    pub limits: Vec<LimitOverview>,
    /// `None` where ratings are not taken.
    pub spool: Option<SpoolOverview>,
    pub sinks: Vec<SinkOverview>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseOverview {
    pub name: String,
    /// Sequences that its workers run at one time.
    pub seats: u64,
    /// Requests that wait for one.
    pub waiting: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerOverview {
    pub name: String,
    pub state: &'static str,
    pub unhealthy: Option<String>,
    pub bases: Vec<String>,
    pub leases: u32,
    pub batch_rows: u64,
    pub waiting: u64,
    pub adapters_resident: usize,
}

/// A tenant's name for a base model, with or without an adapter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ModelOverview {
    pub tenant: String,
    pub name: String,
    pub base: String,
    pub adapter: Option<String>,
}

/// A revision, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterOverview {
    pub tenant: String,
    pub name: String,
    pub revision: u32,
    pub base: String,
    pub serving: bool,
    pub state: &'static str,
    pub resident_on: Vec<String>,
    pub loading_on: Vec<String>,
    pub failed_on: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitOverview {
    pub tenant: String,
    pub limit: &'static str,
    /// 0 to 1.
    pub used: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpoolOverview {
    pub bytes: u64,
    pub events: u64,
    pub oldest_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkOverview {
    pub name: String,
    pub delivered: u64,
    pub retried: u64,
    pub dead_lettered: u64,
}

// === impl Gateway ===

impl Gateway {
    pub fn overview(&self) -> Overview {
        let (models, models_total) = self.model_overviews();
        let (adapters, adapters_total) = self.adapter_overviews();
        let limits = self.near_limits().into_iter();
        let reading = self.rating_reading();
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            not_ready: self.not_ready(),
            running: self.admission.permits_held(),
            bases: self.base_overviews(),
            workers: self.workers().into_iter().map(WorkerOverview::of).collect(),
            models,
            models_total,
            adapters,
            adapters_total,
            limits: limits.map(|(tenant, limit, used)| LimitOverview { tenant, limit, used }).collect(),
            spool: reading.as_ref().map(|reading| SpoolOverview {
                bytes: reading.spool_bytes,
                events: reading.spool_events,
                oldest_seconds: reading.spool_oldest_seconds,
            }),
            sinks: reading.map_or_else(Vec::new, |reading| {
                let sink = |sink: SinkReading| SinkOverview {
                    name: sink.sink,
                    delivered: sink.delivered,
                    retried: sink.retried,
                    dead_lettered: sink.dead_lettered,
                };
                reading.sinks.into_iter().map(sink).collect()
            }),
        }
    }

    fn base_overviews(&self) -> Vec<BaseOverview> {
        let base = |base: &BaseName| BaseOverview {
            name: base.to_string(),
            seats: u64::from(self.pool.seats(base)),
            waiting: self.queued(base),
        };
        let mut bases: Vec<BaseOverview> = self.pool.bases().iter().map(base).collect();
        bases.sort_by(|one, other| one.name.cmp(&other.name));
        bases
    }

    fn model_overviews(&self) -> (Vec<ModelOverview>, usize) {
        let live = self.live.load();
        let mut models = Vec::new();
        for tenant in live.keyring().tenants() {
            let of = |name: &str, route: &ModelRoute| ModelOverview {
                tenant: tenant.id.to_string(),
                name: name.to_owned(),
                base: route.base.to_string(),
                adapter: route.adapter.as_ref().map(|key| format!("{}@{}", key.name, key.revision)),
            };
            models.extend(tenant.models.iter().map(|(name, route)| of(name, route)));
            for (name, _) in self.catalogue().models(&tenant.id) {
                if let Some(route) = self.catalogue().resolve(&tenant.id, &name)
                    && !tenant.models.contains_key(&*name)
                {
                    models.push(of(&name, &route));
                }
            }
        }
        let total = models.len();
        models.sort();
        models.truncate(MOST_MODELS);
        (models, total)
    }

    fn adapter_overviews(&self) -> (Vec<AdapterOverview>, usize) {
        let mut adapters: Vec<(usize, AdapterOverview)> = Vec::new();
        for listed in self.catalogue().list(None) {
            let found = self.whereabouts(&listed.record.key);
            let state = state(&listed, &found);
            adapters.push(adapter(&listed.record.key, &listed.record.base, listed.serving, state, found));
        }
        // Those of the configuration, which are in no catalogue, by the names that serve them.
        let live = self.live.load();
        let routes = live.keyring().tenants().flat_map(|tenant| tenant.models.values());
        let configured: HashSet<(&AdapterKey, &BaseName)> =
            routes.filter_map(|route| Some((route.adapter.as_ref()?, &route.base))).collect();
        for (key, base) in configured {
            let found = self.whereabouts(key);
            let state = if !found.resident_on.is_empty() {
                AdapterState::Resident
            } else if !found.loading_on.is_empty() {
                AdapterState::Fetching
            } else if !found.failed_on.is_empty() {
                AdapterState::Failed
            } else {
                AdapterState::Idle
            };
            adapters.push(adapter(key, base, true, state, found));
        }
        let total = adapters.len();
        adapters.sort_by(|(one, a), (other, b)| {
            one.cmp(other).then_with(|| (&a.tenant, &a.name, b.revision).cmp(&(&b.tenant, &b.name, a.revision)))
        });
        adapters.truncate(MOST_ADAPTERS);
        (adapters.into_iter().map(|(_, adapter)| adapter).collect(), total)
    }
}

/// With its rank among the others.
fn adapter(
    key: &AdapterKey,
    base: &BaseName,
    serving: bool,
    state: AdapterState,
    found: Whereabouts,
) -> (usize, AdapterOverview) {
    let rank = AdapterState::BY_USE.iter().position(|other| *other == state).unwrap_or(usize::MAX);
    let overview = AdapterOverview {
        tenant: key.tenant.to_string(),
        name: key.name.to_string(),
        revision: key.revision,
        base: base.to_string(),
        serving,
        state: state.as_str(),
        resident_on: found.resident_on,
        loading_on: found.loading_on,
        failed_on: found.failed_on.into_iter().map(|(worker, _)| worker).collect(),
    };
    (rank, overview)
}

// === impl WorkerOverview ===

impl WorkerOverview {
    fn of(card: WorkerCard) -> Self {
        let WorkerCard { name, state, unhealthy, bases, leases, batch_rows, waiting, adapters_resident, .. } = card;
        Self { name, state: state.as_str(), unhealthy, bases, leases, batch_rows, waiting, adapters_resident }
    }
}
