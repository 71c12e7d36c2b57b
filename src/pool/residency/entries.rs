//! What is known of a worker's adapters, behind one lock. Changes at once and
//! never waits; what takes time is started by whoever changed it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Config;
use super::failures::Failures;
use crate::types::AdapterKey;
use crate::worker::{Held, WorkerError};

/// How a load ended; `None` while it runs.
pub(super) type Outcome = watch::Receiver<Option<Result<(), WorkerError>>>;

/// A spare copy in use may be needed all the same: it counts as one when it was
/// not used for so long.
const SPARE: Duration = Duration::from_millis(2_500);
/// What a spare copy counts as: longer than anything else was not used.
const SPARE_IDLE: Duration = Duration::from_secs(1 << 30);

/// An unload that failed is tried again after this.
const STUCK: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Entries {
    by_key: HashMap<AdapterKey, Entry>,
    /// Counts uses; the entry with the lowest stamp was used longest ago.
    clock: u64,
    /// Of `by_key`, so that nothing has to be counted for each request.
    held: Totals,
    /// The run of the worker that the entries are of.
    instance: String,
    /// When the account was given that was looked at last.
    reconciled: Option<Instant>,
    pub(super) failures: Failures,
    /// What a restarted worker had and does not have again yet, in the order
    /// in which it is to be loaded.
    pub(super) lost: Vec<AdapterKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    /// Of what is resident.
    bytes: u64,
    resident: usize,
    loading: usize,
    leaving: usize,
    retired: usize,
    pins: usize,
}

pub(super) struct Entry {
    /// Tells this entry from a later one of the same key.
    born: u64,
    state: State,
    pins: usize,
    used: u64,
    used_at: Instant,
    /// A copy beyond those that are wanted.
    spare: bool,
    /// To be unloaded once nobody uses it, whatever memory there is.
    retired: bool,
}

pub(super) enum State {
    Loading {
        outcome: Outcome,
        since: Instant,
    },
    Resident {
        bytes: u64,
        /// What the worker said of itself before this says nothing of it.
        since: Instant,
        /// It was there before we asked, and nothing proves yet that it is
        /// what its name says.
        adopted: bool,
        /// When an unload failed. It is not tried again at once, or a worker
        /// that always refuses would be asked for ever.
        stuck: Option<Instant>,
    },
    /// Being unloaded; who wants it waits and then loads it anew.
    Leaving {
        left: watch::Receiver<bool>,
    },
}

/// A resident entry that is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub born: u64,
    pub bytes: u64,
    pub adopted: bool,
}

/// What the worker's account of itself changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reconciled {
    /// It is another process than before.
    pub restarted: bool,
    /// Adapters that it no longer has.
    pub gone: Vec<AdapterKey>,
}

// === impl Entries ===

impl Entries {
    pub(super) fn get(&self, key: &AdapterKey) -> Option<&Entry> {
        self.by_key.get(key)
    }

    pub(super) fn resident(&self) -> usize {
        self.held.resident
    }

    pub(super) fn pins(&self) -> usize {
        self.held.pins
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&AdapterKey, &Entry)> {
        self.by_key.iter()
    }

    /// Whether one more adapter, of the usual size, needs another's place.
    pub(super) fn is_full(&self, config: &Config) -> bool {
        let count = self.held.resident + self.held.loading;
        let usual = self.held.bytes.checked_div(self.held.resident as u64).unwrap_or(0);
        let bytes = self.held.bytes + (self.held.loading as u64 + 1) * usual;
        config.adapter_slots.is_some_and(|slots| count >= slots) || bytes > config.adapter_bytes
    }

    /// Adapters of the usual size that fit beside what is there, spare copies
    /// not counted.
    pub(super) fn room(&self, config: &Config, now: Instant) -> usize {
        let spare = self.by_key.values().filter(|entry| entry.is_spare(now) && entry.is_free(now)).count();
        let taken = self.held.resident + self.held.loading;
        self.places(config).saturating_sub(taken.saturating_sub(spare))
    }

    /// Adapters of the usual size that fit in all.
    pub(super) fn places(&self, config: &Config) -> usize {
        let by_bytes = match self.held.bytes.checked_div(self.held.resident as u64) {
            None | Some(0) => usize::MAX,
            Some(usual) => usize::try_from(config.adapter_bytes / usual).unwrap_or(usize::MAX),
        };
        // Few enough that their sum over all workers is a number.
        config.adapter_slots.unwrap_or(usize::MAX).min(by_bytes).min(1 << 20)
    }

