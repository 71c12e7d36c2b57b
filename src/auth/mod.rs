//! Who is calling? A bearer key leads to its tenant.
//!
//! Keys are known by their SHA-256 alone and are looked up by it, never
//! compared as text, so neither a memory dump of the configuration nor the
//! time a look-up takes tells a key.

mod key;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::types::{Tenant, TenantId};

pub use key::{KeyHash, NewKey};

/// Every key of every tenant.
#[derive(Debug, Default)]
pub struct Keyring {
    tenants: HashMap<KeyHash, Arc<Tenant>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("the request has no authorization header")]
    Missing,
    #[error("the authorization header is not of the form `Bearer <key>`")]
    Scheme,
    #[error("the key is not known")]
    UnknownKey,
}

// === impl Keyring ===

impl Keyring {
    /// `None` where two tenants would share a key.
    pub fn insert(&mut self, key: KeyHash, tenant: Arc<Tenant>) -> Option<()> {
        match self.tenants.insert(key, tenant) {
            None => Some(()),
            Some(_) => None,
        }
    }

    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.values().find(|tenant| tenant.id == *id).cloned()
    }

    /// The tenant whose key the value of an `authorization` header (or the
    /// gRPC metadata of that name) carries.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Arc<Tenant>, AuthError> {
        let value = authorization.ok_or(AuthError::Missing)?.trim_ascii();
        let (scheme, key) = value.split_at_checked(7).ok_or(AuthError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(AuthError::Scheme);
        }
        self.tenants.get(&KeyHash::of(key.trim_ascii())).cloned().ok_or(AuthError::UnknownKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantLimits;

    fn keyring() -> Keyring {
        let tenant = Tenant {
            id: TenantId::new("acme"),
            limits: TenantLimits { concurrent_generations: 1 },
            models: Default::default(),
        };
        let mut keyring = Keyring::default();
        keyring.insert(KeyHash::of(b"sk-1"), Arc::new(tenant)).expect("the ring was empty");
        keyring
    }

    #[test]
    fn a_known_key_leads_to_its_tenant_whatever_the_schemes_case() {
        for value in ["Bearer sk-1", "bearer sk-1", "BEARER  sk-1 "] {
            let tenant = keyring().authenticate(Some(value.as_bytes())).expect(value);
            assert_eq!(tenant.id.as_str(), "acme");
        }
    }

    #[test]
    fn everything_else_is_refused_by_what_is_wrong_with_it() {
        let refused = |value: Option<&str>| keyring().authenticate(value.map(str::as_bytes)).expect_err("refused");
        assert_eq!(refused(None), AuthError::Missing);
        assert_eq!(refused(Some("")), AuthError::Scheme);
        assert_eq!(refused(Some("Basic sk-1")), AuthError::Scheme);
        assert_eq!(refused(Some("sk-1")), AuthError::Scheme);
        assert_eq!(refused(Some("Bearer sk-2")), AuthError::UnknownKey);
        assert_eq!(refused(Some("Bearer ")), AuthError::Scheme);
    }
}
