//! The durable spool: an SQLite database that one task writes.
//!
//! - An append is answered after the commit that holds it, and a commit is
//!   flushed to the disk. A crash at any moment loses nothing that was answered.
//! - Concurrent appends share a commit.
//! - What it may take is bounded, in bytes. Room is made by removing the oldest
//!   events that every sink has; when all of them are waiting for a sink, the
//!   spool is full, and so it is when the disk is.
//! - Events keep the order they were accepted in, and with it each tenant's.
//!
//! It does not send anything; see the [shipper](crate::shipper).

mod group;
mod item;
mod plan;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub(crate) use group::milliseconds;
pub(crate) use item::{Item, NewEvent, NewGeneration, NewRating, Recorded};
pub(crate) use read::{Batch, Log};
pub(crate) use writer::Writer;

use crate::metrics::Metrics;
use item::What;
use writer::Bounds;

/// The database's name in the spool's folder.
pub(crate) const FILE: &str = "spool.sqlite";
const LOCK: &str = "lock";
/// Appends that wait for the writer.
const WAITING: usize = 4096;
/// What they may take in memory, in KiB.
const WAITING_KIB: usize = 64 * 1024;

/// Why nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// The spool or its disk is full; it passes by itself.
    #[error("the spool is full")]
    Full { retry_after: Duration },
    /// The generation of the rating at this place has as many without an end user as it may.
    #[error("the generation has {most} ratings without an end user already")]
    Unnamed { at: usize, most: u32 },
    /// For the log, not for who sent the rating.
    #[error("the spool cannot be written: {0}")]
    Failed(String),
    #[error("the spool is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {why}", path = path.display())]
    Folder { path: PathBuf, why: std::io::Error },
    #[error("{}: another process writes this spool", .0.display())]
    Held(PathBuf),
    #[error("{path}: {why}", path = path.display())]
    Database { path: PathBuf, why: sqlx::Error },
    #[error("sink {name}: {why}")]
    Sink { name: String, why: String },
    #[error("{0}")]
    Key(#[from] crate::KeyError),
}

/// What takes events to the writer. Clones are the same spool.
#[derive(Clone)]
pub(crate) struct Spool {
    items: mpsc::Sender<Item>,
    /// No more events are taken.
    closed: Arc<AtomicBool>,
    memory: Arc<Semaphore>,
}

pub(crate) struct Opening<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) max_bytes: u64,
    pub(crate) most_unnamed: u32,
    pub(crate) source: &'a str,
    pub(crate) sinks: Vec<String>,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) struct Opened {
    pub(crate) spool: Spool,
    pub(crate) writer: Writer,
    pub(crate) lock: Lock,
    pub(crate) committed: watch::Receiver<i64>,
}

/// Nobody else writes the spool until it is dropped.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that was just started may still hold a copy of the file: closing alone would not do.
        let _ = self.0.unlock();
    }
}

// === impl Spool ===

impl Spool {
    pub(crate) async fn open(opening: Opening<'_>) -> Result<Opened, OpenError> {
        let folder = opening.folder;
        let failed = |path: &Path, why| OpenError::Folder { path: path.to_owned(), why };
        std::fs::create_dir_all(folder).map_err(|why| failed(folder, why))?;
        let path = folder.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|why| failed(&path, why))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held(folder.to_owned())),
            Err(TryLockError::Error(why)) => return Err(failed(&path, why)),
        }
        let (sender, items) = mpsc::channel(WAITING);
        let (committed, receiver) = watch::channel(0);
        let file = folder.join(FILE);
        let mut writer = Writer {
            file: file.clone(),
            // An eighth, which only ratings may use.
            bounds: Bounds {
                max_bytes: opening.max_bytes,
                reserve: opening.max_bytes / 8,
                most_unnamed: opening.most_unnamed,
            },
            source: opening.source.to_owned(),
            sinks: opening.sinks,
            items,
            committed,
            metrics: opening.metrics,
            open: None,
            owed: BTreeMap::new(),
            troubled: false,
        };
        writer.open().await.map_err(|why| OpenError::Database { path: file, why })?;
        let spool = Self { items: sender, closed: Arc::default(), memory: Arc::new(Semaphore::new(WAITING_KIB)) };
        Ok(Opened { spool, writer, lock: Lock(lock), committed: receiver })
    }

    /// Records ratings, all of them or none: answered once they are on the disk.
    pub(crate) async fn ratings(&self, new: Vec<NewRating>) -> Result<Vec<Recorded>, SpoolError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(SpoolError::Closed);
        }
        let kib = kib(new.iter().map(NewRating::estimate).sum());
        let room = self.memory.clone().acquire_many_owned(kib).await.map_err(|_| SpoolError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let item = Item { what: What::Ratings(new, reply), _room: Some(room) };
        self.items.send(item).await.map_err(|_| SpoolError::Closed)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Records a generation's event, without waiting. `false` where the writer
    /// is behind, and it is dropped.
    pub(crate) fn event(&self, new: NewEvent) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        let kib = kib(item::counted(&new.payload));
        let Ok(room) = self.memory.clone().try_acquire_many_owned(kib) else { return false };
        self.items.try_send(Item { what: What::Event(Box::new(new)), _room: Some(room) }).is_ok()
    }

    /// Notes how far a sink is. `false` where the spool is closed.
    pub(crate) async fn moved(&self, sink: &str, seq: i64) -> bool {
        let what = What::Position { sink: sink.to_owned(), seq };
        self.items.send(Item { what, _room: None }).await.is_ok()
    }

    /// Takes no more events; returns when those that came are written.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let (written, is_written) = oneshot::channel();
        let item = Item { what: What::Barrier(written), _room: None };
        if self.items.send(item).await.is_ok() {
            // Never sent, but dropped.
            let _ = is_written.await;
        }
    }

    /// Lets go of what is older than this and with every sink.
    pub(crate) async fn expire(&self, before: SystemTime) -> bool {
        self.items.send(Item { what: What::Expire { before }, _room: None }).await.is_ok()
    }
}

fn kib(bytes: u64) -> u32 {
    // More than there is would wait for ever.
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(WAITING_KIB as u32)
}
