//! One transaction: positions, expiry, and a group of events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{QueryBuilder, Row as _};

use super::SpoolError;
use super::item::{Item, NewEvent, NewRating, Recorded, What, counted};
use super::plan::{Decision, Plan, Refused};
use super::writer::{Bounds, RETRY_AFTER};
use crate::rating::Thumb;

/// Old rows that one transaction removes at most.
const REMOVED: i64 = 2048;
/// Rows of one statement, which has ten variables for each.
const ROWS: usize = 128;

/// What the tables hold, as of the last commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    /// Of events that are kept, as they count.
    pub(super) bytes: u64,
    /// The last event ever accepted.
    pub(super) last: i64,
    /// How far each sink is.
    pub(super) positions: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Of ratings.
    Rated(Result<Vec<Recorded>, SpoolError>),
    /// Of a generation's event: whether there was room for it.
    Noted(bool),
    /// It was no event.
    Done,
}

/// An event as its row has it.
struct Row<'a> {
    seq: i64,
    id: &'a str,
    tenant: &'a str,
    kind: &'static str,
    subject: &'a str,
    at: i64,
    payload: String,
}

// === impl Totals ===

impl Totals {
    pub(super) async fn load(connection: &mut SqliteConnection, sinks: &[String]) -> Result<Self, sqlx::Error> {
        let (bytes,): (i64,) =
            sqlx::query_as("SELECT COALESCE(SUM(bytes), 0) FROM events").fetch_one(&mut *connection).await?;
        let last: Option<(i64,)> = sqlx::query_as("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
            .fetch_optional(&mut *connection)
            .await?;
        let known: Vec<(String, i64)> =
            sqlx::query_as("SELECT sink, seq FROM positions").fetch_all(&mut *connection).await?;
        // A sink that is new gets all that is kept.
        let mut positions: BTreeMap<String, i64> = sinks.iter().map(|sink| (sink.clone(), 0)).collect();
        for (sink, seq) in known {
            if let Some(position) = positions.get_mut(&sink) {
                *position = seq;
            }
        }
        Ok(Self { bytes: bytes.unsigned_abs(), last: last.map_or(0, |(seq,)| seq), positions })
    }

    /// Every sink has all up to here.
    pub(super) fn delivered(&self) -> i64 {
        self.positions.values().copied().min().unwrap_or(self.last)
    }
}

/// Moves sinks to their positions and writes the items, in one transaction. Where it fails nothing may be assumed
/// of what the tables hold.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    totals: &Totals,
    (moved, items): (&BTreeMap<String, i64>, &[Item]),
    bounds: Bounds,
    source: &str,
) -> Result<(Vec<Outcome>, Totals), sqlx::Error> {
    let mut totals = totals.clone();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    move_positions(connection, &mut totals, moved).await?;
    let incoming: u64 = items.iter().map(Item::estimate).sum();
    let expired = items.iter().filter_map(|item| match &item.what {
        What::Expire { before } => Some(milliseconds(*before)),
        _ => None,
    });
    // Down to where events of generations still have room, which leave the rest to ratings.
    let most = bounds.max_bytes.saturating_sub(bounds.reserve);
    let wanted = (totals.bytes + incoming).saturating_sub(most);
    remove(connection, &mut totals, wanted, expired.max().unwrap_or(i64::MIN)).await?;

    let mut plan = Plan::new(bounds.max_bytes.saturating_sub(totals.bytes), bounds.reserve, bounds.most_unnamed);
    look_up(connection, &mut plan, items).await?;
    let (mut rows, mut outcomes) = (Vec::new(), Vec::with_capacity(items.len()));
    let (mut ratings, mut generations, mut superseded) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        outcomes.push(match &item.what {
            What::Ratings(several, _) => Outcome::Rated(match plan.ratings(several, source) {
                Ok(decisions) => {
                    let mut recorded = Vec::with_capacity(several.len());
                    for (new, decision) in several.iter().zip(decisions) {
                        recorded.push(match decision {
                            Decision::Record { payload, supersedes } => {
                                totals.last += 1;
                                superseded.extend(supersedes.map(|old| (old, new)));
                                ratings.push((totals.last, new));
                                rows.push(Row::rating(totals.last, new, payload));
                                Recorded { id: new.id.clone(), duplicate: false }
                            }
                            Decision::Duplicate { of } => Recorded { id: of, duplicate: true },
                        });
                    }
                    Ok(recorded)
                }
                Err(Refused::Full) => Err(SpoolError::Full { retry_after: RETRY_AFTER }),
                Err(Refused::Unnamed { at }) => Err(SpoolError::Unnamed { at, most: bounds.most_unnamed }),
            }),
            What::Event(new) if plan.event(new.kind, &new.payload) => {
                totals.last += 1;
                if new.generation.is_some() {
                    generations.push((totals.last, &**new));
                }
                rows.push(Row::event(totals.last, new));
                Outcome::Noted(true)
            }
            What::Event(_) => Outcome::Noted(false),
            What::Position { .. } | What::Barrier(_) | What::Expire { .. } => Outcome::Done,
        });
    }
    totals.bytes += rows.iter().map(|row| counted(&row.payload)).sum::<u64>();
    insert_events(connection, rows).await?;
    insert_ratings(connection, &ratings).await?;
    supersede(connection, &superseded).await?;
    insert_generations(connection, &generations).await?;
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok((outcomes, totals))
}

