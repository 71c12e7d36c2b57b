//! Requests, their tokens and their times, by tenant and model.
//!
//! However many tenants there are, so many have series of their own, and so
//! many pairs of tenant and model: the first that come. What comes after is
//! counted together, as `other`. What a request counts is looked up once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::labels::{Buckets, RouteLabels, Traced};
use crate::types::TraceId;

/// The label value where a request did not get as far as a tenant, or a model.
const UNKNOWN: &str = "unknown";
/// That of all who came when there were enough.
const OTHER: &str = "other";

const FIRST_TOKEN_SECONDS: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
    20.0, 30.0, 60.0,
];
const INTER_TOKEN_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const OVERHEAD_SECONDS: [f64; 16] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const QUEUE_SECONDS: [f64; 11] = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];

/// How many series there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Tenants that have series of their own.
    pub tenants: usize,
    /// Pairs of a tenant and one of its models that do.
    pub models: usize,
}

pub(super) struct RequestMetrics {
    config: Config,
    families: Families,
    overhead: Family<RouteLabels, Traced, Buckets>,
    queue_wait: Traced,
    tenants: RwLock<Tenants>,
    /// All who came later.
    other: OnceLock<Arc<TenantMetrics>>,
}

struct Families {
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    first_token: Family<ModelLabels, Traced, Buckets>,
    worker_first_token: Family<ModelLabels, Traced, Buckets>,
    inter_token: Family<ModelLabels, Histogram, Buckets>,
    streams: Family<TenantLabels, Gauge>,
    limited: Family<LimitLabels, Counter>,
    utilisation: Family<LimitLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

#[derive(Default)]
struct Tenants {
    named: HashMap<Box<str>, Arc<TenantMetrics>>,
    /// Pairs that have series of their own.
    models: usize,
}

struct TenantMetrics {
    label: String,
    streams: Gauge,
    models: RwLock<HashMap<Box<str>, Arc<ModelMetrics>>>,
    /// Its models that came later.
    other: OnceLock<Arc<ModelMetrics>>,
}

/// What one tenant's requests for one of its models count.
pub struct ModelMetrics {
    labels: ModelLabels,
    outcomes: Outcomes,
    streams: Gauge,
    input: Counter,
    output: Counter,
    first_token: Traced,
    worker_first_token: Traced,
    inter_token: Histogram,
}

/// By route and outcome.
type Outcomes = RwLock<HashMap<(&'static str, &'static str), Counter>>;

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

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { tenants: 1_000, models: 2_000 }
    }
}

// === impl RequestMetrics ===

impl RequestMetrics {
    pub(super) fn register(registry: &mut Registry, config: Config) -> Self {
        let families = Families {
            requests: Family::default(),
            tokens: Family::default(),
            first_token: Family::new_with_constructor(Buckets(&FIRST_TOKEN_SECONDS)),
            worker_first_token: Family::new_with_constructor(Buckets(&FIRST_TOKEN_SECONDS)),
            inter_token: Family::new_with_constructor(Buckets(&INTER_TOKEN_SECONDS)),
            streams: Family::default(),
            limited: Family::default(),
            utilisation: Family::default(),
        };
        let overhead = Family::new_with_constructor(Buckets(&OVERHEAD_SECONDS));
        let queue_wait = Traced::new(QUEUE_SECONDS.into_iter());
        seconds(
            registry,
            "time_to_first_token",
            "Time from a request's arrival to the first text that is sent",
            &families.first_token,
        );
        seconds(
            registry,
            "worker_first_token",
            "Time from a request's arrival to the worker's first event",
            &families.worker_first_token,
        );
        seconds(registry, "inter_token", "Time between two events of one generation", &families.inter_token);
        seconds(
            registry,
            "gateway_overhead",
            "Time that a request spent in the gateway, without waiting for client, queue, adapter or worker",
            &overhead,
        );
        seconds(registry, "queue_wait", "From a request's arrival until it had a place at the workers", &queue_wait);
        registry.register("requests", "Requests by how they ended", families.requests.clone());
        registry.register("tokens", "Tokens read (input) and generated (output)", families.tokens.clone());
        registry.register("streams_in_flight", "Generations that run now", families.streams.clone());
        registry.register("rate_limited", "Requests refused by a limit of the tenant", families.limited.clone());
        registry.register(
            "limit_utilisation",
            "The share of a tenant's limit that is in use, of those near theirs",
            families.utilisation.clone(),
        );
        Self { config, families, overhead, queue_wait, tenants: RwLock::default(), other: OnceLock::new() }
    }

