//! Limits that operators set while gateways run: kept beside the adapters, so
//! that every gateway has them, and has them after a restart. This room does
//! not know what they mean.

use std::sync::Arc;

use tracing::error;

use super::catalogue::Catalogue;
use super::database::LimitRow;
use super::error::ChangeError;
use super::now;
use crate::types::{Limits, TenantId};

/// Whose limits they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitsOf {
    Tenant,
    /// By its name.
    Key(Arc<str>),
    /// By the name that clients write.
    Model(Arc<str>),
}

// === impl Catalogue ===

impl Catalogue {
    /// All limits that operators have set.
    pub fn limits(&self) -> Vec<(TenantId, LimitsOf, Limits)> {
        let read = |row: &LimitRow| {
            let of = LimitsOf::parse(&row.scope, &row.name)?;
            match serde_json::from_str(&row.limits) {
                Ok(limits) => Some((TenantId::new(row.tenant.as_str()), of, limits)),
                Err(error) => {
                    // A later version's, say: the configuration's hold then.
                    error!(tenant = row.tenant, scope = row.scope, name = row.name, %error, "limits cannot be read");
                    None
                }
            }
        };
        self.limits.load().iter().filter_map(read).collect()
    }

    /// Sets limits in the place of the configuration's; `None` takes them away.
    /// Whether there is a change.
    pub async fn set_limits(
        &self,
        tenant: &TenantId,
        of: &LimitsOf,
        limits: Option<&Limits>,
    ) -> Result<bool, ChangeError> {
        let (scope, name) = of.written();
        let row = limits.map(|limits| LimitRow {
            tenant: tenant.to_string(),
            scope: scope.to_owned(),
            name: name.to_owned(),
            limits: serde_json::to_string(limits).expect("numbers by name"),
        });
        match &row {
            Some(row) => {
                self.change(|backing| async { backing.database.set_limits(row, now()).await }).await.map(|()| true)
            }
            None => {
                let tenant = tenant.as_str();
                self.change(|backing| async { backing.database.reset_limits(tenant, scope, name).await }).await
            }
        }
    }
}

// === impl LimitsOf ===

impl LimitsOf {
    fn written(&self) -> (&'static str, &str) {
        match self {
            Self::Tenant => ("tenant", ""),
            Self::Key(name) => ("key", name),
            Self::Model(name) => ("model", name),
        }
    }

    fn parse(scope: &str, name: &str) -> Option<Self> {
        match scope {
            "tenant" => Some(Self::Tenant),
            "key" => Some(Self::Key(name.into())),
            "model" => Some(Self::Model(name.into())),
            _ => None,
        }
    }
}
