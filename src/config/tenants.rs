//! `[[tenants]]`: who there is, what their keys are, and what their model
//! names stand for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::KeyHash;
use crate::types::{BaseName, Limits, Share, TenantId};

use super::guard::Named;
use super::limits::{self, PRIORITIES};
use super::ratings;
use super::section::{Entry, Findings, Section, choice, number, text};
use super::validate::{Folder, id, model_name};
use super::workers::no_base;
use super::{AdapterEntry, BaseConfig, ModelAlias, TenantConfig, TenantKey};

/// Demonstration keys stand in the file as they are, so each says of itself
/// that it is public.
const DEMO_PREFIX: &str = "sk-demo-";

/// Generations that a tenant may have at one time, where it is not said.
const CONCURRENT: u64 = 64;

/// What is read of the tenants, and what must be unlike across them.
pub(super) struct Tenants<'a> {
    findings: &'a Findings<'a>,
    folder: &'a Folder<'a>,
    bases: &'a [BaseConfig],
    policies: &'a Named,
    /// The path at which each id and each key was first seen.
    ids: HashMap<TenantId, String>,
    keys: HashMap<KeyHash, String>,
    pub(super) tenants: Vec<TenantConfig>,
    pub(super) adapters: Vec<AdapterEntry>,
}

// === impl Tenants ===

impl<'a> Tenants<'a> {
    pub(super) fn read(
        root: &mut Section<'a>,
        folder: &'a Folder<'a>,
        bases: &'a [BaseConfig],
        policies: &'a Named,
        findings: &'a Findings<'a>,
    ) -> Self {
        let (ids, keys) = (HashMap::new(), HashMap::new());
        let mut read = Self { findings, folder, bases, policies, ids, keys, tenants: Vec::new(), adapters: Vec::new() };
        root.require_entries("tenants");
        for entry in root.list("tenants") {
            read.tenant(Section::of(entry, findings));
        }
        read
    }

    fn tenant(&mut self, mut section: Section<'a>) {
        let id_path = section.child("id");
        let id = section.required("id", |node| text(node).and_then(|text| id(&text).map(|()| TenantId::new(text))));
        if let Some(id) = &id
            && let Some(first) = self.ids.get(id)
        {
            self.findings.add(&id_path, format!("`{id}` is the id of another tenant already, at {first}"));
        }
        // Empty only where the id was a problem; the configuration is then refused.
        let id = id.unwrap_or_else(|| TenantId::new(""));
        self.ids.entry(id.clone()).or_insert(id_path);

        let own_limits = limits::limits(section.section("limits"));
        let concurrent_generations = own_limits.concurrent_generations.or(Some(CONCURRENT));
        let own_limits = Limits { concurrent_generations, ..own_limits };
        let usual = Share::default();
        let share = Share {
            weight: section.optional("weight", number(1..=1000)).map_or(usual.weight, |weight| weight as u32),
            priority: section.optional("priority", choice(&PRIORITIES)).unwrap_or(usual.priority),
            max_waiting: section
                .optional("max_waiting", number(0..=1_000_000))
                .map_or(usual.max_waiting, |most| most as usize),
        };

        section.require_entries("keys");
        let mut names = Vec::new();
        let keys = section.list("keys").into_iter().filter_map(|entry| self.key(entry, &mut names)).collect();
        let mut own = Vec::new();
        for entry in section.list("adapters") {
            self.adapter(&id, entry, &mut own);
        }
        let models = section.named("models").into_iter().filter_map(|(name, entry)| self.model(name, entry, &own));
        let models = models.collect();
        let model_limits = section.named("model_limits").into_iter().map(|(name, entry)| {
            self.findings.check(&entry.path, model_name(name));
            (name.into(), limits::limits(Section::of(entry, self.findings)))
        });
        let model_limits = model_limits.collect();
        let guard = section.optional("guard", |node| self.policies.policy(node));
        let guards = section.named("model_guards").into_iter().filter_map(|(name, entry)| {
            self.findings.check(&entry.path, model_name(name));
            let policy = self.findings.check(&entry.path, self.policies.policy(entry.node));
            policy.map(|policy| (name.into(), policy))
        });
        let model_guards = guards.collect();
        let ratings = ratings::of_tenant(section.section("ratings"), self.findings);
        section.finish();

        self.adapters.extend(own);
        self.tenants.push(TenantConfig {
            id,
            limits: own_limits,
            model_limits,
            share,
            guard,
            model_guards,
            ratings,
            keys,
            models,
        });
    }

