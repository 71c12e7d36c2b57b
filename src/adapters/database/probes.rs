//! The table of probes.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Database, Down, changed, in_time, signed};

/// A probe as it is written down: JSON, or none.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct ProbeRow {
    pub(in crate::adapters) base: String,
    pub(in crate::adapters) digest: String,
    pub(in crate::adapters) probe: Option<String>,
}

// === impl Database ===

impl Database {
    /// The first writer's stays.
    pub(in crate::adapters) async fn record_probe(&self, row: &ProbeRow, when: u64) -> Result<(), Down> {
        let recording = async {
            let mut transaction = self.write().await?;
            let insert = sqlx::query(
                "INSERT INTO adapter_probes (base, digest, probe, created) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (base, digest) DO NOTHING",
            );
            let insert = insert.bind(&row.base).bind(&row.digest).bind(&row.probe).bind(signed(when));
            if insert.execute(&mut *transaction).await?.rows_affected() > 0 {
                changed(&mut transaction).await?;
            }
            transaction.commit().await
        };
        in_time(recording).await
    }
}

/// Deletes an artifact's probes for bases that no record names it with.
pub(super) async fn forget(transaction: &mut Transaction<'_, Any>, digest: &str) -> Result<(), sqlx::Error> {
    let forget = sqlx::query(
        "DELETE FROM adapter_probes WHERE digest = $1 AND NOT EXISTS \
         (SELECT 1 FROM adapters WHERE adapters.digest = $1 AND adapters.base = adapter_probes.base)",
    );
    forget.bind(digest).execute(&mut **transaction).await.map(drop)
}

pub(super) fn probe(row: &AnyRow) -> Result<ProbeRow, sqlx::Error> {
    Ok(ProbeRow { base: row.try_get(0)?, digest: row.try_get(1)?, probe: row.try_get(2)? })
}
