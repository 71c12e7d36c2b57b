//! The choice of a worker, as a pure function of what is known about each.
//!
//! # The score
//! What a request would have to wait for at a worker, in seconds; the lowest
//! wins:
//!
//! ```text
//! queue + SLOWDOWN · work + ready − saved
//! ```
//!
//! - `queue`: until a place is free, where all are taken; 0 where one is free.
//! - `work`: all that the worker has taken on, prompts and expected answers, as
//!   the time that it takes to do it. A batch shares the machine, so a place
//!   beside others is slower than one alone, but by far less than their whole
//!   work: hence the factor. It is also what keeps adapters where they are: a
//!   worker is left for one that has to load first only when it is busier by
//!   `1 / SLOWDOWN` load times.
//! - `ready`: until the base model and the adapter are loaded there.
//! - `saved`: of the prompt, what the worker's prefix cache holds already.
//!
//! # What holds of it
//! - The pick is never an unusable worker, and one that is still loading what
//!   it should hold only where there is no other.
//! - Of workers with equal queues and work, one that has the adapter wins.
//! - A worker without work is picked before one whose queue is longer than
//!   the time that the first takes to load the adapter.
//!
//! A load that displaces another adapter counts once more ([`DISPLACED`]), since
//! that one has to be loaded again; unless the worker would do nothing
//! otherwise. While a copy is loaded the request itself waits where the adapter
//! is, unless the queue there is longer than [`PATIENCE`] loads: the copy is for
//! those who follow.
//!
//! Where the adapter has to be loaded, it goes to the worker whose own adapters
//! are missed least for it: one with room, or else the one that has not used
//! for longest what it would unload. Together the workers then keep what is
//! used, wherever it is. That decides between workers that would have to load
//! it, are not queueing, and are slower by less than one more load; so it takes
//! nothing from the properties above.

/// The share of a worker's work that a request beside it has to wait for.
pub(super) const SLOWDOWN: f64 = 0.1;

/// What a load that displaces another adapter costs others, in loads: the other
/// one's. In the simulation (`simulation.rs`) more makes for more hits and for
/// longer waits.
const DISPLACED: f64 = 1.0;

/// The longest queue that a request waits in while a copy is loaded elsewhere,
/// in loads.
const PATIENCE: f64 = 15.0;

/// Whether a worker may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Ready,
    /// Loading what it held before it was restarted.
    Restoring,
    /// Unhealthy, draining, or failing; or it will not have this adapter.
    Unusable,
}

/// What a worker has of the adapter that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is loaded there, or none is asked for.
    Resident,
    /// It is being loaded.
    Loading,
    Absent,
}

/// What a choice depends on. Times are in seconds and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub standing: Standing,
    pub presence: Presence,
    /// Until a place is free.
    pub queue: f64,
    /// What the worker has taken on, as far as it can be told: an answer may
    /// be longer than expected.
    pub work: f64,
    /// It has nothing to do.
    pub idle: bool,
    /// Until base model and adapter are loaded; 0 where they are.
    pub ready: f64,
    /// For how long the adapter that would make room was not used; infinite
    /// where there is room.
    pub victim_idle: f64,
    /// What the worker's prefix cache saves.
    pub saved: f64,
    /// Decides between equals: another order of the workers for each adapter,
    /// and always the same one.
    pub rank: u64,
}

/// Why a worker was picked; a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request asks for no adapter.
    Base,
    /// The same conversation was there before.
    Affinity,
    Resident,
    /// The adapter is being loaded there.
    Loading,
    /// Nobody else has the adapter.
    Load,
    /// Others have the adapter and are too busy.
    Spread,
}

// === impl Reason ===

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Affinity => "affinity",
            Self::Resident => "resident",
            Self::Loading => "loading",
            Self::Load => "load",
            Self::Spread => "spread",
        }
    }
}

// === impl Candidate ===

impl Candidate {
    pub(super) fn score(&self) -> f64 {
        self.queue + SLOWDOWN * self.work + self.ready - self.saved
    }

    /// The score, with what the load costs others.
    fn cost(&self) -> f64 {
        let displaces = self.lacks() && self.victim_idle.is_finite() && !self.idle;
        self.score() + if displaces { DISPLACED * self.ready } else { 0.0 }
    }

    /// The adapter would have to be loaded.
    fn lacks(&self) -> bool {
        self.presence == Presence::Absent
    }
}

/// The candidates to take, by their places in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picked {
    pub worker: usize,
    /// Where the adapter should be loaded beside, for requests to come.
    pub copy_to: Option<usize>,
}

/// `None` where no candidate is usable.
pub(super) fn pick(candidates: &[Candidate]) -> Option<Picked> {
    of_standing(candidates, Standing::Ready).or_else(|| of_standing(candidates, Standing::Restoring))
}

