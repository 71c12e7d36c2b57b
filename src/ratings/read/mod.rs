//! What the spool keeps, read: summaries, following, exports. Reading does not
//! hold up writing, and may be done by another process.

mod export;
#[cfg(feature = "parquet")]
mod parquet;
mod summary;

use std::path::Path;
use std::time::Duration;

use tenantry_types::TenantId;

use crate::spool::{Batch, Log};
use crate::{Entry, EventType};

pub use export::{Export, ExportRow, Exported, write_jsonl};
#[cfg(feature = "parquet")]
pub use parquet::write_parquet;
pub use summary::{Change, Interval, Revision, Summary};

/// How often who follows looks for more.
const LOOK: Duration = Duration::from_millis(200);

/// Reads one spool. Clones share its connections.
#[derive(Clone)]
pub struct Reader(Log);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] sqlx::Error),
    #[error("an event in the spool is not as it was written: {0}")]
    Event(#[from] serde_json::Error),
    #[error("{0}")]
    Write(#[from] std::io::Error),
    #[error("parquet: {0}")]
    Parquet(String),
}

/// Where following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// With the oldest event that is kept.
    Oldest,
    /// With the next one.
    Next,
    /// After the event of this place in the spool.
    After(i64),
}

/// Follows the events of one tenant, or of all. What was removed before it
/// came to it, it does not see.
pub struct Tail {
    log: Log,
    tenant: Option<TenantId>,
    /// Empty: all.
    kinds: Vec<EventType>,
    position: Option<i64>,
    read: std::vec::IntoIter<Entry>,
}

// === impl Reader ===

impl Reader {
    /// Of the spool in this folder, which has to be there when it is first read.
    pub fn open(folder: &Path) -> Self {
        Self(Log::of(folder))
    }

    pub(crate) fn log(&self) -> Log {
        self.0.clone()
    }

    /// Whether an event of this tenant is kept.
    pub async fn knows(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        let (known,): (bool,) = sqlx::query_as("SELECT EXISTS (SELECT 1 FROM events WHERE tenant = ?)")
            .bind(tenant.as_str())
            .fetch_one(&self.log().pool)
            .await?;
        Ok(known)
    }

    /// Follows events as they are recorded; of these types, or of all where
    /// none is named.
    pub fn tail(&self, tenant: Option<TenantId>, kinds: &[EventType], from: Position) -> Tail {
        let position = match from {
            Position::Oldest => Some(0),
            Position::After(seq) => Some(seq),
            Position::Next => None,
        };
        Tail { log: self.log(), tenant, kinds: kinds.to_vec(), position, read: Vec::new().into_iter() }
    }
}

// === impl Tail ===

impl Tail {
    /// The next event, as soon as there is one. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            while let Some(entry) = self.read.next() {
                if self.wants(&entry) {
                    return Ok(entry);
                }
            }
            let position = match self.position {
                Some(position) => position,
                None => *self.position.insert(self.log.last().await?),
            };
            let batch = self.log.after(position, Batch::USUAL).await?;
            match batch.last() {
                Some(last) => self.position = Some(last.seq),
                None => tokio::time::sleep(LOOK).await,
            }
            self.read = batch.into_iter();
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        let tenant = self.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == entry.tenant);
        tenant && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
    }
}
