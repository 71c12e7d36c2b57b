//! What the room is told at its start.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::sinks::file::{FileConfig, FileSink};
use crate::sinks::http::{HttpConfig, HttpSink};
#[cfg(feature = "kafka")]
use crate::sinks::kafka::{KafkaConfig, KafkaSink};
#[cfg(feature = "nats")]
use crate::sinks::nats::{NatsConfig, NatsSink};
use crate::sinks::stdout::Stdout;
use crate::{GenerationKeys, Hasher, OpenError, Sink};

#[derive(Debug)]
pub struct Config {
    /// Of the spool and of dead letters; on a local disk. Made where it is not there.
    pub folder: PathBuf,
    /// The events' `source`, a URI reference that names this gateway.
    pub source: String,
    /// What the spool may take, as texts of events and half a KiB for each.
    /// Ratings may use all of it, generations seven eighths.
    pub max_bytes: u64,
    /// Ratings of one generation that name no end user: nobody knows whether they
    /// are of one, so that they do not supersede each other.
    pub most_unnamed: u32,
    /// How old a generation may be when it is rated.
    pub rate_within: Duration,
    /// How long events are kept for summaries and exports when every sink has
    /// them; less where the room is needed.
    pub keep: Duration,
    /// The longest prompt and completions, in bytes together, that an event
    /// keeps; of longer ones lengths and hashes.
    pub max_content_bytes: usize,
    /// How long sinks have at the end to take what is left.
    pub flush_for: Duration,
    /// Events stay in the spool until all of these have them.
    pub sinks: Vec<SinkConfig>,
}

/// What generation ids are signed with, and users and texts hashed.
#[derive(Debug, Clone)]
pub struct Keys {
    pub generations: GenerationKeys,
    pub hasher: Hasher,
}

#[derive(Debug)]
pub struct SinkConfig {
    /// Unlike that of the others; its position is kept under it. Letters,
    /// digits, `-` and `_`.
    pub name: String,
    pub kind: SinkKind,
}

pub enum SinkKind {
    /// JSON lines in a folder.
    File(FileConfig),
    /// JSON lines to the process's output.
    Stdout,
    Http(HttpConfig),
    #[cfg(feature = "nats")]
    Nats(NatsConfig),
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
    /// Any other.
    Custom(Box<dyn Sink>),
}

// === impl Config ===

impl Config {
    /// The usual bounds, and no sinks.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            folder: folder.into(),
            source: "/tenantry".to_owned(),
            max_bytes: 1 << 30,
            most_unnamed: 10_000,
            rate_within: 30 * DAY,
            keep: 60 * DAY,
            max_content_bytes: 512 * 1024,
            flush_for: Duration::from_secs(5),
            sinks: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_sink(mut self, name: impl Into<String>, kind: SinkKind) -> Self {
        self.sinks.push(SinkConfig { name: name.into(), kind });
        self
    }
}

// === impl Keys ===

impl Keys {
    /// Both of one list, for different purposes. The first signs ids; the last
    /// hashes, since that one is not to change: put new keys in front.
    pub fn of<K: AsRef<[u8]>>(keys: &[K]) -> Result<Self, crate::KeyError> {
        let last = keys.last().ok_or(crate::KeyError::None)?;
        Ok(Self { generations: GenerationKeys::new(keys)?, hasher: Hasher::new(last.as_ref())? })
    }
}

// === impl SinkConfig ===

impl SinkConfig {
    pub(crate) fn open(self, others: &[String]) -> Result<Opened, OpenError> {
        let name = self.name;
        let wrong = |why: String| OpenError::Sink { name: name.clone(), why };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(wrong("a name has letters, digits, '-' and '_'".to_owned()));
        }
        if others.contains(&name) {
            return Err(wrong("another sink has this name".to_owned()));
        }
        let again = self.kind.again();
        let sink = self.kind.open().map_err(wrong)?;
        Ok(Opened { name, sink, again })
    }
}

/// A sink, and what another one like it is made of.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) again: Option<SinkKind>,
}

// === impl SinkKind ===

impl SinkKind {
    /// The same once more; not of a sink that came made.
    pub(crate) fn again(&self) -> Option<Self> {
        Some(match self {
            Self::File(config) => Self::File(config.clone()),
            Self::Stdout => Self::Stdout,
            Self::Http(config) => Self::Http(config.clone()),
            #[cfg(feature = "nats")]
            Self::Nats(config) => Self::Nats(config.clone()),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => Self::Kafka(config.clone()),
            Self::Custom(_) => return None,
        })
    }

    /// The error says what of the configuration is wrong, without secrets.
    pub(crate) fn open(self) -> Result<Box<dyn Sink>, String> {
        Ok(match self {
            Self::File(config) => Box::new(FileSink::new(&config)),
            Self::Stdout => Box::new(Stdout::new()),
            Self::Http(config) => Box::new(HttpSink::new(&config)?),
            #[cfg(feature = "nats")]
            Self::Nats(config) => Box::new(NatsSink::new(config)?),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => Box::new(KafkaSink::new(config)?),
            Self::Custom(sink) => sink,
        })
    }
}

impl fmt::Debug for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(config) => config.fmt(f),
            Self::Stdout => f.write_str("Stdout"),
            Self::Http(config) => config.fmt(f),
            #[cfg(feature = "nats")]
            Self::Nats(config) => config.fmt(f),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => config.fmt(f),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}
