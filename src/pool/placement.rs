//! Which worker should hold which adapter: a plan, as a pure function of what
//! is wanted and what is there, and the loop that carries it out.
//!
//! Copies beyond what is wanted are spare: they are the first to make room, and
//! are unloaded when they were not used for a while. What is wanted and missing
//! is loaded where there is room or a spare copy. What else has to give way,
//! requests decide when they come, by what was used longest ago.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Pool;
use super::demand::Wanted;
use super::rank::rank;
use super::worker::{State, Worker};
use crate::types::{AdapterKey, BaseName};

/// How often the plan is made.
const INTERVAL: Duration = Duration::from_millis(500);
/// Loads that one plan starts at a worker, so that requests find it responsive.
const LOADS: usize = 2;
/// A spare copy that was not used for so long is unloaded.
const SPARE: Duration = Duration::from_secs(30);

/// What the plan has to know of a worker.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub name: Arc<str>,
    pub usable: bool,
    pub bases: HashSet<BaseName>,
    /// Loaded, or about to be; with when it was used last.
    pub held: HashMap<AdapterKey, Instant>,
    /// Of those, what nothing has used for a while.
    pub unused: HashSet<AdapterKey>,
    /// What it may not hold, or cannot load at present.
    pub refused: HashSet<AdapterKey>,
    /// Adapters that can be loaded without taking another's place, but for a
    /// spare one's.
    pub room: usize,
    /// Adapters of the usual size that fit in all.
    pub places: usize,
    pub leases: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Load { worker: usize, key: AdapterKey },
    Release { worker: usize, key: AdapterKey },
}

/// What to do so that each adapter has its copies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    /// Copies beyond those that are wanted, by worker.
    pub spare: Vec<HashSet<AdapterKey>>,
}

pub(super) fn plan(wanted: &[Wanted], workers: &[View]) -> Plan {
    let mut plan = Plan { actions: Vec::new(), spare: vec![HashSet::new(); workers.len()] };
    let mut loads: HashMap<usize, usize> = HashMap::new();
    let mut places: HashMap<&BaseName, usize> = HashMap::new();
    for Wanted { artifact, copies, .. } in wanted {
        let key = &artifact.key;
        // What is asked for most has its places first; what does not fit beside it is spare wherever it is.
        let serving = || workers.iter().enumerate().filter(|(_, it)| it.usable && it.bases.contains(&artifact.base));
        let left = places.entry(&artifact.base).or_insert_with(|| serving().map(|(_, it)| it.places).sum());
        let copies = (*copies).min(serving().count()).min(*left);
        *left -= copies;
        let salt = key.to_string();
        let mut holders: Vec<(usize, &View, Instant)> =
            serving().filter_map(|(worker, view)| Some((worker, view, *view.held.get(key)?))).collect();
        // Requests go to the workers that are less busy, and there the copies stay.
        holders.sort_by_cached_key(|(_, it, used)| (Reverse(*used), rank(&salt, &it.name)));
        for (worker, view, _) in holders.iter().skip(copies) {
            plan.spare[*worker].insert(key.clone());
            if view.unused.contains(key) {
                plan.actions.push(Action::Release { worker: *worker, key: key.clone() });
            }
        }
        let missing = copies.saturating_sub(holders.len());
        if missing == 0 {
            continue;
        }
        let lacking = serving().filter(|(_, it)| !it.held.contains_key(key) && !it.refused.contains(key));
        let begun = |worker: usize| loads.get(&worker).copied().unwrap_or(0);
        let able = |(worker, view): &(usize, &View)| begun(*worker) < LOADS.min(view.room);
        let mut lacking: Vec<(usize, &View)> = lacking.filter(able).collect();
        lacking.sort_by_cached_key(|(_, it)| (it.leases, rank(&salt, &it.name)));
        for (worker, _) in lacking.into_iter().take(missing) {
            *loads.entry(worker).or_default() += 1;
            plan.actions.push(Action::Load { worker, key: key.clone() });
        }
    }
    plan
}

