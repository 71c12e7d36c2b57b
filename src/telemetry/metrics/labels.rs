//! What several metrics are labelled with, and how histograms are made.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::histogram::Histogram;

use crate::types::TraceId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(in crate::telemetry) struct OutcomeLabels {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabels {
    pub route: &'static str,
}

/// Of an exemplar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TraceLabels {
    trace_id: String,
}

/// A histogram that names, for each bucket, the last trace that fell into it.
pub(super) type Traced = HistogramWithExemplars<TraceLabels>;

#[derive(Clone)]
pub(in crate::telemetry) struct Buckets(pub &'static [f64]);

// === impl TraceLabels ===

impl From<TraceId> for TraceLabels {
    fn from(id: TraceId) -> Self {
        Self { trace_id: id.to_string() }
    }
}

// === impl Buckets ===

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl MetricConstructor<Traced> for Buckets {
    fn new_metric(&self) -> Traced {
        Traced::new(self.0.iter().copied())
    }
}