fn of_standing(candidates: &[Candidate], standing: Standing) -> Option<Picked> {
    let all = || candidates.iter().enumerate().filter(|(_, it)| it.standing == standing);
    let lowest = |lacks: bool| all().filter(|(_, it)| it.lacks() == lacks).min_by(|one, other| order(one.1, other.1));
    let alone = |worker| Some(Picked { worker, copy_to: None });
    let (having, lacking) = (lowest(false), lowest(true));
    let (index, load) = match (having, lacking) {
        (having, None) => return alone(having?.0),
        (Some(having), Some(lacking)) if having.1.cost() <= lacking.1.cost() => return alone(having.0),
        (_, Some(lacking)) => lacking,
    };
    // It has to be loaded, where it is least missed what goes for it.
    let most = load.score() + load.ready;
    let eligible = |it: &Candidate| it.lacks() && it.queue == 0.0 && it.score() <= most;
    let least = all()
        .filter(|(_, it)| eligible(it))
        .max_by(|one, other| one.1.victim_idle.total_cmp(&other.1.victim_idle).then_with(|| order(other.1, one.1)));
    let target = least.map_or(index, |(least, _)| least);
    let resident = all().filter(|(_, it)| it.presence == Presence::Resident).min_by(|one, other| order(one.1, other.1));
    let idles = |queue: f64| all().any(|(_, other)| other.idle && other.lacks() && other.ready < queue);
    match resident {
        // The copy is for those who follow.
        Some((holder, it)) if !load.idle && it.queue <= PATIENCE * load.ready && !idles(it.queue - it.saved) => {
            Some(Picked { worker: holder, copy_to: Some(target) })
        }
        _ => alone(target),
    }
}

