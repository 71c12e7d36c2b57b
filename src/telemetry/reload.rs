//! The metrics of the configuration's reloads.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub struct ReloadMetrics {
    reloads: Family<OutcomeLabels, Counter>,
    last_success: Gauge<f64, AtomicU64>,
    waiting: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

// === impl ReloadMetrics ===

impl ReloadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { reloads: Family::default(), last_success: Gauge::default(), waiting: Gauge::default() };
        for outcome in ["applied", "refused"] {
            drop(metrics.reloads.get_or_create(&OutcomeLabels { outcome }));
        }
        registry.register("config_reloads", "Reloads of the configuration by outcome", metrics.reloads.clone());
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When the configuration that is in use was read",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        registry.register(
            "config_keys_waiting_for_restart",
            "Keys that differ in the file and that only a restart applies",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// The configuration of the start.
    pub fn loaded(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(since.as_secs_f64());
    }

    pub fn applied(&self, at: SystemTime, waiting_for_restart: usize) {
        self.loaded(at);
        self.waiting.set(waiting_for_restart as i64);
        self.reloads.get_or_create(&OutcomeLabels { outcome: "applied" }).inc();
    }

    pub fn refused(&self) {
        self.reloads.get_or_create(&OutcomeLabels { outcome: "refused" }).inc();
    }
}
