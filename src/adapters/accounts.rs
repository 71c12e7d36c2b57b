//! Tenants and keys that operators make while gateways run, and the policies
//! that they give: kept beside the adapters, so that every gateway has them. Of
//! a key only its hash is here. This room does not know what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::error;

use super::catalogue::Catalogue;
use super::database::{AccountRows, Created, Deleted, Down, KeyRow, Rewritten, TenantRow};
use super::error::ChangeError;
use super::now;
use crate::types::{Priority, Share, TenantId};

/// What operators made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accounts {
    pub tenants: Vec<TenantRecord>,
    /// In the order of tenants and names.
    pub keys: Vec<KeyRecord>,
    pub policies: Vec<PolicyRecord>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TenantRecord {
    pub id: TenantId,
    pub settings: TenantSettings,
    /// Its keys let nobody in.
    pub disabled: bool,
    /// Unix seconds.
    pub created: u64,
    pub changed: u64,
}

/// What a tenant is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Of its share where workers are full.
    pub weight: u32,
    pub priority: Urgency,
    pub max_waiting: usize,
    /// By the names that clients write.
    pub models: BTreeMap<String, Alias>,
}

/// What a model name stands for: a base model, or an adapter that the tenant
/// has published for it, in whichever revision that name answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub base: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
}

/// A priority by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    #[default]
    Interactive,
    Batch,
}

/// A key, known by its hash alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub tenant: TenantId,
    pub name: Arc<str>,
    /// SHA-256, in hexadecimal digits.
    pub hash: String,
    /// `None` for the tenant's.
    pub priority: Option<Priority>,
    /// Unix seconds.
    pub created: u64,
    pub expires: Option<u64>,
    /// Another key of its name has taken its place.
    pub replaced: bool,
}

/// The policy that a tenant was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    pub tenant: TenantId,
    /// `None`: for all models that have no other.
    pub model: Option<Arc<str>>,
    pub policy: Arc<str>,
}

// === impl Catalogue ===

impl Catalogue {
    /// All that operators have made. The same one as long as nothing has changed.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    pub(super) fn follow_accounts(&self, rows: &AccountRows) {
        let accounts = Accounts::of(rows);
        if **self.accounts.load() != accounts {
            self.accounts.store(Arc::new(accounts));
        }
    }

    /// Makes a tenant; what an earlier one of its id had is gone.
    pub async fn create_tenant(&self, id: &TenantId, settings: &TenantSettings) -> Result<(), ChangeError> {
        let row = TenantRow {
            id: id.to_string(),
            settings: settings.written(),
            disabled: false,
            created: now(),
            changed: now(),
        };
        match self.change(|backing| async { backing.database.create_tenant(&row).await }).await? {
            Created::New => Ok(()),
            Created::Exists => Err(ChangeError::Exists(format!("a tenant `{id}`"))),
            Created::HasAdapters(count) => Err(ChangeError::HasAdapters(count)),
        }
    }

    pub async fn change_tenant(
        &self,
        id: &TenantId,
        seen: (&TenantSettings, bool),
        settings: &TenantSettings,
        disabled: bool,
    ) -> Result<(), ChangeError> {
        let row = TenantRow { id: id.to_string(), settings: settings.written(), disabled, created: 0, changed: now() };
        let seen = (seen.0.written(), seen.1);
        let seen = (&*seen.0, seen.1);
        match self.change(|backing| async { backing.database.change_tenant(&row, seen).await }).await? {
            Rewritten::Done => Ok(()),
            Rewritten::Missing => Err(no_tenant(id)),
            Rewritten::Overtaken => Err(ChangeError::Overtaken(format!("tenant {id}"))),
        }
    }

    /// Deletes a tenant with its keys, limits and policies.
    pub async fn delete_tenant(&self, id: &TenantId) -> Result<(), ChangeError> {
        match self.change(|backing| async { backing.database.delete_tenant(id.as_str()).await }).await? {
            Deleted::Gone => Ok(()),
            Deleted::Missing => Err(no_tenant(id)),
            Deleted::HasAdapters(count) => Err(ChangeError::HasAdapters(count)),
        }
    }

    /// Writes down a key of a tenant.
    pub async fn create_key(&self, key: &KeyRecord) -> Result<(), ChangeError> {
        let row = key.row();
        match self.change(|backing| async { backing.database.create_key(&row).await }).await? {
            true => Ok(()),
            false => Err(ChangeError::Exists(format!("a key `{}` of tenant {}", key.name, key.tenant))),
        }
    }

    /// Puts a key in the place of the one of its name, which holds for
    /// `overlap` more seconds at most. The new one, with the priority of the one before.
    pub async fn rotate_key(&self, key: &KeyRecord, overlap: u64) -> Result<KeyRecord, ChangeError> {
        let (row, until) = (key.row(), key.created.saturating_add(overlap));
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let rotated =
            self.change(|backing| async { backing.database.rotate_key(&row, until, milliseconds).await }).await?;
        rotated.as_ref().map(KeyRecord::of).ok_or_else(|| no_key(&key.tenant, &key.name))
    }

    /// Has a key hold until then; `None`: until it is revoked.
    pub async fn expire_key(&self, tenant: &TenantId, name: &str, expires: Option<u64>) -> Result<(), ChangeError> {
        let tenant_id = tenant.as_str();
        match self.change(|backing| async { backing.database.expire_key(tenant_id, name, expires).await }).await? {
            true => Ok(()),
            false => Err(no_key(tenant, name)),
        }
    }

    /// Deletes a key: it is known here no more when this returns, and at other
    /// gateways when they have looked for changes.
    pub async fn revoke_key(&self, tenant: &TenantId, name: &str) -> Result<(), ChangeError> {
        let revoked = self.change(|backing| async { backing.database.revoke_key(tenant.as_str(), name).await }).await?;
        // Known here no more, even if the database could not be read since.
        self.accounts.rcu(|accounts| {
            let of_key = |key: &KeyRecord| key.tenant == *tenant && *key.name == *name;
            if !accounts.keys.iter().any(of_key) {
                return accounts.clone();
            }
            let mut left = Accounts::clone(accounts);
            left.keys.retain(|key| !of_key(key));
            Arc::new(left)
        });
        if revoked { Ok(()) } else { Err(no_key(tenant, name)) }
    }

    /// Gives a tenant a policy; `None` takes it away. Whether there is a change.
    pub async fn set_policy(
        &self,
        tenant: &TenantId,
        model: Option<&str>,
        policy: Option<&str>,
    ) -> Result<bool, ChangeError> {
        let model = model.unwrap_or_default();
        self.change(|backing| async { backing.database.set_policy(tenant.as_str(), model, policy, now()).await }).await
    }

    /// Writes down when keys were used.
    pub async fn note_key_uses(&self, uses: &[(String, String, u64)]) -> Result<(), ChangeError> {
        let Some(backing) = self.backing.as_ref().filter(|_| !uses.is_empty()) else { return Ok(()) };
        let noting = async {
            backing.ready().await?;
            backing.database.note_key_uses(uses).await
        };
        noting.await.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }

    /// When a tenant's keys were last used, as far as that is written down.
    pub async fn key_uses(&self, tenant: &TenantId) -> Result<Vec<(String, u64)>, ChangeError> {
        let Some(backing) = &self.backing else { return Ok(Vec::new()) };
        let reading = async {
            backing.ready().await?;
            backing.database.key_uses(tenant.as_str()).await
        };
        reading.await.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }
}

