//! The metrics of ratings and of the events' log.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::OutcomeLabels;

/// What is read at the time of a scrape: totals since the start, and what is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RatingReading {
    /// Ratings by what became of them.
    pub ratings: Vec<(&'static str, u64)>,
    /// Events of generations and of the guard: `noted`, `dropped`.
    pub events: Vec<(&'static str, u64)>,
    pub spool_bytes: u64,
    pub spool_events: u64,
    pub spool_oldest_seconds: u64,
    pub sinks: Vec<SinkReading>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkReading {
    pub sink: String,
    pub delivered: u64,
    pub retried: u64,
    pub dead_lettered: u64,
    /// After a panic.
    pub restarts: u64,
}

pub(super) struct RatingMetrics {
    ratings: Family<OutcomeLabels, Counter>,
    events: Family<OutcomeLabels, Counter>,
    spool_bytes: Gauge,
    spool_events: Gauge,
    spool_oldest: Gauge,
    delivered: Family<SinkLabels, Counter>,
    retried: Family<SinkLabels, Counter>,
    dead_lettered: Family<SinkLabels, Counter>,
    restarts: Family<SinkLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

// === impl RatingMetrics ===

impl RatingMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            ratings: Family::default(),
            events: Family::default(),
            spool_bytes: Gauge::default(),
            spool_events: Gauge::default(),
            spool_oldest: Gauge::default(),
            delivered: Family::default(),
            retried: Family::default(),
            dead_lettered: Family::default(),
            restarts: Family::default(),
        };
        registry.register("ratings", "Ratings by what became of them", metrics.ratings.clone());
        registry.register(
            "generation_events",
            "Events of generations and of the guard, by whether there was room for them",
            metrics.events.clone(),
        );
        registry.register_with_unit(
            "spool",
            "What the events in the spool count against its bound",
            Unit::Bytes,
            metrics.spool_bytes.clone(),
        );
        registry.register("spool_events", "Events that not every sink has", metrics.spool_events.clone());
        registry.register_with_unit(
            "spool_oldest",
            "Age of the oldest event that not every sink has",
            Unit::Seconds,
            metrics.spool_oldest.clone(),
        );
        registry.register("sink_delivered", "Events that a sink has", metrics.delivered.clone());
        registry.register("sink_retried", "Deliveries that were tried again", metrics.retried.clone());
        registry.register("sink_dead_lettered", "Events that a sink refused", metrics.dead_lettered.clone());
        registry.register("sink_restarts", "Sinks begun again after a panic", metrics.restarts.clone());
        metrics
    }

    pub(super) fn read(&self, reading: &RatingReading) {
        let RatingReading { ratings, events, spool_bytes, spool_events, spool_oldest_seconds, sinks } = reading;
        for (outcome, total) in ratings {
            raise(&self.ratings.get_or_create(&OutcomeLabels { outcome }), *total);
        }
        for (outcome, total) in events {
            raise(&self.events.get_or_create(&OutcomeLabels { outcome }), *total);
        }
        for (gauge, value) in [
            (&self.spool_bytes, spool_bytes),
            (&self.spool_events, spool_events),
            (&self.spool_oldest, spool_oldest_seconds),
        ] {
            gauge.set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        for SinkReading { sink, delivered, retried, dead_lettered, restarts } in sinks {
            let labels = SinkLabels { sink: sink.clone() };
            for (family, total) in [
                (&self.delivered, delivered),
                (&self.retried, retried),
                (&self.dead_lettered, dead_lettered),
                (&self.restarts, restarts),
            ] {
                raise(&family.get_or_create(&labels), *total);
            }
        }
    }
}

/// Counts up to a total that somebody else has counted.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
