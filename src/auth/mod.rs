//! Who is calling? A bearer key leads to itself and its tenant.
//!
//! Keys are known by their SHA-256 alone and are looked up by it, never
//! compared as text, so neither a memory dump of the configuration nor the
//! time a look-up takes tells a key.

mod key;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::types::{Caller, Key, Limits, Tenant, TenantId};

pub use key::{KeyHash, NewKey};

/// Every key of every tenant.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    callers: HashMap<KeyHash, Caller>,
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
    pub fn insert(&mut self, key: KeyHash, caller: Caller) -> Option<()> {
        match self.callers.insert(key, caller) {
            None => Some(()),
            Some(_) => None,
        }
    }

    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.callers.values().map(|caller| &caller.tenant).find(|tenant| tenant.id == *id).cloned()
    }

    /// A tenant's keys.
    pub fn keys<'a>(&'a self, tenant: &'a TenantId) -> impl Iterator<Item = &'a Arc<Key>> {
        self.callers.values().filter(move |caller| caller.tenant.id == *tenant).map(|caller| &caller.key)
    }

    /// The same keys, leading to other callers.
    pub fn map(&self, mut of: impl FnMut(&Caller) -> Caller) -> Self {
        Self { callers: self.callers.iter().map(|(hash, caller)| (*hash, of(caller))).collect() }
    }

    /// Each tenant, as often as it has keys.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.callers.values().map(|caller| &caller.tenant)
    }

    /// Every limit that somebody has.
    pub fn limits(&self) -> impl Iterator<Item = &Limits> {
        self.callers.values().flat_map(|Caller { tenant, key }| {
            [&tenant.limits, &key.limits].into_iter().chain(tenant.model_limits.values())
        })
    }

    /// Whose key the value of an `authorization` header (or the
    /// gRPC metadata of that name) carries.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, AuthError> {
        let value = authorization.ok_or(AuthError::Missing)?.trim_ascii();
        let (scheme, key) = value.split_at_checked(7).ok_or(AuthError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(AuthError::Scheme);
        }
        self.callers.get(&KeyHash::of(key.trim_ascii())).cloned().ok_or(AuthError::UnknownKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        let tenant = Tenant::new(TenantId::new("acme"), Limits::default(), Default::default());
        let key = Key::named("one");
        let mut keyring = Keyring::default();
        let caller = Caller { tenant: Arc::new(tenant), key: Arc::new(key) };
        keyring.insert(KeyHash::of(b"sk-1"), caller).expect("the ring was empty");
        keyring
    }

    #[test]
    fn a_known_key_leads_to_its_tenant_whatever_the_schemes_case() {
        for value in ["Bearer sk-1", "bearer sk-1", "BEARER  sk-1 "] {
            let caller = keyring().authenticate(Some(value.as_bytes())).expect(value);
            assert_eq!((caller.tenant.id.as_str(), &*caller.key.name), ("acme", "one"));
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
