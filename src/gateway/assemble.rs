//! What requests go by, made of the configuration and of what operators have
//! set while the gateway runs; made anew when either changes, and swapped whole.
//!
//! Where both have a tenant of one id the configuration's stands, with the keys
//! of both.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::error;

use super::live::Replaced;
use super::{Gateway, Live};
use crate::adapters::{Accounts, Alias, Catalogue, LimitsOf, TenantRecord};
use crate::auth::{KeyHash, Keyring};
use crate::moderation::{OfTenant, Policies};
use crate::types::{AdapterKey, BaseName, Caller, Key, Limits, ModelRoute, Tenant, TenantId};

/// Generations that a tenant may have at one time, where nobody says so.
const CONCURRENT: u64 = 64;

/// Limits that operators have set.
pub(super) type Set = HashMap<TenantId, Vec<(LimitsOf, Limits)>>;

/// What the live configuration was made of.
pub(super) struct Assembly {
    /// What the configuration says.
    configured: Live,
    made: Made,
}

/// What operators made.
#[derive(Default)]
struct Made {
    set: Set,
    accounts: Arc<Accounts>,
    /// What the tenants' aliases of adapters stand for.
    aliases: Vec<Option<AdapterKey>>,
}

// === impl Assembly ===

impl Assembly {
    pub(super) fn of(configured: Live) -> Self {
        Self { configured, made: Made::default() }
    }

    /// Whether the tenant is of the configuration.
    pub(super) fn configures(&self, tenant: &TenantId) -> bool {
        self.configured.keyring().tenant(tenant).is_some()
    }

    /// Whether the configuration has a key of this name.
    pub(super) fn configures_key(&self, tenant: &TenantId, name: &str) -> bool {
        self.configured.keyring().keys(tenant).any(|key| *key.name == *name)
    }
}

// === impl Gateway ===

impl Gateway {
    /// Goes by another configuration from now on. Requests that run, and those
    /// that were admitted, keep the one they began with.
    pub fn reconfigure(&self, configured: Live) -> Replaced {
        let mut assembly = self.assembly();
        let before = std::mem::replace(&mut assembly.configured, configured).replaced();
        assembly.made = self.made();
        self.swap(&assembly);
        before
    }

    /// Puts changes, of other gateways too, in place as they come. Never returns.
    pub(super) async fn follow_changes(&self) {
        let mut changes = self.catalogue().subscribe();
        loop {
            self.assemble();
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Makes what requests go by, where that has changed.
    pub(super) fn assemble(&self) {
        let mut assembly = self.assembly();
        let made = self.made();
        if made != assembly.made {
            assembly.made = made;
            self.swap(&assembly);
        }
    }

    pub(super) fn assembly(&self) -> std::sync::MutexGuard<'_, Assembly> {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> Made {
        let accounts = self.catalogue().accounts();
        let mut aliases = Vec::new();
        for tenant in &accounts.tenants {
            let named = tenant.settings.models.values().filter(|alias| alias.adapter.is_some());
            aliases.extend(named.map(|alias| route(self.catalogue(), &tenant.id, alias)?.adapter));
        }
        Made { set: self.set(), accounts, aliases }
    }

    fn swap(&self, assembly: &Assembly) {
        let Assembly { configured, made } = assembly;
        let keyring = keyring(configured, made, self.catalogue());
        let next = Arc::new(configured.with(keyring, policies(configured, &made.accounts)));
        let before = self.live.swap(next.clone());
        // Who waits is held to the limits as they are now.
        for tenant in next.keyring().tenants() {
            let was = before.keyring().tenant(&tenant.id);
            if was.is_none_or(|was| !Arc::ptr_eq(&was, tenant) && was.limits != tenant.limits) {
                self.admission.changed(tenant);
            }
        }
    }

    pub(super) fn set(&self) -> Set {
        let mut set = Set::new();
        for (tenant, of, limits) in self.catalogue().limits() {
            set.entry(tenant).or_default().push((of, limits));
        }
        set
    }
}

impl PartialEq for Made {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.accounts, &other.accounts) && self.set == other.set && self.aliases == other.aliases
    }
}

