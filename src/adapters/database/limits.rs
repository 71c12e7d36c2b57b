//! The table of limits that operators set.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Database, Down, changed, in_time, signed};

/// One set of limits as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct LimitRow {
    pub(in crate::adapters) tenant: String,
    pub(in crate::adapters) scope: String,
    pub(in crate::adapters) name: String,
    /// JSON.
    pub(in crate::adapters) limits: String,
}

// === impl Database ===

impl Database {
    pub(in crate::adapters) async fn set_limits(&self, row: &LimitRow, when: u64) -> Result<(), Down> {
        let setting = async {
            let mut transaction = self.write().await?;
            let set = sqlx::query(
                "INSERT INTO tenant_limits (tenant, scope, name, limits, changed) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant, scope, name) DO UPDATE SET limits = excluded.limits, changed = excluded.changed",
            );
            let set = set.bind(&row.tenant).bind(&row.scope).bind(&row.name).bind(&row.limits).bind(signed(when));
            set.execute(&mut *transaction).await?;
            changed(&mut transaction).await?;
            transaction.commit().await
        };
        in_time(setting).await
    }

    /// Whether there were any.
    pub(in crate::adapters) async fn reset_limits(&self, tenant: &str, scope: &str, name: &str) -> Result<bool, Down> {
        let resetting = async {
            let mut transaction = self.write().await?;
            let delete = sqlx::query("DELETE FROM tenant_limits WHERE tenant = $1 AND scope = $2 AND name = $3");
            let delete = delete.bind(tenant).bind(scope).bind(name).execute(&mut *transaction).await?;
            let there = delete.rows_affected() > 0;
            if there {
                changed(&mut transaction).await?;
            }
            transaction.commit().await?;
            Ok(there)
        };
        in_time(resetting).await
    }
}

pub(super) fn limits(row: &AnyRow) -> Result<LimitRow, sqlx::Error> {
    Ok(LimitRow { tenant: row.try_get(0)?, scope: row.try_get(1)?, name: row.try_get(2)?, limits: row.try_get(3)? })
}
