//! What operators change, written down: in the events' log, and where there is
//! none, or no room in it, in the process's own.

use std::time::SystemTime;

use serde_json::Value;
use tenantry_ratings::Changed;
use tracing::info;

use super::Gateway;
use crate::types::TenantId;

/// A change that was made. It holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'a> {
    /// The name of the admin key, `loopback` where none is asked for, or what
    /// had the process do it.
    pub who: &'a str,
    /// Such as `key.created`.
    pub action: &'static str,
    /// What was changed, such as `tenants/acme/keys/main`.
    pub subject: String,
    /// Whose it is.
    pub tenant: Option<&'a TenantId>,
    /// `null` where there was none.
    pub before: Value,
    /// `null` where there is none any more.
    pub after: Value,
}

// === impl Gateway ===

impl Gateway {
    pub fn audit(&self, change: Change<'_>) {
        let Change { who, action, subject, tenant, before, after } = change;
        let written = self.ratings.as_ref().is_some_and(|ratings| {
            ratings.changed(&Changed {
                who: who.to_owned(),
                action,
                subject: subject.clone(),
                tenant: tenant.cloned(),
                at: SystemTime::now(),
                before: before.clone(),
                after: after.clone(),
            })
        });
        let tenant = tenant.map(TenantId::as_str);
        match written {
            // A full spool may refuse it yet; this line has it all the same.
            true => info!(who, action, subject, tenant, %before, %after, "an operator's change"),
            false => info!(who, action, subject, tenant, %before, %after, "an operator's change, in no event log"),
        }
    }
}
