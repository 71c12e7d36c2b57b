//! What a catalogue stands on: the database, the artifact store, and this
//! machine's folder.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use ulid::Ulid;

use super::artifacts::Store;
use super::copies::Copies;
use super::database::{Database, Down, Refused, Rows};
use super::error::{OpenError, PublishError};
use super::publish::Staging;
use super::usage::Outbox;
use super::{Config, Inspect, Publish, Source, archive, lock, now};
use crate::telemetry::Metrics;

/// The catalogue's memory of the database, for a start without it.
const SNAPSHOT_FILE: &str = "catalogue.json";
/// Artifacts that are validated at one time; each is held in memory.
const PUBLISHES: usize = 2;

/// Of rows that are remembered: no database has this version.
pub(super) const REMEMBERED: i64 = -1;

pub(super) struct Backing {
    pub(super) config: Config,
    pub(super) database: Database,
    migrated: AtomicBool,
    /// Why the last look failed.
    pub(super) down: Mutex<Option<String>>,
    /// Whose look at the database it is.
    looking: Arc<AsyncMutex<()>>,
    pub(super) store: Store,
    pub(super) copies: Copies,
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) places: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) usage: Outbox,
    /// The poller, the sweeper and who writes usage down.
    pub(super) tasks: OnceLock<[AbortOnDropHandle<()>; 3]>,
}

// === impl Backing ===

impl Backing {
    pub(super) fn open(config: Config, inspect: Arc<dyn Inspect>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let wrong = |Down(reason)| OpenError::Setting { what: "the database's URL".to_owned(), reason };
        Ok(Self {
            database: Database::open(&config.database).map_err(wrong)?,
            migrated: AtomicBool::new(false),
            down: Mutex::default(),
            looking: Arc::default(),
            store: Store::open(&config.artifacts)?,
            copies: Copies::new(config.data_dir.join("cache")),
            inspect,
            places: Arc::new(Semaphore::new(PUBLISHES)),
            metrics,
            usage: Outbox::default(),
            tasks: OnceLock::new(),
            config,
        })
    }

    /// Waits for the looks at the database that others have begun.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.looking.clone().lock_owned().await
    }

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

    /// Writes the rows down, and only then lets the next look begin, even if
    /// nobody waits for it here.
    pub(super) async fn remember(&self, rows: &Rows, turn: OwnedMutexGuard<()>) {
        let (folder, text) =
            (self.config.data_dir.clone(), serde_json::to_vec(rows).expect("rows are texts and numbers"));
        let writing = tokio::task::spawn_blocking(move || {
            let aside = folder.join(format!(".{SNAPSHOT_FILE}.{}", Ulid::generate()));
            let written = File::create_new(&aside).and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()?;
                fs::rename(&aside, folder.join(SNAPSHOT_FILE))
            });
            drop(turn);
            written.inspect_err(|_| drop(fs::remove_file(&aside)))
        });
        let written = writing.await.map_err(std::io::Error::other).flatten();
        if let Err(error) = written {
            warn!(%error, "the catalogue cannot be remembered for a start without its database");
        }
    }

    pub(super) fn remembered(&self) -> Rows {
        let path = self.config.data_dir.join(SNAPSHOT_FILE);
        let rows = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Rows>(&text).ok());
        let rows = rows.unwrap_or_default();
        warn!(adapters = rows.adapters.len(), "starting with the catalogue as it was seen last");
        // Whatever version the database has when it is back is another one.
        Rows { version: REMEMBERED, ..rows }
    }

    /// The source's files in a folder.
    /// Unpacking goes on where nobody waits for it any more, so it has its part
    /// of the `place`.
    pub(super) async fn staged(
        &self,
        source: &Source,
        staging: &Arc<Staging>,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Result<PathBuf, PublishError> {
        let most = self.config.max_adapter_bytes;
        match source {
            Source::Folder(folder) => Ok(folder.clone()),
            Source::Archive(file) => {
                let (file, folder, place) = (file.clone(), staging.clone(), place.clone());
                let unpack = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    archive::unpack(&file, folder.path(), most + (2 << 20))
                });
                let panicked = |_| Err(PublishError::Internal("reading the archive panicked".to_owned()));
                unpack.await.unwrap_or_else(panicked)?;
                Ok(staging.path().to_owned())
            }
            Source::Uri(uri) => {
                let folder = staging.path().join("artifact");
                fs::create_dir(&folder).map_err(|error| PublishError::Internal(format!("staging: {error}")))?;
                self.store.at(uri, most, &folder).await?;
                Ok(folder)
            }
        }
    }

    /// Removes artifacts that have had no record for long from the store.
    pub(super) async fn sweep_store(&self) {
        if !self.migrated.load(Ordering::Acquire) {
            return;
        }
        let before = now().saturating_sub(self.config.sweep.artifacts_after.as_secs());
        // The poller tells that the database is away.
        for place in self.database.unnamed(before).await.unwrap_or_default() {
            match self.database.sweep(&place, before, self.store.remove(&place)).await {
                Ok(true) => {
                    info!(tenant = place.tenant, digest = place.digest, "an artifact without a record was removed")
                }
                Ok(false) => {}
                Err(Down(why)) => warn!(tenant = place.tenant, digest = place.digest, why, "an artifact is not swept"),
            }
        }
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
