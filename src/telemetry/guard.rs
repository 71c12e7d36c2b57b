//! The guard's metrics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::Buckets;
use crate::types::{Action, Side, Stage};

/// Stage 1 takes microseconds, a judge outside seconds.
const STAGE_SECONDS: [f64; 14] =
    [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 5e-4, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
const HELD_SECONDS: [f64; 12] = [0.0001, 0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 5.0];

/// What the guard judged, how long it took and how long text waited for it.
#[derive(Clone)]
pub struct GuardMetrics {
    verdicts: Family<VerdictLabels, Counter>,
    seconds: Family<StageLabels, Histogram, Buckets>,
    escalations: Family<EscalationLabels, Counter>,
    texts: Family<SideLabels, Counter>,
    held: Histogram,
    first_held: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    side: &'static str,
    action: &'static str,
    category: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    side: &'static str,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EscalationLabels {
    side: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SideLabels {
    side: &'static str,
}

// === impl GuardMetrics ===

impl GuardMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            verdicts: Family::default(),
            seconds: Family::new_with_constructor(Buckets(&STAGE_SECONDS)),
            escalations: Family::default(),
            texts: Family::default(),
            held: Histogram::new(HELD_SECONDS),
            first_held: Histogram::new(HELD_SECONDS),
        };
        registry.register("guard_verdicts", "Findings by what was done about them", metrics.verdicts.clone());
        registry.register_with_unit(
            "guard",
            "Time that a stage took for a prompt's text or an answer's chunk",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "guard_escalations",
            "Texts that were doubtful to the first stage, by whether the second answered",
            metrics.escalations.clone(),
        );
        registry.register("guard_texts", "Texts of prompts, and answers, that were judged", metrics.texts.clone());
        registry.register_with_unit(
            "guard_held",
            "Time that an answer's chunk waited to be judged",
            Unit::Seconds,
            metrics.held.clone(),
        );
        registry.register_with_unit(
            "guard_first_token_held",
            "Time that the guard added to the first token",
            Unit::Seconds,
            metrics.first_held.clone(),
        );
        metrics
    }

    pub fn verdict(&self, side: Side, action: Action, category: &str) {
        let labels = VerdictLabels { side: side.as_str(), action: action.as_str(), category: category.to_owned() };
        self.verdicts.get_or_create(&labels).inc();
    }

    pub fn took(&self, side: Side, stage: Stage, time: Duration) {
        self.stage(side, stage).observe(time.as_secs_f64());
    }

    /// The histogram of one stage, looked up once a stream.
    pub fn stage(&self, side: Side, stage: Stage) -> Histogram {
        self.seconds.get_or_create_owned(&StageLabels { side: side.as_str(), stage: stage.as_str() })
    }

    /// `outcome`: `judged` or `busy`.
    pub fn escalated(&self, side: Side, outcome: &'static str) {
        self.escalations.get_or_create(&EscalationLabels { side: side.as_str(), outcome }).inc();
    }

    pub fn text(&self, side: Side) {
        self.texts.get_or_create(&SideLabels { side: side.as_str() }).inc();
    }

    pub fn held(&self, time: Duration) {
        self.held.observe(time.as_secs_f64());
    }

    pub fn first_token_held(&self, time: Duration) {
        self.first_held.observe(time.as_secs_f64());
    }
}
