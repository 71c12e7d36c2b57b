//! The tables of tenants and keys that operators made.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Database, Down, changed, in_time, signed, unsigned};

/// A tenant as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct TenantRow {
    pub(in crate::adapters) id: String,
    /// JSON.
    pub(in crate::adapters) settings: String,
    pub(in crate::adapters) disabled: bool,
    pub(in crate::adapters) created: u64,
    pub(in crate::adapters) changed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct KeyRow {
    pub(in crate::adapters) hash: String,
    pub(in crate::adapters) tenant: String,
    pub(in crate::adapters) name: String,
    pub(in crate::adapters) priority: Option<String>,
    pub(in crate::adapters) created: u64,
    pub(in crate::adapters) expires: Option<u64>,
    /// Unix milliseconds; 0: nobody has replaced it.
    pub(in crate::adapters) replaced: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct PolicyRow {
    pub(in crate::adapters) tenant: String,
    pub(in crate::adapters) model: String,
    pub(in crate::adapters) policy: String,
}

/// All of it at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::adapters) struct AccountRows {
    pub(in crate::adapters) tenants: Vec<TenantRow>,
    pub(in crate::adapters) keys: Vec<KeyRow>,
    pub(in crate::adapters) policies: Vec<PolicyRow>,
}

/// What became of a tenant that was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum Created {
    New,
    Exists,
    /// An earlier one of its id left so many.
    HasAdapters(u64),
}

/// What became of a tenant that was to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum Rewritten {
    Done,
    Missing,
    /// Somebody else has changed it since it was looked at.
    Overtaken,
}

/// What became of a tenant that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum Deleted {
    Gone,
    Missing,
    /// So many adapters of it are published.
    HasAdapters(u64),
}

// === impl Database ===

