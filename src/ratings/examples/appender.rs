//! Rates under load until it is killed: the tests' crash victim.
//!
//!     appender SPOOL EVENTS TENANT=FIRST...
//!
//! For each tenant one task rates with the keys `<tenant>-<number>`, counted
//! up from `FIRST`, and writes `ack <tenant> <number> <rating> <status>` when a
//! rating was answered, `refused <tenant> <number>` when it was refused and will
//! be tried again. The file sink writes to `EVENTS`. Lines on standard input:
//!
//!     fill PATH      writes a file until the disk is full, then says `full`
//!     free PATH      removes it, then says `freed`
//!     finish PATH    ends in order, copies the sink's files to PATH, says `finished`

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tenantry_ratings::{
    Completed, Config, FileConfig, Keys, Policy, Rating, Ratings, Rotation, SinkKind, Status, Thumb,
};
use tenantry_types::TenantId;
use tokio::sync::oneshot;

/// A line at once, since it may be the last.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // Who reads may be gone; then this process is about to be.
    let _ = out.write_fmt(format_args!("{line}\n")).and_then(|()| out.flush());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or("usage: appender SPOOL EVENTS TENANT=FIRST...");
    let (spool, events) = (PathBuf::from(argument()?), PathBuf::from(argument()?));
    let rotation = Rotation { bytes: 256 * 1024, ..Rotation::default() };
    let sink = SinkKind::File(FileConfig { folder: events.clone(), rotation });
    let keys = Keys::of(&["a key of the crash tests"])?;
    let config = Config { flush_for: Duration::from_secs(60), ..Config::new(spool) };
    let (ratings, background) = Ratings::open(config.with_sink("file", sink), keys).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let background = tokio::spawn(background.run(async {
        let _ = stopped.await;
    }));

    let ending = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for tenant in arguments {
        let (name, first) = tenant.split_once('=').ok_or("TENANT=FIRST")?;
        let writer = write(ratings.clone(), name.to_owned(), first.parse()?, ending.clone());
        writers.push(tokio::spawn(writer));
    }
    let copy_to = tokio::task::spawn_blocking(obey).await??;
    ending.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    while ratings.metrics().spool_events() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = stop.send(());
    background.await?;
    copy(&events, &copy_to)?;
    say(format_args!("finished"));
    Ok(())
}

async fn write(ratings: Ratings, name: String, first: u64, ending: Arc<AtomicBool>) {
    let (tenant, policy) = (TenantId::new(name.as_str()), Policy::default());
    let mut number = first;
    while !ending.load(Ordering::Relaxed) {
        let (id, now) = (ratings.issue(&tenant), SystemTime::now());
        if number.is_multiple_of(7) {
            let end = Completed {
                generation: id,
                tenant: tenant.clone(),
                model: "m".to_owned(),
                base: "b".to_owned(),
                adapter: None,
                worker: None,
                route: "completions",
                started: now,
                first_event: None,
                ended: now,
                prompt_tokens: 1,
                completion_tokens: 1,
                cached_tokens: 0,
                finish: "complete",
                finish_reason: None,
                guard: Vec::new(),
                content: None,
            };
            ratings.completed(&end, &policy);
        }
        let rating = Rating {
            generation_id: id.to_string(),
            thumb: Some(Thumb::Up),
            idempotency_key: Some(format!("{name}-{number}")),
            ..Rating::default()
        };
        match ratings.rate(&tenant, &policy, rating, now).await {
            Ok(ack) => {
                let status = if ack.status == Status::Duplicate { "duplicate" } else { "recorded" };
                say(format_args!("ack {name} {number} {} {status}", ack.id));
                number += 1;
            }
            Err(_) => {
                say(format_args!("refused {name} {number}"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Does as it is told until it is told to finish: where to copy the files to.
fn obey() -> io::Result<PathBuf> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("fill", path)) => {
                fill(Path::new(path))?;
                say(format_args!("full"));
            }
            Some(("free", path)) => {
                std::fs::remove_file(path)?;
                say(format_args!("freed"));
            }
            Some(("finish", path)) => return Ok(path.into()),
            _ => return Err(io::Error::other(line)),
        }
    }
    // Nobody is there to tell it more: it is killed soon.
    loop {
        std::thread::park();
    }
}

fn fill(path: &Path) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let block = [1; 64 * 1024];
    let mut size = block.len();
    while size > 0 {
        // Smaller and smaller, so that not a byte is left.
        if file.write_all(&block[..size]).is_err() {
            size /= 2;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
