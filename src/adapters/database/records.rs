//! The tables of revisions and names.
//!
//! Every change of a name takes the name's row first, and so sees all that
//! was changed before: changes of one name come one after the other.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::accounts::{self, AccountRows};
use super::limits::{self, LimitRow};
use super::probes::{self, ProbeRow};
use super::unnamed::{self, Place};
use super::{Database, Down, changed, in_time, number, signed, unsigned};
use crate::adapters::Record;
use crate::types::{AdapterKey, BaseName, TenantId};

/// All rows at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct Rows {
    pub(in crate::adapters) version: i64,
    pub(in crate::adapters) adapters: Vec<AdapterRow>,
    pub(in crate::adapters) pins: Vec<(String, String, u32)>,
    /// An earlier version remembered none.
    #[serde(default)]
    pub(in crate::adapters) probes: Vec<ProbeRow>,
    #[serde(default)]
    pub(in crate::adapters) limits: Vec<LimitRow>,
    #[serde(default)]
    pub(in crate::adapters) accounts: AccountRows,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct AdapterRow {
    pub(in crate::adapters) tenant: String,
    pub(in crate::adapters) name: String,
    pub(in crate::adapters) revision: u32,
    pub(in crate::adapters) digest: String,
    pub(in crate::adapters) base: String,
    pub(in crate::adapters) rank: u32,
    pub(in crate::adapters) bytes: u64,
    pub(in crate::adapters) created: u64,
    pub(in crate::adapters) retired: Option<u64>,
}

/// How a revision stood when a change came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum Standing {
    Living,
    Retired,
    Missing,
}

/// Where a name was when it was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum RolledBack {
    To(u32),
    NothingBefore,
    /// No revision answers.
    Missing,
}

/// A name of a tenant, as statements spell it.
#[derive(Debug, Clone, Copy)]
struct Name<'a>(&'a TenantId, &'a str);

// === impl Database ===

impl Database {
    /// Everything, as of one moment.
    pub(in crate::adapters) async fn rows(&self) -> Result<Rows, Down> {
        let reading = async {
            let mut transaction = self.read().await?;
            let version = sqlx::query("SELECT version FROM catalogue_version").fetch_one(&mut *transaction).await?;
            let adapters = sqlx::query(
                "SELECT tenant, name, revision, digest, base, rank, bytes, created, retired FROM adapters \
                 ORDER BY tenant, name, revision",
            );
            let adapters = adapters.fetch_all(&mut *transaction).await?;
            let pins = sqlx::query("SELECT tenant, name, pinned FROM adapter_names WHERE pinned IS NOT NULL");
            let pins = pins.fetch_all(&mut *transaction).await?;
            let probes = sqlx::query("SELECT base, digest, probe FROM adapter_probes");
            let probes = probes.fetch_all(&mut *transaction).await?;
            let set = sqlx::query("SELECT tenant, scope, name, limits FROM tenant_limits");
            let set = set.fetch_all(&mut *transaction).await?;
            let accounts = accounts::rows(&mut transaction).await?;
            transaction.commit().await?;
            let pin = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, number(row.try_get(2)?)));
            Ok(Rows {
                version: version.try_get(0)?,
                adapters: adapters.iter().map(adapter).collect::<Result<_, sqlx::Error>>()?,
                pins: pins.iter().map(pin).collect::<Result<_, sqlx::Error>>()?,
                probes: probes.iter().map(probes::probe).collect::<Result<_, sqlx::Error>>()?,
                limits: set.iter().map(limits::limits).collect::<Result<_, sqlx::Error>>()?,
                accounts,
            })
        };
        in_time(reading).await
    }

    /// Writes a record under the next revision of its name, which it returns.
    /// The newest revision stays where it has the same artifact.
    pub(in crate::adapters) async fn insert(&self, row: &AdapterRow) -> Result<(AdapterRow, bool), Down> {
        let inserting = async {
            let mut transaction = self.write().await?;
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
            unnamed::named(&mut transaction, &row.place()).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok((row, true))
        };
        in_time(inserting).await
    }

    /// Pins a name to one of its living revisions.
    pub(in crate::adapters) async fn pin(
        &self,
        tenant: &TenantId,
        name: &str,
        revision: u32,
    ) -> Result<Standing, Down> {
        let name = Name(tenant, name);
        let pinning = async {
            let mut transaction = self.write().await?;
            name.take(&mut transaction).await?;
            let standing = name.standing(&mut transaction, revision).await?;
            if standing == Standing::Living {
                name.set_pin(&mut transaction, Some(revision)).await?;
                transaction.commit().await?;
            }
            Ok(standing)
        };
        in_time(pinning).await
    }

    /// Has the newest living revision answer, and says which that is.
    pub(in crate::adapters) async fn unpin(&self, tenant: &TenantId, name: &str) -> Result<Option<u32>, Down> {
        let name = Name(tenant, name);
        let unpinning = async {
            let mut transaction = self.write().await?;
            name.take(&mut transaction).await?;
            let newest = name.newest_before(&mut transaction, u32::MAX).await?;
            if newest.is_some() {
                name.set_pin(&mut transaction, None).await?;
                transaction.commit().await?;
            }
            Ok(newest)
        };
        in_time(unpinning).await
    }

    /// Pins a name to the living revision before the one that answers.
    pub(in crate::adapters) async fn roll_back(&self, tenant: &TenantId, name: &str) -> Result<RolledBack, Down> {
        let name = Name(tenant, name);
        let rolling = async {
            let mut transaction = self.write().await?;
            let pinned = name.take(&mut transaction).await?;
            let newest = name.newest_before(&mut transaction, u32::MAX).await?;
            let Some(answering) = pinned.or(newest) else { return Ok(RolledBack::Missing) };
            let before = name.newest_before(&mut transaction, answering).await?;
            let Some(before) = before else { return Ok(RolledBack::NothingBefore) };
            name.set_pin(&mut transaction, Some(before)).await?;
            transaction.commit().await?;
            Ok(RolledBack::To(before))
        };
        in_time(rolling).await
    }

    /// Retires a living revision, and takes a pin to it away.
    pub(in crate::adapters) async fn retire(
        &self,
        tenant: &TenantId,
        name: &str,
        revision: u32,
        when: u64,
    ) -> Result<Standing, Down> {
        let name = Name(tenant, name);
        let retiring = async {
            let mut transaction = self.write().await?;
            let pinned = name.take(&mut transaction).await?;
            let standing = name.standing(&mut transaction, revision).await?;
            if standing != Standing::Living {
                return Ok(standing);
            }
            let retire =
                sqlx::query("UPDATE adapters SET retired = $4 WHERE tenant = $1 AND name = $2 AND revision = $3");
            let retire = retire.bind(tenant.as_str()).bind(name.1).bind(i64::from(revision)).bind(signed(when));
            retire.execute(&mut *transaction).await?;
            match pinned == Some(revision) {
                true => name.set_pin(&mut transaction, None).await?,
                false => changed(&mut transaction).await?,
            }
            transaction.commit().await?;
            Ok(standing)
        };
        in_time(retiring).await
    }

    /// Deletes a retired record. Where its artifact has no other, the store
    /// may be rid of it.
    pub(in crate::adapters) async fn delete(
        &self,
        tenant: &TenantId,
        name: &str,
        revision: u32,
        when: u64,
    ) -> Result<Standing, Down> {
        let name = Name(tenant, name);
        let deleting = async {
            let mut transaction = self.write().await?;
            name.take(&mut transaction).await?;
            let standing = name.standing(&mut transaction, revision).await?;
            if standing != Standing::Retired {
                return Ok(standing);
            }
            let delete =
                sqlx::query("DELETE FROM adapters WHERE tenant = $1 AND name = $2 AND revision = $3 RETURNING digest");
            let delete = delete.bind(tenant.as_str()).bind(name.1).bind(i64::from(revision));
            let digest: String = delete.fetch_one(&mut *transaction).await?.try_get(0)?;
            let place = Place { tenant: tenant.to_string(), digest };
            if !unnamed::has_record(&mut transaction, &place).await? {
                unnamed::note(&mut transaction, &place, when).await?;
            }
            probes::forget(&mut transaction, &place.digest).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(standing)
        };
        in_time(deleting).await
    }
}

