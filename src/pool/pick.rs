//! The choice of a worker, as a pure function of what is known about each.

/// What a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub healthy: bool,
    /// The adapter is loaded there, or none is asked for.
    pub resident: bool,
    /// Generations that run or wait there.
    pub leases: u32,
}

/// The healthy candidate with the fewest generations; among equals one that
/// has the adapter, then the first.
pub(super) fn pick(candidates: &[Candidate]) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.healthy)
        .min_by_key(|(_, candidate)| (candidate.leases, !candidate.resident))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<bool>(), any::<bool>(), 0_u32..4).prop_map(|(healthy, resident, leases)| Candidate {
            healthy,
            resident,
            leases,
        })
    }

    proptest! {
        #[test]
        fn the_pick_is_healthy_and_nobody_healthy_is_better(candidates in prop::collection::vec(candidate(), 0..8)) {
            let Some(picked) = pick(&candidates) else {
                prop_assert!(candidates.iter().all(|candidate| !candidate.healthy));
                return Ok(());
            };
            let picked = candidates[picked];
            prop_assert!(picked.healthy);
            for other in candidates.iter().filter(|other| other.healthy) {
                prop_assert!(picked.leases <= other.leases);
                if other.leases == picked.leases {
                    prop_assert!(picked.resident || !other.resident);
                }
            }
        }
    }
}
