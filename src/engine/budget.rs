//! Memory that several engines of one process share.

use std::sync::atomic::{AtomicI64, Ordering};

/// What is left of a common amount, in bytes.
#[derive(Debug)]
pub struct Budget {
    /// Below zero while it is overdrawn.
    left: AtomicI64,
    sure: u64,
}

// === impl Budget ===

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self::with_sure(bytes, bytes)
    }

    /// Of `bytes`, `sure` are for those who [`take`](Self::take): no
    /// [`set_aside`](Self::set_aside) goes so far that less would be left for
    /// them when all have given back.
    pub fn with_sure(bytes: u64, sure: u64) -> Self {
        Self { left: AtomicI64::new(signed(bytes)), sure }
    }

    /// Takes all of `bytes` or nothing.
    pub fn take(&self, bytes: u64) -> bool {
        let rest = |left: i64| left.checked_sub(signed(bytes)).filter(|rest| *rest >= 0);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, rest).is_ok()
    }

    /// Takes `bytes` even where others still have them: then nobody else gets
    /// any until enough has been given back, and till then what was set aside
    /// is not to be used.
    pub fn set_aside(&self, bytes: u64) {
        self.left.fetch_sub(signed(bytes), Ordering::AcqRel);
    }

    pub fn give_back(&self, bytes: u64) {
        self.left.fetch_add(signed(bytes), Ordering::AcqRel);
    }

    pub fn left(&self) -> u64 {
        u64::try_from(self.left.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// More is set aside than others have given back so far.
    pub fn overdrawn(&self) -> bool {
        self.left.load(Ordering::Acquire) < 0
    }

    /// What one may count on getting once all others have given back theirs.
    pub fn sure(&self) -> u64 {
        self.sure
    }
}

/// No machine has so much memory that this would not do.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_paid_by_those_who_give_back() {
        let pot = Budget::with_sure(100, 10);
        assert!(pot.take(60));
        pot.set_aside(70);
        assert_eq!((pot.left(), pot.overdrawn()), (0, true));
        assert!(!pot.take(1), "nobody borrows while it is overdrawn");
        pot.give_back(40);
        assert_eq!((pot.left(), pot.overdrawn()), (10, false));
        assert!(!pot.take(11));
        pot.give_back(20);
        pot.give_back(70);
        assert_eq!((pot.left(), pot.sure()), (100, 10));
    }
}
