//! The adapters that are loaded, within a limit: those that no generation uses
//! give way, the ones used longest ago first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::time::Instant;

use crate::engine::Adapter;
use crate::types::{AdapterKey, BaseName};
use crate::worker::{Held, WorkerError};

/// What `Held` says of this process's run: its engines and whoever asks them
/// end together.
const INSTANCE: &str = "in process";

/// In here so that a decision sees all of it.
pub(super) struct Adapters {
    limit: Option<u64>,
    loaded: RwLock<Loaded>,
    /// Counts uses; the adapter with the lowest stamp was used longest ago.
    clock: AtomicU64,
}

#[derive(Default)]
struct Loaded {
    by_key: HashMap<AdapterKey, Entry>,
    /// The last account that was given; none since something changed.
    told: Option<Arc<Held>>,
}

struct Entry {
    adapter: Arc<Adapter>,
    base: BaseName,
    used: AtomicU64,
}

// === impl Adapters ===

impl Adapters {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, loaded: RwLock::default(), clock: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read().bytes()
    }

    pub(super) fn list(&self) -> Vec<(AdapterKey, u64)> {
        self.read().list()
    }

    /// What is loaded, for those who mind it elsewhere.
    pub(super) fn held(&self) -> Arc<Held> {
        if let Some(told) = &self.read().told {
            return told.clone();
        }
        let mut loaded = self.write();
        let held = Held { instance: INSTANCE.to_owned(), adapters: loaded.list(), as_of: Instant::now() };
        loaded.told.insert(Arc::new(held)).clone()
    }

    /// An adapter that was loaded for `base`.
    pub(super) fn get(&self, key: &AdapterKey, base: &BaseName) -> Result<Arc<Adapter>, WorkerError> {
        let loaded = self.read();
        let Some(entry) = loaded.by_key.get(key).filter(|entry| entry.base == *base) else {
            // Never the base instead: an answer without the adapter would look right and be wrong.
            return Err(WorkerError::AdapterMissing(format!("{key} is not loaded here")));
        };
        entry.used.store(self.tick(), Ordering::Release);
        Ok(entry.adapter.clone())
    }

    /// Nothing gives way for an adapter that does not fit all the same. One
    /// that is there already stays: its key has its digest.
    pub(super) fn insert(&self, key: AdapterKey, base: BaseName, adapter: Adapter) -> Result<(), WorkerError> {
        let bytes = adapter.bytes() as u64;
        let mut loaded = self.write();
        if let Some(entry) = loaded.by_key.get(&key).filter(|entry| entry.base == base) {
            entry.used.store(self.tick(), Ordering::Release);
            return Ok(());
        }
        if let Some(limit) = self.limit {
            if bytes > limit {
                let reason = format!("it takes {bytes} bytes, and all adapters together may take {limit} here");
                return Err(WorkerError::AdapterInvalid(reason));
            }
            loaded.make_room(bytes, limit)?;
        }
        let used = AtomicU64::new(self.tick());
        loaded.by_key.insert(key, Entry { adapter: Arc::new(adapter), base, used });
        loaded.told = None;
        Ok(())
    }

    /// Generations that still use it keep it until they end.
    pub(super) fn remove(&self, key: &AdapterKey) {
        self.retain(|other, _| other != key);
    }

    pub(super) fn remove_of(&self, base: &BaseName) {
        self.retain(|_, entry| entry.base != *base);
    }

    fn retain(&self, mut stays: impl FnMut(&AdapterKey, &Entry) -> bool) {
        let mut loaded = self.write();
        let before = loaded.by_key.len();
        loaded.by_key.retain(|key, entry| stays(key, entry));
        if loaded.by_key.len() != before {
            loaded.told = None;
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    fn read(&self) -> RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Loaded> {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Loaded ===

impl Loaded {
    fn bytes(&self) -> u64 {
        self.by_key.values().map(Entry::bytes).sum()
    }

    fn list(&self) -> Vec<(AdapterKey, u64)> {
        self.by_key.iter().map(|(key, entry)| (key.clone(), entry.bytes())).collect()
    }

    /// Lets idle adapters go until `bytes` more fit.
    fn make_room(&mut self, bytes: u64, limit: u64) -> Result<(), WorkerError> {
        let used = |entry: &&Entry| Arc::strong_count(&entry.adapter) > 1;
        let in_use: u64 = self.by_key.values().filter(used).map(Entry::bytes).sum();
        if in_use + bytes > limit {
            let reason = format!("it takes {bytes} bytes, and of {limit} those in use take {in_use}");
            return Err(WorkerError::AdapterUnavailable(reason));
        }
        self.told = None;
        while self.bytes() + bytes > limit {
            let idle = self.by_key.iter().filter(|(_, entry)| Arc::strong_count(&entry.adapter) == 1);
            let oldest = idle.min_by_key(|(_, entry)| entry.used.load(Ordering::Acquire)).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.by_key.remove(&oldest);
        }
        Ok(())
    }
}

// === impl Entry ===

impl Entry {
    fn bytes(&self) -> u64 {
        self.adapter.bytes() as u64
    }
}