// === impl Name ===

impl Name<'_> {
    /// Takes the name's row until the transaction ends; the revision that the
    /// name is pinned to.
    async fn take(self, transaction: &mut Transaction<'_, Any>) -> Result<Option<u32>, sqlx::Error> {
        let take = sqlx::query(
            "UPDATE adapter_names SET last_revision = last_revision WHERE tenant = $1 AND name = $2 RETURNING pinned",
        );
        let row = take.bind(self.0.as_str()).bind(self.1).fetch_optional(&mut **transaction).await?;
        let pinned = row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()?;
        Ok(pinned.flatten().map(number))
    }

    async fn standing(self, transaction: &mut Transaction<'_, Any>, revision: u32) -> Result<Standing, sqlx::Error> {
        let query = sqlx::query("SELECT retired FROM adapters WHERE tenant = $1 AND name = $2 AND revision = $3");
        let query = query.bind(self.0.as_str()).bind(self.1).bind(i64::from(revision));
        let Some(row) = query.fetch_optional(&mut **transaction).await? else { return Ok(Standing::Missing) };
        Ok(if row.try_get::<Option<i64>, _>(0)?.is_some() { Standing::Retired } else { Standing::Living })
    }

    /// The newest living revision before this one.
    async fn newest_before(
        self,
        transaction: &mut Transaction<'_, Any>,
        revision: u32,
    ) -> Result<Option<u32>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT revision FROM adapters WHERE tenant = $1 AND name = $2 AND revision < $3 AND retired IS NULL \
             ORDER BY revision DESC LIMIT 1",
        );
        let query = query.bind(self.0.as_str()).bind(self.1).bind(i64::from(revision));
        let row = query.fetch_optional(&mut **transaction).await?;
        row.map(|row| Ok(number(row.try_get(0)?))).transpose()
    }

    async fn set_pin(self, transaction: &mut Transaction<'_, Any>, revision: Option<u32>) -> Result<(), sqlx::Error> {
        let pin = sqlx::query("UPDATE adapter_names SET pinned = $3 WHERE tenant = $1 AND name = $2");
        let pin = pin.bind(self.0.as_str()).bind(self.1).bind(revision.map(i64::from));
        pin.execute(&mut **transaction).await?;
        changed(transaction).await
    }
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

// === impl AdapterRow ===

impl AdapterRow {
    pub(in crate::adapters) fn place(&self) -> Place {
        Place { tenant: self.tenant.clone(), digest: self.digest.clone() }
    }

    pub(in crate::adapters) fn record(&self) -> Record {
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
