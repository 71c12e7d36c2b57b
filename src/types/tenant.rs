//! A tenant, as the live configuration describes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AdapterKey, BaseName, TenantId};

/// A customer: the unit of isolation. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub limits: TenantLimits,
    /// Model names of this tenant, and what each stands for. A name that is
    /// not in here does not exist for the tenant, whoever else may have it.
    pub models: BTreeMap<Arc<str>, ModelRoute>,
}

/// What a tenant's model name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRoute {
    pub base: BaseName,
    pub adapter: Option<AdapterKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantLimits {
    /// Generations that may run at one time, all keys of the tenant together.
    pub concurrent_generations: u32,
}
