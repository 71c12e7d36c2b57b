//! What a catalogue stands on: the database, the artifact store, and this
//! machine's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use ulid::Ulid;

use super::artifacts::{Files, Store};
use super::catalogue::{Staging, lock, now};
use super::database::{Database, Down, Refused, Rows};
use super::error::{FetchError, OpenError, PublishError};
use super::{Config, Inspect, Publish, Source, archive};
use crate::telemetry::Metrics;
use crate::types::AdapterKey;

/// The catalogue's memory of the database, for a start without it.
const SNAPSHOT_FILE: &str = "catalogue.json";

pub(super) struct Backing {
    pub(super) config: Config,
    pub(super) database: Database,
    pub(super) migrated: AtomicBool,
    /// Why the last look failed.
    pub(super) down: Mutex<Option<String>>,
    pub(super) store: Store,
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) places: Semaphore,
    pub(super) metrics: Arc<Metrics>,
    pub(super) poller: OnceLock<AbortOnDropHandle<()>>,
}

// === impl Backing ===

impl Backing {
    /// All rows, where the version is not `seen`; `None` too where the database is away.
    pub(super) async fn rows(&self, seen: Option<i64>) -> Result<Option<Rows>, OpenError> {
        if !self.migrated.load(Ordering::Acquire) {
            match self.database.migrate().await {
                Ok(()) => self.migrated.store(true, Ordering::Release),
                Err(sqlx::migrate::MigrateError::Execute(error)) => {
                    self.is_down(Some(error.to_string()));
                    return Ok(None);
                }
                Err(error) => return Err(OpenError::Migration(error)),
            }
        }
        let looked = async {
            let version = self.database.version().await?;
            if seen == Some(version) { Ok(None) } else { self.database.rows().await.map(Some) }
        };
        match looked.await {
            Ok(rows) => {
                self.is_down(None);
                Ok(rows)
            }
            Err(Down(why)) => {
                self.is_down(Some(why));
                Ok(None)
            }
        }
    }

    pub(super) async fn ready(&self) -> Result<(), Down> {
        if self.migrated.load(Ordering::Acquire) {
            return Ok(());
        }
        self.database.migrate().await.map_err(|error| Down(error.to_string()))?;
        self.migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// Told once, when it goes and when it comes back.
    fn is_down(&self, why: Option<String>) {
        let mut down = lock(&self.down);
        match (&*down, &why) {
            (None, Some(why)) => {
                warn!(why, "the catalogue's database is away: nothing can be published, all else goes on")
            }
            (Some(_), None) => info!("the catalogue's database is back"),
            _ => {}
        }
        *down = why;
    }

    pub(super) fn remember(&self, rows: &Rows) {
        let path = self.config.data_dir.join(SNAPSHOT_FILE);
        let aside = self.config.data_dir.join(format!(".{SNAPSHOT_FILE}.{}", Ulid::generate()));
        let text = serde_json::to_vec(rows).expect("rows are texts and numbers");
        if let Err(error) = fs::write(&aside, text).and_then(|()| fs::rename(&aside, &path)) {
            warn!(%error, "the catalogue cannot be remembered for a start without its database");
        }
    }

    pub(super) fn remembered(&self) -> Rows {
        let path = self.config.data_dir.join(SNAPSHOT_FILE);
        let rows = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Rows>(&text).ok());
        let rows = rows.unwrap_or_default();
        warn!(adapters = rows.adapters.len(), "starting with the catalogue as it was seen last");
        // Whatever version the database has when it is back is another one.
        Rows { version: -1, ..rows }
    }

    /// The source's files in a folder.
    pub(super) async fn staged(&self, source: &Source, staging: &Staging) -> Result<PathBuf, PublishError> {
        let most = self.config.max_adapter_bytes;
        match source {
            Source::Folder(folder) => Ok(folder.clone()),
            Source::Archive(file) => {
                let (file, folder) = (file.clone(), staging.path().to_owned());
                let unpack = tokio::task::spawn_blocking(move || archive::unpack(&file, &folder, most + (2 << 20)));
                let panicked = |_| Err(PublishError::Internal("reading the archive panicked".to_owned()));
                unpack.await.unwrap_or_else(panicked)?;
                Ok(staging.path().to_owned())
            }
            Source::Uri(uri) => {
                let files = self.store.at(uri, most).await?;
                let folder = staging.path().join("artifact");
                files.write(&folder).map_err(|error| PublishError::Internal(error.to_string()))?;
                Ok(folder)
            }
        }
    }

    /// Makes `folder` the artifact's copy, held against its digest.
    pub(super) async fn copy(
        &self,
        key: &AdapterKey,
        configured: Option<PathBuf>,
        folder: &Path,
    ) -> Result<(), FetchError> {
        let most = self.config.max_adapter_bytes;
        if folder.is_dir() {
            let found = read_aside(folder.to_owned(), most).await.map(|files| files.digest());
            if found.is_ok_and(|found| *found == *key.digest) {
                return Ok(());
            }
            warn!(adapter = %key, "the copy on this machine was damaged, and is made anew");
            fs::remove_dir_all(folder).map_err(|error| FetchError::Unavailable(error.to_string()))?;
        }
        let files = match configured {
            Some(folder) => read_aside(folder, most).await.map_err(FetchError::Unavailable)?,
            None => self.store.get(key).await?,
        };
        let found = files.digest();
        if *found != *key.digest {
            return Err(FetchError::Invalid(format!("the artifact's digest is {found}, not {}", key.digest)));
        }
        let folder = folder.to_owned();
        let written = tokio::task::spawn_blocking(move || files.write(&folder)).await;
        written
            .map_err(|error| FetchError::Unavailable(error.to_string()))?
            .map_err(|error| FetchError::Unavailable(format!("it cannot be written to this machine: {error}")))
    }

    pub(super) async fn note_refusal(&self, publish: &Publish, error: &PublishError) {
        let refused = Refused {
            tenant: publish.tenant.to_string(),
            name: publish.name.clone(),
            base: publish.base.to_string(),
            code: error.code().to_owned(),
            reason: error.to_string(),
            created: now(),
        };
        if let Err(Down(why)) = self.database.refused(&Ulid::generate().to_string(), &refused).await {
            warn!(why, "the refusal was not written down");
        }
    }
}

async fn read_aside(folder: PathBuf, most: u64) -> Result<Files, String> {
    let read = tokio::task::spawn_blocking(move || Files::read(&folder, most));
    read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