/// By cost; equals by rank.
fn order(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    one.cost().total_cmp(&other.cost()).then(one.rank.cmp(&other.rank))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        let standing = prop_oneof![
            4 => Just(Standing::Ready),
            1 => Just(Standing::Restoring),
            1 => Just(Standing::Unusable),
        ];
        let presence = prop_oneof![
            1 => Just(Presence::Resident),
            1 => Just(Presence::Loading),
            2 => Just(Presence::Absent),
        ];
        let queue = prop_oneof![Just(0.0), 0.0..3.0_f64];
        // A queue is a part of the work.
        let idle = prop_oneof![Just(f64::INFINITY), 0.0..100.0_f64];
        let work = prop_oneof![Just(0.0), 0.0..10.0_f64];
        (standing, presence, queue, work, 0.01..1.0_f64, idle, 0.0..0.3_f64, any::<u64>()).prop_map(
            |(standing, presence, queue, work, load, victim_idle, saved, rank)| {
                let lacks = presence == Presence::Absent;
                Candidate {
                    standing,
                    presence,
                    queue,
                    work: work + queue,
                    idle: work + queue == 0.0,
                    ready: match presence {
                        Presence::Resident => 0.0,
                        Presence::Loading => load / 2.0,
                        Presence::Absent => load,
                    },
                    victim_idle,
                    saved: if lacks { 0.0 } else { saved },
                    rank,
                }
            },
        )
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::vec(candidate(), 0..8)
    }

    proptest! {
        #[test]
        fn the_pick_is_usable_and_restoring_only_where_nobody_is_ready(candidates in candidates()) {
            let ready = candidates.iter().filter(|it| it.standing == Standing::Ready).count();
            let restoring = candidates.iter().filter(|it| it.standing == Standing::Restoring).count();
            match pick(&candidates) {
                None => prop_assert_eq!(ready + restoring, 0),
                Some(picked) if ready > 0 => prop_assert_eq!(candidates[picked.worker].standing, Standing::Ready),
                Some(picked) => prop_assert_eq!(candidates[picked.worker].standing, Standing::Restoring),
            }
        }

        #[test]
        fn with_equal_loads_a_worker_that_has_the_adapter_wins(
            mut candidates in candidates(), queue in 0.0..3.0_f64, work in 0.0..10.0_f64,
        ) {
            for candidate in &mut candidates {
                (candidate.queue, candidate.work, candidate.idle) = (queue, work, false);
            }
            let ready = |it: &&Candidate| it.standing == Standing::Ready;
            let resident = candidates.iter().filter(ready).any(|it| it.presence == Presence::Resident);
            if let Some(Picked { worker: picked, .. }) = pick(&candidates).filter(|_| resident) {
                // Or one that will have it, where a cached prefix is worth more than the rest of the load.
                prop_assert!(!candidates[picked].lacks());
                if candidates[picked].saved == 0.0 {
                    prop_assert_eq!(candidates[picked].presence, Presence::Resident);
                }
            }
        }

        #[test]
        fn nobody_idles_while_another_queues_for_longer_than_one_load(candidates in candidates()) {
            let Some(picked) = pick(&candidates).map(|picked| candidates[picked.worker]) else { return Ok(()) };
            let idle = candidates.iter().filter(|it| it.standing == picked.standing && it.idle);
            for idle in idle {
                prop_assert!(picked.queue - picked.saved <= idle.ready, "{picked:?} before {idle:?}");
            }
        }

        #[test]
        fn of_those_that_have_the_adapter_the_one_that_is_soonest_is_picked(candidates in candidates()) {
            let Some(picked) = pick(&candidates).map(|picked| candidates[picked.worker]) else { return Ok(()) };
            let resident = |it: &&Candidate| it.standing == picked.standing && it.presence == Presence::Resident;
            if picked.presence == Presence::Resident {
                prop_assert!(candidates.iter().filter(resident).all(|it| it.score() >= picked.score()));
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(candidates in candidates()) {
            let mut ranks: Vec<u64> = candidates.iter().map(|it| it.rank).collect();
            ranks.sort_unstable();
            ranks.dedup();
            prop_assume!(ranks.len() == candidates.len());
            let reversed: Vec<Candidate> = candidates.iter().rev().copied().collect();
            let of = |candidates: &[Candidate]| {
                pick(candidates).map(|it| (candidates[it.worker], it.copy_to.map(|copy| candidates[copy])))
            };
            prop_assert_eq!(of(&candidates), of(&reversed));
        }
    }

    fn idle(presence: Presence, rank: u64) -> Candidate {
        let ready = if presence == Presence::Resident { 0.0 } else { 0.1 };
        let (standing, victim_idle) = (Standing::Ready, f64::INFINITY);
        Candidate { standing, presence, queue: 0.0, work: 0.0, idle: false, ready, victim_idle, saved: 0.0, rank }
    }

    fn worker(candidates: &[Candidate]) -> Option<usize> {
        pick(candidates).map(|picked| picked.worker)
    }

    #[test]
    fn what_has_to_be_loaded_goes_where_least_is_lost_for_it() {
        let displacing = |victim_idle, rank| Candidate { victim_idle, ..idle(Presence::Absent, rank) };
        assert_eq!(worker(&[displacing(5.0, 0), displacing(60.0, 1), displacing(20.0, 2)]), Some(1));
        let roomy = Candidate { work: 0.5, ..idle(Presence::Absent, 3) };
        assert_eq!(worker(&[displacing(60.0, 0), roomy]), Some(1));
        let busy = Candidate { work: 5.0, ..roomy };
        assert_eq!(worker(&[displacing(60.0, 0), busy]), Some(0), "but not at any price");
        let queued = Candidate { queue: 0.01, ..roomy };
        assert_eq!(worker(&[displacing(60.0, 0), queued]), Some(0), "and not to wait there");
    }

    #[test]
    fn a_conversation_returns_to_its_worker_unless_that_is_slower() {
        let before = Candidate { work: 1.0, saved: 0.2, ..idle(Presence::Resident, 0) };
        assert_eq!(worker(&[before, idle(Presence::Resident, 1)]), Some(0));
        let busy = Candidate { queue: 0.3, ..before };
        assert_eq!(worker(&[busy, idle(Presence::Resident, 1)]), Some(1));
    }

    #[test]
    fn an_adapter_spreads_where_there_is_room_when_its_worker_is_busier_by_many_loads() {
        let has = |work| Candidate { work, ..idle(Presence::Resident, 0) };
        assert_eq!(worker(&[has(0.9), idle(Presence::Absent, 1)]), Some(0));
        let more = Some(Picked { worker: 0, copy_to: Some(1) });
        assert_eq!(pick(&[has(1.1), idle(Presence::Absent, 1)]), more);
    }

    #[test]
    fn where_another_has_to_go_a_copy_is_loaded_late_and_nobody_waits_for_it() {
        let has = |queue: f64| Candidate { queue, work: queue + 1.0, ..idle(Presence::Resident, 0) };
        let displacing = Candidate { work: 1.0, victim_idle: 9.0, ..idle(Presence::Absent, 1) };
        let alone = |worker| Some(Picked { worker, copy_to: None });
        assert_eq!(pick(&[has(0.1), displacing]), alone(0));
        assert_eq!(pick(&[has(0.3), displacing]), Some(Picked { worker: 0, copy_to: Some(1) }));
        assert_eq!(pick(&[has(1.6), displacing]), alone(1), "too long a queue");
        let idle = Candidate { work: 0.0, idle: true, ..displacing };
        assert_eq!(pick(&[has(0.2), idle]), alone(1), "one that does nothing");
    }
}