impl Database {
    /// What is left of an earlier one of the same id, which is another's, goes:
    /// also what that has used. With adapters of it there, nothing is created.
    pub(in crate::adapters) async fn create_tenant(&self, row: &TenantRow) -> Result<Created, Down> {
        let creating = async {
            let mut transaction = self.write().await?;
            let insert = sqlx::query(
                "INSERT INTO tenants (id, settings, disabled, created, changed) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (id) DO NOTHING",
            );
            let insert = insert.bind(&row.id).bind(&row.settings).bind(i64::from(row.disabled));
            let insert = insert.bind(signed(row.created)).bind(signed(row.changed));
            if insert.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(Created::Exists);
            }
            let adapters = adapters(&mut transaction, &row.id).await?;
            if adapters > 0 {
                return Ok(Created::HasAdapters(adapters));
            }
            forget(&mut transaction, &row.id).await?;
            for table in ["DELETE FROM usage_log WHERE tenant = $1", "DELETE FROM usage_by_day WHERE tenant = $1"] {
                sqlx::query(table).bind(&row.id).execute(&mut *transaction).await?;
            }
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Created::New)
        };
        in_time(creating).await
    }

    /// Where it still is as it was `seen`.
    pub(in crate::adapters) async fn change_tenant(
        &self,
        row: &TenantRow,
        seen: (&str, bool),
    ) -> Result<Rewritten, Down> {
        let changing = async {
            let mut transaction = self.write().await?;
            let is = sqlx::query("SELECT settings, disabled FROM tenants WHERE id = $1").bind(&row.id);
            let Some(is) = is.fetch_optional(&mut *transaction).await? else { return Ok(Rewritten::Missing) };
            let (settings, disabled): (String, i64) = (is.try_get(0)?, is.try_get(1)?);
            if (settings.as_str(), disabled != 0) != seen {
                return Ok(Rewritten::Overtaken);
            }
            let update = sqlx::query("UPDATE tenants SET settings = $2, disabled = $3, changed = $4 WHERE id = $1");
            let update = update.bind(&row.id).bind(&row.settings).bind(i64::from(row.disabled));
            update.bind(signed(row.changed)).execute(&mut *transaction).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Rewritten::Done)
        };
        in_time(changing).await
    }

    /// Deletes a tenant and all that is its, unless it has adapters.
    pub(in crate::adapters) async fn delete_tenant(&self, id: &str) -> Result<Deleted, Down> {
        let deleting = async {
            let mut transaction = self.write().await?;
            let delete = sqlx::query("DELETE FROM tenants WHERE id = $1").bind(id);
            if delete.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(Deleted::Missing);
            }
            let adapters = adapters(&mut transaction, id).await?;
            if adapters > 0 {
                return Ok(Deleted::HasAdapters(adapters));
            }
            forget(&mut transaction, id).await?;
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Deleted::Gone)
        };
        in_time(deleting).await
    }

    /// Whether the tenant had none of this name, and nobody this key.
    pub(in crate::adapters) async fn create_key(&self, row: &KeyRow) -> Result<bool, Down> {
        let creating = async {
            let mut transaction = self.write().await?;
            let created = insert(&mut transaction, row).await?;
            if created {
                changed(&mut transaction).await?;
                transaction.commit().await?;
            }
            Ok(created)
        };
        in_time(creating).await
    }

    /// Puts another key in the place of the one of this name, which holds until
    /// `overlap` at most. The new one's row; `None` where there is no such key.
    pub(in crate::adapters) async fn rotate_key(
        &self,
        next: &KeyRow,
        overlap: u64,
        milliseconds: u64,
    ) -> Result<Option<KeyRow>, Down> {
        let rotating = async {
            let mut transaction = self.write().await?;
            let clean = sqlx::query("DELETE FROM tenant_keys WHERE replaced > 0 AND expires < $1");
            clean.bind(signed(next.created)).execute(&mut *transaction).await?;
            cap_replaced(&mut transaction, &next.tenant, &next.name, overlap).await?;
            let replace = sqlx::query(
                "UPDATE tenant_keys SET replaced = $3, \
                 expires = CASE WHEN expires IS NULL OR expires > $4 THEN $4 ELSE expires END \
                 WHERE tenant = $1 AND name = $2 AND replaced = 0 RETURNING priority",
            );
            let replace = replace.bind(&next.tenant).bind(&next.name).bind(signed(milliseconds)).bind(signed(overlap));
            let Some(before) = replace.fetch_optional(&mut *transaction).await? else { return Ok(None) };
            let next = KeyRow { priority: before.try_get(0)?, ..next.clone() };
            if !insert(&mut transaction, &next).await? {
                return Ok(None);
            }
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Some(next))
        };
        in_time(rotating).await
    }

    /// Has a key hold until then; `None`: for ever. Whether there is such a key.
    pub(in crate::adapters) async fn expire_key(
        &self,
        tenant: &str,
        name: &str,
        expires: Option<u64>,
    ) -> Result<bool, Down> {
        let changing = async {
            let mut transaction = self.write().await?;
            let update =
                sqlx::query("UPDATE tenant_keys SET expires = $3 WHERE tenant = $1 AND name = $2 AND replaced = 0");
            let update = update.bind(tenant).bind(name).bind(expires.map(signed)).execute(&mut *transaction).await?;
            if let Some(expires) = expires {
                cap_replaced(&mut transaction, tenant, name, expires).await?;
            }
            changed(&mut transaction).await?;
            transaction.commit().await?;
            Ok(update.rows_affected() > 0)
        };
        in_time(changing).await
    }

    /// Deletes a key, and what it replaced. Whether there was one.
    pub(in crate::adapters) async fn revoke_key(&self, tenant: &str, name: &str) -> Result<bool, Down> {
        let revoking = async {
            let mut transaction = self.write().await?;
            let delete = sqlx::query("DELETE FROM tenant_keys WHERE tenant = $1 AND name = $2").bind(tenant).bind(name);
            let there = delete.execute(&mut *transaction).await?.rows_affected() > 0;
            if there {
                // One of the same name is another key.
                for table in [
                    "DELETE FROM tenant_limits WHERE tenant = $1 AND scope = 'key' AND name = $2",
                    "DELETE FROM key_uses WHERE tenant = $1 AND name = $2",
                ] {
                    sqlx::query(table).bind(tenant).bind(name).execute(&mut *transaction).await?;
                }
                changed(&mut transaction).await?;
            }
            transaction.commit().await?;
            Ok(there)
        };
        in_time(revoking).await
    }

    /// Gives a tenant a policy; `None` takes it away. Whether there is a change.
    pub(in crate::adapters) async fn set_policy(
        &self,
        tenant: &str,
        model: &str,
        policy: Option<&str>,
        when: u64,
    ) -> Result<bool, Down> {
        let setting = async {
            let mut transaction = self.write().await?;
            let done = match policy {
                Some(policy) => {
                    let set = sqlx::query(
                        "INSERT INTO tenant_policies (tenant, model, policy, changed) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (tenant, model) DO UPDATE SET policy = excluded.policy, changed = excluded.changed",
                    );
                    let set = set.bind(tenant).bind(model).bind(policy).bind(signed(when));
                    set.execute(&mut *transaction).await?
                }
                None => {
                    let delete = sqlx::query("DELETE FROM tenant_policies WHERE tenant = $1 AND model = $2");
                    delete.bind(tenant).bind(model).execute(&mut *transaction).await?
                }
            };
            if done.rows_affected() > 0 {
                changed(&mut transaction).await?;
            }
            transaction.commit().await?;
            Ok(done.rows_affected() > 0)
        };
        in_time(setting).await
    }

    /// Writes down when keys were used; the latest stays.
    pub(in crate::adapters) async fn note_key_uses(&self, uses: &[(String, String, u64)]) -> Result<(), Down> {
        let noting = async {
            let mut transaction = self.write().await?;
            for (tenant, name, when) in uses {
                let note = sqlx::query(
                    "INSERT INTO key_uses (tenant, name, last_used) VALUES ($1, $2, $3) \
                     ON CONFLICT (tenant, name) DO UPDATE SET last_used = CASE \
                     WHEN excluded.last_used > key_uses.last_used THEN excluded.last_used ELSE key_uses.last_used END",
                );
                note.bind(tenant).bind(name).bind(signed(*when)).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        in_time(noting).await
    }

    /// When a tenant's keys were last used, by name.
    pub(in crate::adapters) async fn key_uses(&self, tenant: &str) -> Result<Vec<(String, u64)>, Down> {
        let query = sqlx::query("SELECT name, last_used FROM key_uses WHERE tenant = $1").bind(tenant);
        let rows = in_time(query.fetch_all(&self.pool)).await?;
        Ok(rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?))))
            .collect::<Result<_, sqlx::Error>>()?)
    }
}

