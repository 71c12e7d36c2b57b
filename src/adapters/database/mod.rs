//! The catalogue's tables, in SQLite or Postgres: the same statements for both.

mod accounts;
mod limits;
mod probes;
mod records;
mod refusals;
mod unnamed;
mod usage;

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Any, AnyPool, Row, Transaction};

use crate::types::Secret;

pub(super) use accounts::{AccountRows, Created, Deleted, KeyRow, PolicyRow, Rewritten, TenantRow};
pub(super) use limits::LimitRow;
pub(super) use probes::ProbeRow;
pub(super) use records::{AdapterRow, RolledBack, Rows, Standing};
pub use refusals::Refused;
pub(super) use unnamed::Place;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("./migrations");
    // A gateway of an earlier version starts again while later ones run.
    migrations.set_ignore_missing(true);
    migrations
});

/// The longest wait for a connection, and for a statement.
const TIMEOUT: Duration = Duration::from_secs(4);
const CONNECTIONS: u32 = 4;

pub(super) struct Database {
    pool: AnyPool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// The database did not do it. Says no more than an operator may read.
#[derive(Debug)]
pub(super) struct Down(pub(super) String);

impl From<sqlx::Error> for Down {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

// === impl Kind ===

impl Kind {
    /// A transaction whose statements all see one moment.
    fn reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    fn writing(self) -> &'static str {
        match self {
            // Waits for its turn here, where SQLite waits; a transaction that
            // has read already is refused instead.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }
}

// === impl Database ===

impl Database {
    /// Connects when first needed.
    pub(super) fn open(url: &Secret) -> Result<Self, Down> {
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(TIMEOUT);
        let kind = if url.expose().starts_with("sqlite:") { Kind::Sqlite } else { Kind::Postgres };
        Ok(Self { pool: options.connect_lazy(url.expose())?, kind })
    }

    /// Brings the tables up to date. Gateways that start together take turns.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        let migrating = tokio::time::timeout(TIMEOUT * 3, async {
            match self.kind {
                // Postgres has a lock for it.
                Kind::Postgres => MIGRATIONS.run(&self.pool).await,
                Kind::Sqlite => {
                    let mut transaction = self.write().await?;
                    MIGRATIONS.run_direct(&mut *transaction).await?;
                    Ok(transaction.commit().await?)
                }
            }
        });
        migrating.await.unwrap_or_else(|_| Err(MigrateError::Execute(sqlx::Error::PoolTimedOut)))
    }

    pub(super) async fn version(&self) -> Result<i64, Down> {
        let query = sqlx::query("SELECT version FROM catalogue_version").fetch_one(&self.pool);
        Ok(in_time(query).await?.try_get(0)?)
    }

    async fn read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.kind.reading()).await
    }

    async fn write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.kind.writing()).await
    }
}

/// What other gateways see: the last statement of every change.
async fn changed(transaction: &mut Transaction<'_, Any>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE catalogue_version SET version = version + 1").execute(&mut **transaction).await?;
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Down> {
    let late = |_| Err(Down("it does not answer in time".to_owned()));
    tokio::time::timeout(TIMEOUT, async { work.await.map_err(Down::from) }).await.unwrap_or_else(late)
}

fn number(stored: i64) -> u32 {
    u32::try_from(stored).unwrap_or(u32::MAX)
}

fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
