//! A queue that is fair in tokens: between the classes, and within a class
//! between the tenants, by their weights. Requests of one tenant and class are
//! served in the order in which they came.
//! Pure: no clock, no locks. It does not decide how many requests run at once,
//! and does not know what waits in it.
//!
//! # How
//! A Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language
//! Models", OSDI 2024), with weights, in two levels. Each class, and in each
//! class each tenant, counts what it was served, in tokens by its weight. Of
//! those that wait the one that counts least is next; equals go by who has
//! been waiting first. What a request is expected to take counts when it is
//! served, and is corrected when it is settled. Who comes to wait is lifted to
//! the least of those who wait, or, where none does, to where the last one
//! left: to have been away earns nothing. Nor does what is given back for a
//! request served before: it does not bring a tenant below where it came back.
//!
//! # What holds of it
//! Let `U(i)` be the largest of tenant i's requests by weight, tokens ÷ weight,
//! and `W(i)` what the requests of i that are served during some time take, by
//! weight. If i waits throughout that time, for any j of its class
//!
//! ```text
//! W(j) − W(i) ≤ U(i) + U(j) + 4 · E
//! ```
//!
//! whether j waits all the time or comes and goes. So
//! `|W(i) − W(j)| ≤ U(i) + U(j) + 4 · E` where both wait throughout. `E` is the
//! most by which a tenant's requests that run at one time are off together,
//! `Σ |actual − expected| ÷ weight`; 0 where the expectations are right. The
//! same holds between the two classes, by the weights of the classes.
//!
//! A tenant that may not have more seats now does not wait in this sense.
//!
//! - No request starves: what is served before it is bounded by its tenant's
//!   own backlog and the above.
//! - While something waits of a tenant that may have its seats there is a next one.
//! - Tenants are remembered while they wait, run or are ahead of those who wait.

mod lane;
mod level;
#[cfg(test)]
mod tests;

use std::hash::Hash;

use crate::types::Priority;
use lane::{Item, Lane};
use level::{Level, Stay, cost};

/// What asks for service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask<K> {
    pub tenant: K,
    pub class: Priority,
    /// The tenant's; 0 counts as 1.
    pub weight: u32,
    /// What it is expected to take; 0 counts as 1.
    pub tokens: u64,
    /// Sequences that it occupies.
    pub seats: u32,
}

/// How many requests may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of one tenant, in all classes.
    pub of_tenant: usize,
    pub of_all: usize,
}

/// The bound that keeps a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    OfTenant,
    OfAll,
}

/// Where a request waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ticket<K> {
    tenant: K,
    class: Priority,
    number: u64,
}

/// A request waits now.
#[derive(Debug)]
pub(super) struct Pushed<K, T> {
    pub ticket: Ticket<K>,
    /// The one that had to leave for it.
    pub displaced: Option<T>,
}

/// The request whose turn it is.
#[derive(Debug)]
pub(super) struct Served<K, T> {
    pub value: T,
    pub account: Account<K>,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next<K> {
    class: Priority,
    tenant: K,
}

/// What was charged for a request that is served. Its tenant is remembered
/// until it is settled.
#[must_use = "has to be settled"]
#[derive(Debug)]
pub(super) struct Account<K> {
    tenant: K,
    class: Priority,
    weight: u32,
    tokens: u64,
    seats: u32,
    of_class: Stay,
    of_tenant: Stay,
}

#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    classes: Level<Priority>,
    lanes: [Lane<K, T>; Priority::ALL.len()],
    /// The number of the next request.
    number: u64,
}

/// The share of a class while both wait.
fn class_weight(class: Priority) -> u32 {
    match class {
        Priority::Interactive => 8,
        Priority::Batch => 1,
    }
}

// === impl Account ===

impl<K> Account<K> {
    pub(super) fn seats(&self) -> u32 {
        self.seats
    }

    pub(super) fn tenant(&self) -> &K {
        &self.tenant
    }
}