    /// For how long what would make room was not used: `None` where there is
    /// room, no time where all is in use.
    pub(super) fn victim_idle(&self, config: &Config, now: Instant) -> Option<Duration> {
        if !self.is_full(config) {
            return None;
        }
        match self.victim(now) {
            Some((_, entry)) if entry.is_spare(now) => Some(SPARE_IDLE),
            Some((_, entry)) => Some(now.saturating_duration_since(entry.used_at)),
            None => Some(Duration::ZERO),
        }
    }

    /// What goes first where room is needed: a spare copy, then what was used
    /// longest ago.
    fn victim(&self, now: Instant) -> Option<(&AdapterKey, &Entry)> {
        let free = self.by_key.iter().filter(|(_, entry)| entry.is_free(now));
        free.min_by_key(|(_, entry)| (!entry.is_spare(now), entry.used))
    }

    pub(super) fn spare(&mut self, keys: &HashSet<AdapterKey>) {
        for (key, entry) in &mut self.by_key {
            // What another gateway has loaded is its to mind.
            let ours = !matches!(entry.state, State::Resident { adopted: true, .. });
            entry.spare = ours && keys.contains(key);
        }
    }

    /// Adapters that take a place, but for `key`.
    pub(super) fn places_beside(&self, key: &AdapterKey) -> usize {
        let own = usize::from(self.by_key.contains_key(key));
        (self.held.resident + self.held.loading + self.held.leaving).saturating_sub(own)
    }

    /// An unload under way, if any.
    pub(super) fn leaving(&self) -> Option<watch::Receiver<bool>> {
        let leaving = |entry: &Entry| match &entry.state {
            State::Leaving { left } => Some(left.clone()),
            State::Loading { .. } | State::Resident { .. } => None,
        };
        (self.held.leaving > 0).then(|| self.by_key.values().find_map(leaving)).flatten()
    }

    /// Counts a pin on an entry that is there. Returns when it was born.
    pub(super) fn pin(&mut self, key: &AdapterKey, now: Instant) -> Option<(u64, &State)> {
        self.clock += 1;
        let used = self.clock;
        let entry = self.by_key.get_mut(key)?;
        entry.pins += 1;
        (entry.used, entry.used_at) = (used, now);
        self.held.pins += 1;
        Some((entry.born, &entry.state))
    }

    pub(super) fn unpin(&mut self, key: &AdapterKey, born: u64) {
        if let Some(entry) = self.by_key.get_mut(key).filter(|entry| entry.born == born) {
            entry.pins -= 1;
            self.held.pins -= 1;
        }
    }

    /// A new entry that is being loaded, with one pin.
    pub(super) fn begin(&mut self, key: &AdapterKey, outcome: Outcome, now: Instant) -> u64 {
        self.clock += 1;
        let born = self.clock;
        let state = State::Loading { outcome, since: now };
        self.insert(key.clone(), Entry { pins: 1, ..Entry::new(born, state, now) });
        born
    }

    pub(super) fn set(&mut self, key: &AdapterKey, born: u64, state: State) -> bool {
        let Some(entry) = self.by_key.get_mut(key).filter(|entry| entry.born == born) else { return false };
        self.held.remove(entry);
        entry.state = state;
        self.held.add(entry);
        true
    }

    pub(super) fn remove(&mut self, key: &AdapterKey, born: u64) {
        if self.by_key.get(key).is_some_and(|entry| entry.born == born) {
            self.drop_entry(key);
        }
    }

    pub(super) fn retire(&mut self, key: &AdapterKey) {
        if let Some(entry) = self.by_key.get_mut(key).filter(|entry| !entry.retired) {
            entry.retired = true;
            self.held.retired += 1;
        }
        self.lost.retain(|lost| lost != key);
    }

    /// What has to be unloaded next, if anything: what is retired, and what was
    /// used longest ago where there is more than fits.
    pub(super) fn to_unload(&self, config: &Config, now: Instant) -> Option<AdapterKey> {
        let gone = |(_, entry): &(&AdapterKey, &Entry)| entry.retired && entry.is_free(now);
        if self.held.retired > 0
            && let Some((key, _)) = self.by_key.iter().find(gone)
        {
            return Some(key.clone());
        }
        let slots = config.adapter_slots.unwrap_or(usize::MAX);
        let fits = self.held.bytes <= config.adapter_bytes && self.held.resident + self.held.loading <= slots;
        if fits {
            return None;
        }
        self.victim(now).map(|(key, _)| key.clone())
    }

    /// Turns what is resident and unused into what is leaving. Returns what it
    /// was.
    pub(super) fn leave(&mut self, key: &AdapterKey, left: watch::Receiver<bool>) -> Option<Left> {
        let entry = self.by_key.get(key)?;
        let State::Resident { bytes, adopted, .. } = entry.state else { return None };
        let was = Left { born: entry.born, bytes, adopted };
        self.set(key, was.born, State::Leaving { left });
        Some(was)
    }