    fn tenant(&self, tenant: &str) -> Arc<TenantMetrics> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).named.get(tenant).cloned();
        known.unwrap_or_else(|| {
            let tenants = &mut *self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = tenants.named.get(tenant) {
                return known.clone();
            }
            if tenants.named.len() >= self.config.tenants {
                return self.others();
            }
            let new = Arc::new(TenantMetrics::new(&self.families, tenant));
            tenants.named.insert(tenant.into(), new.clone());
            new
        })
    }

    fn others(&self) -> Arc<TenantMetrics> {
        self.other.get_or_init(|| Arc::new(TenantMetrics::new(&self.families, OTHER))).clone()
    }

    pub(super) fn model(&self, tenant: &str, model: &str) -> Arc<ModelMetrics> {
        let tenant = self.tenant(tenant);
        if self.other.get().is_some_and(|other| Arc::ptr_eq(&tenant, other)) {
            return tenant.others(&self.families);
        }
        let known = tenant.models.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned();
        known.unwrap_or_else(|| {
            let tenants = &mut *self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            let models = &mut *tenant.models.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = models.get(model) {
                return known.clone();
            }
            if tenants.models >= self.config.models {
                return tenant.others(&self.families);
            }
            tenants.models += 1;
            let new = Arc::new(ModelMetrics::new(&self.families, &tenant.label, model, tenant.streams.clone()));
            models.insert(model.into(), new.clone());
            new
        })
    }

    pub(super) fn request(
        &self,
        tenant: Option<&str>,
        model: Option<&str>,
        route: &'static str,
        outcome: &'static str,
    ) {
        let Some(tenant) = tenant else {
            let unknown = UNKNOWN.to_owned();
            let labels = RequestLabels { tenant: unknown.clone(), model: unknown, route, outcome };
            self.families.requests.get_or_create(&labels).inc();
            return;
        };
        // It is no model's, and takes none of their places.
        let model = match model {
            Some(model) => self.model(tenant, model).labels.model.clone(),
            None => UNKNOWN.to_owned(),
        };
        let labels = RequestLabels { tenant: self.tenant(tenant).label.clone(), model, route, outcome };
        self.families.requests.get_or_create(&labels).inc();
    }

    /// A request of a known model came to its end.
    pub(super) fn ended(&self, model: &ModelMetrics, route: &'static str, outcome: &'static str) {
        let known = model.outcomes.read().unwrap_or_else(PoisonError::into_inner).get(&(route, outcome)).cloned();
        let counter = known.unwrap_or_else(|| {
            let ModelLabels { tenant, model: name } = model.labels.clone();
            let labels = RequestLabels { tenant, model: name, route, outcome };
            let counter = self.families.requests.get_or_create_owned(&labels);
            let mut outcomes = model.outcomes.write().unwrap_or_else(PoisonError::into_inner);
            outcomes.insert((route, outcome), counter.clone());
            counter
        });
        counter.inc();
    }

    pub(super) fn limited(&self, tenant: &str, limit: &'static str) {
        let tenant = self.tenant(tenant).label.clone();
        self.families.limited.get_or_create(&LimitLabels { tenant, limit }).inc();
    }

    pub(super) fn overhead(&self, route: &'static str, own: Duration, trace: Option<TraceId>) {
        observe(&self.overhead.get_or_create(&RouteLabels { route }), own, trace);
    }

    pub(super) fn queue_wait(&self, wait: Duration, trace: Option<TraceId>) {
        observe(&self.queue_wait, wait, trace);
    }

    /// Those of last time are gone.
    pub(super) fn utilisation(&self, limits: &[(String, &'static str, f64)]) {
        self.families.utilisation.clear();
        for (tenant, limit, share) in limits {
            let labels = LimitLabels { tenant: self.tenant(tenant).label.clone(), limit };
            let gauge = self.families.utilisation.get_or_create(&labels);
            // Of all others together: the nearest.
            gauge.set(gauge.get().max(*share));
        }
    }
}

fn seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
}

fn observe(histogram: &Traced, time: Duration, trace: Option<TraceId>) {
    let at = trace.map(|_| SystemTime::now());
    histogram.observe(time.as_secs_f64(), trace.map(Into::into), at);
}

// === impl TenantMetrics ===

impl TenantMetrics {
    fn new(families: &Families, tenant: &str) -> Self {
        let streams = families.streams.get_or_create_owned(&TenantLabels { tenant: tenant.to_owned() });
        Self { label: tenant.to_owned(), streams, models: RwLock::default(), other: OnceLock::new() }
    }

    fn others(&self, families: &Families) -> Arc<ModelMetrics> {
        let new = || Arc::new(ModelMetrics::new(families, &self.label, OTHER, self.streams.clone()));
        self.other.get_or_init(new).clone()
    }
}

// === impl ModelMetrics ===

impl ModelMetrics {
    fn new(families: &Families, tenant: &str, model: &str, streams: Gauge) -> Self {
        let labels = ModelLabels { tenant: tenant.to_owned(), model: model.to_owned() };
        let tokens = |direction| {
            let labels = TokenLabels { tenant: tenant.to_owned(), model: model.to_owned(), direction };
            families.tokens.get_or_create_owned(&labels)
        };
        Self {
            outcomes: RwLock::default(),
            streams,
            input: tokens("input"),
            output: tokens("output"),
            first_token: families.first_token.get_or_create_owned(&labels),
            worker_first_token: families.worker_first_token.get_or_create_owned(&labels),
            inter_token: families.inter_token.get_or_create_owned(&labels),
            labels,
        }
    }

    pub fn tokens(&self, input: u64, output: u64) {
        self.input.inc_by(input);
        self.output.inc_by(output);
    }

    pub fn first_token(&self, after: Duration, trace: Option<TraceId>) {
        observe(&self.first_token, after, trace);
    }

    pub fn worker_first_token(&self, after: Duration, trace: Option<TraceId>) {
        observe(&self.worker_first_token, after, trace);
    }

    pub fn inter_token(&self, time: Duration) {
        self.inter_token.observe(time.as_secs_f64());
    }

    pub fn stream(&self) -> StreamGauge {
        self.streams.inc();
        StreamGauge(self.streams.clone())
    }
}

// === impl StreamGauge ===

impl Drop for StreamGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