/// All of a moment.
pub(super) async fn rows(transaction: &mut Transaction<'_, Any>) -> Result<AccountRows, sqlx::Error> {
    let tenants = sqlx::query("SELECT id, settings, disabled, created, changed FROM tenants ORDER BY id");
    let tenants = tenants.fetch_all(&mut **transaction).await?;
    let keys = sqlx::query(
        "SELECT hash, tenant, name, priority, created, expires, replaced FROM tenant_keys \
         ORDER BY tenant, name, replaced",
    );
    let keys = keys.fetch_all(&mut **transaction).await?;
    let policies = sqlx::query("SELECT tenant, model, policy FROM tenant_policies ORDER BY tenant, model");
    let policies = policies.fetch_all(&mut **transaction).await?;
    let policy =
        |row: &AnyRow| Ok(PolicyRow { tenant: row.try_get(0)?, model: row.try_get(1)?, policy: row.try_get(2)? });
    Ok(AccountRows {
        tenants: tenants.iter().map(tenant).collect::<Result<_, sqlx::Error>>()?,
        keys: keys.iter().map(key).collect::<Result<_, sqlx::Error>>()?,
        policies: policies.iter().map(policy).collect::<Result<_, sqlx::Error>>()?,
    })
}

/// So many revisions are published for a tenant.
async fn adapters(transaction: &mut Transaction<'_, Any>, tenant: &str) -> Result<u64, sqlx::Error> {
    let count = sqlx::query("SELECT COUNT(*) FROM adapters WHERE tenant = $1").bind(tenant);
    Ok(unsigned(count.fetch_one(&mut **transaction).await?.try_get(0)?))
}

/// Caps how long the keys hold that others of their name have replaced.
async fn cap_replaced(
    transaction: &mut Transaction<'_, Any>,
    tenant: &str,
    name: &str,
    expires: u64,
) -> Result<(), sqlx::Error> {
    let cap = sqlx::query(
        "UPDATE tenant_keys SET expires = $3 \
         WHERE tenant = $1 AND name = $2 AND replaced > 0 AND (expires IS NULL OR expires > $3)",
    );
    cap.bind(tenant).bind(name).bind(signed(expires)).execute(&mut **transaction).await?;
    Ok(())
}

/// Deletes all that is a tenant's but its adapters and what it used.
async fn forget(transaction: &mut Transaction<'_, Any>, tenant: &str) -> Result<(), sqlx::Error> {
    for table in [
        "DELETE FROM tenant_keys WHERE tenant = $1",
        "DELETE FROM tenant_limits WHERE tenant = $1",
        "DELETE FROM tenant_policies WHERE tenant = $1",
        "DELETE FROM key_uses WHERE tenant = $1",
    ] {
        sqlx::query(table).bind(tenant).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Whether it is new.
async fn insert(transaction: &mut Transaction<'_, Any>, row: &KeyRow) -> Result<bool, sqlx::Error> {
    let insert = sqlx::query(
        "INSERT INTO tenant_keys (hash, tenant, name, priority, created, expires, replaced) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    );
    let insert = insert.bind(&row.hash).bind(&row.tenant).bind(&row.name).bind(&row.priority);
    let insert = insert.bind(signed(row.created)).bind(row.expires.map(signed)).bind(signed(row.replaced));
    Ok(insert.execute(&mut **transaction).await?.rows_affected() > 0)
}

fn tenant(row: &AnyRow) -> Result<TenantRow, sqlx::Error> {
    Ok(TenantRow {
        id: row.try_get(0)?,
        settings: row.try_get(1)?,
        disabled: row.try_get::<i64, _>(2)? != 0,
        created: unsigned(row.try_get(3)?),
        changed: unsigned(row.try_get(4)?),
    })
}

fn key(row: &AnyRow) -> Result<KeyRow, sqlx::Error> {
    Ok(KeyRow {
        hash: row.try_get(0)?,
        tenant: row.try_get(1)?,
        name: row.try_get(2)?,
        priority: row.try_get(3)?,
        created: unsigned(row.try_get(4)?),
        expires: row.try_get::<Option<i64>, _>(5)?.map(unsigned),
        replaced: unsigned(row.try_get(6)?),
    })
}
