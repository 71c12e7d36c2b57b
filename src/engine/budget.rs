//! Memory that several engines of one process share.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is left of a common amount, in bytes.
#[derive(Debug)]
pub struct Budget(AtomicU64);

// === impl Budget ===

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes all of `bytes` or nothing.
    pub fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    pub fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }

    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
