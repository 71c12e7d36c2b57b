//! Tenants as operators see them, make and change them while the gateway runs.
//! Those of the configuration are read-only here, but may be given keys.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::assemble::route;
use super::audit::Change;
use super::{Gateway, Live};
use crate::adapters::{Alias, ChangeError, TenantRecord, TenantSettings};
use crate::types::{BaseName, ModelRoute, TenantId};

/// Who says that something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Configuration,
    Api,
}

/// A tenant as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantCard {
    pub id: String,
    pub origin: Origin,
    pub disabled: bool,
    pub weight: u32,
    pub priority: &'static str,
    pub max_waiting: usize,
    /// By the names that clients write; without what was published.
    pub models: Vec<AliasCard>,
    pub keys: usize,
    /// Unix seconds; of the API's.
    pub created: Option<u64>,
    pub changed: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AliasCard {
    pub name: String,
    pub base: String,
    pub adapter: Option<String>,
    /// It has something to answer with.
    pub answers: bool,
}

// === impl Gateway ===

impl Gateway {
    /// All tenants, by id.
    pub fn tenants(&self) -> Vec<TenantCard> {
        let live = self.live.load_full();
        let mut ids: Vec<TenantId> = live.keyring().tenants().map(|tenant| tenant.id.clone()).collect();
        ids.sort();
        let accounts = self.catalogue().accounts();
        let records: HashMap<&TenantId, &TenantRecord> =
            accounts.tenants.iter().map(|record| (&record.id, record)).collect();
        ids.iter().filter_map(|id| self.card(&live, id, records.get(id).copied())).collect()
    }

    pub fn tenant_card(&self, id: &TenantId) -> Option<TenantCard> {
        self.card(&self.live.load(), id, self.record(id).as_ref())
    }

    fn card(&self, live: &Live, id: &TenantId, record: Option<&TenantRecord>) -> Option<TenantCard> {
        let tenant = live.keyring().tenant(id)?;
        let record = record.filter(|_| !self.assembly().configures(id));
        let alias = |(name, alias): (&String, &Alias)| AliasCard {
            name: name.clone(),
            base: alias.base.clone(),
            adapter: alias.adapter.clone(),
            answers: route(self.catalogue(), id, alias).is_some(),
        };
        let configured = || {
            let models = tenant.models.iter();
            let card = |(name, route): (&Arc<str>, &ModelRoute)| AliasCard {
                name: name.to_string(),
                base: route.base.to_string(),
                adapter: route.adapter.as_ref().map(|key| key.name.to_string()),
                answers: true,
            };
            models.map(card).collect()
        };
        Some(TenantCard {
            id: id.to_string(),
            origin: if record.is_some() { Origin::Api } else { Origin::Configuration },
            disabled: live.keyring().is_disabled(id),
            weight: tenant.share.weight,
            priority: tenant.share.priority.as_str(),
            max_waiting: tenant.share.max_waiting,
            models: record.map_or_else(configured, |it| it.settings.models.iter().map(alias).collect()),
            keys: live.keyring().keys(id).count(),
            created: record.map(|record| record.created),
            changed: record.map(|record| record.changed),
        })
    }

    /// Makes a tenant, on all gateways of the catalogue.
    pub async fn create_tenant(
        &self,
        who: &str,
        id: &TenantId,
        settings: &TenantSettings,
    ) -> Result<TenantCard, ChangeError> {
        plain(id.as_str(), "tenant's id")?;
        self.check_settings(settings)?;
        self.not_configured(id)?;
        self.catalogue().create_tenant(id, settings).await?;
        self.changed_tenant(who, "tenant.created", id, Value::Null)
    }

    /// Gives a tenant these settings in the place of those it has.
    pub async fn change_tenant(
        &self,
        who: &str,
        id: &TenantId,
        change: impl FnOnce(&mut TenantSettings, &mut bool),
    ) -> Result<TenantCard, ChangeError> {
        self.not_configured(id)?;
        let TenantRecord { mut settings, mut disabled, .. } = self.record(id).ok_or_else(|| no_tenant(id))?;
        let (before, seen) = (json!(self.tenant_card(id)), (settings.clone(), disabled));
        change(&mut settings, &mut disabled);
        self.check_settings(&settings)?;
        self.catalogue().change_tenant(id, (&seen.0, seen.1), &settings, disabled).await?;
        self.changed_tenant(who, "tenant.changed", id, before)
    }

    /// Deletes a tenant with its keys, limits and policies.
    pub async fn delete_tenant(&self, who: &str, id: &TenantId) -> Result<(), ChangeError> {
        self.not_configured(id)?;
        let before = json!(self.tenant_card(id));
        self.catalogue().delete_tenant(id).await?;
        self.assemble();
        let subject = format!("tenants/{id}");
        let (tenant, after) = (Some(id), Value::Null);
        self.audit(Change { who, action: "tenant.deleted", subject, tenant, before, after });
        Ok(())
    }

    fn changed_tenant(
        &self,
        who: &str,
        action: &'static str,
        id: &TenantId,
        before: Value,
    ) -> Result<TenantCard, ChangeError> {
        self.assemble();
        let card = self.tenant_card(id);
        let subject = format!("tenants/{id}");
        self.audit(Change { who, action, subject, tenant: Some(id), before, after: json!(card) });
        // Another gateway may have deleted it since.
        card.ok_or_else(|| no_tenant(id))
    }

    fn record(&self, id: &TenantId) -> Option<TenantRecord> {
        self.catalogue().accounts().tenants.iter().find(|record| record.id == *id).cloned()
    }

    fn not_configured(&self, id: &TenantId) -> Result<(), ChangeError> {
        match self.assembly().configures(id) {
            true => Err(ChangeError::Configured(format!("tenant `{id}`"))),
            false => Ok(()),
        }
    }

    fn check_settings(&self, settings: &TenantSettings) -> Result<(), ChangeError> {
        let invalid = |message: String| Err(ChangeError::Invalid(message));
        let TenantSettings { weight, max_waiting, models, .. } = settings;
        if !(1..=1000).contains(weight) {
            return invalid(format!("`weight`: {weight} is out of range: from 1 to 1000"));
        }
        if *max_waiting > 1_000_000 {
            return invalid(format!("`max_waiting`: {max_waiting} is out of range: from 0 to 1000000"));
        }
        for (name, alias) in models {
            if !is_model_name(name) {
                let rule = "a model's name has 1 to 128 characters, no control characters, and is neither `.` nor `..`";
                return invalid(format!("`models`: {rule}"));
            }
            if !self.catalogue().knows(&BaseName::new(alias.base.as_str())) {
                return invalid(format!("`models.{name}.base`: there is no base model `{}`", alias.base));
            }
            if let Some(adapter) = &alias.adapter {
                plain(adapter, &format!("`models.{name}.adapter`"))?;
            }
        }
        Ok(())
    }
}

pub(super) fn plain(text: &str, what: &str) -> Result<(), ChangeError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) && !is_step(text) {
        return Ok(());
    }
    let message = "has 1 to 64 characters out of a-z, 0-9, `.`, `_` and `-`, and is neither `.` nor `..`";
    Err(ChangeError::Invalid(format!("the {what} {message}")))
}

pub(super) fn is_model_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control) && !is_step(name)
}

/// What a path takes for a step, and no client leaves in one.
fn is_step(text: &str) -> bool {
    matches!(text, "." | "..")
}

pub(super) fn no_tenant(id: &TenantId) -> ChangeError {
    ChangeError::Unknown(format!("tenant `{}`", id.as_str().chars().take(100).collect::<String>()))
}
