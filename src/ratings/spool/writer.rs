//! The one task that writes. Whatever came while it was committing goes into
//! its next transaction, so that many share one flush to the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use super::group::{self, Outcome, Totals};
use super::item::{Item, What};
use super::{SpoolError, schema};
use crate::metrics::Metrics;

/// Events of one transaction.
const TOGETHER: usize = 512;
/// When a rating that found no room may come again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Writer {
    pub(super) file: PathBuf,
    pub(super) bounds: Bounds,
    pub(super) source: String,
    /// The sinks that events wait for.
    pub(super) sinks: Vec<String>,
    pub(super) items: mpsc::Receiver<Item>,
    /// The last event that is committed.
    pub(super) committed: watch::Sender<i64>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) open: Option<(SqliteConnection, Totals)>,
    /// Sinks' positions that are not written yet: they go with the next events,
    /// or with the housekeeping within a second.
    pub(super) owed: BTreeMap<String, i64>,
    /// Whether the disk's trouble was told.
    pub(super) troubled: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    /// What generations leave to ratings.
    pub(super) reserve: u64,
    /// Ratings of one generation that name no end user.
    pub(super) most_unnamed: u32,
}

// === impl Writer ===

impl Writer {
    /// Opens the database, and makes it where it is not there.
    pub(super) async fn open(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = schema::writing(&self.file).connect().await?;
        schema::prepare(&mut connection).await?;
        let totals = Totals::load(&mut connection, &self.sinks).await?;
        self.tell(&totals);
        self.open = Some((connection, totals));
        Ok(())
    }

    /// Writes until `stop` turns true, and then what had come before.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut items = Vec::with_capacity(TOGETHER);
        let mut stopping = false;
        loop {
            let came = if stopping {
                self.items.recv_many(&mut items, TOGETHER).await
            } else {
                tokio::select! {
                    came = self.items.recv_many(&mut items, TOGETHER) => came,
                    _ = stop.wait_for(|stop| *stop) => {
                        self.items.close();
                        stopping = true;
                        continue;
                    }
                }
            };
            if came == 0 {
                break;
            }
            self.write(std::mem::take(&mut items)).await;
            items.reserve(TOGETHER);
        }
        if !self.owed.is_empty()
            && let Err(error) = self.commit(&[]).await
        {
            warn!(%error, "sinks' positions were not written; some events are sent again");
        }
        if let Some((mut connection, _)) = self.open.take() {
            // Then the spool is one file, if nobody reads it just now.
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            if let Err(error) = connection.close().await {
                warn!(%error, "the spool did not close in order");
            }
        }
    }

    async fn write(&mut self, items: Vec<Item>) {
        let mut events = false;
        for item in &items {
            let What::Position { sink, seq } = &item.what else {
                events = true;
                continue;
            };
            self.owed.insert(sink.clone(), *seq);
            if let Some((_, totals)) = &mut self.open {
                totals.positions.insert(sink.clone(), *seq);
            }
        }
        if !events {
            // A commit of their own would have ratings wait for a flush. What a
            // crash loses of them is delivered again.
            if let Some((_, totals)) = &self.open {
                self.tell(totals);
            }
            return;
        }
        match self.commit(&items).await {
            Ok(outcomes) => {
                self.owed.clear();
                if std::mem::take(&mut self.troubled) {
                    warn!("the spool is written again");
                }
                self.answer(items, outcomes);
            }
            Err(error) => {
                // What is in doubt is read again with the next connection.
                self.open = None;
                if !std::mem::replace(&mut self.troubled, true) {
                    error!(%error, "the spool cannot be written");
                }
                let refusal = refusal(&error);
                for item in items {
                    match item.what {
                        What::Ratings(_, reply) => drop(reply.send(Err(refusal.clone()))),
                        What::Event(_) => self.metrics.dropped(),
                        // Positions are owed, and what is expired will be later too.
                        What::Position { .. } | What::Barrier(_) | What::Expire { .. } => {}
                    }
                }
            }
        }
    }

    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Outcome>, sqlx::Error> {
        if self.open.is_none() {
            self.open().await?;
        }
        let (connection, totals) = self.open.as_mut().expect("it was opened");
        let (outcomes, after) =
            group::commit(connection, totals, (&self.owed, items), self.bounds, &self.source).await?;
        *totals = after;
        let totals = totals.clone();
        self.tell(&totals);
        Ok(outcomes)
    }

    fn tell(&self, totals: &Totals) {
        self.metrics.spooled(totals.bytes, totals.last - totals.delivered());
        self.committed.send_if_modified(|last| std::mem::replace(last, totals.last) != totals.last);
    }

    fn answer(&self, items: Vec<Item>, outcomes: Vec<Outcome>) {
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match (item.what, outcome) {
                // Who asked may have gone.
                (What::Ratings(_, reply), Outcome::Rated(recorded)) => drop(reply.send(recorded)),
                (What::Event(_), Outcome::Noted(true)) => self.metrics.noted(),
                (What::Event(_), _) => self.metrics.dropped(),
                _ => {}
            }
        }
    }
}

/// A full disk is a full spool: it passes when there is room again.
fn refusal(error: &sqlx::Error) -> SpoolError {
    const FULL: i32 = 13;
    const CANNOT_OPEN: i32 = 14;
    const INPUT_OUTPUT: i32 = 10;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The low byte is the kind of error, the rest says which of it.
    match code.map(|code| code & 0xff) {
        Some(FULL | CANNOT_OPEN | INPUT_OUTPUT) => SpoolError::Full { retry_after: RETRY_AFTER },
        _ => SpoolError::Failed(error.to_string()),
    }
}
