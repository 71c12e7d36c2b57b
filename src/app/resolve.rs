//! From the configuration to the records that the rooms keep, once the
//! adapters' artifacts have been read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::adapters::Artifact;
use crate::auth::Keyring;
use crate::types::{AdapterKey, BaseName, Caller, Key, ModelRoute, Tenant, TenantId};

use crate::config::{AdapterEntry, Config, Digests, ModelAlias};

/// What the live part of the gateway is made of.
#[derive(Debug)]
pub struct Resolved {
    pub keyring: Keyring,
    /// The adapters that the configuration lists, and where they lie.
    pub adapters: Vec<(Artifact, PathBuf)>,
    /// Base models that some tenant's model stands on, each once.
    pub bases: Vec<BaseName>,
}

type Keys<'a> = HashMap<(&'a TenantId, &'a str), AdapterKey>;

// === impl Config ===

impl Config {
    /// `digests` has the SHA-256 of every adapter's artifact, as [`load`](super::load) found them.
    pub fn resolve(&self, digests: &Digests) -> Resolved {
        let mut keys = Keys::new();
        let mut adapters = Vec::new();
        for entry in &self.adapters {
            let digest = digests.get(&entry.config_path).expect("a loaded configuration knows all digests");
            let artifact = entry.artifact(digest.clone());
            keys.insert((&entry.tenant, &entry.name), artifact.key.clone());
            adapters.push((artifact, entry.folder.clone()));
        }
        Resolved { keyring: self.keyring(&keys), adapters, bases: self.bases_in_use() }
    }

    fn keyring(&self, keys: &Keys<'_>) -> Keyring {
        let mut keyring = Keyring::default();
        for tenant in &self.tenants {
            let route = |alias: &ModelAlias| ModelRoute {
                base: alias.base.clone(),
                adapter: alias.adapter.as_ref().map(|name| {
                    keys.get(&(&tenant.id, &**name)).expect("an alias names an adapter of its tenant").clone()
                }),
            };
            let models = tenant.models.iter().map(|(name, alias)| (name.clone(), route(alias))).collect();
            let shared = Arc::new(Tenant {
                id: tenant.id.clone(),
                limits: tenant.limits.clone(),
                model_limits: tenant.model_limits.clone(),
                share: tenant.share.clone(),
                models,
            });
            for key in &tenant.keys {
                let of_key = Key { name: key.name.clone(), limits: key.limits.clone(), priority: key.priority };
                let caller = Caller { tenant: shared.clone(), key: Arc::new(of_key) };
                keyring.insert(key.hash, caller).expect("no two keys of a configuration are the same");
            }
        }
        keyring
    }

    fn bases_in_use(&self) -> Vec<BaseName> {
        let aliases = self.tenants.iter().flat_map(|tenant| tenant.models.values());
        let mut bases: Vec<BaseName> = aliases.map(|alias| alias.base.clone()).collect();
        bases.sort();
        bases.dedup();
        bases
    }
}

// === impl AdapterEntry ===

impl AdapterEntry {
    fn artifact(&self, digest: String) -> Artifact {
        let key = AdapterKey {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            revision: self.revision,
            digest: digest.into(),
        };
        Artifact { key, base: self.base.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn a_configuration_becomes_tenants_with_their_own_models() {
        let text = r#"
            bases.one.path = "one.gguf"
            workers.local = { driver = "embedded", bases = ["one"] }
            [[tenants]]
            id = "acme"
            keys = [{ demo = "sk-demo-acme" }]
            adapters = [{ name = "pirate", base = "one", path = "adapters/pirate" }]
            models = { assistant = { base = "one", adapter = "pirate" }, "one" = { base = "one" } }
        "#;
        let config = config::parse(Path::new("conf/t.toml"), text, []).expect("no problem").config;
        let digest = |entry: &AdapterEntry| (entry.config_path.clone(), format!("digest of {}", entry.name));
        let resolved = config.resolve(&config.adapters.iter().map(digest).collect());
        assert_eq!(resolved.bases, [BaseName::new("one")]);

        let acme = resolved.keyring.authenticate(Some(b"Bearer sk-demo-acme")).expect("a known key").tenant;
        assert_eq!(acme.models["one"].adapter, None);
        let key = acme.models["assistant"].adapter.as_ref().expect("an adapter");
        assert_eq!((&*key.name, key.revision, &*key.digest), ("pirate", 1, "digest of pirate"));
        let (artifact, folder) = &resolved.adapters[0];
        assert_eq!((&artifact.key, folder.as_path()), (key, Path::new("conf/adapters/pirate")));
        assert_eq!(artifact.base.as_str(), "one");
    }
}
