//! What operators see: metrics (all of them, in [`metrics`]) and the log.

mod guard;
mod log;
mod metrics;
mod ratings;

pub use guard::GuardMetrics;
pub use log::{Config as LogConfig, Format as LogFormat, init as init_log};
pub use metrics::{AdapterReading, CONTENT_TYPE, Metrics, Readings, StreamGauge, WorkerReading};
pub use ratings::{RatingReading, SinkReading};
