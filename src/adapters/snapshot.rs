//! The catalogue as requests see it: built once for each change, and read
//! without a lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::backing::REMEMBERED;
use super::database::Rows;
use super::probes::Probed;
use super::{Artifact, Record};
use crate::types::{AdapterKey, ModelRoute, TenantId};

#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) version: i64,
    /// Model name → what answers it, for each tenant.
    models: HashMap<TenantId, BTreeMap<Arc<str>, Serving>>,
    /// Everything that may be loaded, and where a configured one lies.
    artifacts: HashMap<AdapterKey, (Artifact, Option<PathBuf>)>,
    pub(super) records: Vec<Record>,
    pins: HashMap<(TenantId, Arc<str>), u32>,
    retired: HashSet<AdapterKey>,
}

#[derive(Debug, Clone)]
struct Serving {
    route: ModelRoute,
    created: u64,
}

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn new(rows: &Rows, configured: &[(Artifact, PathBuf)]) -> Self {
        let pin = |(tenant, name, revision): &(String, String, u32)| {
            ((TenantId::new(tenant.as_str()), name.as_str().into()), *revision)
        };
        let records = rows.adapters.iter().map(super::database::AdapterRow::record).collect();
        Self::of(rows.version, rows.pins.iter().map(pin).collect(), records, configured)
    }

    /// The same with what another configuration lists.
    pub(super) fn reconfigured(&self, configured: &[(Artifact, PathBuf)]) -> Self {
        Self::of(self.version, self.pins.clone(), self.records.clone(), configured)
    }

    fn of(
        version: i64,
        pins: HashMap<(TenantId, Arc<str>), u32>,
        records: Vec<Record>,
        configured: &[(Artifact, PathBuf)],
    ) -> Self {
        let mut snapshot = Self { version, pins, ..Self::default() };
        let retired = records.iter().filter(|record| record.retired.is_some());
        snapshot.retired = retired.map(|record| record.key.clone()).collect();
        // In the order of revisions, so the newest is written last.
        for record in records.iter().filter(|record| record.retired.is_none()) {
            let Record { key, base, created, .. } = record;
            snapshot.artifacts.insert(key.clone(), (Artifact { key: key.clone(), base: base.clone() }, None));
            let route = ModelRoute { base: base.clone(), adapter: Some(key.clone()) };
            let serving = Serving { route, created: *created };
            let models = snapshot.models.entry(key.tenant.clone()).or_default();
            models.insert(format!("{}@{}", key.name, key.revision).into(), serving.clone());
            let pinned = snapshot.pins.get(&(key.tenant.clone(), key.name.clone()));
            if pinned.is_none_or(|pinned| *pinned == key.revision) {
                models.insert(key.name.clone(), serving);
            }
        }
        snapshot.records = records;
        for (artifact, folder) in configured {
            snapshot.artifacts.insert(artifact.key.clone(), (artifact.clone(), Some(folder.clone())));
        }
        snapshot
    }

    pub(super) fn resolve(&self, tenant: &TenantId, model: &str) -> Option<&ModelRoute> {
        Some(&self.models.get(tenant)?.get(model)?.route)
    }

    /// The names that answer, without those of single revisions.
    pub(super) fn models(&self, tenant: &TenantId) -> Vec<(Arc<str>, u64)> {
        let all = self.models.get(tenant).into_iter().flatten();
        let named = all.filter(|(name, serving)| serving.route.adapter.as_ref().is_some_and(|key| key.name == **name));
        named.map(|(name, serving)| (name.clone(), serving.created)).collect()
    }

    pub(super) fn artifact(&self, key: &AdapterKey) -> Option<&(Artifact, Option<PathBuf>)> {
        self.artifacts.get(key)
    }

    pub(super) fn is_retired(&self, key: &AdapterKey) -> bool {
        self.retired.contains(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &AdapterKey> {
        self.artifacts.keys()
    }

    pub(super) fn revision(&self, tenant: &TenantId, name: &str, revision: u32) -> Option<&Record> {
        let same = |key: &AdapterKey| key.tenant == *tenant && *key.name == *name && key.revision == revision;
        self.records.iter().find(|record| same(&record.key))
    }

    /// It is not the database's, but what was seen of it last.
    pub(super) fn is_remembered(&self) -> bool {
        self.version == REMEMBERED
    }

    /// Whether the configuration or any record, a retired one too, names an artifact.
    pub(super) fn names(&self, tenant: &str, digest: &str) -> bool {
        let same = |key: &AdapterKey| key.tenant.as_str() == tenant && *key.digest == *digest;
        self.records.iter().any(|record| same(&record.key)) || self.artifacts.keys().any(same)
    }

    /// Every artifact that is named, retired ones too.
    pub(super) fn probed(&self) -> HashSet<Probed> {
        let loadable =
            self.artifacts.values().map(|(artifact, _)| (artifact.base.clone(), artifact.key.digest.clone()));
        let recorded = self.records.iter().map(|record| (record.base.clone(), record.key.digest.clone()));
        loadable.chain(recorded).collect()
    }

    pub(super) fn pinned(&self, key: &AdapterKey) -> bool {
        self.pins.get(&(key.tenant.clone(), key.name.clone())) == Some(&key.revision)
    }

    /// Whether this revision answers its name.
    pub(super) fn serves(&self, key: &AdapterKey) -> bool {
        self.resolve(&key.tenant, &key.name).is_some_and(|route| route.adapter.as_ref() == Some(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::database::AdapterRow;

    fn row(tenant: &str, name: &str, revision: u32, retired: bool) -> AdapterRow {
        AdapterRow {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            revision,
            digest: format!("{tenant}{name}{revision}"),
            base: "base".to_owned(),
            rank: 8,
            bytes: 1,
            created: 1,
            retired: retired.then_some(2),
        }
    }

    fn revision(snapshot: &Snapshot, tenant: &str, model: &str) -> Option<u32> {
        let route = snapshot.resolve(&TenantId::new(tenant), model)?;
        route.adapter.as_ref().map(|key| key.revision)
    }

    #[test]
    fn the_newest_answers_unless_another_is_pinned_and_what_is_retired_does_not() {
        let mut rows = Rows {
            adapters: vec![row("t", "a", 1, false), row("t", "a", 2, false), row("t", "a", 3, true)],
            ..Rows::default()
        };
        let snapshot = Snapshot::new(&rows, &[]);
        assert_eq!(revision(&snapshot, "t", "a"), Some(2));
        assert_eq!(revision(&snapshot, "t", "a@1"), Some(1));
        assert_eq!(revision(&snapshot, "t", "a@3"), None);
        assert_eq!(snapshot.models(&TenantId::new("t")).len(), 1);
        rows.pins = vec![("t".to_owned(), "a".to_owned(), 1)];
        assert_eq!(revision(&Snapshot::new(&rows, &[]), "t", "a"), Some(1));
    }

    proptest! {
        #[test]
        fn a_tenant_is_never_led_to_another_tenants_adapter(
            adapters in prop::collection::vec(("[ab]", "[xy]", 1_u32..4, any::<bool>()), 0..10),
            pins in prop::collection::vec(("[ab]", "[xy]", 1_u32..4), 0..3),
        ) {
            let rows = Rows {
                adapters: adapters.iter().map(|(tenant, name, number, gone)| row(tenant, name, *number, *gone)).collect(),
                pins,
                ..Rows::default()
            };
            let snapshot = Snapshot::new(&rows, &[]);
            for tenant in ["a", "b"] {
                for model in ["x", "y", "x@1", "y@2", "x@3"] {
                    if let Some(route) = snapshot.resolve(&TenantId::new(tenant), model) {
                        let key = route.adapter.as_ref().expect("an adapter");
                        prop_assert_eq!(key.tenant.as_str(), tenant);
                        prop_assert!(model.starts_with(&*key.name));
                    }
                }
            }
        }
    }
}
