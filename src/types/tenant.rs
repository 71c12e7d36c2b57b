//! A tenant, as the live configuration describes it, and who calls for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AdapterKey, BaseName, Limits, Priority, Share, TenantId};

/// A customer: the unit of isolation. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// Of all its keys and models together.
    pub limits: Limits,
    /// Of single model names, as clients write them.
    pub model_limits: BTreeMap<Arc<str>, Limits>,
    pub share: Share,
    /// Model names of this tenant, and what each stands for. A name that is
    /// not in here does not exist for the tenant, whoever else may have it.
    pub models: BTreeMap<Arc<str>, ModelRoute>,
}

/// One of a tenant's keys. The key itself is known by its hash alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What operators call it; unlike those of the tenant's other keys.
    pub name: Arc<str>,
    /// Beside those of the tenant.
    pub limits: Limits,
    /// `None` for the tenant's.
    pub priority: Option<Priority>,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: Arc<Tenant>,
    pub key: Arc<Key>,
}

/// What a tenant's model name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRoute {
    pub base: BaseName,
    pub adapter: Option<AdapterKey>,
}

// === impl Tenant ===

impl Tenant {
    /// One with the usual share, and no limits of single models.
    pub fn new(id: TenantId, limits: Limits, models: BTreeMap<Arc<str>, ModelRoute>) -> Self {
        Self { id, limits, model_limits: BTreeMap::new(), share: Share::default(), models }
    }
}

// === impl Key ===

impl Key {
    /// One without limits of its own.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), limits: Limits::default(), priority: None }
    }
}

// === impl Caller ===

impl Caller {
    pub fn priority(&self) -> Priority {
        self.key.priority.unwrap_or(self.tenant.share.priority)
    }
}
