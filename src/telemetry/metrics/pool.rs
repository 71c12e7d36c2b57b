//! Workers, adapters and queues: what the pool counts, and what is read of it
//! at the time of a scrape.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{Buckets, OutcomeLabels, StateLabels};
use crate::telemetry::RatingReading;

const LOAD_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

pub(super) struct PoolMetrics {
    batch_rows: Family<WorkerLabels, Gauge>,
    waiting: Family<WorkerLabels, Gauge>,
    kv_tokens: Family<WorkerLabels, Gauge>,
    leases: Family<WorkerLabels, Gauge>,
    adapters_resident: Family<WorkerLabels, Gauge>,
    adapters_quarantined: Family<WorkerLabels, Gauge>,
    workers: Family<StateLabels, Gauge>,
    adapters: Family<StateLabels, Gauge>,
    queue_depth: Family<BaseLabels, Gauge>,
    picks: Family<ReasonLabels, Counter>,
    retries: Family<OutcomeLabels, Counter>,
    adapter_loads: Family<OutcomeLabels, Counter>,
    adapter_load: Histogram,
    adapter_evictions: Counter,
    adapter_probes: Family<OutcomeLabels, Counter>,
    adapter_publishes: Family<OutcomeLabels, Counter>,
}

/// What one worker reports at the time of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReading {
    pub worker: String,
    pub batch_rows: u64,
    pub waiting: u64,
    pub kv_tokens: u64,
    /// Requests of this gateway.
    pub leases: u64,
    pub adapters_resident: u64,
    pub adapters_quarantined: u64,
}

/// Published revisions by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdapterReading {
    pub published: u64,
    pub fetching: u64,
    pub resident: u64,
    pub idle: u64,
    pub failed: u64,
    pub draining: u64,
    pub retired: u64,
}

/// What is read at the time of a scrape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Readings {
    pub workers: Vec<WorkerReading>,
    /// Workers by state.
    pub states: Vec<(&'static str, u64)>,
    /// Requests that wait for a place, by base model.
    pub queues: Vec<(String, u64)>,
    pub adapters: AdapterReading,
    /// `None` where ratings are not taken.
    pub ratings: Option<RatingReading>,
    /// Limits by tenant of which more than half is in use, with the share.
    pub limits: Vec<(String, &'static str, f64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    worker: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BaseLabels {
    base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

// === impl PoolMetrics ===

impl PoolMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            batch_rows: Family::default(),
            waiting: Family::default(),
            kv_tokens: Family::default(),
            leases: Family::default(),
            adapters_resident: Family::default(),
            adapters_quarantined: Family::default(),
            workers: Family::default(),
            adapters: Family::default(),
            queue_depth: Family::default(),
            picks: Family::default(),
            retries: Family::default(),
            adapter_loads: Family::default(),
            adapter_load: Buckets(&LOAD_SECONDS).new_metric(),
            adapter_evictions: Counter::default(),
            adapter_probes: Family::default(),
            adapter_publishes: Family::default(),
        };
        let r = registry;
        r.register("engine_batch_rows", "Sequences in the running batch", metrics.batch_rows.clone());
        r.register("engine_waiting", "Sequences that wait for a place in the batch", metrics.waiting.clone());
        r.register("engine_kv_tokens", "Positions of the key-value cache in use", metrics.kv_tokens.clone());
        r.register("worker_leases", "Requests that a worker has of this gateway", metrics.leases.clone());
        r.register("adapters_resident", "Adapters that a worker holds", metrics.adapters_resident.clone());
        r.register(
            "adapters_quarantined",
            "Adapters that a worker is not asked for since it answered as another",
            metrics.adapters_quarantined.clone(),
        );
        r.register("workers", "Workers by state", metrics.workers.clone());
        r.register("adapters", "Published revisions by state", metrics.adapters.clone());
        r.register("queue_depth", "Requests that wait for a place at a worker", metrics.queue_depth.clone());
        r.register("picks", "Choices of a worker by what decided", metrics.picks.clone());
        r.register("retries", "Requests tried again before their first event", metrics.retries.clone());
        r.register("adapter_loads", "Adapter loads by how they ended", metrics.adapter_loads.clone());
        r.register_with_unit("adapter_load", "Time to load an adapter", Unit::Seconds, metrics.adapter_load.clone());
        r.register("adapter_evictions", "Adapters unloaded to make room", metrics.adapter_evictions.clone());
        r.register(
            "adapter_probes",
            "Loaded adapters by what their answer to their probe proved",
            metrics.adapter_probes.clone(),
        );
        r.register("adapter_publishes", "Publishes of adapters by how they ended", metrics.adapter_publishes.clone());
        metrics
    }

    pub(super) fn adapter_loaded(&self, took: Duration, outcome: &'static str) {
        self.adapter_loads.get_or_create(&OutcomeLabels { outcome }).inc();
        self.adapter_load.observe(took.as_secs_f64());
    }

    pub(super) fn adapter_published(&self, outcome: &'static str) {
        self.adapter_publishes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn adapter_probed(&self, outcome: &'static str) {
        self.adapter_probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn adapter_evicted(&self) {
        self.adapter_evictions.inc();
    }

    pub(super) fn picked(&self, reason: &'static str) {
        self.picks.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn retried(&self, outcome: &'static str) {
        self.retries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn read(&self, readings: &Readings) {
        for (state, count) in &readings.states {
            set(&self.workers, &StateLabels { state }, *count);
        }
        // A worker that has left has no series any more.
        for gauge in [
            &self.batch_rows,
            &self.waiting,
            &self.kv_tokens,
            &self.leases,
            &self.adapters_resident,
            &self.adapters_quarantined,
        ] {
            gauge.clear();
        }
        for reading in &readings.workers {
            let labels = WorkerLabels { worker: reading.worker.clone() };
            set(&self.batch_rows, &labels, reading.batch_rows);
            set(&self.waiting, &labels, reading.waiting);
            set(&self.kv_tokens, &labels, reading.kv_tokens);
            set(&self.leases, &labels, reading.leases);
            set(&self.adapters_resident, &labels, reading.adapters_resident);
            set(&self.adapters_quarantined, &labels, reading.adapters_quarantined);
        }
        self.queue_depth.clear();
        for (base, queued) in &readings.queues {
            set(&self.queue_depth, &BaseLabels { base: base.clone() }, *queued);
        }
        let AdapterReading { published, fetching, resident, idle, failed, draining, retired } = readings.adapters;
        for (state, count) in [
            ("published", published),
            ("fetching", fetching),
            ("resident", resident),
            ("idle", idle),
            ("failed", failed),
            ("draining", draining),
            ("retired", retired),
        ] {
            set(&self.adapters, &StateLabels { state }, count);
        }
    }
}

fn set<L>(gauge: &Family<L, Gauge>, labels: &L, value: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    gauge.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}
