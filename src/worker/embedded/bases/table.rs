//! The decisions of [`Bases`](super::Bases), at one moment: who joins what,
//! whose memory comes next, and what has to give way for it. Nothing in here
//! waits or takes long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Budget;
use crate::types::BaseName;
use crate::worker::WorkerError;

use super::{Account, Entry};

/// How long a base model that could not be loaded is not tried again; doubles each time.
const BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// See [`Table::keep`]; time enough for a gateway to come back with the call that it loaded an adapter for.
const KEPT: Duration = Duration::from_secs(1);
/// No claim waits longer than this for base models that are kept again and again.
const LONGEST_KEPT: Duration = Duration::from_secs(3);
/// How often it is looked whether caches have given back what was set aside.
const LOOK_AT_POT: Duration = Duration::from_millis(10);

pub(super) struct Table<B> {
    slots: BTreeMap<BaseName, Slot<B>>,
    /// What no base model takes of what all together may.
    free: u64,
    /// Counts calls; the base model with the lowest stamp was used longest ago.
    clock: u64,
    look_again: Option<Instant>,
    broken: fn(&B) -> bool,
}

struct Slot<B> {
    weights: u64,
    /// What it takes while it is not cold.
    cost: u64,
    stage: Stage<B>,
    /// Those who want it loaded, or loaded anew.
    next: Option<Flight>,
    used: u64,
    kept_until: Option<Instant>,
    /// Of the last load, where it failed.
    failure: Option<Failure>,
}

enum Stage<B> {
    Cold,
    /// Its memory is its own, and caches have yet to give some of it back.
    SetAside(Flight),
    Loading(Flight),
    Loaded {
        base: Arc<B>,
        flight: Flight,
        /// Another has a claim to its memory: it takes no further calls.
        closing: bool,
    },
    Leaving,
}

/// One load, and the calls that it is for.
struct Flight {
    number: u64,
    since: Instant,
    tickets: usize,
    progress: watch::Sender<Progress>,
}

/// How far it is for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    Waiting,
    Loading,
    Ready,
    /// It is in memory after all, and has to be asked for anew.
    Again,
    Failed(WorkerError),
}

struct Failure {
    error: WorkerError,
    back_off: Duration,
    until: Instant,
}

/// A call's place in a flight.
pub(super) struct Place {
    pub(super) flight: u64,
    pub(super) progress: watch::Receiver<Progress>,
}

/// What is to be done now, outside of the lock.
pub(super) enum Order<B> {
    Load { name: BaseName },
    Unload { name: BaseName, base: Arc<B> },
}

// === impl Table ===

impl<B> Table<B> {
    pub(super) fn new(entries: &[Entry], free: u64, broken: fn(&B) -> bool) -> Self {
        let slots = entries.iter().map(|entry| (entry.name.clone(), Slot::new(entry)));
        Self { slots: slots.collect(), free, clock: 0, look_again: None, broken }
    }

    pub(super) fn names(&self) -> Vec<BaseName> {
        self.slots.keys().cloned().collect()
    }

    /// A place among those who use the base model or wait for it.
    pub(super) fn ask(&mut self, name: &BaseName, now: Instant) -> Result<Place, WorkerError> {
        let broken = self.broken;
        self.clock += 1;
        let slot = self.slots.get_mut(name);
        let slot = slot.ok_or_else(|| WorkerError::Unavailable(format!("{name} is not served here")))?;
        if let (Stage::Cold, Some(failure)) = (&slot.stage, &slot.failure)
            && now < failure.until
        {
            return Err(failure.error.clone());
        }
        let flight = match &mut slot.stage {
            Stage::SetAside(flight) | Stage::Loading(flight) => flight,
            Stage::Loaded { base, flight, closing: false } if !broken(base) => {
                slot.used = self.clock;
                flight
            }
            _ => slot.next.get_or_insert_with(|| Flight::new(self.clock, now)),
        };
        flight.tickets += 1;
        Ok(Place { flight: flight.number, progress: flight.progress.subscribe() })
    }

    pub(super) fn release(&mut self, name: &BaseName, flight: u64) {
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(name) else { return };
        if let Some(next) = slot.next.as_mut().filter(|next| next.number == flight) {
            next.tickets -= 1;
            return;
        }
        // One that is closing stays the one that was used longest ago, or the claim would turn to another each time.
        if let Stage::Loaded { closing: false, .. } = slot.stage {
            slot.used = self.clock;
        }
        if let Some(current) = slot.stage.flight().filter(|current| current.number == flight) {
            current.tickets -= 1;
        }
    }