    /// What may be tried again after a load, is.
    pub(super) fn unstick(&mut self) {
        for entry in self.by_key.values_mut() {
            if let State::Resident { stuck, .. } = &mut entry.state {
                *stuck = None;
            }
        }
    }

    /// Holds what is known against the worker's own account of itself. What an
    /// earlier run of it had is gone, and so is what it no longer lists; what
    /// it had loaded before we asked is there.
    /// `None` where that account, or a later one, was looked at already.
    pub(super) fn reconcile(&mut self, held: &Held) -> Option<Reconciled> {
        if self.reconciled.is_some_and(|before| held.as_of <= before) {
            return None;
        }
        self.reconciled = Some(held.as_of);
        let restarted = !self.instance.is_empty() && self.instance != held.instance;
        self.instance.clone_from(&held.instance);
        if restarted {
            self.failures.restarted();
        }
        let listed: HashSet<&AdapterKey> = held.adapters.iter().map(|(key, _)| key).collect();
        let is_gone = |key: &AdapterKey, entry: &Entry| match entry.state {
            State::Resident { since, .. } => {
                since < held.as_of && !listed.contains(key) && (restarted || entry.pins == 0)
            }
            State::Loading { .. } | State::Leaving { .. } => false,
        };
        let mut gone: Vec<(u64, AdapterKey)> = self
            .by_key
            .iter()
            .filter(|(key, entry)| is_gone(key, entry))
            .map(|(key, entry)| (entry.used, key.clone()))
            .collect();
        // What was used last is wanted first.
        gone.sort_by_key(|(used, _)| Reverse(*used));
        for (_, key) in &gone {
            self.drop_entry(key);
        }
        for (key, bytes) in &held.adapters {
            self.adopt(key, *bytes, held.as_of);
        }
        let gone: Vec<AdapterKey> = gone.into_iter().map(|(_, key)| key).collect();
        if restarted {
            let before = std::mem::take(&mut self.lost);
            self.lost = gone.iter().chain(&before).filter(|key| !self.by_key.contains_key(key)).cloned().collect();
        }
        Some(Reconciled { restarted, gone })
    }

    /// Takes an adapter for loaded that the worker lists and nobody asked for
    /// here.
    fn adopt(&mut self, key: &AdapterKey, bytes: u64, since: Instant) {
        if self.by_key.contains_key(key) {
            return;
        }
        self.clock += 1;
        let state = State::Resident { bytes, since, adopted: true, stuck: None };
        // As if it had been used longest ago.
        self.insert(key.clone(), Entry { used: 0, ..Entry::new(self.clock, state, since) });
    }

    fn insert(&mut self, key: AdapterKey, entry: Entry) {
        self.held.add(&entry);
        self.held.pins += entry.pins;
        self.by_key.insert(key, entry);
    }

    fn drop_entry(&mut self, key: &AdapterKey) {
        if let Some(entry) = self.by_key.remove(key) {
            self.held.remove(&entry);
            self.held.pins -= entry.pins;
            self.held.retired -= usize::from(entry.retired);
        }
    }
}

// === impl Totals ===

impl Totals {
    fn add(&mut self, entry: &Entry) {
        match entry.state {
            State::Loading { .. } => self.loading += 1,
            State::Leaving { .. } => self.leaving += 1,
            State::Resident { bytes, .. } => {
                self.resident += 1;
                self.bytes += bytes;
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        match entry.state {
            State::Loading { .. } => self.loading -= 1,
            State::Leaving { .. } => self.leaving -= 1,
            State::Resident { bytes, .. } => {
                self.resident -= 1;
                self.bytes -= bytes;
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    /// How long ago it was last asked for.
    pub(super) fn unused_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.used_at)
    }

    fn new(born: u64, state: State, now: Instant) -> Self {
        Self { born, state, pins: 0, used: born, used_at: now, spare: false, retired: false }
    }

    /// Loaded by us, and used by nobody for so long.
    pub(super) fn is_unused(&self, now: Instant, idle: Duration) -> bool {
        let resident = matches!(self.state, State::Resident { adopted: false, .. });
        resident && self.pins == 0 && now.saturating_duration_since(self.used_at) >= idle
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn pins(&self) -> usize {
        self.pins
    }

    pub(super) fn used_at(&self) -> Instant {
        self.used_at
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    fn is_spare(&self, now: Instant) -> bool {
        self.spare && now.saturating_duration_since(self.used_at) >= SPARE
    }

    /// Loaded, used by nobody, and may be unloaded.
    fn is_free(&self, now: Instant) -> bool {
        let State::Resident { stuck, .. } = self.state else { return false };
        self.pins == 0 && stuck.is_none_or(|since| now >= since + STUCK)
    }
}
