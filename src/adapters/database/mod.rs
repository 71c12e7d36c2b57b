//! The catalogue's tables, in SQLite or Postgres: the same statements for both.

mod probes;

use std::time::Duration;

use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyPool, Row};

use super::Record;
use crate::types::{AdapterKey, BaseName, Secret, TenantId};

pub(super) use probes::ProbeRow;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The longest wait for a connection, and for a statement.
const TIMEOUT: Duration = Duration::from_secs(4);
const CONNECTIONS: u32 = 4;
/// Refused publishes of one name that are kept.
const REFUSALS: i64 = 20;

pub(super) struct Database {
    pool: AnyPool,
}

/// All rows at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Rows {
    pub(super) version: i64,
    pub(super) adapters: Vec<AdapterRow>,
    pub(super) pins: Vec<(String, String, u32)>,
    /// An earlier version remembered none.
    #[serde(default)]
    pub(super) probes: Vec<ProbeRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct AdapterRow {
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) revision: u32,
    pub(super) digest: String,
    pub(super) base: String,
    pub(super) rank: u32,
    pub(super) bytes: u64,
    pub(super) created: u64,
    pub(super) retired: Option<u64>,
}

/// A publish that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub tenant: String,
    pub name: String,
    pub base: String,
    pub code: String,
    pub reason: String,
    /// Unix seconds.
    pub created: u64,
}

/// The database did not do it. Says no more than an operator may read.
#[derive(Debug)]
pub(super) struct Down(pub(super) String);

impl From<sqlx::Error> for Down {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

// === impl Database ===

impl Database {
    /// Connects when first needed.
    pub(super) fn open(url: &Secret) -> Result<Self, Down> {
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(TIMEOUT);
        Ok(Self { pool: options.connect_lazy(url.expose())? })
    }

    /// Brings the tables up to date.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        let migrating = tokio::time::timeout(TIMEOUT * 3, MIGRATIONS.run(&self.pool));
        migrating.await.unwrap_or_else(|_| Err(MigrateError::Execute(sqlx::Error::PoolTimedOut)))
    }

    pub(super) async fn version(&self) -> Result<i64, Down> {
        let query = sqlx::query("SELECT version FROM catalogue_version").fetch_one(&self.pool);
        Ok(in_time(query).await?.try_get(0)?)
    }

