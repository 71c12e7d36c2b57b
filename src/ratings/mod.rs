//! What end users think of their generations: [`Ratings`] takes it, a spool on
//! the local disk keeps it, and [`Background`] ships it to sinks.
//!
//! - Generations are known by their ids ([`GenerationKeys`]), without state.
//! - A rating is answered when it is on the disk; nothing that was answered is
//!   lost, whatever happens to the process.
//! - Generations' own events never make anybody wait: where there is no room
//!   they are dropped and counted.
//! - Events are CloudEvents ([`EventType`]); `proto/events/v1/` has the schemas.
//! - [`Reader`] sums up, follows and exports what the spool keeps.
//!
//! A spool is one gateway's. An idempotency key that comes to two gateways is
//! recorded by both, under two ids: who reads the sinks knows it by
//! `data.idempotency_key`.
//!
//! This crate knows nothing of HTTP, gRPC or the gateway.

/// Whether Kafka may be spoken to over TLS, and with SCRAM, which needs the same library.
pub const KAFKA_TLS: bool = cfg!(feature = "kafka-tls");

mod background;
mod breaker;
mod config;
mod data;
mod event;
mod keys;
mod metrics;
mod rating;
mod ratings;
mod read;
mod shipper;
mod sinks;
mod spool;

pub use background::Background;
pub use config::{Config, Keys, SinkConfig, SinkKind};
pub use event::{Action, Blocked, Changed, Completed, Content, ContentPolicy, EventType, Side, Verdict};
pub use keys::{GenerationKeys, Hasher, IdError, KeyError, SHORTEST_KEY};
pub use metrics::{Metrics, Reason, SinkMetrics};
pub use rating::{
    LONGEST_COMMENT, LONGEST_CORRECTION, LONGEST_END_USER, LONGEST_IDEMPOTENCY_KEY, MOST_LABELS, Rating, Refusal, Thumb,
};
pub use ratings::{Ack, Policy, RateError, Ratings, Status, Unrated};
#[cfg(feature = "parquet")]
pub use read::write_parquet;
pub use read::{
    Change, Export, ExportRow, Exported, Interval, Position, ReadError, Reader, Revision, Summary, Tail, write_jsonl,
};
pub use sinks::file::FileConfig;
pub use sinks::http::HttpConfig;
#[cfg(feature = "kafka")]
pub use sinks::kafka::{KafkaConfig, KafkaLogin, KafkaTls, SaslMechanism};
pub use sinks::lines::{FileCompression, Rotation};
#[cfg(feature = "nats")]
pub use sinks::nats::{NatsConfig, NatsLogin};
pub use sinks::{Entry, Outcome, Sink};
pub use spool::{OpenError, SpoolError};
