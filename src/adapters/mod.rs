//! What adapters exist: the [`Catalogue`].
//!
//! Adapters are published while the gateway runs: staged, validated by whoever
//! knows the base models' shapes ([`Inspect`]), stored under their tenant and
//! digest ([`artifacts`]), and written down ([`database`], SQLite or Postgres).
//! Every gateway polls the database's version and swaps its [`snapshot`] when
//! that has grown; requests read the snapshot alone. So the database, and the
//! store too, may be away: that stops publishing, and nothing that runs.
//!
//! Revisions are immutable and their numbers are never given twice. A model
//! name answers with the newest revision that is not retired, or with the one
//! that it is pinned to; `name@3` is revision 3 whatever else is there.
//!
//! What the configuration lists is in the snapshot too, and in no database.
//!
//! Nothing is removed where it is deleted. An artifact leaves the store when
//! it has had no record for an hour, a copy leaves this machine when nothing
//! has named it for ten minutes ([`Sweep`]).

mod accounts;
mod archive;
mod artifacts;
mod backing;
mod catalogue;
mod change;
mod copies;
mod database;
mod error;
mod limits;
mod probes;
mod publish;
mod snapshot;
#[cfg(test)]
mod tests;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::{AdapterKey, BaseName, Secret, TenantId};

pub use accounts::{Accounts, Alias, KeyRecord, PolicyRecord, TenantRecord, TenantSettings, Urgency};
pub use catalogue::{Catalogue, Listed};
pub use database::Refused;
pub use error::{ChangeError, FetchError, OpenError, PublishError};
pub use limits::LimitsOf;
pub use probes::Probe;
pub use publish::{Published, Staging};
pub use usage::{Days, Sum, Used};

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Of this gateway alone: what is being published, and the copies that
    /// workers read.
    pub data_dir: PathBuf,
    /// `sqlite:` or `postgres:`; may hold a password.
    pub database: Secret,
    pub artifacts: ArtifactStore,
    /// How often other gateways' changes are looked for.
    pub poll_interval: Duration,
    /// Of an adapter's weights file.
    pub max_adapter_bytes: u64,
    pub sweep: Sweep,
}

/// How what nothing names any more is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// How often it is looked for.
    pub every: Duration,
    /// For how long an artifact in the store has had no record.
    pub artifacts_after: Duration,
    /// For how long a copy on this machine has been named by nothing.
    pub copies_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactStore {
    Folder(PathBuf),
    S3 {
        bucket: String,
        prefix: String,
        /// Of an S3-compatible store that is not AWS.
        endpoint: Option<String>,
        region: String,
        access_key: Secret,
        secret_key: Secret,
    },
}

/// What is known of an adapter that may be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub key: AdapterKey,
    /// The base model that the adapter was trained on.
    pub base: BaseName,
}

/// A revision that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: AdapterKey,
    pub base: BaseName,
    pub rank: u32,
    /// Of the weights file.
    pub bytes: u64,
    /// Unix seconds.
    pub created: u64,
    pub retired: Option<u64>,
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub tenant: TenantId,
    pub name: String,
    pub base: BaseName,
    pub source: Source,
    /// What the artifact's digest has to be.
    pub digest: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with both files, staged.
    Folder(PathBuf),
    /// A `.tar` or `.tar.gz`, staged.
    Archive(PathBuf),
    /// A place in the artifact store.
    Uri(String),
}

/// What validation found in an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// SHA-256, in lower-case hexadecimal digits.
    pub digest: String,
    pub rank: u32,
    pub bytes: u64,
}

/// Holds artifacts against base models; this room knows neither's inside.
pub trait Inspect: Send + Sync + 'static {
    /// Whether there is a base model of this name, and what may be published for it.
    fn knows(&self, base: &BaseName) -> bool;

    /// Reads the whole artifact: called where that delays nobody.
    fn inspect(&self, base: &BaseName, folder: &Path) -> Result<Inspected, PublishError>;
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Sweep ===

impl Default for Sweep {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { every: minute, artifacts_after: 60 * minute, copies_after: 10 * minute }
    }
}

/// Names become paths and parts of other names.
fn plain_name(name: &str) -> Result<(), PublishError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(());
    }
    Err(PublishError::InvalidName(name.chars().take(100).collect()))
}
