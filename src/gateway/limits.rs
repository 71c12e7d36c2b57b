//! Limits that operators set while the gateway runs: put in the place of the
//! configuration's, for every request from then on, and for those that wait.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use tracing::info;

use super::Gateway;
use crate::adapters::{ChangeError, LimitsOf};
use crate::admission::Scope;
use crate::types::{Caller, Key, Limits, Tenant, TenantId};

/// Limits, whose they are, and what is left of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsCard {
    pub of: LimitsOf,
    pub limits: Limits,
    /// By the limits' names.
    pub left: Vec<(&'static str, u64)>,
    /// By an operator, in the place of the configuration's.
    pub set: bool,
}

pub(super) type Set = HashMap<TenantId, Vec<(LimitsOf, Limits)>>;

// === impl Gateway ===

impl Gateway {
    /// The limits of a tenant, its keys and its models; `None` where there is no such tenant.
    pub fn limits(&self, tenant: &TenantId) -> Option<Vec<LimitsCard>> {
        let of_tenant = self.tenant(tenant)?;
        let set = self.set();
        let card = |of: LimitsOf, limits: &Limits| {
            let left = self.left(&of_tenant, &scope(&of), limits);
            let set = set.get(tenant).is_some_and(|set| set.iter().any(|(other, _)| *other == of));
            LimitsCard { of, limits: limits.clone(), left, set }
        };
        let mut cards = vec![card(LimitsOf::Tenant, &of_tenant.limits)];
        let live = self.live.load();
        let mut keys: Vec<Arc<Key>> = live.keyring().keys(tenant).cloned().collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        keys.dedup_by(|one, other| one.name == other.name);
        cards.extend(keys.iter().map(|key| card(LimitsOf::Key(key.name.clone()), &key.limits)));
        let models = of_tenant.model_limits.iter();
        cards.extend(models.map(|(name, limits)| card(LimitsOf::Model(name.clone()), limits)));
        Some(cards)
    }

    /// Sets limits in the place of the configuration's, on all gateways; `None`
    /// takes them away. Whether there was a change.
    pub async fn set_limits(
        &self,
        tenant: &TenantId,
        of: LimitsOf,
        limits: Option<Limits>,
    ) -> Result<bool, ChangeError> {
        let unknown = |what: String| ChangeError::Unknown(what);
        let live = self.live.load_full();
        if live.keyring().tenant(tenant).is_none() {
            return Err(unknown(format!("tenant {tenant}")));
        }
        if let LimitsOf::Key(name) = &of
            && !live.keyring().keys(tenant).any(|key| key.name == *name)
        {
            return Err(unknown(format!("key {name} of tenant {tenant}")));
        }
        let changed = self.catalogue().set_limits(tenant, &of, limits.as_ref()).await?;
        info!(%tenant, ?of, ?limits, "limits set by an operator");
        self.apply_limits();
        Ok(changed)
    }

    /// Puts other gateways' changes in place as they come. Never returns.
    pub(super) async fn follow_limits(&self) {
        let mut changes = self.catalogue().subscribe();
        loop {
            self.apply_limits();
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    pub(super) fn apply_limits(&self) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set();
        if set == *applied {
            return;
        }
        let mut changed: HashMap<TenantId, Arc<Tenant>> = HashMap::new();
        let before = std::mem::replace(&mut *applied, set.clone());
        let keyring = self.configured.keyring().map(|caller| overridden(caller, &set, &mut changed));
        self.live.store(Arc::new(self.configured.with(keyring)));
        // Those whose limits are the configuration's again are not in `changed`.
        for tenant in set.keys().chain(before.keys()) {
            if let Some(tenant) = self.tenant(tenant) {
                self.admission.changed(&tenant);
            }
        }
    }

    fn set(&self) -> Set {
        let mut set = Set::new();
        for (tenant, of, limits) in self.catalogue().limits() {
            set.entry(tenant).or_default().push((of, limits));
        }
        set
    }
}

fn overridden(caller: &Caller, set: &Set, changed: &mut HashMap<TenantId, Arc<Tenant>>) -> Caller {
    let id = &caller.tenant.id;
    let Some(set) = set.get(id) else { return caller.clone() };
    let tenant = changed.entry(id.clone()).or_insert_with(|| Arc::new(of_tenant(&caller.tenant, set))).clone();
    let own = |(of, _): &&(LimitsOf, Limits)| *of == LimitsOf::Key(caller.key.name.clone());
    let key = match set.iter().find(own) {
        Some((_, limits)) => Arc::new(Key { limits: limits.clone(), ..Key::clone(&caller.key) }),
        None => caller.key.clone(),
    };
    Caller { tenant, key }
}

fn of_tenant(before: &Tenant, set: &[(LimitsOf, Limits)]) -> Tenant {
    let mut tenant = Tenant {
        id: before.id.clone(),
        limits: before.limits.clone(),
        model_limits: before.model_limits.clone(),
        share: before.share.clone(),
        models: before.models.clone(),
    };
    for (of, limits) in set {
        match of {
            LimitsOf::Tenant => tenant.limits = limits.clone(),
            LimitsOf::Model(name) => drop(tenant.model_limits.insert(name.clone(), limits.clone())),
            LimitsOf::Key(_) => {}
        }
    }
    tenant
}

fn scope(of: &LimitsOf) -> Scope {
    match of {
        LimitsOf::Tenant => Scope::Tenant,
        LimitsOf::Key(name) => Scope::Key(name.clone()),
        LimitsOf::Model(name) => Scope::Model(name.clone()),
    }
}