async fn move_positions(
    connection: &mut SqliteConnection,
    totals: &mut Totals,
    moved: &BTreeMap<String, i64>,
) -> Result<(), sqlx::Error> {
    for (sink, seq) in moved {
        sqlx::query("INSERT INTO positions VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET seq = excluded.seq")
            .bind(sink)
            .bind(seq)
            .execute(&mut *connection)
            .await?;
        totals.positions.insert(sink.clone(), *seq);
    }
    Ok(())
}

/// Removes the oldest events that every sink has: those from before `expired`
/// (Unix milliseconds), and as many more as free `wanted` bytes.
async fn remove(
    connection: &mut SqliteConnection,
    totals: &mut Totals,
    wanted: u64,
    expired: i64,
) -> Result<(), sqlx::Error> {
    if wanted == 0 && expired == i64::MIN {
        return Ok(());
    }
    let oldest: Vec<(i64, i64, i64)> =
        sqlx::query_as("SELECT seq, at, bytes FROM events INDEXED BY events_sizes WHERE seq <= ? ORDER BY seq LIMIT ?")
            .bind(totals.delivered())
            .bind(REMOVED)
            .fetch_all(&mut *connection)
            .await?;
    let (mut freed, mut up_to) = (0, None);
    for (seq, at, bytes) in oldest {
        if freed >= wanted && at >= expired {
            break;
        }
        freed += bytes.unsigned_abs();
        up_to = Some(seq);
    }
    let Some(up_to) = up_to else { return Ok(()) };
    for table in ["DELETE FROM events", "DELETE FROM ratings", "DELETE FROM generations"] {
        let mut query = QueryBuilder::<Sqlite>::new(table);
        query.push(" WHERE seq <= ").push_bind(up_to).build().execute(&mut *connection).await?;
    }
    totals.bytes = totals.bytes.saturating_sub(freed);
    Ok(())
}

/// Tells the plan what is recorded of the items' keys and users.
async fn look_up(connection: &mut SqliteConnection, plan: &mut Plan, items: &[Item]) -> Result<(), sqlx::Error> {
    let ratings = items.iter().filter_map(|item| match &item.what {
        What::Ratings(new, _) => Some(new),
        _ => None,
    });
    let ratings: Vec<&NewRating> = ratings.flatten().collect();
    let keyed: Vec<_> =
        ratings.iter().filter_map(|new| Some((new.tenant.as_str(), new.rating.idempotency_key.as_deref()?))).collect();
    for keyed in keyed.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("WITH asked (tenant, key) AS (");
        query.push_values(keyed, |mut row, (tenant, key)| {
            row.push_bind(*tenant).push_bind(*key);
        });
        // The order is the plan: each key is looked up in the index.
        query.push(
            ") SELECT r.tenant, r.idempotency_key, r.id FROM asked CROSS JOIN ratings AS r
             ON r.tenant = asked.tenant AND r.idempotency_key = asked.key",
        );
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            plan.known_key(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
    }
    let named: Vec<_> = ratings
        .iter()
        .filter_map(|new| {
            Some((new.tenant.as_str(), new.rating.generation_id.as_str(), new.rating.end_user.as_deref()?))
        })
        .collect();
    for named in named.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("WITH asked (tenant, generation, end_user) AS (");
        query.push_values(named, |mut row, (tenant, generation, user)| {
            row.push_bind(*tenant).push_bind(*generation).push_bind(*user);
        });
        query.push(
            ") SELECT r.tenant, r.generation, r.end_user, r.id FROM asked CROSS JOIN ratings AS r
             ON r.tenant = asked.tenant AND r.generation = asked.generation AND r.end_user = asked.end_user
             WHERE r.superseded = 0",
        );
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            plan.known_rating(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        }
    }
    // Each once: their rows are counted.
    let unnamed: BTreeSet<_> = ratings
        .iter()
        .filter(|new| new.rating.end_user.is_none())
        .map(|new| (new.tenant.as_str(), new.rating.generation_id.as_str()))
        .collect();
    let unnamed: Vec<_> = unnamed.into_iter().collect();
    for unnamed in unnamed.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("WITH asked (tenant, generation) AS (");
        query.push_values(unnamed, |mut row, (tenant, generation)| {
            row.push_bind(*tenant).push_bind(*generation);
        });
        query.push(
            ") SELECT r.tenant, r.generation, COUNT(*) FROM asked CROSS JOIN ratings AS r
             ON r.tenant = asked.tenant AND r.generation = asked.generation AND r.end_user IS NULL GROUP BY 1, 2",
        );
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            plan.known_unnamed(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
    }
    Ok(())
}

