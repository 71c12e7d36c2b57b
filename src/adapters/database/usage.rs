//! The tables of what generations used.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::super::usage::{Days, Sum, Used};
use super::{Database, Down, in_time, signed, unsigned};

const DAY: u64 = 24 * 60 * 60;

// === impl Database ===

impl Database {
    /// Writes generations down that `gateway` served, all or none. What is
    /// written already stays as it is, and is summed once.
    pub(in crate::adapters) async fn note_usage(&self, gateway: &str, rows: &[Used]) -> Result<(), Down> {
        let noting = async {
            let mut transaction = self.write().await?;
            for used in rows {
                if insert(&mut transaction, gateway, used).await? {
                    add(&mut transaction, gateway, used).await?;
                }
            }
            transaction.commit().await
        };
        in_time(noting).await
    }

    /// Sums by day, tenant, key and model; of one tenant or of all.
    pub(in crate::adapters) async fn usage(&self, tenant: Option<&str>, days: Days) -> Result<Vec<Sum>, Down> {
        let query = sqlx::query(
            "SELECT day, tenant, key_name, model, CAST(SUM(requests) AS BIGINT), CAST(SUM(input) AS BIGINT), \
             CAST(SUM(output) AS BIGINT), CAST(SUM(cached) AS BIGINT) FROM usage_by_day \
             WHERE ($1 = '' OR tenant = $1) AND day >= $2 AND day <= $3 \
             GROUP BY day, tenant, key_name, model ORDER BY day, tenant, key_name, model",
        );
        let query = query.bind(tenant.unwrap_or_default()).bind(signed(days.first)).bind(signed(days.last));
        let rows = in_time(query.fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(sum).collect::<Result<_, _>>()?)
    }

    /// As [`Database::usage`], of all that other runs of gateways served.
    pub(in crate::adapters) async fn usage_of_others(&self, gateway: &str, days: Days) -> Result<Vec<Sum>, Down> {
        let query = sqlx::query(
            "SELECT day, tenant, key_name, model, CAST(SUM(requests) AS BIGINT), CAST(SUM(input) AS BIGINT), \
             CAST(SUM(output) AS BIGINT), CAST(SUM(cached) AS BIGINT) FROM usage_by_day \
             WHERE gateway <> $1 AND day >= $2 AND day <= $3 GROUP BY day, tenant, key_name, model",
        );
        let query = query.bind(gateway).bind(signed(days.first)).bind(signed(days.last));
        let rows = in_time(query.fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(sum).collect::<Result<_, _>>()?)
    }
}

/// Whether it was not there already.
async fn insert(transaction: &mut Transaction<'_, Any>, gateway: &str, used: &Used) -> Result<bool, sqlx::Error> {
    let micros = |length: std::time::Duration| i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let insert = sqlx::query(
        "INSERT INTO usage_log (id, gateway, tenant, key_name, model, base, adapter, input, output, cached, \
         queue_micros, service_micros, finish, ended) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (id) DO NOTHING",
    );
    let insert = insert.bind(&used.id).bind(gateway).bind(&used.tenant).bind(&used.key).bind(&used.model);
    let insert = insert.bind(&used.base).bind(&used.adapter);
    let insert = insert.bind(signed(used.input)).bind(signed(used.output)).bind(signed(used.cached));
    let insert = insert.bind(micros(used.queue)).bind(micros(used.service)).bind(used.finish).bind(signed(used.ended));
    Ok(insert.execute(&mut **transaction).await?.rows_affected() > 0)
}

async fn add(transaction: &mut Transaction<'_, Any>, gateway: &str, used: &Used) -> Result<(), sqlx::Error> {
    let add = sqlx::query(
        "INSERT INTO usage_by_day (day, gateway, tenant, key_name, model, requests, input, output, cached) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8) ON CONFLICT (day, tenant, key_name, model, gateway) DO UPDATE SET \
         requests = usage_by_day.requests + 1, input = usage_by_day.input + excluded.input, \
         output = usage_by_day.output + excluded.output, cached = usage_by_day.cached + excluded.cached",
    );
    let add = add.bind(signed(used.ended / DAY)).bind(gateway).bind(&used.tenant).bind(&used.key).bind(&used.model);
    let add = add.bind(signed(used.input)).bind(signed(used.output)).bind(signed(used.cached));
    add.execute(&mut **transaction).await.map(drop)
}

fn sum(row: &AnyRow) -> Result<Sum, sqlx::Error> {
    Ok(Sum {
        day: unsigned(row.try_get(0)?),
        tenant: row.try_get(1)?,
        key: row.try_get(2)?,
        model: row.try_get(3)?,
        requests: unsigned(row.try_get(4)?),
        input: unsigned(row.try_get(5)?),
        output: unsigned(row.try_get(6)?),
        cached: unsigned(row.try_get(7)?),
    })
}