// === impl Pool ===

impl Pool {
    /// Keeps adapters where they are wanted, and unloads what leaves the
    /// catalogue. Never returns.
    pub async fn keep_placed(&self) {
        let mut changes = self.catalogue().subscribe();
        let mut known = self.catalogue().keys();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut followed = true;
        loop {
            tokio::select! {
                biased;
                changed = changes.changed(), if followed => {
                    followed = changed.is_ok();
                    let now = self.catalogue().keys();
                    self.published(&known, &now);
                    known = now;
                }
                _ = ticks.tick() => {}
            }
            self.place();
        }
    }

    fn published(&self, before: &HashSet<AdapterKey>, now: &HashSet<AdapterKey>) {
        for gone in before.difference(now) {
            self.workers().iter().for_each(|worker| worker.residency().retire(gone));
            self.demand().forget(gone);
        }
        for new in now.difference(before).filter_map(|key| self.catalogue().get(key)) {
            self.demand().asked(&new, 0, Instant::now());
        }
    }

    /// Makes the plan and starts what it says.
    pub(super) fn place(&self) {
        let workers = self.workers();
        for worker in workers.iter() {
            worker.look();
        }
        // Before the lock that every request takes.
        let mut serving: HashMap<BaseName, (f64, usize)> = HashMap::new();
        for worker in workers.iter() {
            for base in worker.bases() {
                let (speed, count) = serving.entry(base.clone()).or_default();
                *speed += worker.rate();
                *count += 1;
            }
        }
        let speed = |base: &BaseName| serving.get(base).map_or(1.0, |(speed, count)| speed / *count as f64);
        let count = |base: &BaseName| serving.get(base).map_or(0, |(_, count)| *count);
        let wanted = self.demand().tick(Instant::now(), speed, count);
        let views: Vec<View> = workers.iter().map(|worker| view(worker, &wanted)).collect();
        let plan = plan(&wanted, &views);
        for (worker, spare) in workers.iter().zip(&plan.spare) {
            worker.residency().spare(spare);
        }
        for action in plan.actions {
            match action {
                Action::Load { worker, key } => {
                    if let Some(artifact) = self.catalogue().get(&key) {
                        workers[worker].residency().prefetch(&artifact);
                    }
                }
                Action::Release { worker, key } => workers[worker].residency().release(&key),
            }
        }
        let unproven = |it: &&Wanted| self.catalogue().probe(&it.artifact.base, &it.artifact.key.digest).is_none();
        for wanted in wanted.iter().filter(unproven) {
            let holder = workers.iter().find(|worker| worker.has(&wanted.artifact.key) && worker.leases() == 0);
            if let Some(holder) = holder {
                holder.residency().prove_later(&wanted.artifact);
            }
        }
    }
}

