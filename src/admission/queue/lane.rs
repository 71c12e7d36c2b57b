//! What waits of one class, by tenants.

use std::collections::BTreeMap;
use std::hash::Hash;

use super::level::Level;

/// What waits of one class.
#[derive(Debug)]
pub(super) struct Lane<K, T> {
    pub(super) level: Level<K>,
    /// Those of tenants of which something waits.
    pub(super) lines: BTreeMap<K, Line<T>>,
    pub(super) len: usize,
    pub(super) tokens: u128,
}

/// What waits of one tenant in one class.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// By number.
    pub(super) items: BTreeMap<u64, Item<T>>,
    pub(super) tokens: u128,
}

#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) value: T,
    pub(super) weight: u32,
    pub(super) tokens: u64,
    pub(super) seats: u32,
}

// === impl Lane ===

impl<K, T> Default for Lane<K, T> {
    fn default() -> Self {
        Self { level: Level::default(), lines: BTreeMap::new(), len: 0, tokens: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord, T> Lane<K, T> {
    pub(super) fn put(&mut self, tenant: &K, number: u64, item: Item<T>) {
        let tokens = u128::from(item.tokens);
        if !self.lines.contains_key(tenant) {
            self.level.enter(tenant, number);
        }
        let line = self.lines.entry(tenant.clone()).or_default();
        line.items.insert(number, item);
        line.tokens += tokens;
        self.len += 1;
        self.tokens += tokens;
    }

    pub(super) fn take(&mut self, tenant: &K, number: u64) -> Option<Item<T>> {
        let line = self.lines.get_mut(tenant)?;
        let item = line.items.remove(&number)?;
        let tokens = u128::from(item.tokens);
        line.tokens -= tokens;
        self.len -= 1;
        self.tokens -= tokens;
        if line.items.is_empty() {
            self.lines.remove(tenant);
            self.level.leave(tenant);
        }
        Some(item)
    }
}

// === impl Line ===

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), tokens: 0 }
    }
}

impl<T> Line<T> {
    pub(super) fn newest(&self) -> Option<u64> {
        self.items.last_key_value().map(|(number, _)| *number)
    }

    /// The tenant's, as the next of its requests says.
    pub(super) fn weight(&self) -> u32 {
        self.items.first_key_value().map_or(1, |(_, item)| item.weight.max(1))
    }
}