fn keyring(configured: &Live, made: &Made, catalogue: &Catalogue) -> Keyring {
    let mut keyring = Keyring::default();
    // What the file has of the same name, or a tenant that it has taken over while it
    // was disabled here, opens nothing by a key of ours.
    let mut taken: HashSet<(TenantId, Arc<str>)> = HashSet::new();
    let disabled: HashSet<&TenantId> =
        made.accounts.tenants.iter().filter(|record| record.disabled).map(|record| &record.id).collect();
    let own = |tenant: &TenantId| made.set.get(tenant).map_or(&[][..], Vec::as_slice);
    for tenant in configured.keyring().tenants() {
        let own = own(&tenant.id);
        let limited = if own.is_empty() { tenant.clone() } else { Arc::new(limited(tenant, own)) };
        keyring.add(&limited);
        for (hash, key) in configured.keyring().hashes(&tenant.id) {
            taken.insert((tenant.id.clone(), key.name.clone()));
            let caller = Caller { tenant: limited.clone(), key: limited_key(key, own) };
            keyring.insert(hash, caller).expect("no two keys of a configuration are the same");
        }
    }
    for record in &made.accounts.tenants {
        if keyring.tenant(&record.id).is_none() {
            keyring.add(&Arc::new(limited(&tenant(record, catalogue), own(&record.id))));
            if record.disabled {
                keyring.disable(&record.id);
            }
        }
    }
    for record in &made.accounts.keys {
        // Of a tenant that another gateway's configuration has.
        let Some(tenant) = keyring.tenant(&record.tenant) else { continue };
        let over = configured.keyring().tenant(&record.tenant).is_some() && disabled.contains(&record.tenant);
        if over || taken.contains(&(record.tenant.clone(), record.name.clone())) {
            continue;
        }
        let Ok(hash) = record.hash.parse::<KeyHash>() else { continue };
        let key = Key { name: record.name.clone(), limits: Limits::default(), priority: record.priority };
        let caller = Caller { key: limited_key(&Arc::new(key), own(&tenant.id)), tenant };
        let expires = record.expires.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // A key that the configuration has is the configuration's.
        let _ = keyring.insert_until(hash, caller, expires);
    }
    keyring
}

fn tenant(record: &TenantRecord, catalogue: &Catalogue) -> Tenant {
    let limits = Limits { concurrent_generations: Some(CONCURRENT), ..Limits::default() };
    let models = record.settings.models.iter();
    let models = models.filter_map(|(name, alias)| Some((name.as_str().into(), route(catalogue, &record.id, alias)?)));
    Tenant { share: record.settings.share(), ..Tenant::new(record.id.clone(), limits, models.collect()) }
}

/// What an alias stands for now; `None` where the tenant has no such adapter,
/// or has it for another base model.
pub(super) fn route(catalogue: &Catalogue, tenant: &TenantId, alias: &Alias) -> Option<ModelRoute> {
    let base = BaseName::new(alias.base.as_str());
    match &alias.adapter {
        None => Some(ModelRoute { base, adapter: None }),
        Some(adapter) => catalogue.resolve(tenant, adapter).filter(|route| route.base == base),
    }
}

/// Who has which policy; `None` where operators have given none.
fn policies(configured: &Live, accounts: &Accounts) -> Option<Policies> {
    if accounts.policies.is_empty() {
        return None;
    }
    let mut policies = configured.policies().clone();
    for given in &accounts.policies {
        let Some(policy) = configured.policies().named(&given.policy).cloned() else {
            error!(tenant = %given.tenant, policy = &*given.policy, "there is no such policy; the configuration's holds");
            continue;
        };
        let mut own = policies
            .of_tenant(&given.tenant)
            .cloned()
            .unwrap_or_else(|| OfTenant { own: policies.standard().clone(), models: Default::default() });
        match &given.model {
            Some(model) => drop(own.models.insert(model.clone(), policy)),
            None => own.own = policy,
        }
        policies.set(given.tenant.clone(), own);
    }
    Some(policies)
}

fn limited_key(key: &Arc<Key>, set: &[(LimitsOf, Limits)]) -> Arc<Key> {
    match set.iter().find(|(of, _)| *of == LimitsOf::Key(key.name.clone())) {
        Some((_, limits)) => Arc::new(Key { limits: limits.clone(), ..Key::clone(key) }),
        None => key.clone(),
    }
}

fn limited(before: &Tenant, set: &[(LimitsOf, Limits)]) -> Tenant {
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
