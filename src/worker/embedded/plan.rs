//! How a worker's memory is shared out between weights and keys and values,
//! decided once, from sizes that are known before anything is loaded.
//!
//! Where all base models fit, all are loaded, half of what the weights leave is
//! shared out among them, and they borrow from the other half. Where they do
//! not, each takes [`LEAST_CONTEXT`] tokens' keys and values of its own with
//! its weights, and what the first ones leave is *sure*: no other set of base
//! models goes so far that there would be less of it to borrow. So what a base
//! model's context may be does not depend on which others are loaded.

use crate::types::BaseName;

use super::EmbeddedError;

/// Tokens that a loaded base model's own keys and values have room for, where
/// its context is not shorter.
pub(super) const LEAST_CONTEXT: usize = 2_048;

/// What one base model takes, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub(super) name: BaseName,
    pub(super) weights: u64,
    /// The least that keys and values take to be of use.
    pub(super) kv: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What the base models share, in bytes.
    pub(super) budget: u64,
    /// What of it is always there for keys and values to borrow.
    pub(super) sure: u64,
    /// In the order of the needs.
    pub(super) shares: Vec<Share>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Of the budget, while it is loaded: its weights, and keys and values
    /// that no other base model can take.
    pub(super) cost: u64,
    pub(super) own_kv: u64,
    /// Loaded at the start.
    pub(super) first: bool,
}

// === impl Plan ===

impl Plan {
    /// All are loaded, whatever their weights take; the budget is that of keys and values.
    pub(super) fn of_kv(kv_bytes: u64, bases: usize) -> Self {
        let (own_kv, sure) = halves(kv_bytes, bases as u64);
        Self { budget: kv_bytes, sure, shares: vec![Share { cost: own_kv, own_kv, first: true }; bases] }
    }

    /// `memory` is for everything, the `adapters` among it.
    pub(super) fn of_memory(memory: u64, adapters: u64, needs: &[Need]) -> Result<Self, EmbeddedError> {
        if let Some(need) = needs.iter().find(|need| need.least() + adapters > memory) {
            let Need { name, weights, kv } = need.clone();
            let missing = need.least() + adapters - memory;
            return Err(EmbeddedError::Memory { base: name, memory, weights, kv, adapters, missing });
        }
        let budget = memory - adapters;
        let mut left = budget;
        let mut fits = |need: &Need| {
            let rest = left.checked_sub(need.least());
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let first: Vec<bool> = needs.iter().map(&mut fits).collect();
        if first.iter().all(|first| *first) {
            let weights: u64 = needs.iter().map(|need| need.weights).sum();
            let (own_kv, sure) = halves(budget - weights, needs.len() as u64);
            let share = |need: &Need| Share { cost: need.weights + own_kv, own_kv, first: true };
            return Ok(Self { budget, sure, shares: needs.iter().map(share).collect() });
        }
        // A large one that is loaded later has to fit beside it too.
        let sure = needs.iter().map(|need| budget - need.least()).fold(left, u64::min);
        let share = |(need, first): (&Need, bool)| Share { cost: need.least(), own_kv: need.kv, first };
        Ok(Self { budget, sure, shares: needs.iter().zip(first).map(share).collect() })
    }
}

/// Each base model's own memory for keys and values, and what they share. One
/// alone has it all; of several each keeps a part that no other can take, so
/// that none starves.
fn halves(kv_bytes: u64, bases: u64) -> (u64, u64) {
    let own = if bases <= 1 { kv_bytes } else { kv_bytes / (2 * bases) };
    (own, kv_bytes - own * bases.max(1))
}

// === impl Need ===

impl Need {
    fn least(&self) -> u64 {
        self.weights + self.kv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(name: &str, weights: u64, kv: u64) -> Need {
        Need { name: BaseName::new(name), weights, kv }
    }

    fn first(plan: &Plan) -> Vec<bool> {
        plan.shares.iter().map(|share| share.first).collect()
    }

    #[test]
    fn where_all_fit_they_share_what_the_weights_leave() {
        let plan = Plan::of_memory(1_000, 100, &[need("a", 300, 10), need("b", 200, 10)]).expect("it fits");
        assert_eq!((plan.budget, plan.sure, first(&plan)), (900, 200, vec![true, true]));
        assert_eq!(plan.shares[0], Share { cost: 400, own_kv: 100, first: true });
        assert_eq!(plan.shares[1], Share { cost: 300, own_kv: 100, first: true });
        let alone = Plan::of_memory(1_000, 100, &[need("a", 300, 10)]).expect("it fits");
        assert_eq!((alone.sure, alone.shares[0].own_kv), (0, 600));
    }

    #[test]
    fn the_first_that_fit_are_loaded_in_their_order() {
        let needs = [need("a", 400, 50), need("b", 500, 50), need("c", 300, 50)];
        let plan = Plan::of_memory(1_000, 100, &needs).expect("each fits alone");
        assert_eq!((plan.budget, first(&plan)), (900, vec![true, false, true]));
        assert_eq!(plan.sure, 100);
        assert_eq!(plan.shares[1], Share { cost: 550, own_kv: 50, first: false });
    }

    #[test]
    fn what_is_sure_is_so_beside_the_largest_too() {
        let plan = Plan::of_memory(1_000, 0, &[need("a", 300, 50), need("b", 900, 70)]).expect("each fits alone");
        assert_eq!((first(&plan), plan.sure), (vec![true, false], 30));
    }

    #[test]
    fn one_that_can_never_fit_is_named_with_what_is_missing() {
        let error = Plan::of_memory(1_000, 100, &[need("a", 300, 50), need("b", 900, 70)]).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "memory_bytes is 1000, and base model b needs 70 more: its weights take 900, keys and values at least 70, \
             adapters may take 100"
        );
    }
}
