//! The catalogue's handle: what requests ask it, what operators change, and
//! the task that follows other gateways' changes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};
use ulid::Ulid;

use super::artifacts::{Files, Store, cache_folder};
use super::backing::Backing;
use super::database::{AdapterRow, Database, Down, Refused, Rows};
use super::error::{ChangeError, FetchError, OpenError, PublishError};
use super::probes::Probes;
use super::snapshot::Snapshot;
use super::{Artifact, Config, Inspect, Publish, Record, plain_name};
use crate::telemetry::Metrics;
use crate::types::{AdapterKey, ModelRoute, TenantId};

/// Artifacts that are validated at one time; each is held in memory.
const PUBLISHES: usize = 2;

pub struct Catalogue {
    snapshot: ArcSwap<Snapshot>,
    configured: Vec<(Artifact, PathBuf)>,
    /// `None` for what the configuration alone lists, in tests.
    pub(super) backing: Option<Backing>,
    pub(super) probes: Probes,
    version: watch::Sender<i64>,
    /// One lock for each artifact that is being copied here.
    fetching: Mutex<HashMap<AdapterKey, Arc<AsyncMutex<()>>>>,
    /// Folders that were held against their digest in this run.
    verified: Mutex<HashSet<AdapterKey>>,
}

/// A folder for an upload; removed when dropped.
#[derive(Debug)]
pub struct Staging(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub record: Record,
    /// `false` where the newest revision is this artifact already.
    pub new: bool,
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
            configured,
            backing,
            probes,
            version: watch::Sender::new(rows.version),
            fetching: Mutex::default(),
            verified: Mutex::default(),
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
        sweep(&config.data_dir.join("staging"));
        let database = Database::open(&config.database).map_err(|Down(reason)| wrong("the database's URL", reason))?;
        let store = Store::open(&config.artifacts)?;
        let interval = config.poll_interval;
        let backing = Backing {
            database,
            migrated: AtomicBool::new(false),
            down: Mutex::default(),
            store,
            inspect,
            places: Semaphore::new(PUBLISHES),
            metrics,
            poller: OnceLock::new(),
            config,
        };
        let rows = match backing.rows(None).await? {
            Some(rows) => rows,
            None => backing.remembered(),
        };
        let catalogue = Arc::new(Self::new(configured, Some(backing), rows));
        catalogue.count();
        let followed = Arc::downgrade(&catalogue);
        let poller = tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(catalogue) = followed.upgrade() else { return };
                catalogue.refresh().await;
            }
        });
        if let Some(backing) = &catalogue.backing {
            let _ = backing.poller.set(AbortOnDropHandle::new(poller));
        }
        Ok(catalogue)
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

    /// A folder of this machine with the artifact's two files, which never
    /// change. Copied once, however many ask.
    pub async fn fetch(&self, key: &AdapterKey) -> Result<PathBuf, FetchError> {
        let (_, configured) = self.snapshot.load().artifact(key).cloned().unzip();
        let configured = configured.ok_or_else(|| FetchError::Unavailable(format!("there is no adapter {key}")))?;
        let Some(backing) = &self.backing else {
            return configured.ok_or_else(|| FetchError::Unavailable("it lies nowhere".to_owned()));
        };
        let folder = cache_folder(&backing.config.data_dir, key);
        let turn = lock(&self.fetching).entry(key.clone()).or_default().clone();
        let fetched = {
            let _turn = turn.lock().await;
            if lock(&self.verified).contains(key) && folder.is_dir() {
                Ok(())
            } else {
                backing.copy(key, configured, &folder).await
            }
        };
        lock(&self.fetching).remove(key);
        fetched?;
        lock(&self.verified).insert(key.clone());
        Ok(folder)
    }

    // What operators change.

    /// A folder to write an upload to.
    pub fn staging(&self) -> Result<Staging, PublishError> {
        let backing = self.backing()?;
        let folder = backing.config.data_dir.join("staging").join(Ulid::generate().to_string());
        fs::create_dir(&folder).map_err(|error| PublishError::Internal(format!("staging: {error}")))?;
        Ok(Staging(folder))
    }

    /// The largest upload that makes sense.
    pub fn max_upload(&self) -> u64 {
        self.backing.as_ref().map_or(0, |backing| backing.config.max_adapter_bytes) + (2 << 20)
    }

    /// Validates, stores and writes down an adapter. Afterwards its name
    /// answers here, and at other gateways with their next look.
    pub async fn publish(&self, publish: Publish) -> Result<Published, PublishError> {
        let backing = self.backing()?;
        let published = self.try_publish(backing, &publish).await;
        let outcome = match &published {
            Ok(_) => "ok",
            Err(error) if error.is_temporary() => "error",
            Err(_) => "refused",
        };
        backing.metrics.adapter_published(outcome);
        match &published {
            Ok(Published { record, new }) => {
                info!(adapter = %record.key, base = %record.base, new, "adapter published");
                self.refresh().await;
            }
            Err(error) => {
                warn!(tenant = %publish.tenant, name = publish.name, code = error.code(), %error, "adapter refused");
                // A name that is none is nobody's record.
                if !error.is_temporary() && plain_name(&publish.name).is_ok() {
                    backing.note_refusal(&publish, error).await;
                }
            }
        }
        published
    }

    async fn try_publish(&self, backing: &Backing, publish: &Publish) -> Result<Published, PublishError> {
        plain_name(publish.tenant.as_str())?;
        plain_name(&publish.name)?;
        let Publish { tenant, name, base, source, digest } = publish;
        let taken =
            |(artifact, _): &(Artifact, PathBuf)| artifact.key.tenant == *tenant && *artifact.key.name == **name;
        if self.configured.iter().any(taken) {
            return Err(PublishError::NameTaken(name.clone()));
        }
        if !backing.inspect.knows(base) {
            return Err(PublishError::UnknownBase(base.to_string()));
        }
        let _place = backing.places.acquire().await.expect("nobody closes it");
        let staging = self.staging()?;
        let folder = backing.staged(source, &staging).await?;
        let (inspect, base_name, inspected) = (backing.inspect.clone(), base.clone(), folder.clone());
        let most = backing.config.max_adapter_bytes;
        let reading = tokio::task::spawn_blocking(move || {
            let found = inspect.inspect(&base_name, &inspected)?;
            let files = Files::read(&inspected, most).map_err(|error| PublishError::Internal(error.to_string()))?;
            // What was checked and what is stored are the same bytes.
            match files.digest() == found.digest {
                true => Ok((found, files)),
                false => Err(PublishError::Internal("the artifact changed while it was read".to_owned())),
            }
        });
        let (found, files) =
            reading.await.unwrap_or_else(|_| Err(PublishError::Internal("validating it panicked".to_owned())))?;
        if let Some(expected) = digest.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&found.digest)) {
            let expected = expected.chars().take(100).collect();
            return Err(PublishError::DigestMismatch { expected, found: found.digest });
        }
        let row = AdapterRow {
            tenant: tenant.to_string(),
            name: name.clone(),
            revision: 0,
            digest: found.digest,
            base: base.to_string(),
            rank: found.rank,
            bytes: found.bytes,
            created: now(),
            retired: None,
        };
        let key = row.record().key;
        backing.store.put(&key, &files).await.map_err(PublishError::StoreUnavailable)?;
        backing.ready().await.map_err(|Down(why)| PublishError::CatalogueUnavailable(why))?;
        let inserted = backing.database.insert(&row).await;
        let (row, new) = inserted.map_err(|Down(why)| PublishError::CatalogueUnavailable(why))?;
        Ok(Published { record: row.record(), new })
    }

    /// Has the name answer with this revision, whatever is published later.
    pub async fn pin(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        let record = self.revision(tenant, name, revision)?;
        if record.retired.is_some() {
            return Err(ChangeError::Retired(revision));
        }
        self.set_pin(tenant, name, Some(revision)).await?;
        Ok(record)
    }

    /// Has the name answer with the newest revision again.
    pub async fn latest(&self, tenant: &TenantId, name: &str) -> Result<Record, ChangeError> {
        let newest = self.living(tenant, name)?.pop().expect("there is one");
        self.set_pin(tenant, name, None).await?;
        Ok(newest)
    }

    /// Pins the name to the revision before the one that answers now.
    pub async fn roll_back(&self, tenant: &TenantId, name: &str) -> Result<Record, ChangeError> {
        let now = self.resolve(tenant, name).and_then(|route| route.adapter).map_or(u32::MAX, |key| key.revision);
        let mut before = self.living(tenant, name)?;
        before.retain(|record| record.key.revision < now);
        let record = before.pop().ok_or(ChangeError::NothingBefore)?;
        self.set_pin(tenant, name, Some(record.key.revision)).await?;
        Ok(record)
    }

    /// Takes a revision out of service; what runs on it finishes.
    pub async fn retire(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        let record = self.revision(tenant, name, revision)?;
        self.change(|backing| async { backing.database.retire(&record.key, now()).await }).await?;
        info!(adapter = %record.key, "adapter retired");
        self.revision(tenant, name, revision)
    }

    /// Deletes a retired revision, and its artifact where no other has it.
    pub async fn delete(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        let record = self.revision(tenant, name, revision)?;
        if record.retired.is_none() {
            return Err(ChangeError::NotRetired(revision));
        }
        let last = self.change(|backing| async { backing.database.delete(&record.key).await }).await?;
        if let Some(backing) = self.backing.as_ref().filter(|_| last) {
            if let Err(error) = backing.store.delete(&record.key).await {
                warn!(adapter = %record.key, error, "the record is deleted, its artifact is not");
            }
            let _ = fs::remove_dir_all(cache_folder(&backing.config.data_dir, &record.key));
        }
        lock(&self.verified).remove(&record.key);
        info!(adapter = %record.key, "adapter deleted");
        Ok(record)
    }

    // What operators see.

    pub fn list(&self, tenant: Option<&TenantId>) -> Vec<Listed> {
        let snapshot = self.snapshot.load();
        let records = snapshot.records.iter().filter(|it| tenant.is_none_or(|tenant| it.key.tenant == *tenant));
        records.map(|record| self.listed(&snapshot, record)).collect()
    }

    fn listed(&self, snapshot: &Snapshot, record: &Record) -> Listed {
        let key = &record.key;
        let folder = self.backing.as_ref().map(|backing| cache_folder(&backing.config.data_dir, key));
        Listed {
            record: record.clone(),
            serving: snapshot.serves(key),
            pinned: snapshot.pinned(key),
            fetching: lock(&self.fetching).contains_key(key),
            fetched: folder.is_some_and(|folder| folder.is_dir()),
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

    /// Everything that may be loaded.
    pub fn keys(&self) -> HashSet<AdapterKey> {
        self.snapshot.load().keys().cloned().collect()
    }

    // Following the database.

    pub(super) async fn refresh(&self) {
        let Some(backing) = &self.backing else { return };
        let version = self.snapshot.load().version;
        match backing.rows(Some(version)).await {
            Ok(Some(rows)) => self.swap(backing, &rows),
            Ok(None) => {}
            Err(failure) => error!(%failure, "the catalogue cannot be read"),
        }
        backing.metrics.catalogue_up(self.down().is_none());
    }

    fn swap(&self, backing: &Backing, rows: &Rows) {
        let snapshot = Snapshot::new(rows, &self.configured);
        self.probes.follow(&rows.probes, &snapshot.probed());
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_replace(rows.version);
        backing.remember(rows);
        self.count();
    }

    fn count(&self) {
        let Some(backing) = &self.backing else { return };
        let snapshot = self.snapshot.load();
        let retired = snapshot.records.iter().filter(|record| record.retired.is_some()).count();
        backing.metrics.adapters(snapshot.records.len() - retired, retired);
        backing.metrics.catalogue_up(self.down().is_none());
    }

    fn backing(&self) -> Result<&Backing, PublishError> {
        let nothing = || PublishError::CatalogueUnavailable("there is none".to_owned());
        self.backing.as_ref().ok_or_else(nothing)
    }

    fn revision(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        let snapshot = self.snapshot.load();
        let found = snapshot.revisions(tenant, name).into_iter().find(|record| record.key.revision == revision);
        found.cloned().ok_or_else(|| ChangeError::NotFound(format!("{name}@{revision}")))
    }

    /// Those that are not retired, oldest first; at least one.
    fn living(&self, tenant: &TenantId, name: &str) -> Result<Vec<Record>, ChangeError> {
        let snapshot = self.snapshot.load();
        let all = snapshot.revisions(tenant, name).into_iter();
        let living: Vec<Record> = all.filter(|record| record.retired.is_none()).cloned().collect();
        if living.is_empty() { Err(ChangeError::NotFound(name.to_owned())) } else { Ok(living) }
    }

    async fn set_pin(&self, tenant: &TenantId, name: &str, revision: Option<u32>) -> Result<(), ChangeError> {
        self.change(|backing| async move { backing.database.pin(tenant.as_str(), name, revision).await }).await?;
        info!(%tenant, name, revision, "adapter's serving revision changed");
        Ok(())
    }

    /// Makes a change, and sees it.
    async fn change<'a, T, F: Future<Output = Result<T, Down>>>(
        &'a self,
        work: impl FnOnce(&'a Backing) -> F,
    ) -> Result<T, ChangeError> {
        let backing = self.backing().map_err(|error| ChangeError::CatalogueUnavailable(error.to_string()))?;
        let down = |Down(why)| ChangeError::CatalogueUnavailable(why);
        backing.ready().await.map_err(down)?;
        let done = work(backing).await.map_err(down)?;
        self.refresh().await;
        Ok(done)
    }
}

/// Removes what an earlier run left.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Staging ===

impl Staging {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}
