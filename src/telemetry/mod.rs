//! What operators see: metrics (all of them, in [`metrics`]), traces and the log.

mod guard;
mod log;
mod log_filter;
mod metrics;
mod ratings;
mod reload;
mod trace;

pub use guard::GuardMetrics;
pub use log::{Config as LogConfig, Format as LogFormat, init as init_log};
pub use log_filter::{NoLog, log_filter, set_log_filter};
pub use metrics::{
    AdapterReading, CONTENT_TYPE, Config as MetricsConfig, Metrics, ModelMetrics, Readings, StreamGauge, WorkerReading,
};
pub use ratings::{RatingReading, SinkReading};
pub use reload::ReloadMetrics;
pub use trace::{Config as TraceConfig, Described, Step, TraceError, Traces, Trail, Value};