#[cfg(test)]
impl<K> Account<K> {
    fn class(&self) -> Priority {
        self.class
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    /// What was charged.
    fn tokens(&self) -> u64 {
        self.tokens
    }
}

// === impl FairQueue ===

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { classes: Level::default(), lanes: Default::default(), number: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord, T> FairQueue<K, T> {
    /// Makes a request wait. Where no more may wait in all, an interactive one
    /// takes the place of one of [`Priority::Batch`], if there is any, and any
    /// other that of a tenant of which much more waits than of its own.
    pub(super) fn push(&mut self, ask: Ask<K>, bounds: Bounds, value: T) -> Result<Pushed<K, T>, (Full, T)> {
        if self.len_of(&ask.tenant) >= bounds.of_tenant {
            return Err((Full::OfTenant, value));
        }
        let full = self.len() >= bounds.of_all;
        let displaced = if full { self.give_way(&ask) } else { None };
        if full && displaced.is_none() {
            return Err((Full::OfAll, value));
        }
        Ok(Pushed { ticket: self.enqueue(ask, value), displaced })
    }

    fn enqueue(&mut self, ask: Ask<K>, value: T) -> Ticket<K> {
        let Ask { tenant, class, weight, tokens, seats } = ask;
        let number = self.number;
        self.number += 1;
        let lane = self.lane_mut(class);
        let was_empty = lane.lines.is_empty();
        lane.put(&tenant, number, Item { value, weight, tokens, seats });
        if was_empty {
            self.classes.enter(&class, number);
        }
        Ticket { tenant, class, number }
    }

    /// A request leaves without having been served: its client has gone.
    /// `None` if it does not wait any more.
    pub(super) fn remove(&mut self, ticket: Ticket<K>) -> Option<T> {
        self.take(&ticket).map(|item| item.value)
    }

    /// Serves the next request if its seats are free. While they are not nothing
    /// else is served, or large requests would wait for ever.
    pub(super) fn pop(&mut self, next: Next<K>, free_seats: u32) -> Option<Served<K, T>> {
        let Next { class, tenant } = next;
        let lane = self.lane_mut(class);
        let (&number, next) = lane.lines.get(&tenant)?.items.first_key_value()?;
        if next.seats > free_seats {
            return None;
        }
        let (weight, tokens, seats) = (next.weight, next.tokens, next.seats);
        let of_tenant = lane.level.serve(&tenant, cost(tokens, weight))?;
        let of_class = self.classes.serve(&class, cost(tokens, class_weight(class)))?;
        let ticket = Ticket { tenant, class, number };
        let value = self.take(&ticket)?.value;
        let account = Account { tenant: ticket.tenant, class, weight, tokens, seats, of_class, of_tenant };
        Some(Served { value, account })
    }

    /// Whose turn it is, of the tenants that `may` have so many seats more.
    pub(super) fn next(&self, may: impl Fn(&K, u32) -> bool) -> Option<Next<K>> {
        let of_class = |class: &Priority| {
            let lane = self.lane(*class);
            let seats = |tenant: &K| lane.lines.get(tenant)?.items.values().next().map(|item| item.seats);
            let tenant = lane.level.in_turn().find(|tenant| seats(tenant).is_some_and(|seats| may(tenant, seats)))?;
            Some(Next { class: *class, tenant: tenant.clone() })
        };
        self.classes.in_turn().find_map(of_class)
    }

    /// A request that was served has ended: what it took takes the place of what
    /// it was expected to take.
    pub(super) fn settle(&mut self, account: Account<K>, actual_tokens: u64) {
        let Account { tenant, class, weight, tokens, of_class, of_tenant, .. } = account;
        let costs = |weight| (cost(tokens, weight), cost(actual_tokens, weight));
        let (expected, actual) = costs(class_weight(class));
        self.classes.settle(&class, &of_class, expected, actual);
        let (expected, actual) = costs(weight);
        self.lane_mut(class).level.settle(&tenant, &of_tenant, expected, actual);
    }

    /// An estimate of the tokens that would be served before this request, were
    /// it pushed now and nothing after it:
    ///
    /// - what waits of its tenant in its class,
    /// - of each other tenant of the class what is served meanwhile: what waits
    ///   of it, but no more than its share by weight beside the tenant's own,
    ///   this request included,
    /// - of the other class likewise, beside all that.
    ///
    /// It takes all counters for equal, so it is off by what the tenants and
    /// classes are ahead of each other: their largest requests, by weight.
    pub(super) fn ahead(&self, ask: &Ask<K>) -> u64 {
        let lane = self.lane(ask.class);
        let own = lane.lines.get(&ask.tenant).map_or(0, |line| line.tokens);
        let request = u128::from(ask.tokens.max(1));
        let others = lane.lines.iter().filter(|(tenant, _)| **tenant != ask.tenant);
        let others = others.map(|(_, line)| line.tokens.min(share(own + request, ask.weight, line.weight())));
        let of_class = others.fold(own, u128::saturating_add);
        let beside = of_class.saturating_add(request);
        let classes = Priority::ALL.into_iter().filter(|class| *class != ask.class);
        let classes = classes
            .map(|class| self.lane(class).tokens.min(share(beside, class_weight(ask.class), class_weight(class))));
        narrow(classes.fold(of_class, u128::saturating_add))
    }

    /// The newest requests of a tenant beyond so many leave, newest first: its
    /// limit was lowered.
    pub(super) fn evict(&mut self, tenant: &K, keep: usize) -> Vec<T> {
        let excess = self.len_of(tenant).saturating_sub(keep);
        (0..excess).map_while(|_| self.remove(self.newest(tenant)?)).collect()
    }

    fn newest(&self, tenant: &K) -> Option<Ticket<K>> {
        let newest = |class| Some((self.lane(class).lines.get(tenant)?.newest()?, class));
        let (number, class) = Priority::ALL.into_iter().filter_map(newest).max()?;
        Some(Ticket { tenant: tenant.clone(), class, number })
    }

    /// The newest request of [`Priority::Batch`] leaves, of the tenant of which most
    /// tokens wait there.
    pub(super) fn shed(&mut self) -> Option<T> {
        let class = Priority::Batch;
        let (tenant, line) = self.lane(class).lines.iter().max_by_key(|(_, line)| line.tokens)?;
        self.remove(Ticket { tenant: tenant.clone(), class, number: line.newest()? })
    }

    /// The one that leaves for a request that comes to a full queue.
    fn give_way(&mut self, ask: &Ask<K>) -> Option<T> {
        if ask.class == Priority::Interactive
            && let Some(shed) = self.shed()
        {
            return Some(shed);
        }
        let lane = self.lane(ask.class);
        let by_weight = |tokens: u128, weight: u32| tokens / u128::from(weight.max(1));
        let (tenant, line) = lane.lines.iter().max_by_key(|(_, line)| by_weight(line.tokens, line.weight()))?;
        let own = lane.lines.get(&ask.tenant).map_or(0, |line| line.tokens) + u128::from(ask.tokens);
        let newest = line.newest()?;
        // It has more even without the one that leaves.
        let left = line.tokens - line.items.get(&newest).map_or(0, |item| u128::from(item.tokens));
        if *tenant == ask.tenant || by_weight(left, line.weight()) <= by_weight(own, ask.weight) {
            return None;
        }
        self.remove(Ticket { tenant: tenant.clone(), class: ask.class, number: newest })
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.len).sum()
    }

    /// How many requests of a tenant wait, in all classes.
    pub(super) fn len_of(&self, tenant: &K) -> usize {
        self.lanes.iter().filter_map(|lane| lane.lines.get(tenant)).map(|line| line.items.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self, ticket: &Ticket<K>) -> Option<Item<T>> {
        let lane = self.lane_mut(ticket.class);
        let item = lane.take(&ticket.tenant, ticket.number)?;
        if lane.lines.is_empty() {
            self.classes.leave(&ticket.class);
        }
        Some(item)
    }

    fn lane(&self, class: Priority) -> &Lane<K, T> {
        &self.lanes[class as usize]
    }

    fn lane_mut(&mut self, class: Priority) -> &mut Lane<K, T> {
        &mut self.lanes[class as usize]
    }
}

#[cfg(test)]
impl<K: Clone + Eq + Hash + Ord, T> FairQueue<K, T> {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The next request of all, if its seats are free.
    pub(super) fn serve(&mut self, free_seats: u32) -> Option<Served<K, T>> {
        let next = self.next(|_, _| true)?;
        self.pop(next, free_seats)
    }

    /// The tokens that wait.
    pub(super) fn tokens(&self) -> u64 {
        narrow(self.lanes.iter().fold(0, |sum, lane| lane.tokens.saturating_add(sum)))
    }

    /// The tenants that are remembered, each class for itself.
    pub(super) fn flows(&self) -> usize {
        self.lanes.iter().map(|lane| lane.level.len()).sum()
    }
}

/// What one of this weight is served while another is served so many tokens.
fn share(tokens: u128, weight: u32, of_weight: u32) -> u128 {
    tokens.saturating_mul(of_weight.into()) / u128::from(weight.max(1))
}

fn narrow(tokens: u128) -> u64 {
    u64::try_from(tokens).unwrap_or(u64::MAX)
}
