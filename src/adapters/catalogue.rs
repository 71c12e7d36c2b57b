//! The catalogue's handle: what requests ask it, what operators see, and how
//! it follows the database.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use super::accounts::Accounts;
use super::backing::Backing;
use super::database::{Down, LimitRow, Refused, Rows};
use super::error::{ChangeError, FetchError, OpenError, PublishError};
use super::probes::Probes;
use super::snapshot::Snapshot;
use super::{Artifact, Config, Inspect, Record, lock};
use crate::telemetry::Metrics;
use crate::types::{AdapterKey, ModelRoute, TenantId};

pub struct Catalogue {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) configured: ArcSwap<Vec<(Artifact, PathBuf)>>,
    /// `None` for what the configuration alone lists, in tests.
    pub(super) backing: Option<Backing>,
    pub(super) probes: Probes,
    version: watch::Sender<i64>,
    /// What operators have set.
    pub(super) limits: ArcSwap<Vec<LimitRow>>,
    pub(super) accounts: ArcSwap<Accounts>,
}

/// A revision as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub record: Record,
    /// Its name answers with it.
    pub serving: bool,
    pub pinned: bool,
    /// It is being copied to this machine.
    pub fetching: bool,
    /// A copy is on this machine.
    pub fetched: bool,
}

// === impl Catalogue ===

impl Catalogue {
    /// What `configured` lists and nothing else, read from where it lies.
    pub fn fixed(configured: Vec<(Artifact, PathBuf)>) -> Arc<Self> {
        Arc::new(Self::new(configured, None, Rows::default()))
    }

