//! Every metric of the product: name, type, unit and labels, in one place.
//!
//! Label values come from closed sets or from the configuration, never from
//! what a client wrote, so that the number of series is bounded.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::guard::GuardMetrics;
use super::ratings::{RatingMetrics, RatingReading};

/// The `content-type` of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label value for a tenant or model that the configuration does not know.
const UNKNOWN: &str = "unknown";

const FIRST_TOKEN_SECONDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 60.0];
const INTER_TOKEN_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const QUEUE_SECONDS: [f64; 11] = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];
const LOAD_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

pub struct Metrics {
    registry: Registry,
    guard: GuardMetrics,
    rated: RatingMetrics,
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    first_token: Family<ModelLabels, Histogram, Buckets>,
    worker_first_token: Family<ModelLabels, Histogram, Buckets>,
    inter_token: Family<ModelLabels, Histogram, Buckets>,
    streams: Family<TenantLabels, Gauge>,
    limited: Family<LimitLabels, Counter>,
    batch_rows: Family<WorkerLabels, Gauge>,
    waiting: Family<WorkerLabels, Gauge>,
    kv_tokens: Family<WorkerLabels, Gauge>,
    workers: Family<StateLabels, Gauge>,
    adapters_resident: Family<WorkerLabels, Gauge>,
    adapter_loads: Family<OutcomeLabels, Counter>,
    adapter_load: Histogram,
    adapter_evictions: Counter,
    adapter_probes: Family<OutcomeLabels, Counter>,
    adapters_quarantined: Family<WorkerLabels, Gauge>,
    leases: Family<WorkerLabels, Gauge>,
    picks: Family<ReasonLabels, Counter>,
    retries: Family<OutcomeLabels, Counter>,
    queue_depth: Family<BaseLabels, Gauge>,
    queue_wait: Histogram,
    usage_lost: Counter,
    adapter_publishes: Family<OutcomeLabels, Counter>,
    adapters: Family<StateLabels, Gauge>,
    catalogue_up: Gauge,
    /// Without a sample where limits are not shared.
    limits_shared: Family<StoreLabels, Gauge>,
    gateways: Gauge,
    build_info: Family<BuildLabels, Gauge<u64, AtomicU64>>,
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readings {
    pub workers: Vec<WorkerReading>,
    /// Workers by state.
    pub states: Vec<(&'static str, u64)>,
    /// Requests that wait for a place, by base model.
    pub queues: Vec<(String, u64)>,
    pub adapters: AdapterReading,
    /// `None` where ratings are not taken.
    pub ratings: Option<RatingReading>,
}

/// Counts a stream as in flight until dropped.
pub struct StreamGauge(Gauge);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    tenant: String,
    model: String,
    route: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    tenant: String,
    model: String,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    tenant: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    tenant: String,
    limit: &'static str,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    store: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Clone)]
pub(super) struct Buckets(pub(super) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tenantry");
        let guard = GuardMetrics::register(&mut registry);
        let rated = RatingMetrics::register(&mut registry);
        let metrics = Self {
            guard,
            rated,
            requests: Family::default(),
            tokens: Family::default(),
            first_token: Family::new_with_constructor(Buckets(&FIRST_TOKEN_SECONDS)),
            worker_first_token: Family::new_with_constructor(Buckets(&FIRST_TOKEN_SECONDS)),
            inter_token: Family::new_with_constructor(Buckets(&INTER_TOKEN_SECONDS)),
            streams: Family::default(),
            limited: Family::default(),
            batch_rows: Family::default(),
            waiting: Family::default(),
            kv_tokens: Family::default(),
            workers: Family::default(),
            adapters_resident: Family::default(),
            adapter_loads: Family::default(),
            adapter_load: Buckets(&LOAD_SECONDS).new_metric(),
            adapter_evictions: Counter::default(),
            adapter_probes: Family::default(),
            adapters_quarantined: Family::default(),
            leases: Family::default(),
            picks: Family::default(),
            retries: Family::default(),
            queue_depth: Family::default(),
            queue_wait: Histogram::new(QUEUE_SECONDS),
            usage_lost: Counter::default(),
            adapter_publishes: Family::default(),
            adapters: Family::default(),
            catalogue_up: Gauge::default(),
            limits_shared: Family::default(),
            gateways: Gauge::default(),
            build_info: Family::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests by how they ended", metrics.requests.clone());
        registry.register("tokens", "Tokens read (input) and generated (output)", metrics.tokens.clone());
        registry.register_with_unit(
            "time_to_first_token",
            "Time from a request's arrival to the first text that is sent",
            Unit::Seconds,
            metrics.first_token.clone(),
        );
        registry.register_with_unit(
            "worker_first_token",
            "Time from a request's arrival to the worker's first event",
            Unit::Seconds,
            metrics.worker_first_token.clone(),
        );
        registry.register_with_unit(
            "inter_token",
            "Time between two events of one generation",
            Unit::Seconds,
            metrics.inter_token.clone(),
        );
        registry.register("streams_in_flight", "Generations that run now", metrics.streams.clone());
        registry.register("rate_limited", "Requests refused by a limit of the tenant", metrics.limited.clone());
        registry.register("engine_batch_rows", "Sequences in the running batch", metrics.batch_rows.clone());
        registry.register("engine_waiting", "Sequences that wait for a place in the batch", metrics.waiting.clone());
        registry.register("engine_kv_tokens", "Positions of the key-value cache in use", metrics.kv_tokens.clone());
        registry.register("workers", "Workers by state", metrics.workers.clone());
        registry.register("adapters_resident", "Adapters that a worker holds", metrics.adapters_resident.clone());
        registry.register("adapter_loads", "Adapter loads by how they ended", metrics.adapter_loads.clone());
        registry.register_with_unit(
            "adapter_load",
            "Time to load an adapter",
            Unit::Seconds,
            metrics.adapter_load.clone(),
        );
        registry.register("adapter_evictions", "Adapters unloaded to make room", metrics.adapter_evictions.clone());
        registry.register(
            "adapter_probes",
            "Loaded adapters by what their answer to their probe proved",
            metrics.adapter_probes.clone(),
        );
        registry.register(
            "adapters_quarantined",
            "Adapters that a worker is not asked for since it answered as another",
            metrics.adapters_quarantined.clone(),
        );
        registry.register("worker_leases", "Requests that a worker has of this gateway", metrics.leases.clone());
        registry.register("picks", "Choices of a worker by what decided", metrics.picks.clone());
        registry.register("retries", "Requests tried again before their first event", metrics.retries.clone());
        registry.register("queue_depth", "Requests that wait for a place at a worker", metrics.queue_depth.clone());
        registry.register(
            "usage_lost",
            "Generations whose usage could not be written down",
            metrics.usage_lost.clone(),
        );
        registry.register_with_unit(
            "queue_wait",
            "From a request's arrival until it had a place at the workers",
            Unit::Seconds,
            metrics.queue_wait.clone(),
        );
        registry.register(
            "adapter_publishes",
            "Publishes of adapters by how they ended",
            metrics.adapter_publishes.clone(),
        );
        registry.register("adapters", "Published revisions by state", metrics.adapters.clone());
        registry.register("catalogue_up", "Whether the catalogue's database answers", metrics.catalogue_up.clone());
        registry.register(
            "limits_shared",
            "Whether the store answers that limits are shared through",
            metrics.limits_shared.clone(),
        );
        registry.register("gateways", "Gateways that share the limits", metrics.gateways.clone());
        registry.register("build_info", "The running version; always 1", metrics.build_info.clone());
        metrics.gateways.set(1);
        metrics.build_info.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        Self { registry, ..metrics }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub fn guard(&self) -> &GuardMetrics {
        &self.guard
    }

    /// A request came to its end. `tenant` and `model` are `None` where the
    /// request did not get as far as a known one.
    pub fn request(&self, tenant: Option<&str>, model: Option<&str>, route: &'static str, outcome: &'static str) {
        let labels = RequestLabels { tenant: known(tenant), model: known(model), route, outcome };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn tokens(&self, tenant: &str, model: &str, input: u64, output: u64) {
        for (direction, count) in [("input", input), ("output", output)] {
            let labels = TokenLabels { tenant: tenant.to_owned(), model: model.to_owned(), direction };
            self.tokens.get_or_create(&labels).inc_by(count);
        }
    }

    pub fn first_token(&self, tenant: &str, model: &str, after: Duration) {
        let labels = ModelLabels { tenant: tenant.to_owned(), model: model.to_owned() };
        self.first_token.get_or_create(&labels).observe(after.as_secs_f64());
    }

    pub fn worker_first_token(&self, tenant: &str, model: &str, after: Duration) {
        let labels = ModelLabels { tenant: tenant.to_owned(), model: model.to_owned() };
        self.worker_first_token.get_or_create(&labels).observe(after.as_secs_f64());
    }

    /// The histogram of one model's times between events, looked up once a stream.
    pub fn inter_token(&self, tenant: &str, model: &str) -> Histogram {
        let labels = ModelLabels { tenant: tenant.to_owned(), model: model.to_owned() };
        self.inter_token.get_or_create_owned(&labels)
    }

    pub fn stream(&self, tenant: &str) -> StreamGauge {
        let gauge = self.streams.get_or_create_owned(&TenantLabels { tenant: tenant.to_owned() });
        gauge.inc();
        StreamGauge(gauge)
    }

    pub fn limited(&self, tenant: &str, limit: &'static str) {
        self.limited.get_or_create(&LimitLabels { tenant: tenant.to_owned(), limit }).inc();
    }

    pub fn adapter_loaded(&self, took: Duration, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.adapter_loads.get_or_create(&OutcomeLabels { outcome }).inc();
        self.adapter_load.observe(took.as_secs_f64());
    }

    pub fn adapter_published(&self, outcome: &'static str) {
        self.adapter_publishes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub fn catalogue_up(&self, up: bool) {
        self.catalogue_up.set(i64::from(up));
    }

    /// Whether Redis answers, where limits are shared through it.
    pub fn limits_shared(&self, shared: bool) {
        self.limits_shared.get_or_create(&StoreLabels { store: "redis" }).set(shared.into());
    }

    /// So many gateways share the limits.
    pub fn gateways(&self, gateways: u32) {
        self.gateways.set(gateways.into());
    }

    /// How proving a loaded adapter ended: `match`, `mismatch`, `recorded`,
    /// `indistinct` (it answers like its base), `unproven` (nothing to compare with yet).
    pub fn adapter_probed(&self, outcome: &'static str) {
        self.adapter_probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A generation's usage is not written down and will not be.
    pub fn usage_lost(&self) {
        self.usage_lost.inc();
    }

    /// A request has a place at the workers, and had to wait so long for it.
    pub fn queue_wait(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// Why a request's worker was picked.
    pub fn picked(&self, reason: &'static str) {
        self.picks.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A request would be tried again: whether it was.
    pub fn retried(&self, outcome: &'static str) {
        self.retries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub fn adapter_evicted(&self) {
        self.adapter_evictions.inc();
    }

    /// The text of all metrics, with the gauges as `readings` tells them.
    pub fn render(&self, readings: &Readings) -> Result<String, fmt::Error> {
        if let Some(reading) = &readings.ratings {
            self.rated.read(reading);
        }
        for (state, count) in &readings.states {
            self.workers.get_or_create(&StateLabels { state }).set(*count as i64);
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
            let set = |gauge: &Family<WorkerLabels, Gauge>, value: u64| {
                gauge.get_or_create(&labels).set(value as i64);
            };
            set(&self.batch_rows, reading.batch_rows);
            set(&self.waiting, reading.waiting);
            set(&self.kv_tokens, reading.kv_tokens);
            set(&self.leases, reading.leases);
            set(&self.adapters_resident, reading.adapters_resident);
            set(&self.adapters_quarantined, reading.adapters_quarantined);
        }
        for (base, queued) in &readings.queues {
            self.queue_depth.get_or_create(&BaseLabels { base: base.clone() }).set(*queued as i64);
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
            self.adapters.get_or_create(&StateLabels { state }).set(count as i64);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn known(name: Option<&str>) -> String {
    name.unwrap_or(UNKNOWN).to_owned()
}

// === impl StreamGauge ===

impl Drop for StreamGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
