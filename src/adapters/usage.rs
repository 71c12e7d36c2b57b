//! What generations used, in two tables of the catalogue's database. Nobody
//! waits for it: rows are gathered here and written together, and while the
//! database is away they are kept, as many as there is room for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, warn};
use ulid::Ulid;

use super::backing::Backing;
use super::catalogue::Catalogue;
use super::database::Down;
use super::error::ChangeError;
use super::lock;
use crate::types::TenantId;

/// Rows that are kept while they cannot be written: some 50 MB.
const KEPT: usize = 100_000;
/// Rows of one transaction.
const TOGETHER: usize = 200;
/// How long a row waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// How much later it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// One generation, as it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The generation's.
    pub id: String,
    pub tenant: String,
    /// The key's name.
    pub key: String,
    pub model: String,
    pub base: String,
    pub adapter: Option<String>,
    /// Tokens.
    pub input: u64,
    pub output: u64,
    /// Of the input, what an engine's cache had.
    pub cached: u64,
    /// Until it had a place at the workers.
    pub queue: Duration,
    /// From there to its end.
    pub service: Duration,
    pub finish: &'static str,
    /// Unix seconds.
    pub ended: u64,
}

/// What was used on one day by one key with one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Days since 1970-01-01, of UTC.
    pub day: u64,
    pub tenant: String,
    pub key: String,
    pub model: String,
    pub requests: u64,
    pub input: u64,
    pub output: u64,
    pub cached: u64,
}

/// Both included, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    pub first: u64,
    pub last: u64,
}

/// Rows on their way to the database.
pub(super) struct Outbox {
    /// Names this run of the gateway.
    gateway: String,
    rows: Mutex<Rows>,
    /// Rung when there are rows.
    bell: Arc<Notify>,
    /// One writes at a time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Rows {
    waiting: VecDeque<Used>,
    lost: u64,
}

// === impl Catalogue ===

impl Catalogue {
    /// Notes what a generation used. It is written soon.
    pub fn note_usage(&self, used: Used) {
        let Some(backing) = &self.backing else { return };
        let mut rows = lock(&backing.usage.rows);
        if rows.waiting.len() >= KEPT {
            rows.lost += 1;
            backing.metrics.usage_lost();
            return;
        }
        rows.waiting.push_back(used);
        drop(rows);
        backing.usage.bell.notify_one();
    }

    /// Writes what is noted and not yet written.
    pub async fn flush_usage(&self) -> Result<(), ChangeError> {
        let Some(backing) = &self.backing else { return Ok(()) };
        let written = backing.write_usage().await;
        written.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }

    /// What was used in a time, by day, key and model; of one tenant or of all.
    pub async fn usage(&self, tenant: Option<&TenantId>, days: Days) -> Result<Vec<Sum>, ChangeError> {
        let backing = self.backing().map_err(|error| ChangeError::CatalogueUnavailable(error.to_string()))?;
        let read = async {
            backing.ready().await?;
            // Who asks has seen its own answers end.
            backing.write_usage().await?;
            backing.database.usage(tenant.map(TenantId::as_str), days).await
        };
        read.await.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }

    /// What other gateways have used, and this one before it was started.
    pub async fn usage_of_others(&self, days: Days) -> Result<Vec<Sum>, ChangeError> {
        let Some(backing) = &self.backing else { return Ok(Vec::new()) };
        let read = async {
            backing.ready().await?;
            backing.database.usage_of_others(&backing.usage.gateway, days).await
        };
        read.await.map_err(|Down(why)| ChangeError::CatalogueUnavailable(why))
    }

    /// Waits until there are rows, without holding the catalogue.
    pub(super) fn rung(&self) -> impl Future<Output = ()> + Send + use<> {
        let bell = self.backing.as_ref().map(|backing| backing.usage.bell.clone());
        async move {
            match bell {
                Some(bell) => bell.notified().await,
                None => std::future::pending().await,
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Writes what is noted, later if the database is away.
    pub(super) async fn write_noted(&self) {
        let Some(backing) = &self.backing else { return };
        // The poller tells that it is.
        if backing.write_usage().await.is_err() {
            tokio::time::sleep(AGAIN).await;
            backing.usage.bell.notify_one();
        }
    }
}

// === impl Backing ===

impl Backing {
    async fn write_usage(&self) -> Result<(), Down> {
        let _turn = self.usage.writing.lock().await;
        loop {
            let rows: Vec<Used> = lock(&self.usage.rows).waiting.iter().take(TOGETHER).cloned().collect();
            if rows.is_empty() {
                break;
            }
            self.ready().await?;
            self.database.note_usage(&self.usage.gateway, &rows).await?;
            // Only now: whoever is dropped before writes them again, and they count once.
            lock(&self.usage.rows).waiting.drain(..rows.len());
        }
        let lost = std::mem::take(&mut lock(&self.usage.rows).lost);
        if lost > 0 {
            error!(lost, "generations' usage was lost: the catalogue's database was away for too long");
        }
        Ok(())
    }
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        Self {
            gateway: Ulid::generate().to_string(),
            rows: Mutex::default(),
            bell: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let left = lock(&self.rows).waiting.len();
        if left > 0 {
            warn!(left, "generations' usage was not written");
        }
    }
}
