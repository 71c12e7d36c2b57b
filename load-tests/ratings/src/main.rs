//! How many ratings a second the spool acknowledges, and how soon, with so many
//! clients that each wait for an answer before they send again; and the same of
//! SQLite with one transaction a rating, flushed in the same way. Every rating
//! has an idempotency key and an end user. Prints one table.
//!
//!     tenantry-bench-ratings [FOLDER [SECONDS]]
//!
//! The spools are made in FOLDER, which says which disk is measured.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tenantry_ratings::{Config, FileConfig, Keys, Policy, Rating, Ratings, Rotation, SinkKind, Thumb};
use tenantry_types::TenantId;
use tokio::sync::Mutex;

const CLIENTS: [usize; 5] = [1, 8, 64, 256, 1024];
/// Not measured: until the files have their size.
const WARM_UP: Duration = Duration::from_secs(1);

type Failure = Box<dyn Error + Send + Sync>;

struct Measured {
    per_second: f64,
    median: Duration,
    p99: Duration,
}

/// Runs `clients` of `one`, which records a rating of this client and number.
async fn measure<F, R>(clients: usize, lasts: Duration, one: F) -> Result<Measured, Failure>
where
    F: Fn(usize, usize) -> R + Clone + Send + 'static,
    R: Future<Output = Result<(), Failure>> + Send,
{
    let begin = Instant::now() + WARM_UP;
    let end = begin + lasts;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let one = one.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for number in 0.. {
                    let sent = Instant::now();
                    one(client, number).await?;
                    let answered = Instant::now();
                    if answered >= end {
                        break;
                    }
                    if sent >= begin {
                        times.push(answered - sent);
                    }
                }
                Ok::<_, Failure>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Ok(Measured { per_second: times.len() as f64 / lasts.as_secs_f64(), median: at(0.5), p99: at(0.99) })
}

/// Ours, with a file sink that takes everything meanwhile.
async fn spool(folder: &Path, clients: usize, lasts: Duration) -> Result<Measured, Failure> {
    let events = FileConfig { folder: folder.join("events"), rotation: Rotation::default() };
    let config = Config::new(folder.join("spool")).with_sink("file", SinkKind::File(events));
    let (ratings, background) = Ratings::open(config, Keys::of(&["a key of the benchmark"])?).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let background = tokio::spawn(background.run(async {
        let _ = stopped.await;
    }));
    let policy = Arc::new(Policy::default());
    let measured = measure(clients, lasts, move |client, number| {
        let (ratings, policy) = (ratings.clone(), policy.clone());
        async move {
            let tenant = TenantId::new(format!("tenant-{}", client % 16));
            let rating = rating(ratings.issue(&tenant).to_string(), client, number);
            ratings.rate(&tenant, &policy, rating, SystemTime::now()).await?;
            Ok(())
        }
    })
    .await;
    let _ = stop.send(());
    background.await?;
    measured
}

fn rating(generation_id: String, client: usize, number: usize) -> Rating {
    Rating {
        generation_id,
        thumb: Some(Thumb::Up),
        score: Some(4),
        comment: Some("It answered what I had asked, if at some length.".to_owned()),
        end_user: Some(format!("user-{client}")),
        idempotency_key: Some(format!("{client}-{number}")),
        ..Rating::default()
    }
}

/// The plain alternative: an insert that commits, for each rating.
async fn plain(folder: &Path, clients: usize, lasts: Duration) -> Result<Measured, Failure> {
    let mut connection = SqliteConnectOptions::new()
        .filename(folder.join("plain.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    let table =
        "CREATE TABLE ratings (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL) STRICT";
    sqlx::query(table).execute(&mut connection).await?;
    let connection = Arc::new(Mutex::new(connection));
    let shared = connection.clone();
    let measured = measure(clients, lasts, move |client, number| {
        let connection = shared.clone();
        async move {
            // As long as the event of ours.
            let payload = format!("{:900}", format!("{client}-{number}"));
            let mut connection = connection.lock().await;
            sqlx::query("INSERT INTO ratings (key, payload) VALUES (?, ?) ON CONFLICT (key) DO NOTHING")
                .bind(format!("{client}-{number}"))
                .bind(payload)
                .execute(&mut *connection)
                .await?;
            Ok(())
        }
    })
    .await;
    if let Some(connection) = Arc::into_inner(connection) {
        SqliteConnection::close(connection.into_inner()).await?;
    }
    measured
}

/// What one flush of 4 KiB takes here, in the median.
fn flush(folder: &Path) -> Result<Duration, Failure> {
    let mut file = File::create(folder.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let lasts = Duration::from_secs(arguments.next().map_or(Ok(10), |seconds| seconds.parse())?);
    let folder = tempfile::tempdir_in(&place)?;
    println!("One write and flush of 4 KiB: {:.2} ms in the median.\n", milliseconds(flush(folder.path())?));
    println!(
        "| clients | spool: ratings/s | median ack, ms | p99 ack, ms | one transaction each: ratings/s | median ack, ms | p99 ack, ms |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    for clients in CLIENTS {
        let folder = tempfile::tempdir_in(&place)?;
        let ours = spool(folder.path(), clients, lasts).await?;
        let plain = plain(folder.path(), clients, lasts).await?;
        let cells = [&ours, &plain]
            .map(|it| format!("{:.0} | {:.2} | {:.2}", it.per_second, milliseconds(it.median), milliseconds(it.p99)));
        println!("| {clients} | {} | {} |", cells[0], cells[1]);
    }
    Ok(())
}
