//! Reading events back, in their order.

use std::path::Path;

use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use super::{FILE, schema};
use crate::event::EventType;
use crate::sinks::Entry;

/// Connections of one log.
const READERS: u32 = 4;

/// The events of a spool. Clones share its connections; its writer may be
/// another process.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) pool: SqlitePool,
}

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) events: usize,
    /// Read to this many bytes; one event is read in any case.
    pub(crate) bytes: u64,
}

impl Batch {
    pub(crate) const USUAL: Self = Self { events: 256, bytes: 4 << 20 };
}

// === impl Log ===

impl Log {
    /// Connects when it is first read.
    pub(crate) fn of(folder: &Path) -> Self {
        let options = schema::reading(&folder.join(FILE));
        Self { pool: SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options) }
    }

    /// The events after `seq`, in their order.
    pub(crate) async fn after(&self, seq: i64, batch: Batch) -> Result<Vec<Entry>, sqlx::Error> {
        let sizes: Vec<(i64, i64)> =
            sqlx::query_as("SELECT seq, bytes FROM events INDEXED BY events_sizes WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(seq)
                .bind(batch.events as i64)
                .fetch_all(&self.pool)
                .await?;
        let mut bytes = 0;
        let within = sizes.iter().take_while(|(_, size)| {
            let first = bytes == 0;
            bytes += size.unsigned_abs();
            first || bytes <= batch.bytes
        });
        let Some((last, _)) = within.last() else { return Ok(Vec::new()) };
        let rows = sqlx::query(
            "SELECT seq, id, tenant, kind, subject, payload FROM events WHERE seq > ? AND seq <= ? ORDER BY seq",
        )
        .bind(seq)
        .bind(last)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| entry(&row)).collect()
    }

    /// When the first event after `seq` was accepted, in Unix milliseconds.
    pub(crate) async fn oldest_after(&self, seq: i64) -> Result<Option<i64>, sqlx::Error> {
        let at: Option<(i64,)> =
            sqlx::query_as("SELECT at FROM events INDEXED BY events_sizes WHERE seq > ? ORDER BY seq LIMIT 1")
                .bind(seq)
                .fetch_optional(&self.pool)
                .await?;
        Ok(at.map(|(at,)| at))
    }

    /// How far a sink was when that was last noted.
    pub(crate) async fn position(&self, sink: &str) -> Result<i64, sqlx::Error> {
        let seq: Option<(i64,)> =
            sqlx::query_as("SELECT seq FROM positions WHERE sink = ?").bind(sink).fetch_optional(&self.pool).await?;
        Ok(seq.map_or(0, |(seq,)| seq))
    }

    /// The last event that is kept; 0 where there is none.
    pub(crate) async fn last(&self) -> Result<i64, sqlx::Error> {
        let (last,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(seq), 0) FROM events").fetch_one(&self.pool).await?;
        Ok(last)
    }
}

fn entry(row: &sqlx::sqlite::SqliteRow) -> Result<Entry, sqlx::Error> {
    let kind: &str = row.try_get(3)?;
    Ok(Entry {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        tenant: row.try_get(2)?,
        kind: EventType::parse(kind).ok_or_else(|| sqlx::Error::Decode(format!("event type {kind}").into()))?,
        subject: row.try_get(4)?,
        payload: row.try_get(5)?,
    })
}
