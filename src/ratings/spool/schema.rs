//! The spool's tables, and how the database is opened.
//!
//! SQLite with a write-ahead log that is flushed to the disk before a
//! transaction counts as committed (`synchronous = FULL`). Pages of the log
//! carry checksums: what a crash cut off is not read.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

/// Raised when the tables change.
const VERSION: i64 = 1;

/// `seq` is the order in which events were accepted; it is never given twice.
const TABLES: [&str; 8] = [
    "CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        at INTEGER NOT NULL,      -- Unix milliseconds
        bytes INTEGER NOT NULL,   -- as they count against the spool's bound
        payload TEXT NOT NULL     -- the CloudEvent
    ) STRICT",
    // What expiry and totals read, without the payloads.
    "CREATE INDEX events_sizes ON events (seq, at, bytes)",
    "CREATE TABLE ratings (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        tenant TEXT NOT NULL,
        generation TEXT NOT NULL,
        end_user TEXT,            -- hashed
        idempotency_key TEXT,
        thumb INTEGER,            -- 1 up, 0 down
        score INTEGER,
        superseded INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) STRICT",
    "CREATE UNIQUE INDEX ratings_keys ON ratings (tenant, idempotency_key)",
    "CREATE INDEX ratings_generations ON ratings (tenant, generation, end_user)",
    "CREATE TABLE generations (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        base TEXT NOT NULL,
        adapter TEXT,
        revision INTEGER,
        digest TEXT
    ) STRICT",
    // All up to here are with the sink.
    "CREATE TABLE positions (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 1",
];

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(5))
        // What takes long is the disk; the shipper and the writer tell of failures.
        .disable_statement_logging()
}

pub(super) fn writing(file: &Path) -> SqliteConnectOptions {
    options(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Larger groups, fewer checkpoints while somebody waits.
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
}

pub(super) fn reading(file: &Path) -> SqliteConnectOptions {
    options(file).read_only(true)
}

/// Makes the tables where they are not there.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let (version,): (i64,) = sqlx::query_as("PRAGMA user_version").fetch_one(&mut *connection).await?;
    if version == VERSION {
        return Ok(());
    }
    if version != 0 {
        return Err(sqlx::Error::Configuration(format!("the spool is of version {version}, not {VERSION}").into()));
    }
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for statement in TABLES {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(())
}