    fn key(&mut self, entry: Entry<'a>, names: &mut Vec<Arc<str>>) -> Option<TenantKey> {
        let mut section = Section::of(entry, self.findings);
        let (sha256, demo) = (section.has("sha256"), section.has("demo"));
        if section.is_table() && sha256 == demo {
            let message = if sha256 { "has both `sha256` and `demo`" } else { "has neither `sha256` nor `demo`" };
            self.findings.add(&section.path, message);
        }
        let hash_path = section.child(if sha256 { "sha256" } else { "demo" });
        let hash = section.optional("sha256", |node| text(node)?.parse().map_err(|error| format!("{error}")));
        let demo = section.optional("demo", |node| text(node).and_then(demo_key));
        let name_path = section.child("name");
        let name = section.optional("name", text);
        let limits = limits::limits(section.section("limits"));
        let priority = section.optional("priority", choice(&PRIORITIES));
        section.finish();

        let hash = hash.or_else(|| demo.as_ref().map(|key| KeyHash::of(key.as_bytes())))?;
        match self.keys.get(&hash) {
            Some(first) => self.findings.add(&hash_path, format!("the same key as {first}")),
            None => drop(self.keys.insert(hash, hash_path)),
        }
        let given = name.is_some();
        // Its own name in accounts, where it was given none.
        let name: Arc<str> = name.map_or_else(|| hash.to_string()[..12].into(), Arc::from);
        if given && names.contains(&name) {
            self.findings.add(&name_path, format!("the tenant has another key `{name}` already"));
        }
        names.push(name.clone());
        Some(TenantKey { hash, name, limits, priority, demo })
    }

    fn adapter(&self, tenant: &TenantId, entry: Entry<'a>, own: &mut Vec<AdapterEntry>) {
        let mut section = Section::of(entry, self.findings);
        let name_path = section.child("name");
        let config_path = section.child("path");
        let name = section.required("name", |node| text(node).and_then(|text| id(&text).map(|()| text)));
        let base = self.base(&mut section);
        let folder = section.required("path", |node| self.folder.path(node)).unwrap_or_default();
        section.finish();

        let Some(name) = name else { return };
        if own.iter().any(|adapter| *adapter.name == *name) {
            self.findings.add(&name_path, format!("the tenant has another adapter `{name}` already"));
        }
        // An empty base was a problem already; see `model`.
        let base = base.unwrap_or_else(|| BaseName::new(""));
        own.push(AdapterEntry { tenant: tenant.clone(), name: name.into(), revision: 1, base, folder, config_path });
    }

    fn model(&self, name: &str, entry: Entry<'a>, own: &[AdapterEntry]) -> Option<(Arc<str>, ModelAlias)> {
        self.findings.check(&entry.path, model_name(name));
        let mut section = Section::of(entry, self.findings);
        let adapter_path = section.child("adapter");
        let base = self.base(&mut section);
        let adapter: Option<Arc<str>> = section.optional("adapter", text).map(Arc::from);
        section.finish();

        let base = base?;
        if let Some(name) = &adapter {
            match own.iter().find(|adapter| adapter.name == *name) {
                None => self.findings.add(&adapter_path, format!("the tenant has no adapter `{name}`")),
                Some(adapter) if adapter.base != base && !adapter.base.as_str().is_empty() => {
                    let message =
                        format!("the adapter `{name}` is for the base model `{}`, not `{base}`", adapter.base);
                    self.findings.add(&adapter_path, message);
                }
                Some(_) => {}
            }
        }
        Some((name.into(), ModelAlias { base, adapter }))
    }

    /// The key `base` of a section, which must name a base model.
    fn base(&self, section: &mut Section<'a>) -> Option<BaseName> {
        section.required("base", |node| {
            let base = BaseName::new(text(node)?);
            let known = self.bases.iter().any(|known| known.name == base);
            known.then(|| base.clone()).ok_or_else(|| no_base(&base, self.bases))
        })
    }
}

fn demo_key(text: String) -> Result<String, String> {
    let rest = text.strip_prefix(DEMO_PREFIX).unwrap_or_default();
    match id(rest) {
        Ok(()) => Ok(text),
        Err(_) => Err(format!(
            "a demonstration key is public and has the form `{DEMO_PREFIX}name`; a real key goes in as `sha256`"
        )),
    }
}
