//! One level of the fair queue: flows that share a service by their weights.
//! Knows counters only; what waits, and in which order within a flow, is its
//! owner's.
//!
//! A flow that is at rest, has nothing running and is not ahead of the virtual
//! time is forgotten: it would be lifted when it comes back, as a new one is.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Binary digits of a counter behind the point: a token of the largest weight
/// still counts.
const FRACTION: u32 = 32;

#[derive(Debug)]
pub(super) struct Level<K> {
    flows: HashMap<K, Flow>,
    /// By counter; equals by who came first.
    backlogged: BTreeSet<(u128, u64, K)>,
    /// Not backlogged, with nothing running; all ahead of the virtual time.
    resting: BTreeSet<(u128, K)>,
    /// The counter with which the last one left, for when none is backlogged.
    left_at: u128,
}

#[derive(Debug)]
struct Flow {
    /// Served tokens by weight, and what it was lifted by.
    counter: u128,
    /// When it last became backlogged; names its stay.
    since: u64,
    /// By how much it was ahead then, less what was given back of it since.
    surplus: u128,
    /// Served and not settled.
    running: usize,
    backlogged: bool,
}

/// The stay of a flow during which something was served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stay(u64);

/// What tokens add to the counter of a flow of this weight. Never 0, or requests
/// for nothing would go before all others for ever.
pub(super) fn cost(tokens: u64, weight: u32) -> u128 {
    (u128::from(tokens.max(1)) << FRACTION) / u128::from(weight.max(1))
}

// === impl Level ===

impl<K> Default for Level<K> {
    fn default() -> Self {
        Self { flows: HashMap::new(), backlogged: BTreeSet::new(), resting: BTreeSet::new(), left_at: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord> Level<K> {
    /// The flows that wait, the one to be served next first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &K> {
        self.backlogged.iter().map(|(_, _, key)| key)
    }

    /// The virtual time: where a flow starts that comes now.
    fn now(&self) -> u128 {
        self.backlogged.first().map_or(self.left_at, |(counter, _, _)| *counter)
    }

    /// A flow becomes backlogged. Sequence numbers are given once.
    pub(super) fn enter(&mut self, key: &K, sequence: u64) {
        let now = self.now();
        let (counter, running) = self.take_out(key).map_or((now, 0), |flow| (flow.counter, flow.running));
        let surplus = counter.saturating_sub(now);
        self.put_back(key, Flow { counter: counter.max(now), since: sequence, surplus, running, backlogged: true });
    }

    /// A flow is no longer backlogged.
    pub(super) fn leave(&mut self, key: &K) {
        let Some(flow) = self.take_out(key) else { return };
        if self.backlogged.is_empty() {
            self.left_at = flow.counter;
        }
        self.put_back(key, Flow { backlogged: false, ..flow });
    }

    /// Something of a flow is served, and runs until it is settled.
    pub(super) fn serve(&mut self, key: &K, cost: u128) -> Option<Stay> {
        let mut flow = self.take_out(key)?;
        flow.counter = flow.counter.saturating_add(cost);
        flow.running += 1;
        let stay = Stay(flow.since);
        self.put_back(key, flow);
        Some(stay)
    }

    /// What ran has cost `actual` rather than `expected`.
    pub(super) fn settle(&mut self, key: &K, stay: &Stay, expected: u128, actual: u128) {
        let Some(mut flow) = self.take_out(key) else { return };
        flow.running = flow.running.saturating_sub(1);
        let mut back = expected.saturating_sub(actual);
        if flow.since != stay.0 {
            // Had it cost less at once, the flow would have been lifted by more when it came back.
            back = back.min(flow.surplus);
            flow.surplus -= back;
        }
        flow.counter = flow.counter.saturating_sub(back).saturating_add(actual.saturating_sub(expected));
        self.put_back(key, flow);
    }

    fn take_out(&mut self, key: &K) -> Option<Flow> {
        let flow = self.flows.remove(key)?;
        if flow.backlogged {
            self.backlogged.remove(&(flow.counter, flow.since, key.clone()));
        } else if flow.running == 0 {
            self.resting.remove(&(flow.counter, key.clone()));
        }
        Some(flow)
    }

    fn put_back(&mut self, key: &K, flow: Flow) {
        if flow.backlogged {
            self.backlogged.insert((flow.counter, flow.since, key.clone()));
        } else if flow.running == 0 {
            self.resting.insert((flow.counter, key.clone()));
        }
        self.flows.insert(key.clone(), flow);
        self.forget();
    }

    /// Those at rest that the virtual time has reached.
    fn forget(&mut self) {
        let now = self.now();
        while self.resting.first().is_some_and(|(counter, _)| *counter <= now) {
            if let Some((_, key)) = self.resting.pop_first() {
                self.flows.remove(&key);
            }
        }
    }
}

#[cfg(test)]
impl<K: Clone + Eq + Hash + Ord> Level<K> {
    /// Flows that are remembered.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The sets hold what the flows say, and none is remembered for nothing.
    pub(super) fn is_sound(&self) -> bool {
        let now = self.now();
        self.flows.iter().all(|(key, flow)| {
            let backlogged = self.backlogged.contains(&(flow.counter, flow.since, key.clone()));
            let resting = self.resting.contains(&(flow.counter, key.clone()));
            let rests = !flow.backlogged && flow.running == 0;
            backlogged == flow.backlogged && resting == rests && (!rests || flow.counter > now)
        }) && self.backlogged.len() + self.resting.len() <= self.flows.len()
    }
}
