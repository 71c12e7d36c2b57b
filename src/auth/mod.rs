//! Who is calling? A bearer key leads to itself and its tenant.
//!
//! Keys are known by their SHA-256 alone and are looked up by it, never
//! compared as text, so neither a memory dump of the configuration nor the
//! time a look-up takes tells a key.

mod key;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use crate::types::{Caller, Key, Limits, Tenant, TenantId};

pub use key::{KeyHash, NewKey};

/// Every tenant, and every key of each.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: HashMap<KeyHash, Held>,
    tenants: HashMap<TenantId, Member>,
}

/// A key that is known.
#[derive(Debug, Clone)]
struct Held {
    caller: Caller,
    expires: Option<SystemTime>,
}

#[derive(Debug, Clone)]
struct Member {
    tenant: Arc<Tenant>,
    keys: Vec<KeyHash>,
    /// Its keys are known, and let nobody in.
    disabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("the request has no authorization header")]
    Missing,
    #[error("the authorization header is not of the form `Bearer <key>`")]
    Scheme,
    #[error("the key is not known")]
    UnknownKey,
    #[error("the key has expired")]
    Expired,
    #[error("the tenant is disabled")]
    Disabled,
}

// === impl Keyring ===

impl Keyring {
    /// A tenant, whether or not it has keys. The first of an id stays.
    pub fn add(&mut self, tenant: &Arc<Tenant>) {
        self.member(tenant);
    }

    /// Lets nobody of the tenant in.
    pub fn disable(&mut self, tenant: &TenantId) {
        if let Some(member) = self.tenants.get_mut(tenant) {
            member.disabled = true;
        }
    }

    /// `None` where two tenants would share a key.
    pub fn insert(&mut self, key: KeyHash, caller: Caller) -> Option<()> {
        self.insert_until(key, caller, None)
    }

    /// As `insert`; after `expires` the key lets nobody in.
    pub fn insert_until(&mut self, key: KeyHash, caller: Caller, expires: Option<SystemTime>) -> Option<()> {
        if self.keys.contains_key(&key) {
            return None;
        }
        self.member(&caller.tenant).keys.push(key);
        self.keys.insert(key, Held { caller, expires });
        Some(())
    }

    fn member(&mut self, tenant: &Arc<Tenant>) -> &mut Member {
        let member = || Member { tenant: tenant.clone(), keys: Vec::new(), disabled: false };
        self.tenants.entry(tenant.id.clone()).or_insert_with(member)
    }

    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.get(id).map(|member| member.tenant.clone())
    }

    pub fn is_disabled(&self, id: &TenantId) -> bool {
        self.tenants.get(id).is_some_and(|member| member.disabled)
    }

    /// A tenant's keys. One that is being rotated is there twice.
    pub fn keys<'a>(&'a self, tenant: &TenantId) -> impl Iterator<Item = &'a Arc<Key>> + use<'a> {
        self.hashes(tenant).map(|(_, key)| key)
    }

    /// The same with their hashes.
    pub fn hashes<'a>(&'a self, tenant: &TenantId) -> impl Iterator<Item = (KeyHash, &'a Arc<Key>)> + use<'a> {
        let hashes = self.tenants.get(tenant).into_iter().flat_map(|member| &member.keys);
        hashes.filter_map(|hash| Some((*hash, &self.keys.get(hash)?.caller.key)))
    }

    /// Each tenant, once.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values().map(|member| &member.tenant)
    }

    /// Every limit that somebody has.
    pub fn limits(&self) -> impl Iterator<Item = &Limits> {
        let of_tenants =
            self.tenants().flat_map(|tenant| [&tenant.limits].into_iter().chain(tenant.model_limits.values()));
        of_tenants.chain(self.keys.values().map(|held| &held.caller.key.limits))
    }

    /// Whose key the value of an `authorization` header (or the
    /// gRPC metadata of that name) carries.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, AuthError> {
        let value = authorization.ok_or(AuthError::Missing)?.trim_ascii();
        let (scheme, key) = value.split_at_checked(7).ok_or(AuthError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(AuthError::Scheme);
        }
        let Held { caller, expires } = self.keys.get(&KeyHash::of(key.trim_ascii())).ok_or(AuthError::UnknownKey)?;
        if expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(AuthError::Expired);
        }
        match self.is_disabled(&caller.tenant.id) {
            true => Err(AuthError::Disabled),
            false => Ok(caller.clone()),
        }
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

    #[test]
    fn an_expired_key_and_one_of_a_disabled_tenant_let_nobody_in() {
        let mut ring = keyring();
        let caller = ring.authenticate(Some(b"Bearer sk-1")).expect("known");
        let hour = std::time::Duration::from_secs(3600);
        let (before, after) = (SystemTime::now() - hour, SystemTime::now() + hour);
        ring.insert_until(KeyHash::of(b"sk-old"), caller.clone(), Some(before)).expect("new");
        ring.insert_until(KeyHash::of(b"sk-new"), caller.clone(), Some(after)).expect("new");
        assert_eq!(ring.insert(KeyHash::of(b"sk-new"), caller.clone()), None, "it is somebody's already");
        assert_eq!(ring.authenticate(Some(b"Bearer sk-old")).expect_err("expired"), AuthError::Expired);
        assert!(ring.authenticate(Some(b"Bearer sk-new")).is_ok());
        assert_eq!(ring.keys(&caller.tenant.id).count(), 3);
        ring.disable(&caller.tenant.id);
        assert_eq!(ring.authenticate(Some(b"Bearer sk-new")).expect_err("disabled"), AuthError::Disabled);
        assert_eq!(ring.tenants().count(), 1);
    }
}
