//! Keys as operators see them, make, rotate and revoke them while the gateway
//! runs; and when they were last used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::tenants::{Origin, no_tenant, plain};
use super::{Gateway, unix_seconds};
use crate::adapters::{ChangeError, KeyRecord};
use crate::auth::{KeyHash, NewKey};
use crate::types::{Caller, Key, Priority, TenantId};

/// How often it is written down which keys were used.
const NOTE: Duration = Duration::from_secs(20);
/// Digits of a key's hash that tell it from the tenant's others.
const FINGERPRINT: usize = 12;

/// A key as operators see it; what it opens with is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyCard {
    pub tenant: String,
    pub name: String,
    pub origin: Origin,
    /// The beginning of its SHA-256.
    pub fingerprint: String,
    /// `None` for the tenant's.
    pub priority: Option<&'static str>,
    /// Unix seconds; of the API's.
    pub created: Option<u64>,
    /// `None`: it holds until it is taken away.
    pub expires: Option<u64>,
    pub expired: bool,
    /// Another of its name has taken its place; it holds until it expires.
    pub replaced: bool,
    /// Of its name, at any gateway; by other gateways some 20 seconds late.
    pub last_used: Option<u64>,
}

/// What a key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub tenant: &'a TenantId,
    pub name: &'a str,
    pub priority: Option<Priority>,
    pub expires: Option<u64>,
}

/// When keys were used, and not yet written down.
#[derive(Default)]
pub(super) struct Uses(Mutex<HashMap<(TenantId, Arc<str>), u64>>);

// === impl Uses ===

