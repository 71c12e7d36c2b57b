//! Ratings with what they are about, as a dataset.

use std::io::Write;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;
use tenantry_types::TenantId;

use super::{ReadError, Reader};
use crate::spool::{Log, milliseconds};
use crate::{Rating, Thumb};

/// Rows that are read at once, each of which may hold long texts.
const ROWS: i64 = 64;

/// Which ratings. Superseded ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    /// `None`: all.
    pub tenant: Option<TenantId>,
    /// Recorded then or later.
    pub since: Option<SystemTime>,
    /// Recorded before.
    pub until: Option<SystemTime>,
    /// With at least this score; ratings without one are left out then.
    pub min_score: Option<u8>,
}

/// A rating and its generation. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportRow {
    pub rating_id: String,
    pub generation_id: String,
    pub tenant: String,
    /// When it was rated: RFC 3339, UTC.
    pub time: String,
    /// The same in Unix milliseconds.
    #[serde(skip)]
    pub at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumb: Option<Thumb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_text: Option<String>,
    /// Hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    /// A text or messages; where content was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
    /// Of several choices, their texts as an array in JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
}

/// The rows of an export, in the order they were recorded.
pub struct Exported {
    log: Log,
    which: Export,
    position: i64,
    read: std::vec::IntoIter<ExportRow>,
}

#[derive(Deserialize)]
struct Event<D> {
    id: String,
    subject: String,
    time: String,
    data: D,
}

/// What is read of `generation.completed`.
#[derive(Deserialize)]
struct Completed {
    content: Option<Content>,
}

#[derive(Deserialize)]
struct Content {
    kept: bool,
    prompt: Option<Value>,
    completions: Vec<Value>,
}

// === impl Reader ===

impl Reader {
    pub fn export(&self, which: Export) -> Exported {
        Exported { log: self.log(), which, position: 0, read: Vec::new().into_iter() }
    }
}

// === impl Exported ===

impl Exported {
    pub async fn next(&mut self) -> Result<Option<ExportRow>, ReadError> {
        if let Some(row) = self.read.next() {
            return Ok(Some(row));
        }
        self.read = self.page().await?.into_iter();
        Ok(self.read.next())
    }

    async fn page(&mut self) -> Result<Vec<ExportRow>, ReadError> {
        let which = &self.which;
        let rows = sqlx::query(
            "SELECT r.seq, r.at, r.tenant, rated.payload, g.model, g.base, g.adapter, g.revision, g.digest,
                    completed.payload
             FROM ratings AS r JOIN events AS rated ON rated.seq = r.seq
             LEFT JOIN generations AS g ON g.id = r.generation AND g.tenant = r.tenant
             LEFT JOIN events AS completed ON completed.seq = g.seq
             WHERE r.seq > ?1 AND r.superseded = 0 AND (?2 IS NULL OR r.tenant = ?2)
               AND (?3 IS NULL OR r.at >= ?3) AND (?4 IS NULL OR r.at < ?4) AND (?5 IS NULL OR r.score >= ?5)
             ORDER BY r.seq LIMIT ?6",
        )
        .bind(self.position)
        .bind(which.tenant.as_ref().map(TenantId::as_str))
        .bind(which.since.map(milliseconds))
        .bind(which.until.map(milliseconds))
        .bind(which.min_score)
        .bind(ROWS)
        .fetch_all(&self.log.pool)
        .await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            self.position = row.try_get(0)?;
            page.push(exported(&row)?);
        }
        Ok(page)
    }
}

fn exported(row: &sqlx::sqlite::SqliteRow) -> Result<ExportRow, ReadError> {
    let rated: Event<Value> = serde_json::from_str(row.try_get(3)?)?;
    // What the event has beside the rating's own fields.
    let mut data = rated.data;
    if let Some(fields) = data.as_object_mut() {
        for more in ["rating_id", "supersedes"] {
            fields.remove(more);
        }
    }
    let rating: Rating = serde_json::from_value(data)?;
    let completed: Option<&str> = row.try_get(9)?;
    let completed: Option<Event<Completed>> = completed.map(serde_json::from_str).transpose()?;
    let content = completed.and_then(|event| event.data.content).filter(|content| content.kept);
    let (prompt, completions) = content.map_or((None, Vec::new()), |content| (content.prompt, content.completions));
    Ok(ExportRow {
        rating_id: rated.id,
        generation_id: rated.subject,
        tenant: row.try_get(2)?,
        time: rated.time,
        at: row.try_get(1)?,
        model: row.try_get(4)?,
        base: row.try_get(5)?,
        adapter: row.try_get(6)?,
        revision: row.try_get(7)?,
        digest: row.try_get(8)?,
        thumb: rating.thumb,
        score: rating.score,
        labels: rating.labels,
        comment: rating.comment,
        corrected_text: rating.corrected_text,
        end_user: rating.end_user,
        prompt,
        completion: match completions.as_slice() {
            [] => None,
            [Value::String(only)] => Some(only.clone()),
            several => Some(serde_json::to_string(several)?),
        },
    })
}

/// Writes one row a line, and returns how many there were.
pub async fn write_jsonl(mut rows: Exported, mut to: impl Write) -> Result<u64, ReadError> {
    let mut written = 0;
    while let Some(row) = rows.next().await? {
        serde_json::to_writer(&mut to, &row)?;
        to.write_all(b"\n")?;
        written += 1;
    }
    to.flush()?;
    Ok(written)
}
