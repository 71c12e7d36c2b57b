//! Limits that operators set while the gateway runs: put in the place of the
//! configuration's, for every request from then on, and for those that wait.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Gateway;
use super::audit::Change;
use crate::adapters::{ChangeError, LimitsOf};
use crate::admission::Scope;
use crate::types::{Key, Limits, TenantId};

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
        who: &str,
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
        let before = told(self.set().get(tenant), &of);
        let changed = self.catalogue().set_limits(tenant, &of, limits.as_ref()).await?;
        self.assemble();
        if changed {
            let subject = match &of {
                LimitsOf::Tenant => format!("tenants/{tenant}/limits"),
                LimitsOf::Key(name) => format!("tenants/{tenant}/keys/{name}/limits"),
                LimitsOf::Model(name) => format!("tenants/{tenant}/models/{name}/limits"),
            };
            let (action, after) = (if limits.is_some() { "limits.set" } else { "limits.reset" }, json!(limits));
            self.audit(Change { who, action, subject, tenant: Some(tenant), before, after });
        }
        Ok(changed)
    }
}

/// What operators had set; `null` where the configuration's held.
fn told(set: Option<&Vec<(LimitsOf, Limits)>>, of: &LimitsOf) -> Value {
    json!(set.into_iter().flatten().find(|(other, _)| other == of).map(|(_, limits)| limits))
}

fn scope(of: &LimitsOf) -> Scope {
    match of {
        LimitsOf::Tenant => Scope::Tenant,
        LimitsOf::Key(name) => Scope::Key(name.clone()),
        LimitsOf::Model(name) => Scope::Model(name.clone()),
    }
}
