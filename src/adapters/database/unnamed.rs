//! The table of artifacts that may be in the store without a record.
//!
//! A publish claims its artifact before it stores it, and a sweep takes the
//! claim's row before it removes it from the store; each waits for the other.
//! So an artifact is never removed while it is published, whoever deletes
//! what. A publish that breaks off leaves its claim, and what it stored is
//! swept too. What this table does not list is never removed: another
//! database's gateways may use the same store.

use sqlx::{Any, Row, Transaction};

use super::{Database, Down, in_time, signed};

/// Artifacts that one sweep looks at.
const SWEPT: i64 = 100;

/// Where an artifact lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adapters) struct Place {
    pub(in crate::adapters) tenant: String,
    pub(in crate::adapters) digest: String,
}

// === impl Database ===

impl Database {
    /// Keeps an artifact from being swept for as long as publishing it takes.
    pub(in crate::adapters) async fn claim(&self, place: &Place, now: u64) -> Result<(), Down> {
        let claiming = async {
            let mut transaction = self.write().await?;
            note(&mut transaction, place, now).await?;
            transaction.commit().await
        };
        in_time(claiming).await
    }

    /// What nobody has claimed since `before`.
    pub(in crate::adapters) async fn unnamed(&self, before: u64) -> Result<Vec<Place>, Down> {
        let query =
            sqlx::query("SELECT tenant, digest FROM unnamed_artifacts WHERE since < $1 ORDER BY since LIMIT $2");
        let rows = in_time(query.bind(signed(before)).bind(SWEPT).fetch_all(&self.pool)).await?;
        let place = |row: &sqlx::any::AnyRow| Ok(Place { tenant: row.try_get(0)?, digest: row.try_get(1)? });
        Ok(rows.iter().map(place).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Lets `remove` remove an artifact that has no record and that nobody has
    /// claimed since `before`. Where that fails the next sweep tries again.
    pub(in crate::adapters) async fn sweep(
        &self,
        place: &Place,
        before: u64,
        remove: impl Future<Output = bool>,
    ) -> Result<bool, Down> {
        let sweeping = async {
            let mut transaction = self.write().await?;
            let take = sqlx::query("DELETE FROM unnamed_artifacts WHERE tenant = $1 AND digest = $2 AND since < $3");
            let take = take.bind(&place.tenant).bind(&place.digest).bind(signed(before));
            if take.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let unnamed = !has_record(&mut transaction, place).await?;
            if unnamed && !remove.await {
                return Ok(false);
            }
            transaction.commit().await?;
            Ok(unnamed)
        };
        in_time(sweeping).await
    }
}

pub(super) async fn note(transaction: &mut Transaction<'_, Any>, place: &Place, since: u64) -> Result<(), sqlx::Error> {
    let note = sqlx::query(
        "INSERT INTO unnamed_artifacts (tenant, digest, since) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant, digest) DO UPDATE SET since = excluded.since",
    );
    note.bind(&place.tenant).bind(&place.digest).bind(signed(since)).execute(&mut **transaction).await.map(drop)
}

/// The artifact has a record now.
pub(super) async fn named(transaction: &mut Transaction<'_, Any>, place: &Place) -> Result<(), sqlx::Error> {
    let named = sqlx::query("DELETE FROM unnamed_artifacts WHERE tenant = $1 AND digest = $2");
    named.bind(&place.tenant).bind(&place.digest).execute(&mut **transaction).await.map(drop)
}

pub(super) async fn has_record(transaction: &mut Transaction<'_, Any>, place: &Place) -> Result<bool, sqlx::Error> {
    let count = sqlx::query("SELECT COUNT(*) FROM adapters WHERE tenant = $1 AND digest = $2");
    let count = count.bind(&place.tenant).bind(&place.digest).fetch_one(&mut **transaction).await?;
    Ok(count.try_get::<i64, _>(0)? > 0)
}