    /// `None` where that load is not there any more.
    pub(super) fn base(&self, name: &BaseName, number: u64) -> Option<Arc<B>> {
        match &self.slots.get(name)?.stage {
            Stage::Loaded { base, flight, .. } if flight.number == number => Some(base.clone()),
            _ => None,
        }
    }

    /// The base model does not have to give way for a moment.
    pub(super) fn keep(&mut self, name: &BaseName, now: Instant) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.kept_until = Some(now + KEPT);
        }
    }

    /// Meets the claims in the order in which they came, as far as there is memory, and lets go of what stands in the
    /// way of the first that cannot be met.
    pub(super) fn advance(&mut self, pot: &Budget, now: Instant) -> Vec<Order<B>> {
        let mut orders = Vec::new();
        self.look_again = None;
        self.unload_broken(&mut orders);
        for slot in self.slots.values_mut() {
            slot.next.take_if(|next| next.tickets == 0);
        }
        loop {
            self.settle(pot, &mut orders);
            if self.slots.values().any(|slot| matches!(slot.stage, Stage::SetAside(_))) {
                self.look_again = Some(now + LOOK_AT_POT);
                return orders;
            }
            let Some(name) = self.first_claim() else {
                self.close(&[]);
                return orders;
            };
            let free = self.free;
            let slot = self.slots.get_mut(&name).expect("a claim is of a slot");
            if slot.cost > free {
                self.make_way(&name, now, &mut orders);
                return orders;
            }
            self.free -= slot.cost;
            pot.set_aside(slot.cost);
            slot.stage = slot.next.take().map_or(Stage::Cold, Stage::SetAside);
        }
    }

    /// When it is worth another look though nobody has come or gone.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.look_again
    }

    /// Starts loads whose memory is there now, and gives it back where nobody waits any more.
    fn settle(&mut self, pot: &Budget, orders: &mut Vec<Order<B>>) {
        for (name, slot) in &mut self.slots {
            if !matches!(slot.stage, Stage::SetAside(_)) {
                continue;
            }
            let Stage::SetAside(flight) = std::mem::replace(&mut slot.stage, Stage::Cold) else { continue };
            if flight.tickets == 0 {
                self.free += slot.cost;
                pot.give_back(slot.cost);
            } else if pot.overdrawn() {
                slot.stage = Stage::SetAside(flight);
            } else {
                flight.progress.send_replace(Progress::Loading);
                orders.push(Order::Load { name: name.clone() });
                slot.stage = Stage::Loading(flight);
            }
        }
    }

    fn first_claim(&self) -> Option<BaseName> {
        let cold = self.slots.iter().filter(|(_, slot)| matches!(slot.stage, Stage::Cold));
        let claims = cold.filter_map(|(name, slot)| Some((slot.next.as_ref()?.number, name)));
        claims.min().map(|(_, name)| name.clone())
    }

    /// Chooses what gives way: first what nobody uses, then what was used longest ago.
    fn make_way(&mut self, claim: &BaseName, now: Instant, orders: &mut Vec<Order<B>>) {
        let (needed, since) = match &self.slots[claim] {
            Slot { cost, next: Some(next), .. } => (*cost, next.since),
            _ => return,
        };
        let leaving = self.slots.values().filter(|slot| matches!(slot.stage, Stage::Leaving));
        let mut coming = self.free + leaving.map(|slot| slot.cost).sum::<u64>();
        let mut candidates = Vec::new();
        for (name, slot) in &self.slots {
            let Stage::Loaded { flight, .. } = &slot.stage else { continue };
            let kept_until = slot.kept_until.map(|until| until.min(since + LONGEST_KEPT));
            match kept_until.filter(|until| *until > now) {
                Some(until) => self.look_again = Some(self.look_again.map_or(until, |at| at.min(until))),
                None => candidates.push((flight.tickets > 0, slot.used, name.clone(), slot.cost)),
            }
        }
        candidates.sort_unstable();
        let mut chosen = Vec::new();
        for (in_use, _, name, cost) in candidates {
            if coming >= needed {
                break;
            }
            coming += cost;
            if !in_use {
                self.unload(&name, orders);
            }
            chosen.push(name);
        }
        self.close(&chosen);
    }

    /// Those `chosen` take no further calls, and all others do.
    fn close(&mut self, chosen: &[BaseName]) {
        for (name, slot) in &mut self.slots {
            let Stage::Loaded { closing, .. } = &mut slot.stage else { continue };
            let was = std::mem::replace(closing, chosen.contains(name));
            if was
                && !*closing
                && let Some(next) = slot.next.take()
            {
                next.progress.send_replace(Progress::Again);
            }
        }
    }

    fn unload_broken(&mut self, orders: &mut Vec<Order<B>>) {
        let gone = |slot: &Slot<B>| match &slot.stage {
            Stage::Loaded { base, flight, .. } => flight.tickets == 0 && (self.broken)(base),
            _ => false,
        };
        let gone: Vec<BaseName> =
            self.slots.iter().filter(|(_, slot)| gone(slot)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.unload(&name, orders);
        }
    }

    fn unload(&mut self, name: &BaseName, orders: &mut Vec<Order<B>>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        match std::mem::replace(&mut slot.stage, Stage::Leaving) {
            Stage::Loaded { base, .. } => orders.push(Order::Unload { name: name.clone(), base }),
            other => slot.stage = other,
        }
        slot.kept_until = None;
    }

    /// A load has ended well. Returns what the weights take.
    pub(super) fn loaded(&mut self, name: &BaseName, base: B) -> u64 {
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(name) else { return 0 };
        if let Stage::Loading(flight) = std::mem::replace(&mut slot.stage, Stage::Cold) {
            flight.progress.send_replace(Progress::Ready);
            slot.stage = Stage::Loaded { base: Arc::new(base), flight, closing: false };
        }
        (slot.used, slot.failure) = (self.clock, None);
        slot.weights
    }

    /// A load has ended with nothing; its memory is free.
    pub(super) fn failed(&mut self, name: &BaseName, pot: &Budget, now: Instant, why: &str) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let error = WorkerError::Unavailable(format!("{name} cannot be loaded: {why}"));
        if let Stage::Loading(flight) = std::mem::replace(&mut slot.stage, Stage::Cold) {
            self.free += slot.cost;
            pot.give_back(slot.cost);
            flight.progress.send_replace(Progress::Failed(error.clone()));
        }
        let before = slot.failure.as_ref().map(|failure| failure.back_off);
        let back_off = before.map_or(BACK_OFF, |before| (2 * before).min(LONGEST_BACK_OFF));
        slot.failure = Some(Failure { error, back_off, until: now + back_off });
    }

    /// One that was leaving has left. Returns what its weights took.
    pub(super) fn unloaded(&mut self, name: &BaseName, pot: &Budget) -> u64 {
        let Some(slot) = self.slots.get_mut(name) else { return 0 };
        slot.stage = Stage::Cold;
        self.free += slot.cost;
        pot.give_back(slot.cost);
        slot.weights
    }

    pub(super) fn account(&self, now: Instant) -> Account {
        let mut account = Account::default();
        let mut able = false;
        for (name, slot) in &self.slots {
            let failure = slot.failure.as_ref().filter(|failure| now < failure.until);
            match (&slot.stage, failure) {
                (Stage::Cold, Some(failure)) => account.unable = Some(failure.error.to_string()),
                _ => able = true,
            }
            if !matches!(slot.stage, Stage::Loaded { closing: false, .. }) {
                account.cold.push(name.clone());
            }
            if !matches!(slot.stage, Stage::Cold) {
                account.weights += slot.weights;
            }
        }
        account.unable.take_if(|_| able);
        account
    }

    pub(super) fn each_loaded(&self, mut each: impl FnMut(&B)) {
        for slot in self.slots.values() {
            if let Stage::Loaded { base, .. } = &slot.stage {
                each(base);
            }
        }
    }
}

// === impl Slot ===

impl<B> Slot<B> {
    fn new(entry: &Entry) -> Self {
        let (weights, cost) = (entry.weights, entry.share.cost);
        Self { weights, cost, stage: Stage::Cold, next: None, used: 0, kept_until: None, failure: None }
    }
}

// === impl Stage ===

impl<B> Stage<B> {
    fn flight(&mut self) -> Option<&mut Flight> {
        match self {
            Self::SetAside(flight) | Self::Loading(flight) | Self::Loaded { flight, .. } => Some(flight),
            Self::Cold | Self::Leaving => None,
        }
    }
}

// === impl Flight ===

impl Flight {
    fn new(number: u64, since: Instant) -> Self {
        Self { number, since, tickets: 0, progress: watch::Sender::new(Progress::Waiting) }
    }
}
