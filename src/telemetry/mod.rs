//! What operators see: metrics (all of them, in [`metrics`]), traces and the log.

mod guard;
mod log;
mod metrics;
mod ratings;
mod trace;

pub use guard::GuardMetrics;
pub use log::{Config as LogConfig, Format as LogFormat, init as init_log};
pub use metrics::{
    AdapterReading, CONTENT_TYPE, Config as MetricsConfig, Metrics, ModelMetrics, Readings, StreamGauge, WorkerReading,
};
pub use ratings::{RatingReading, SinkReading};
pub use trace::{Config as TraceConfig, Described, Step, TraceError, Traces, Trail, Value};
