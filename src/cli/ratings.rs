//! `tenantry ratings`: the events of a gateway's spool followed, exported as a
//! dataset, and summed up. They read the spool itself, beside the gateway or
//! without it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate};
use clap::{Args, Subcommand, ValueEnum};
use tenantry_ratings::{EventType, Export, Position, Reader, Summary, write_jsonl, write_parquet};

use super::{Failure, say};
use tenantry::app;
use tenantry::types::TenantId;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Where the spool is by default, and where `make run` has it.
const USUAL: [&str; 2] = ["tenantry-data/ratings", ".tenantry/data/ratings"];

#[derive(Debug, Args)]
struct Spool {
    /// The gateway's configuration, which says where its spool is
    #[arg(long, value_name = "FILE", conflicts_with = "spool")]
    config: Option<PathBuf>,
    /// The spool's folder; by default tenantry-data/ratings, or the quickstart's, here
    #[arg(long, value_name = "FOLDER")]
    spool: Option<PathBuf>,
    /// Of one tenant alone
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow events as they are recorded, a CloudEvent a line
    Tail {
        #[command(flatten)]
        spool: Spool,
        /// Begin with the oldest event that is kept
        #[arg(long)]
        all: bool,
        /// Generations', the guard's and operators' events too, not ratings alone
        #[arg(long)]
        generations: bool,
    },
    /// Write ratings with their generations, and their texts where they were kept
    Export {
        #[command(flatten)]
        spool: Spool,
        /// Recorded then or later: a day of UTC, or an RFC 3339 time
        #[arg(long, value_parser = time)]
        since: Option<SystemTime>,
        /// Recorded before
        #[arg(long, value_parser = time)]
        until: Option<SystemTime>,
        /// With at least this score
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
        min_score: Option<u8>,
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        /// Where to; standard output where left out
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sum ratings up, by tenant, model and revision of the adapter
    Summary {
        #[command(flatten)]
        spool: Spool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Jsonl,
    Parquet,
}

// === impl Spool ===

impl Spool {
    async fn open(&self) -> Result<(Reader, Option<TenantId>), Failure> {
        let tenant = self.tenant.as_deref().map(TenantId::new);
        let (folder, known) = match (&self.spool, &self.config) {
            (Some(folder), _) => (folder.clone(), false),
            (None, Some(file)) => {
                let config = app::load(file)?.config;
                let known = tenant.as_ref().is_some_and(|id| config.tenants.iter().any(|tenant| tenant.id == *id));
                (config.ratings.folder, known)
            }
            (None, None) => {
                let here = USUAL.iter().map(PathBuf::from).find(|folder| folder.is_dir());
                let none = || format!("neither {} nor {} is here: give --config or --spool", USUAL[0], USUAL[1]);
                (here.ok_or_else(|| Failure::Other(none()))?, false)
            }
        };
        if !folder.is_dir() {
            return Err(Failure::Other(format!("{}: there is no spool", folder.display())));
        }
        let reader = Reader::open(&folder);
        if let Some(tenant) = &tenant
            && !known
            && !reader.knows(tenant).await.map_err(other)?
        {
            let place = self.config.as_ref().filter(|_| self.spool.is_none()).unwrap_or(&folder).display();
            return Err(Failure::Other(format!("{place}: knows no tenant `{tenant}`")));
        }
        Ok((reader, tenant))
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(other)?.block_on(async {
        match arguments.command {
            Command::Tail { spool, all, generations } => tail(&spool, all, generations).await,
            Command::Export { spool, since, until, min_score, format, out } => {
                let (reader, tenant) = spool.open().await?;
                export(&reader, Export { tenant, since, until, min_score }, format, out).await
            }
            Command::Summary { spool, json } => {
                let (reader, tenant) = spool.open().await?;
                let summaries = reader.summary(tenant.as_ref()).await.map_err(other)?;
                match json {
                    true => say(&serde_json::to_string(&summaries).map_err(other)?),
                    false => summaries.iter().try_for_each(|summary| say(&line(summary))),
                }
            }
        }
    })
}

async fn tail(spool: &Spool, all: bool, generations: bool) -> Result<(), Failure> {
    let (reader, tenant) = spool.open().await?;
    let kinds: &[EventType] = if generations { &[] } else { &[EventType::Rated] };
    let from = if all { Position::Oldest } else { Position::Next };
    let mut tail = reader.tail(tenant, kinds, from);
    loop {
        let entry = tail.next().await.map_err(other)?;
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{}", entry.payload).and_then(|()| out.flush());
        match written {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(other)?,
        }
    }
}

async fn export(reader: &Reader, which: Export, format: Format, out: Option<PathBuf>) -> Result<(), Failure> {
    let to: Box<dyn Write + Send> = match &out {
        Some(path) => {
            let file = File::create(path).map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let rows = reader.export(which);
    let count = match format {
        Format::Jsonl => write_jsonl(rows, to).await,
        Format::Parquet => write_parquet(rows, to).await,
    };
    let count = count.map_err(other)?;
    // Standard output may be the data itself.
    match out {
        Some(path) => say(&format!("{count} ratings written to {}", path.display())),
        None => Ok(()),
    }
}

fn line(summary: &Summary) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let adapter = summary.revision.as_ref().map_or("-".to_owned(), |of| format!("{}@{}", of.adapter, of.number));
    let mut line = format!("{}  {}  {adapter}  ratings {}", summary.tenant, name(&summary.model), summary.ratings);
    if let (Some(up), Some(interval)) = (summary.thumbs_up, &summary.thumbs_up_interval) {
        line += &format!("  up {} ({} to {})", percent(up), percent(interval.low), percent(interval.high));
    }
    if let Some(score) = summary.mean_score {
        line += &format!("  score {score:.2}");
    }
    if let Some(change) = &summary.change {
        line += &format!("  since @{}:", change.since);
        if let Some(up) = change.thumbs_up {
            line += &format!(" up {:+.0} points", 100.0 * up);
        }
        if let Some(score) = change.mean_score {
            line += &format!(" score {score:+.2}");
        }
    }
    line
}

fn time(text: &str) -> Result<SystemTime, String> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    let seconds = match day {
        Some(midnight) => midnight.and_utc().into(),
        None => {
            DateTime::parse_from_rfc3339(text).map_err(|_| "expected a day such as 2026-11-01, or an RFC 3339 time")?
        }
    };
    Ok(SystemTime::from(seconds))
}

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}
