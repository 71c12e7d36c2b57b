//! The room from outside.

mod crash;
mod disk;
mod events;
mod file_sink;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka-tls")]
mod kafka_tls;
mod keys;
#[cfg(feature = "nats")]
mod nats;
mod process;
mod reading;
mod refusals;
mod shipping;
mod spool;
mod support;
mod torn;
mod webhook;
