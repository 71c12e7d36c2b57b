//! May it run now? One question, [`Admission::admit`], and the [`Permit`] that
//! is its answer.
//!
//! What is limited here: how many generations a tenant runs at one time. The
//! count belongs to the tenant's id, so it outlives a reload of the
//! configuration, and a permit gives its place back when it is dropped, that
//! is when the response's body is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::types::{Limit, Tenant, TenantId};

#[derive(Debug, Default)]
pub struct Admission {
    running: Mutex<HashMap<TenantId, Arc<AtomicU32>>>,
}

/// A place among the tenant's running generations, held until dropped.
#[derive(Debug)]
pub struct Permit {
    running: Arc<AtomicU32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{running} generations are running, and {allowed} may at one time")]
    Concurrency { running: u32, allowed: u32 },
}

// === impl Admission ===

impl Admission {
    pub fn admit(&self, tenant: &Tenant) -> Result<Permit, Refusal> {
        let running = self.counter(&tenant.id);
        let allowed = tenant.limits.concurrent_generations;
        running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < allowed).then_some(now + 1))
            .map(|_| Permit { running: running.clone() })
            .map_err(|running| Refusal::Concurrency { running, allowed })
    }

    /// Permits that are held now, of all tenants.
    pub fn permits_held(&self) -> u32 {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|count| count.load(Ordering::Acquire)).sum()
    }

    fn counter(&self, tenant: &TenantId) -> Arc<AtomicU32> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = running.get(tenant) {
            return counter.clone();
        }
        running.entry(tenant.clone()).or_default().clone()
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn limit(&self) -> Limit {
        match self {
            Self::Concurrency { .. } => Limit::Concurrency,
        }
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantLimits;

    fn tenant(id: &str, concurrent_generations: u32) -> Tenant {
        Tenant { id: TenantId::new(id), limits: TenantLimits { concurrent_generations }, models: Default::default() }
    }

    #[test]
    fn a_tenant_runs_as_many_generations_as_it_may_and_no_more() {
        let admission = Admission::default();
        let acme = tenant("acme", 2);
        let held = (admission.admit(&acme).expect("first"), admission.admit(&acme).expect("second"));
        assert_eq!(admission.admit(&acme).unwrap_err(), Refusal::Concurrency { running: 2, allowed: 2 });
        admission.admit(&tenant("globex", 1)).expect("another tenant has its own places");
        drop(held);
        assert_eq!(admission.permits_held(), 0);
        admission.admit(&acme).expect("the places are free again");
    }

    #[test]
    fn a_lower_limit_holds_for_permits_given_under_a_higher_one() {
        let admission = Admission::default();
        let held: Vec<_> = (0..4).map(|_| admission.admit(&tenant("acme", 4)).expect("within the limit")).collect();
        assert_eq!(admission.admit(&tenant("acme", 2)).unwrap_err(), Refusal::Concurrency { running: 4, allowed: 2 });
        drop(held);
        admission.admit(&tenant("acme", 2)).expect("all of them were given back");
    }

    #[test]
    fn permits_are_exact_under_contention() {
        let admission = Admission::default();
        let acme = tenant("acme", 3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if let Ok(permit) = admission.admit(&acme) {
                            assert!(admission.permits_held() <= 3);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(admission.permits_held(), 0);
    }
}
