//! The part of the configuration that may change while requests run: swapped
//! whole; a request reads it once and keeps what it read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tenantry_ratings::Policy as RatingPolicy;

use crate::auth::Keyring;
use crate::moderation::{Guard, Policies};
use crate::types::{BaseName, TenantId};

#[derive(Clone)]
pub struct Live {
    keyring: Keyring,
    /// Base models that some tenant's model stands on.
    bases: Vec<BaseName>,
    policies: Arc<Policies>,
    ratings: Arc<HashMap<TenantId, Arc<RatingPolicy>>>,
    /// `None` for the gateway's own.
    guard: Option<Guard>,
    loaded: u64,
    /// Held by all that was made of the same configuration.
    reading: Arc<()>,
}

/// Tells whether anybody still goes by a configuration that was replaced.
pub struct Replaced(Weak<()>);

impl Live {
    pub fn new(keyring: Keyring, bases: Vec<BaseName>) -> Self {
        let policies = Arc::new(Policies::unguarded());
        let ratings = Arc::default();
        let loaded = super::unix_seconds(SystemTime::now());
        Self { keyring, bases, policies, ratings, guard: None, loaded, reading: Arc::default() }
    }

    /// The same with texts judged by this guard.
    pub fn judged_by(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// The same with texts looked at.
    pub fn guarded(self, policies: Policies) -> Self {
        Self { policies: Arc::new(policies), ..self }
    }

    /// The same with what tenants' ratings may say.
    pub fn rating(self, policies: HashMap<TenantId, RatingPolicy>) -> Self {
        let each = policies.into_iter().map(|(tenant, policy)| (tenant, Arc::new(policy)));
        Self { ratings: Arc::new(each.collect()), ..self }
    }

    /// The same with other callers, and policies where they differ.
    pub(super) fn with(&self, keyring: Keyring, policies: Option<Policies>) -> Self {
        let policies = policies.map_or_else(|| self.policies.clone(), Arc::new);
        Self { keyring, policies, ..self.clone() }
    }

    pub(super) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Once this one is replaced.
    pub(super) fn replaced(&self) -> Replaced {
        Replaced(Arc::downgrade(&self.reading))
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(super) fn policies(&self) -> &Policies {
        &self.policies
    }

    pub(super) fn rated(&self, tenant: &TenantId) -> Arc<RatingPolicy> {
        self.ratings.get(tenant).cloned().unwrap_or_default()
    }

    pub(super) fn bases(&self) -> impl Iterator<Item = &BaseName> {
        self.bases.iter()
    }

    pub(super) fn loaded(&self) -> u64 {
        self.loaded
    }
}

// === impl Replaced ===

impl Replaced {
    /// No request asks for a worker by it any more.
    pub fn is_forgotten(&self) -> bool {
        self.0.strong_count() == 0
    }
}