fn no_tenant(id: &TenantId) -> ChangeError {
    ChangeError::Unknown(format!("tenant `{id}`"))
}

fn no_key(tenant: &TenantId, name: &str) -> ChangeError {
    ChangeError::Unknown(format!("key `{name}` of tenant {tenant}"))
}

// === impl Accounts ===

impl Accounts {
    pub(super) fn of(rows: &AccountRows) -> Self {
        let tenant = |row: &TenantRow| match serde_json::from_str(&row.settings) {
            Ok(settings) => Some(TenantRecord {
                id: TenantId::new(row.id.as_str()),
                settings,
                disabled: row.disabled,
                created: row.created,
                changed: row.changed,
            }),
            Err(error) => {
                // A later version's, say: better none than another than was meant.
                error!(tenant = row.id, %error, "a tenant's settings cannot be read");
                None
            }
        };
        let policy = |row: &super::database::PolicyRow| PolicyRecord {
            tenant: TenantId::new(row.tenant.as_str()),
            model: (!row.model.is_empty()).then(|| row.model.as_str().into()),
            policy: row.policy.as_str().into(),
        };
        Self {
            tenants: rows.tenants.iter().filter_map(tenant).collect(),
            keys: rows.keys.iter().map(KeyRecord::of).collect(),
            policies: rows.policies.iter().map(policy).collect(),
        }
    }
}

// === impl TenantSettings ===

impl TenantSettings {
    fn written(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers")
    }

    pub fn share(&self) -> Share {
        let priority = match self.priority {
            Urgency::Interactive => Priority::Interactive,
            Urgency::Batch => Priority::Batch,
        };
        Share { weight: self.weight, priority, max_waiting: self.max_waiting }
    }
}

impl Default for TenantSettings {
    fn default() -> Self {
        let Share { weight, max_waiting, .. } = Share::default();
        Self { weight, priority: Urgency::default(), max_waiting, models: BTreeMap::new() }
    }
}

// === impl KeyRecord ===

impl KeyRecord {
    fn of(row: &KeyRow) -> Self {
        let named = |name: &str| Priority::ALL.into_iter().find(|priority| priority.as_str() == name);
        Self {
            tenant: TenantId::new(row.tenant.as_str()),
            name: row.name.as_str().into(),
            hash: row.hash.clone(),
            priority: row.priority.as_deref().and_then(named),
            created: row.created,
            expires: row.expires,
            replaced: row.replaced > 0,
        }
    }

    fn row(&self) -> KeyRow {
        KeyRow {
            hash: self.hash.clone(),
            tenant: self.tenant.to_string(),
            name: self.name.to_string(),
            priority: self.priority.map(|priority| priority.as_str().to_owned()),
            created: self.created,
            expires: self.expires,
            replaced: 0,
        }
    }
}
