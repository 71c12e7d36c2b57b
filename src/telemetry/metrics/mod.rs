//! Every metric of the product: name, type, unit and labels, in one place. The
//! table in the README is held against it by a test.
//!
//! Label values come from closed sets or from the configuration, never from
//! what a client wrote, and tenants and models have series of their own up to a
//! bound, so that the number of series is bounded.

mod labels;
mod pool;
mod process;
mod requests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::guard::GuardMetrics;
use super::ratings::RatingMetrics;
use super::reload::ReloadMetrics;
use super::trace::Traces;
use crate::types::TraceId;

pub(super) use labels::{Buckets, OutcomeLabels};
pub use pool::{AdapterReading, Readings, WorkerReading};
pub use requests::{Config, ModelMetrics, StreamGauge};

use pool::PoolMetrics;
use process::ProcessMetrics;
use requests::RequestMetrics;

/// The `content-type` of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub struct Metrics {
    registry: Registry,
    /// Under the names that every process has for them.
    process: ProcessMetrics,
    requests: RequestMetrics,
    pool: PoolMetrics,
    guard: GuardMetrics,
    rated: RatingMetrics,
    reloads: ReloadMetrics,
    traces: Traces,
    spans_dropped: Counter,
    usage_lost: Counter,
    catalogue_up: Gauge,
    /// Without a sample where limits are not shared.
    limits_shared: Family<StoreLabels, Gauge>,
    gateways: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    store: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Config::default(), Traces::default())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub fn new(config: Config, traces: Traces) -> Self {
        let mut registry = Registry::with_prefix("tenantry");
        let requests = RequestMetrics::register(&mut registry, config);
        let pool = PoolMetrics::register(&mut registry);
        let guard = GuardMetrics::register(&mut registry);
        let rated = RatingMetrics::register(&mut registry);
        let reloads = ReloadMetrics::register(&mut registry);
        let (usage_lost, spans_dropped) = (Counter::default(), Counter::default());
        let (catalogue_up, gateways) = (Gauge::default(), Gauge::default());
        let limits_shared = Family::default();
        let build_info = Family::<BuildLabels, Gauge<u64, AtomicU64>>::default();
        registry.register("usage_lost", "Generations whose usage could not be written down", usage_lost.clone());
        registry.register("trace_spans_dropped", "Spans that the collector did not take", spans_dropped.clone());
        registry.register("catalogue_up", "Whether the catalogue's database answers", catalogue_up.clone());
        registry.register(
            "limits_shared",
            "Whether the store answers that limits are shared through",
            limits_shared.clone(),
        );
        registry.register("gateways", "Gateways that share the limits", gateways.clone());
        registry.register("build_info", "The running version; always 1", build_info.clone());
        gateways.set(1);
        build_info.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        let process = ProcessMetrics::default();
        Self {
            registry,
            process,
            requests,
            pool,
            guard,
            rated,
            reloads,
            traces,
            spans_dropped,
            usage_lost,
            catalogue_up,
            limits_shared,
            gateways,
        }
    }

    pub fn guard(&self) -> &GuardMetrics {
        &self.guard
    }

    pub fn reloads(&self) -> &ReloadMetrics {
        &self.reloads
    }

    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// What requests of this tenant for this model count; `other`'s where there
    /// are too many.
    pub fn model(&self, tenant: &str, model: &str) -> Arc<ModelMetrics> {
        self.requests.model(tenant, model)
    }

    /// A request came to its end. `tenant` and `model` are `None` where the
    /// request did not get as far as a known one.
    pub fn request(&self, tenant: Option<&str>, model: Option<&str>, route: &'static str, outcome: &'static str) {
        self.requests.request(tenant, model, route, outcome);
    }

    /// The same of one that knows its model.
    pub fn ended(&self, model: &ModelMetrics, route: &'static str, outcome: &'static str) {
        self.requests.ended(model, route, outcome);
    }

    /// What of a request's time was the gateway's own.
    pub fn overhead(&self, route: &'static str, own: Duration, trace: Option<TraceId>) {
        self.requests.overhead(route, own, trace);
    }

    /// A request has a place at the workers, and had to wait so long for it.
    pub fn queue_wait(&self, wait: Duration, trace: Option<TraceId>) {
        self.requests.queue_wait(wait, trace);
    }

    pub fn limited(&self, tenant: &str, limit: &'static str) {
        self.requests.limited(tenant, limit);
    }

    pub fn adapter_loaded(&self, took: Duration, ok: bool) {
        self.pool.adapter_loaded(took, if ok { "ok" } else { "error" });
    }

    pub fn adapter_published(&self, outcome: &'static str) {
        self.pool.adapter_published(outcome);
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
        self.pool.adapter_probed(outcome);
    }

    /// A generation's usage is not written down and will not be.
    pub fn usage_lost(&self) {
        self.usage_lost.inc();
    }

    /// Why a request's worker was picked.
    pub fn picked(&self, reason: &'static str) {
        self.pool.picked(reason);
    }

    /// A request would be tried again: whether it was.
    pub fn retried(&self, outcome: &'static str) {
        self.pool.retried(outcome);
    }

    pub fn adapter_evicted(&self) {
        self.pool.adapter_evicted();
    }

    /// The text of all metrics, with the gauges as `readings` tells them.
    pub fn render(&self, readings: &Readings) -> Result<String, fmt::Error> {
        if let Some(reading) = &readings.ratings {
            self.rated.read(reading);
        }
        self.pool.read(readings);
        self.requests.utilisation(&readings.limits);
        self.spans_dropped.inc_by(self.traces.dropped().saturating_sub(self.spans_dropped.get()));
        let mut out = String::new();
        text::encode_registry(&mut out, self.process.read())?;
        text::encode_registry(&mut out, &self.registry)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}
