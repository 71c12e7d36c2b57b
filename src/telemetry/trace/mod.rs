//! Traces: one server span a request, with a child for each step that can take
//! time, sent to an OTLP collector. Names and attributes are those of
//! OpenTelemetry's conventions for generative AI, version 1.38; what they have no
//! word for begins with `tenantry.`.
//!
//! A request's spans are made when it has ended, of what its [`Trail`] knows, so
//! that a request which is not recorded costs two readings of the clock a step.
//! The same trail tells how long it waited for others: what is left is the
//! gateway's own part.

mod export;
#[cfg(test)]
mod tests;
mod trail;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::types::{Secret, SpanId, TraceContext, TraceId};

pub use export::{Described, Value};
pub use trail::{Step, Trail};

use export::Exporter;

/// Where traces go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `http://` or `https://`, of an OTLP collector that speaks gRPC.
    pub endpoint: String,
    /// Sent along with every batch.
    pub headers: Vec<(String, Secret)>,
    /// The share of traces that are recorded, 0 to 1, of those that begin here.
    pub sample: f64,
    /// Whether a client's own `traceparent` decides whether its request is
    /// recorded, and in which trace.
    pub follow_clients: bool,
    pub service_name: String,
    /// The longest that a batch may take to be sent.
    pub timeout: Duration,
}

#[derive(Debug, Error)]
#[error("{0}")]
pub struct TraceError(String);

/// Begins the trails of requests, and sends what is recorded of them.
#[derive(Debug, Clone)]
pub struct Traces {
    sender: Option<Arc<Exporter>>,
    sample: f64,
    follow: bool,
}

// === impl Traces ===

impl Default for Traces {
    /// Records nothing; what clients say of their traces is passed on.
    fn default() -> Self {
        Self { sender: None, sample: 0.0, follow: true }
    }
}

impl Traces {
    /// Has to be called within a runtime. A collector that is away is no error.
    pub fn open(config: &Config) -> Result<Self, TraceError> {
        let sender = Exporter::open(config).map_err(TraceError)?;
        Ok(Self { sender: Some(Arc::new(sender)), sample: config.sample, follow: config.follow_clients })
    }

    /// A request has arrived.
    pub fn begin(&self, client: Option<TraceContext>) -> Trail {
        let client = client.filter(|_| self.follow);
        let Some(sender) = &self.sender else {
            return Trail::new(None, client, None);
        };
        let (trace, parent, state, recorded) = match client {
            Some(TraceContext { trace, span, sampled, state }) => (trace, Some(span), state, sampled),
            None => {
                let trace = TraceId(random());
                (trace, None, None, self.draws(trace))
            }
        };
        let own = TraceContext { trace, span: SpanId(random()), sampled: recorded, state };
        Trail::new(recorded.then(|| sender.clone()), Some(own), parent)
    }

    /// By the trace's id, so that all who take part decide alike
    /// (OpenTelemetry's `TraceIdRatioBased`).
    fn draws(&self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = trace.0;
        // As many bits as the number has.
        let drawn = (u64::from_be_bytes([0, a, b, c, d, e, f, g]) >> 3) as f64 / (1_u64 << 53) as f64;
        drawn < self.sample
    }

    /// Spans that were lost since the collector did not take them in time.
    pub fn dropped(&self) -> u64 {
        self.sender.as_ref().map_or(0, |sender| sender.dropped())
    }

    /// Sends what is left, for at most `patience`. Blocks.
    pub fn close(&self, patience: Duration) {
        if let Some(sender) = &self.sender {
            sender.close(patience);
        }
    }
}

/// Not all zero, which the standard keeps for "none".
fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    while bytes == [0; BYTES] {
        getrandom::fill(&mut bytes).expect("the system has random numbers");
    }
    bytes
}
