//! Counters, which whoever serves metrics reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Why a rating was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not a generation's id.
    Malformed,
    /// Another tenant's generation, or nobody's.
    Unknown,
    /// The generation is too old.
    Expired,
    /// A field is out of its bounds.
    Invalid,
    /// The generation has as many ratings without an end user as it may.
    Unnamed,
    /// The spool or its disk is full.
    Full,
    /// The spool failed, or is closed.
    Failed,
}

/// Everything that is counted. Totals since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    noted: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
    waiting: AtomicU64,
    /// Unix milliseconds; 0 for none.
    oldest: AtomicI64,
    sinks: Vec<Arc<SinkMetrics>>,
}

#[derive(Debug)]
pub struct SinkMetrics {
    name: String,
    delivered: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    restarts: AtomicU64,
    /// 1 while the breaker is open.
    open: AtomicU64,
}

// === impl Reason ===

impl Reason {
    pub const ALL: [Self; 7] =
        [Self::Malformed, Self::Unknown, Self::Expired, Self::Invalid, Self::Unnamed, Self::Full, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Unnamed => "unnamed",
            Self::Full => "spool_full",
            Self::Failed => "failed",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn of_sinks(names: &[String]) -> Self {
        let sink = |name: &String| {
            Arc::new(SinkMetrics {
                name: name.clone(),
                delivered: AtomicU64::new(0),
                retried: AtomicU64::new(0),
                dead_lettered: AtomicU64::new(0),
                restarts: AtomicU64::new(0),
                open: AtomicU64::new(0),
            })
        };
        Self { sinks: names.iter().map(sink).collect(), ..Self::default() }
    }

    /// Ratings that were recorded.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Ratings whose idempotency key was known.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }

    /// Ratings that were refused, by reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Relaxed)
    }

    /// Events of generations and of the guard that were recorded.
    pub fn events_noted(&self) -> u64 {
        self.noted.load(Relaxed)
    }

    /// Those that were dropped, since there was no room.
    pub fn events_dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Bytes of all events in the spool, as they count against its bound.
    pub fn spool_bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Events that not every sink has.
    pub fn spool_events(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// When the oldest event that not every sink has was accepted, in Unix
    /// milliseconds; looked up once a second.
    pub fn spool_oldest(&self) -> Option<i64> {
        Some(self.oldest.load(Relaxed)).filter(|oldest| *oldest != 0)
    }

    pub fn sinks(&self) -> &[Arc<SinkMetrics>] {
        &self.sinks
    }

    pub(crate) fn recorded(&self, duplicate: bool) {
        if duplicate { &self.duplicates } else { &self.accepted }.fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse(&self, reason: Reason, ratings: u64) {
        self.refused[reason as usize].fetch_add(ratings, Relaxed);
    }

    pub(crate) fn noted(&self) {
        self.noted.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn spooled(&self, bytes: u64, waiting: i64) {
        self.bytes.store(bytes, Relaxed);
        self.waiting.store(waiting.max(0).unsigned_abs(), Relaxed);
    }

    pub(crate) fn oldest(&self, at: Option<i64>) {
        self.oldest.store(at.unwrap_or(0), Relaxed);
    }
}

// === impl SinkMetrics ===

impl SinkMetrics {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Events that the sink has.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Deliveries of one or more events that were tried again.
    pub fn retried(&self) -> u64 {
        self.retried.load(Relaxed)
    }

    /// Events that the sink refused for good.
    pub fn dead_lettered(&self) -> u64 {
        self.dead_lettered.load(Relaxed)
    }

    /// How often it was begun again after a panic.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Whether the sink fails again and again, and is tried with single events.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed) != 0
    }

    pub(crate) fn deliver(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn retry(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(crate) fn dead_letter(&self) {
        self.dead_lettered.fetch_add(1, Relaxed);
    }

    pub(crate) fn restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    pub(crate) fn breaker(&self, open: bool) {
        self.open.store(open.into(), Relaxed);
    }
}