fn view(worker: &Arc<Worker>, wanted: &[Wanted]) -> View {
    let residency = worker.residency();
    let mut refused = residency.refused();
    let never = wanted.iter().map(|wanted| &wanted.artifact.key).filter(|key| !worker.driver().accepts(key));
    refused.extend(never.cloned());
    View {
        name: worker.name().clone(),
        usable: worker.state() == State::Healthy,
        bases: worker.bases().cloned().collect(),
        held: residency.held().into_iter().collect(),
        unused: residency.unused(SPARE).into_iter().collect(),
        refused,
        room: residency.room(),
        places: residency.places(),
        leases: worker.leases(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::Artifact;
    use crate::types::TenantId;

    fn key(number: usize) -> AdapterKey {
        AdapterKey { tenant: TenantId::new("t"), name: number.to_string().into(), revision: 1, digest: "d".into() }
    }

    fn wanted(number: usize, copies: usize) -> Wanted {
        Wanted { artifact: Artifact { key: key(number), base: BaseName::new("base") }, copies, worth: 1.0 }
    }

    fn worker(name: usize, held: &[usize], room: usize) -> View {
        View {
            name: name.to_string().into(),
            usable: true,
            bases: HashSet::from([BaseName::new("base")]),
            held: held.iter().map(|number| (key(*number), Instant::now())).collect(),
            unused: held.iter().copied().map(key).collect(),
            refused: HashSet::new(),
            room,
            places: 10,
            leases: 0,
        }
    }

    fn actions(wanted: &[Wanted], workers: &[View]) -> Vec<Action> {
        plan(wanted, workers).actions
    }

    #[test]
    fn a_copy_goes_where_there_is_room_and_least_to_do() {
        let mut workers = [worker(0, &[1], 9), worker(1, &[], 0), worker(2, &[], 9), worker(3, &[], 9)];
        workers[2].leases = 3;
        assert_eq!(actions(&[wanted(1, 1)], &workers), []);
        assert_eq!(actions(&[wanted(1, 2)], &workers), [Action::Load { worker: 3, key: key(1) }]);
        workers[3].usable = false;
        assert_eq!(actions(&[wanted(1, 2)], &workers), [Action::Load { worker: 2, key: key(1) }]);
        workers[2].refused.insert(key(1));
        assert_eq!(actions(&[wanted(1, 2)], &workers), []);
    }

    #[test]
    fn a_copy_too_many_is_spare_and_leaves_when_it_was_not_used() {
        let mut workers = [worker(0, &[1], 9), worker(1, &[1], 9), worker(2, &[1], 9)];
        workers.iter_mut().for_each(|worker| worker.unused.clear());
        let spare = |workers: &[View]| plan(&[wanted(1, 2)], workers).spare.iter().position(|it| !it.is_empty());
        let last = spare(&workers).expect("one is too many");
        assert_eq!(actions(&[wanted(1, 2)], &workers), [], "it is used");
        workers[last].unused.insert(key(1));
        assert_eq!(actions(&[wanted(1, 2)], &workers), [Action::Release { worker: last, key: key(1) }]);
        workers[last].held.clear();
        assert_eq!(spare(&workers), None);
    }

    #[test]
    fn where_not_all_fit_those_that_are_worth_least_are_spare() {
        let mut workers = [worker(0, &[1, 2, 3], 0), worker(1, &[4, 5], 0)];
        workers.iter_mut().for_each(|worker| worker.places = 2);
        let all = [wanted(4, 1), wanted(1, 2), wanted(3, 1), wanted(2, 1), wanted(5, 1)];
        assert_eq!(plan(&all, &workers).spare, [HashSet::from([key(2)]), HashSet::from([key(5)])]);
    }

    proptest! {
        #[test]
        fn a_plan_leads_to_what_is_wanted_and_then_changes_nothing(
            held in prop::collection::vec(prop::collection::hash_set(0_usize..6, 0..6), 1..6),
            copies in prop::collection::vec(1_usize..4, 6),
        ) {
            let mut workers: Vec<View> = held.iter().enumerate().map(|(name, held)| {
                worker(name, &held.iter().copied().collect::<Vec<_>>(), 9)
            }).collect();
            let all: Vec<Wanted> = copies.iter().enumerate().map(|(number, copies)| wanted(number, *copies)).collect();
            for _ in 0..30 {
                for action in actions(&all, &workers) {
                    match action {
                        Action::Load { worker, key } => {
                            let before = workers[worker].held.insert(key.clone(), Instant::now());
                            prop_assert!(before.is_none(), "it was there");
                            workers[worker].unused.insert(key);
                        }
                        Action::Release { worker, key } => {
                            prop_assert!(workers[worker].held.remove(&key).is_some());
                            workers[worker].unused.remove(&key);
                        }
                    }
                }
            }
            prop_assert_eq!(actions(&all, &workers), []);
            for wanted in &all {
                let holders = workers.iter().filter(|worker| worker.held.contains_key(&wanted.artifact.key)).count();
                prop_assert_eq!(holders, wanted.copies.min(workers.len()));
            }
        }
    }
}
