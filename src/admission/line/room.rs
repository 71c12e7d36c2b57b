//! Which tenant may have how many of a base model's places.
//!
//! Tenants that flood the workers are not given the last of the places while
//! others are about: else each of the others' requests would have to wait until
//! one of the flood's has ended, however fair the queue is. The last places are
//! for tenants that have few. What is kept free is the price for it, and only
//! then is it paid.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::TenantId;

/// For so long after its last request a tenant is about.
const ABOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Room {
    held: HashMap<TenantId, u32>,
    /// Who asked last, and who did before of the others.
    last: Option<(TenantId, Instant)>,
    other: Option<Instant>,
}

// === impl Room ===

impl Room {
    pub(super) fn asks(&mut self, tenant: &TenantId, now: Instant) {
        match &mut self.last {
            Some((last, at)) if last == tenant => *at = now,
            last => self.other = last.replace((tenant.clone(), now)).map(|(_, at)| at),
        }
    }

    /// Whether a tenant may have so many of the `free` places; the last `kept`
    /// of them are for tenants that have up to half as many.
    pub(super) fn may(&self, tenant: &TenantId, more: u32, free: u32, kept: u32, now: Instant) -> bool {
        let held = self.held.get(tenant).copied().unwrap_or(0);
        let few = held == 0 || held.saturating_add(more) <= kept / 2;
        few || free.saturating_sub(more) >= kept || !self.others_about(tenant, now)
    }

    fn others_about(&self, tenant: &TenantId, now: Instant) -> bool {
        let other = match &self.last {
            Some((last, at)) if last != tenant => Some(*at),
            _ => self.other,
        };
        other.is_some_and(|at| now < at + ABOUT)
    }

    pub(super) fn take(&mut self, tenant: &TenantId, seats: u32) {
        *self.held.entry(tenant.clone()).or_default() += seats;
    }

    pub(super) fn give_back(&mut self, tenant: &TenantId, seats: u32) {
        if let Some(held) = self.held.get_mut(tenant) {
            *held = held.saturating_sub(seats);
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
    }
}
