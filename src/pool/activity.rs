//! What runs at a worker now, as far as loading adapters has to know.
//!
//! Some engines may give a running request another adapter while one is loaded
//! ([`Driver::loads_only_when_idle`](crate::worker::Driver::loads_only_when_idle)).
//! There a load waits until nothing runs, and what comes meanwhile waits for
//! the load: the lock is fair, so a load is not put off for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

#[derive(Debug, Default)]
pub(super) struct Activity {
    running: AtomicU32,
    /// Generations that ever began.
    begun: AtomicU64,
    gate: Arc<RwLock<()>>,
}

/// One generation that runs, until dropped.
#[derive(Debug)]
pub(super) struct Running {
    activity: Arc<Activity>,
    _gate: Option<OwnedRwLockReadGuard<()>>,
}

/// Nothing runs, and nothing begins, until dropped.
#[derive(Debug)]
pub(super) struct Alone(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>);

// === impl Activity ===

impl Activity {
    /// Before a generation begins. `gated` where loads have to be waited for.
    pub(super) async fn run(self: &Arc<Self>, gated: bool) -> Running {
        let gate = match gated {
            true => Some(self.gate.clone().read_owned().await),
            false => None,
        };
        self.running.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        Running { activity: self.clone(), _gate: gate }
    }

    /// Changes with every generation that begins.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    /// Waits until nothing runs that began with [`Activity::run`], gated.
    pub(super) async fn alone(&self) -> Alone {
        Alone(self.gate.clone().write_owned().await)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.running.fetch_sub(1, Ordering::AcqRel);
    }
}
