//! The table of refused publishes.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Database, Down, in_time, signed, unsigned};

/// Refused publishes of one name that are kept.
const KEPT: i64 = 20;

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

// === impl Database ===

impl Database {
    /// Notes a refused publish, and drops the oldest of its name.
    pub(in crate::adapters) async fn refused(&self, id: &str, refused: &Refused) -> Result<(), Down> {
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
        in_time(trim.bind(&refused.tenant).bind(&refused.name).bind(KEPT).execute(&self.pool)).await?;
        Ok(())
    }

    /// Newest first.
    pub(in crate::adapters) async fn refusals(&self, tenant: Option<&str>) -> Result<Vec<Refused>, Down> {
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