impl Uses {
    pub(super) fn note(&self, caller: &Caller) {
        let now = unix_seconds(SystemTime::now());
        let key = (caller.tenant.id.clone(), caller.key.name.clone());
        self.lock().insert(key, now);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(TenantId, Arc<str>), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Gateway ===

impl Gateway {
    /// A tenant's keys, by name; `None` where there is no such tenant.
    pub async fn keys(&self, tenant: &TenantId) -> Option<Vec<KeyCard>> {
        let live = self.live.load_full();
        live.keyring().tenant(tenant)?;
        // Who asks while the database is away learns what is known here.
        let written = self.catalogue().key_uses(tenant).await.unwrap_or_default();
        let accounts = self.catalogue().accounts();
        let card = |(hash, key): (KeyHash, &Arc<Key>)| {
            let hash = hash.to_string();
            let record = accounts.keys.iter().find(|record| record.tenant == *tenant && record.hash == hash);
            let own = self.uses.lock().get(&(tenant.clone(), key.name.clone())).copied();
            let others = written.iter().find(|(name, _)| **name == *key.name).map(|(_, when)| *when);
            card(tenant, &hash, &key.name, key.priority, record, own.max(others))
        };
        let mut cards: Vec<KeyCard> = live.keyring().hashes(tenant).map(card).collect();
        cards.sort_by(|one, other| {
            one.name.cmp(&other.name).then(one.replaced.cmp(&other.replaced)).then(one.expires.cmp(&other.expires))
        });
        Some(cards)
    }

    /// Makes a key, which can be read this once.
    pub async fn create_key(&self, who: &str, wanted: Wanted<'_>) -> Result<(NewKey, KeyCard), ChangeError> {
        let Wanted { tenant, name, priority, expires } = wanted;
        self.keyed(tenant, name)?;
        if self.assembly().configures_key(tenant, name) {
            return Err(ChangeError::Exists(format!(
                "a key `{name}` of tenant {tenant}, of the configuration's file,"
            )));
        }
        in_the_future(expires)?;
        let key = new_key()?;
        let record = record(tenant, name, &key, priority, expires);
        self.catalogue().create_key(&record).await?;
        let card = self.changed_key(who, "key.created", &record, Value::Null);
        Ok((key, card))
    }

    /// Makes another key of a name. The one before holds for `overlap` more
    /// seconds at most.
    pub async fn rotate_key(
        &self,
        who: &str,
        tenant: &TenantId,
        name: &str,
        overlap: u64,
        expires: Option<u64>,
    ) -> Result<(NewKey, KeyCard), ChangeError> {
        self.own_key(tenant, name)?;
        in_the_future(expires)?;
        let before = self.current(tenant, name);
        let key = new_key()?;
        let wanted = record(tenant, name, &key, None, expires);
        let made = self.catalogue().rotate_key(&wanted, overlap).await?;
        let card = self.changed_key(who, "key.rotated", &made, json!(before));
        Ok((key, card))
    }

    /// Has a key hold until then; `None`: until it is revoked.
    pub async fn expire_key(
        &self,
        who: &str,
        tenant: &TenantId,
        name: &str,
        expires: Option<u64>,
    ) -> Result<KeyCard, ChangeError> {
        self.own_key(tenant, name)?;
        let before = self.current(tenant, name);
        self.catalogue().expire_key(tenant, name, expires).await?;
        self.assemble();
        let after = self.current(tenant, name).ok_or_else(|| no_key(tenant, name))?;
        let subject = format!("tenants/{tenant}/keys/{name}");
        let (tenant, before, told) = (Some(tenant), json!(before), json!(after));
        self.audit(Change { who, action: "key.changed", subject, tenant, before, after: told });
        Ok(after)
    }

    /// Takes a key away, and what it has replaced: at once here, and at other
    /// gateways when they look for changes next.
    pub async fn revoke_key(&self, who: &str, tenant: &TenantId, name: &str) -> Result<(), ChangeError> {
        // One of ours, too, whose name the configuration has taken since.
        if self.current(tenant, name).is_none() {
            self.own_key(tenant, name)?;
        }
        let before = json!(self.current(tenant, name));
        self.catalogue().revoke_key(tenant, name).await?;
        self.assemble();
        let subject = format!("tenants/{tenant}/keys/{name}");
        let (tenant, after) = (Some(tenant), Value::Null);
        self.audit(Change { who, action: "key.revoked", subject, tenant, before, after });
        Ok(())
    }

    fn changed_key(&self, who: &str, action: &'static str, made: &KeyRecord, before: Value) -> KeyCard {
        self.assemble();
        let KeyRecord { tenant, name, hash, priority, .. } = made;
        let card = card(tenant, hash, name, *priority, Some(made), None);
        let subject = format!("tenants/{tenant}/keys/{name}");
        self.audit(Change { who, action, subject, tenant: Some(tenant), before, after: json!(card) });
        card
    }

    /// Of a name, the key that nobody has replaced.
    fn current(&self, tenant: &TenantId, name: &str) -> Option<KeyCard> {
        let accounts = self.catalogue().accounts();
        let mut of_name = accounts.keys.iter().filter(|it| it.tenant == *tenant && *it.name == *name);
        let found = of_name.find(|record| !record.replaced)?;
        Some(card(tenant, &found.hash, name, found.priority, Some(found), None))
    }

    /// That the tenant is there, and that a key may be called so.
    fn keyed(&self, tenant: &TenantId, name: &str) -> Result<(), ChangeError> {
        self.tenant(tenant).ok_or_else(|| no_tenant(tenant))?;
        plain(name, "key's name")
    }

    /// That the key is not of the configuration.
    fn own_key(&self, tenant: &TenantId, name: &str) -> Result<(), ChangeError> {
        self.tenant(tenant).ok_or_else(|| no_tenant(tenant))?;
        match self.assembly().configures_key(tenant, name) {
            true => Err(ChangeError::Configured(format!("key `{name}` of tenant `{tenant}`"))),
            false => Ok(()),
        }
    }

    /// Writes down which keys were used, now and then. Never returns.
    pub(super) async fn note_key_uses(&self) {
        loop {
            tokio::time::sleep(NOTE).await;
            self.flush_key_uses().await;
        }
    }

    /// Writes down which keys were used; where the database is away, later.
    pub async fn flush_key_uses(&self) {
        let noted = std::mem::take(&mut *self.uses.lock());
        let row = |((tenant, name), when): (&(TenantId, Arc<str>), &u64)| (tenant.to_string(), name.to_string(), *when);
        let rows: Vec<_> = noted.iter().map(row).collect();
        if self.catalogue().note_key_uses(&rows).await.is_err() {
            let mut uses = self.uses.lock();
            for (key, when) in noted {
                uses.entry(key).or_insert(when);
            }
        }
    }
}

fn card(
    tenant: &TenantId,
    hash: &str,
    name: &str,
    priority: Option<Priority>,
    record: Option<&KeyRecord>,
    last_used: Option<u64>,
) -> KeyCard {
    let expires = record.and_then(|record| record.expires);
    KeyCard {
        tenant: tenant.to_string(),
        name: name.to_owned(),
        origin: if record.is_some() { Origin::Api } else { Origin::Configuration },
        fingerprint: hash.get(..FINGERPRINT).unwrap_or(hash).to_owned(),
        priority: priority.map(Priority::as_str),
        created: record.map(|record| record.created),
        expires,
        expired: expires.is_some_and(|expires| expires <= unix_seconds(SystemTime::now())),
        replaced: record.is_some_and(|record| record.replaced),
        last_used,
    }
}

fn record(tenant: &TenantId, name: &str, key: &NewKey, priority: Option<Priority>, expires: Option<u64>) -> KeyRecord {
    KeyRecord {
        tenant: tenant.clone(),
        name: name.into(),
        hash: key.hash().to_string(),
        priority,
        created: unix_seconds(SystemTime::now()),
        expires,
        replaced: false,
    }
}

fn new_key() -> Result<NewKey, ChangeError> {
    NewKey::generate().map_err(|error| ChangeError::Internal(format!("no random bits: {error}")))
}

fn in_the_future(expires: Option<u64>) -> Result<(), ChangeError> {
    if expires.is_some_and(|expires| expires <= unix_seconds(SystemTime::now())) {
        return Err(ChangeError::Invalid("`expires` is a time in the future, in Unix seconds".to_owned()));
    }
    Ok(())
}

fn no_key(tenant: &TenantId, name: &str) -> ChangeError {
    ChangeError::Unknown(format!("key `{name}` of tenant {tenant}"))
}