async fn insert_events(connection: &mut SqliteConnection, rows: Vec<Row<'_>>) -> Result<(), sqlx::Error> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO events (seq, id, tenant, kind, subject, at, bytes, payload) ");
        query.push_values(rows.by_ref().take(ROWS), |mut to, row| {
            to.push_bind(row.seq).push_bind(row.id).push_bind(row.tenant).push_bind(row.kind);
            to.push_bind(row.subject).push_bind(row.at);
            to.push_bind(counted(&row.payload).cast_signed()).push_bind(row.payload);
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_ratings(connection: &mut SqliteConnection, ratings: &[(i64, &NewRating)]) -> Result<(), sqlx::Error> {
    for ratings in ratings.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO ratings \
             (seq, id, tenant, generation, end_user, idempotency_key, thumb, score, superseded, at) ",
        );
        query.push_values(ratings, |mut to, (seq, new)| {
            let rating = &new.rating;
            to.push_bind(*seq).push_bind(&new.id).push_bind(new.tenant.as_str()).push_bind(&rating.generation_id);
            to.push_bind(&rating.end_user).push_bind(&rating.idempotency_key);
            to.push_bind(rating.thumb.map(|thumb| thumb == Thumb::Up)).push_bind(rating.score);
            to.push_bind(0).push_bind(milliseconds(new.at));
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// After the new ratings are there: one of them may supersede another.
async fn supersede(connection: &mut SqliteConnection, ratings: &[(String, &NewRating)]) -> Result<(), sqlx::Error> {
    for (old, by) in ratings {
        let update = "UPDATE ratings SET superseded = 1 \
                      WHERE tenant = ? AND generation = ? AND end_user = ? AND id = ?";
        let update = sqlx::query(update).bind(by.tenant.as_str()).bind(&by.rating.generation_id);
        update.bind(&by.rating.end_user).bind(old).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_generations(
    connection: &mut SqliteConnection,
    generations: &[(i64, &NewEvent)],
) -> Result<(), sqlx::Error> {
    for generations in generations.chunks(ROWS) {
        // Its end is told once; a second one would not be what was rated.
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT OR IGNORE INTO generations (seq, id, tenant, model, base, adapter, revision, digest) ",
        );
        query.push_values(generations, |mut to, (seq, new)| {
            let generation = new.generation.as_ref();
            to.push_bind(*seq).push_bind(&new.subject).push_bind(new.tenant.as_str());
            to.push_bind(generation.map_or("", |it| &it.model)).push_bind(generation.map_or("", |it| &it.base));
            to.push_bind(generation.and_then(|it| it.adapter.as_deref()));
            to.push_bind(generation.and_then(|it| it.revision));
            to.push_bind(generation.and_then(|it| it.digest.as_deref()));
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

// === impl Row ===

impl<'a> Row<'a> {
    fn rating(seq: i64, new: &'a NewRating, payload: String) -> Self {
        let at = milliseconds(new.at);
        let (tenant, subject) = (new.tenant.as_str(), new.rating.generation_id.as_str());
        Self { seq, id: &new.id, tenant, kind: crate::EventType::Rated.as_str(), subject, at, payload }
    }

    fn event(seq: i64, new: &'a NewEvent) -> Self {
        let (tenant, payload) = (new.tenant.as_str(), new.payload.clone());
        let at = milliseconds(new.at);
        Self { seq, id: &new.id, tenant, kind: new.kind.as_str(), subject: &new.subject, at, payload }
    }
}

pub(crate) fn milliseconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