    fn new(configured: Vec<(Artifact, PathBuf)>, backing: Option<Backing>, rows: Rows) -> Self {
        let (snapshot, probes) = (Snapshot::new(&rows, &configured), Probes::default());
        probes.follow(&rows.probes, &snapshot.probed());
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            configured: ArcSwap::from_pointee(configured),
            backing,
            probes,
            accounts: ArcSwap::from_pointee(Accounts::of(&rows.accounts)),
            limits: ArcSwap::from_pointee(rows.limits),
            version: watch::Sender::new(rows.version),
        }
    }

    /// Opens the catalogue and follows it. Without the database it begins
    /// with what this gateway saw last.
    pub async fn open(
        config: Config,
        configured: Vec<(Artifact, PathBuf)>,
        inspect: Arc<dyn Inspect>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let wrong = |what: &str, reason: String| OpenError::Setting { what: what.to_owned(), reason };
        for folder in ["staging", "cache"] {
            let folder = config.data_dir.join(folder);
            fs::create_dir_all(&folder).map_err(|error| wrong(&folder.display().to_string(), error.to_string()))?;
        }
        empty(&config.data_dir.join("staging"));
        let (poll, sweep) = (config.poll_interval, config.sweep.every);
        let backing = Backing::open(config, inspect, metrics)?;
        let rows = match backing.rows(None).await? {
            Some(rows) => {
                // Nothing may change before the database is away at the next start.
                backing.remember(&rows, backing.turn().await).await;
                rows
            }
            None => backing.remembered(),
        };
        let catalogue = Arc::new(Self::new(configured, Some(backing), rows));
        catalogue.count();
        let (polled, swept) = (Arc::downgrade(&catalogue), Arc::downgrade(&catalogue));
        let poller = tokio::spawn(async move {
            loop {
                tokio::time::sleep(poll).await;
                let Some(catalogue) = polled.upgrade() else { return };
                catalogue.refresh().await;
            }
        });
        let sweeper = tokio::spawn(async move {
            loop {
                let Some(catalogue) = swept.upgrade() else { return };
                catalogue.sweep().await;
                drop(catalogue);
                tokio::time::sleep(sweep).await;
            }
        });
        let noted = Arc::downgrade(&catalogue);
        let writer = tokio::spawn(async move {
            while let Some(catalogue) = noted.upgrade() {
                let rung = catalogue.rung();
                drop(catalogue);
                rung.await;
                let Some(catalogue) = noted.upgrade() else { return };
                catalogue.write_noted().await;
            }
        });
        if let Some(backing) = &catalogue.backing {
            let _ = backing.tasks.set([poller, sweeper, writer].map(AbortOnDropHandle::new));
        }
        Ok(catalogue)
    }

    /// Has what another configuration lists in the place of the one before.
    /// Whoever loads or unloads adapters hears of it.
    pub async fn configure(&self, configured: Vec<(Artifact, PathBuf)>) {
        let _turn = match &self.backing {
            Some(backing) => Some(backing.turn().await),
            None => None,
        };
        if **self.configured.load() == configured {
            return;
        }
        self.snapshot.store(Arc::new(self.snapshot.load().reconfigured(&configured)));
        self.configured.store(Arc::new(configured));
        self.version.send_modify(|_| {});
    }

    // What requests ask.

    /// What a published model name stands for in this tenant.
    pub fn resolve(&self, tenant: &TenantId, model: &str) -> Option<ModelRoute> {
        self.snapshot.load().resolve(tenant, model).cloned()
    }

    /// The published names that answer, with when they were published.
    pub fn models(&self, tenant: &TenantId) -> Vec<(Arc<str>, u64)> {
        self.snapshot.load().models(tenant)
    }

    pub fn get(&self, key: &AdapterKey) -> Option<Artifact> {
        self.snapshot.load().artifact(key).map(|(artifact, _)| artifact.clone())
    }

    /// Whether it was published, and is not to be used any more.
    pub fn is_retired(&self, key: &AdapterKey) -> bool {
        self.snapshot.load().is_retired(key)
    }

    /// A folder of this machine with the artifact's two files, which never
    /// change. Copied once, however many ask.
    pub async fn fetch(&self, key: &AdapterKey) -> Result<PathBuf, FetchError> {
        let (_, configured) = self.snapshot.load().artifact(key).cloned().unzip();
        let configured = configured.ok_or_else(|| FetchError::Unavailable(format!("there is no adapter {key}")))?;
        let Some(backing) = &self.backing else {
            return configured.ok_or_else(|| FetchError::Unavailable("it lies nowhere".to_owned()));
        };
        backing.copies.fetch(key, configured, &backing.store).await
    }

    // What operators see.

    pub fn list(&self, tenant: Option<&TenantId>) -> Vec<Listed> {
        let snapshot = self.snapshot.load();
        let records = snapshot.records.iter().filter(|it| tenant.is_none_or(|tenant| it.key.tenant == *tenant));
        records.map(|record| self.listed(&snapshot, record)).collect()
    }

    fn listed(&self, snapshot: &Snapshot, record: &Record) -> Listed {
        let key = &record.key;
        let copies = self.backing.as_ref().map(|backing| &backing.copies);
        Listed {
            record: record.clone(),
            serving: snapshot.serves(key),
            pinned: snapshot.pinned(key),
            fetching: copies.is_some_and(|copies| copies.fetching(key)),
            fetched: copies.is_some_and(|copies| copies.fetched(key)),
        }
    }

    /// Publishes that were refused, newest first.
    pub async fn refusals(&self, tenant: Option<&TenantId>) -> Result<Vec<Refused>, ChangeError> {
        let backing = self.backing().map_err(|error| ChangeError::CatalogueUnavailable(error.to_string()))?;
        let refusals = backing.database.refusals(tenant.map(TenantId::as_str)).await;
        refusals.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }

    /// Why the database was away at the last look.
    pub fn down(&self) -> Option<String> {
        self.backing.as_ref().and_then(|backing| lock(&backing.down).clone())
    }

    /// Turns with every change; carries the version.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.version.subscribe()
    }

    /// Whether there is a base model of this name, and what may be published for it.
    pub fn knows(&self, base: &crate::types::BaseName) -> bool {
        self.backing.as_ref().is_some_and(|backing| backing.inspect.knows(base))
    }

    /// Everything that may be loaded.
    pub fn keys(&self) -> HashSet<AdapterKey> {
        self.snapshot.load().keys().cloned().collect()
    }

    // Following the database.

    /// Sees what has changed. One look at a time: an older one must not come
    /// after a newer.
    pub(super) async fn refresh(&self) {
        let Some(backing) = &self.backing else { return };
        let turn = backing.turn().await;
        let version = self.snapshot.load().version;
        match backing.rows(Some(version)).await {
            Ok(Some(rows)) => {
                let snapshot = Snapshot::new(&rows, &self.configured.load());
                self.probes.follow(&rows.probes, &snapshot.probed());
                self.snapshot.store(Arc::new(snapshot));
                self.limits.store(Arc::new(rows.limits.clone()));
                self.follow_accounts(&rows.accounts);
                self.version.send_replace(rows.version);
                self.count();
                backing.remember(&rows, turn).await;
            }
            Ok(None) => {}
            Err(failure) => error!(%failure, "the catalogue cannot be read"),
        }
        backing.metrics.catalogue_up(self.down().is_none());
    }

    /// Removes what nothing names any more, here and in the store.
    async fn sweep(&self) {
        let Some(backing) = &self.backing else { return };
        // What is remembered may lack what others have published since.
        if !self.snapshot.load().is_remembered() {
            let named = |tenant: &str, digest: &str| self.snapshot.load().names(tenant, digest);
            backing.copies.sweep(named, backing.config.sweep.copies_after).await;
        }
        backing.sweep_store().await;
    }

    fn count(&self) {
        let Some(backing) = &self.backing else { return };
        backing.metrics.catalogue_up(self.down().is_none());
    }

    pub(super) fn backing(&self) -> Result<&Backing, PublishError> {
        let nothing = || PublishError::CatalogueUnavailable("there is none".to_owned());
        self.backing.as_ref().ok_or_else(nothing)
    }
}

/// Removes what an earlier run left.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
}
