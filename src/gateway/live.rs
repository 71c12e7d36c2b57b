//! The part of the configuration that may change while requests run: swapped
//! whole; a request reads it once and keeps what it read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tenantry_ratings::Policy as RatingPolicy;

use crate::auth::Keyring;
use crate::moderation::Policies;
use crate::types::{BaseName, TenantId};

#[derive(Clone)]
pub struct Live {
    keyring: Keyring,
    /// Base models that some tenant's model stands on.
    bases: Vec<BaseName>,
    policies: Arc<Policies>,
    ratings: Arc<HashMap<TenantId, Arc<RatingPolicy>>>,
    loaded: u64,
}

impl Live {
    pub fn new(keyring: Keyring, bases: Vec<BaseName>) -> Self {
        let policies = Arc::new(Policies::unguarded());
        let ratings = Arc::default();
        Self { keyring, bases, policies, ratings, loaded: super::unix_seconds(SystemTime::now()) }
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

    /// The same with other callers.
    pub(super) fn with(&self, keyring: Keyring) -> Self {
        Self { keyring, ..self.clone() }
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