    /// Everything, as of one moment.
    pub(super) async fn rows(&self) -> Result<Rows, Down> {
        // Read first: what changes in between is read again at the next look.
        let version = self.version().await?;
        let adapters = sqlx::query(
            "SELECT tenant, name, revision, digest, base, rank, bytes, created, retired FROM adapters \
             ORDER BY tenant, name, revision",
        );
        let adapters = in_time(adapters.fetch_all(&self.pool)).await?;
        let pins = sqlx::query("SELECT tenant, name, pinned FROM adapter_names WHERE pinned IS NOT NULL");
        let pins = in_time(pins.fetch_all(&self.pool)).await?;
        let probes = sqlx::query("SELECT base, digest, probe FROM adapter_probes");
        let probes = in_time(probes.fetch_all(&self.pool)).await?;
        let pin = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, number(row.try_get(2)?)));
        Ok(Rows {
            version,
            adapters: adapters.iter().map(adapter).collect::<Result<_, sqlx::Error>>()?,
            pins: pins.iter().map(pin).collect::<Result<_, sqlx::Error>>()?,
            probes: probes.iter().map(probes::probe).collect::<Result<_, sqlx::Error>>()?,
        })
    }

    /// Writes a record under the next revision of its name, which it returns.
    /// The newest revision stays where it has the same artifact.
    pub(super) async fn insert(&self, row: &AdapterRow) -> Result<(AdapterRow, bool), Down> {
        let inserting = async {
            let mut transaction = self.pool.begin().await?;
            // The first statement takes the name's row, so publishes of one name come one after the other.
            let next = sqlx::query(
                "INSERT INTO adapter_names (tenant, name, last_revision) VALUES ($1, $2, 1) \
                 ON CONFLICT (tenant, name) DO UPDATE SET last_revision = adapter_names.last_revision + 1 \
                 RETURNING last_revision",
            );
            let next = next.bind(&row.tenant).bind(&row.name).fetch_one(&mut *transaction).await?;
            let revision = number(next.try_get(0)?);
            let newest = sqlx::query(
                "SELECT tenant, name, revision, digest, base, rank, bytes, created, retired FROM adapters \
                 WHERE tenant = $1 AND name = $2 ORDER BY revision DESC LIMIT 1",
            );
            let newest = newest.bind(&row.tenant).bind(&row.name).fetch_optional(&mut *transaction).await?;
            if let Some(newest) = newest.as_ref().map(adapter).transpose()?
                && newest.digest == row.digest
                && newest.base == row.base
                && newest.retired.is_none()
            {
                transaction.rollback().await?;
                return Ok((newest, false));
            }
            let row = AdapterRow { revision, ..row.clone() };
            let insert = sqlx::query(
                "INSERT INTO adapters (tenant, name, revision, digest, base, rank, bytes, created) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            );
            let insert = insert.bind(&row.tenant).bind(&row.name).bind(i64::from(row.revision)).bind(&row.digest);
            let insert = insert.bind(&row.base).bind(i64::from(row.rank)).bind(signed(row.bytes));
            insert.bind(signed(row.created)).execute(&mut *transaction).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok((row, true))
        };
        in_time(inserting).await
    }

    pub(super) async fn pin(&self, tenant: &str, name: &str, revision: Option<u32>) -> Result<(), Down> {
        let pinning = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("UPDATE adapter_names SET pinned = $3 WHERE tenant = $1 AND name = $2")
                .bind(tenant)
                .bind(name)
                .bind(revision.map(i64::from))
                .execute(&mut *transaction)
                .await?;
            changed(&mut transaction).await?;
            transaction.commit().await
        };
        in_time(pinning).await
    }

    pub(super) async fn retire(&self, key: &AdapterKey, when: u64) -> Result<(), Down> {
        let (tenant, name, revision) = (key.tenant.as_str(), &*key.name, i64::from(key.revision));
        let retiring = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(
                "UPDATE adapters SET retired = $4 WHERE tenant = $1 AND name = $2 AND revision = $3 \
                 AND retired IS NULL",
            )
            .bind(tenant)
            .bind(name)
            .bind(revision)
            .bind(signed(when))
            .execute(&mut *transaction)
            .await?;
            sqlx::query("UPDATE adapter_names SET pinned = NULL WHERE tenant = $1 AND name = $2 AND pinned = $3")
                .bind(tenant)
                .bind(name)
                .bind(revision)
                .execute(&mut *transaction)
                .await?;
            changed(&mut transaction).await?;
            transaction.commit().await
        };
        in_time(retiring).await
    }

    /// Deletes a retired record. Says whether its artifact is nobody's now.
    pub(super) async fn delete(&self, key: &AdapterKey) -> Result<bool, Down> {
        let (tenant, name, revision) = (key.tenant.as_str(), &*key.name, i64::from(key.revision));
        let deleting = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(
                "DELETE FROM adapters WHERE tenant = $1 AND name = $2 AND revision = $3 AND retired IS NOT NULL",
            )
            .bind(tenant)
            .bind(name)
            .bind(revision)
            .execute(&mut *transaction)
            .await?;
            let others = sqlx::query("SELECT COUNT(*) FROM adapters WHERE tenant = $1 AND digest = $2");
            let others = others.bind(tenant).bind(&*key.digest).fetch_one(&mut *transaction).await?;
            let others: i64 = others.try_get(0)?;
            probes::forget(&mut transaction, &key.digest).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(others == 0)
        };
        in_time(deleting).await
    }

    /// Notes a refused publish, and drops the oldest of its name.
    pub(super) async fn refused(&self, id: &str, refused: &Refused) -> Result<(), Down> {
        let insert = sqlx::query(
            "INSERT INTO adapter_refusals (id, tenant, name, base, code, reason, created) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        let insert = insert.bind(id).bind(&refused.tenant).bind(&refused.name).bind(&refused.base);
        let insert = insert.bind(&refused.code).bind(&refused.reason).bind(signed(refused.created));
        in_time(insert.execute(&self.pool)).await?;
        let trim = sqlx::query(
            "DELETE FROM adapter_refusals WHERE tenant = $1 AND name = $2 AND id NOT IN \
             (SELECT id FROM adapter_refusals WHERE tenant = $1 AND name = $2 ORDER BY id DESC LIMIT $3)",
        );
        in_time(trim.bind(&refused.tenant).bind(&refused.name).bind(REFUSALS).execute(&self.pool)).await?;
        Ok(())
    }

    /// Newest first.
    pub(super) async fn refusals(&self, tenant: Option<&str>) -> Result<Vec<Refused>, Down> {
        let query = sqlx::query(
            "SELECT tenant, name, base, code, reason, created FROM adapter_refusals \
             WHERE ($1 = '' OR tenant = $1) ORDER BY id DESC LIMIT 200",
        );
        let rows = in_time(query.bind(tenant.unwrap_or_default()).fetch_all(&self.pool)).await?;
        let refused = |row: &AnyRow| {
            Ok(Refused {
                tenant: row.try_get(0)?,
                name: row.try_get(1)?,
                base: row.try_get(2)?,
                code: row.try_get(3)?,
                reason: row.try_get(4)?,
                created: unsigned(row.try_get(5)?),
            })
        };
        Ok(rows.iter().map(refused).collect::<Result<_, sqlx::Error>>()?)
    }
}

async fn changed(transaction: &mut sqlx::Transaction<'_, sqlx::Any>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE catalogue_version SET version = version + 1").execute(&mut **transaction).await?;
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Down> {
    let late = |_| Err(Down("it does not answer in time".to_owned()));
    tokio::time::timeout(TIMEOUT, async { work.await.map_err(Down::from) }).await.unwrap_or_else(late)
}

fn adapter(row: &AnyRow) -> Result<AdapterRow, sqlx::Error> {
    Ok(AdapterRow {
        tenant: row.try_get(0)?,
        name: row.try_get(1)?,
        revision: number(row.try_get(2)?),
        digest: row.try_get(3)?,
        base: row.try_get(4)?,
        rank: number(row.try_get(5)?),
        bytes: unsigned(row.try_get(6)?),
        created: unsigned(row.try_get(7)?),
        retired: row.try_get::<Option<i64>, _>(8)?.map(unsigned),
    })
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

// === impl AdapterRow ===

impl AdapterRow {
    pub(super) fn record(&self) -> Record {
        let key = AdapterKey {
            tenant: TenantId::new(self.tenant.as_str()),
            name: self.name.as_str().into(),
            revision: self.revision,
            digest: self.digest.as_str().into(),
        };
        Record {
            key,
            base: BaseName::new(self.base.as_str()),
            rank: self.rank,
            bytes: self.bytes,
            created: self.created,
            retired: self.retired,
        }
    }
}
