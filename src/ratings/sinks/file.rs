//! One event a line, in files that are begun anew by size and age.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use super::lines::{Lines, Rotation};
use super::{Entry, Outcome, Sink, all_later};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// Made where it is not there.
    pub folder: PathBuf,
    pub rotation: Rotation,
}

pub(crate) struct FileSink(Shared);

/// Lines, lent to a thread that may block.
#[derive(Clone)]
pub(crate) struct Shared(std::sync::Arc<std::sync::Mutex<Lines>>);

// === impl FileSink ===

impl FileSink {
    pub(crate) fn new(config: &FileConfig) -> Self {
        Self(Shared::new(&config.folder, "events", config.rotation.clone()))
    }
}

impl Sink for FileSink {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut lines = Vec::with_capacity(batch.iter().map(|entry| entry.payload.len() + 1).sum());
            for entry in batch {
                lines.extend_from_slice(entry.payload.as_bytes());
                lines.push(b'\n');
            }
            match self.0.append(lines).await {
                Ok(()) => vec![Outcome::Taken; batch.len()],
                Err(error) => all_later(batch, error),
            }
        })
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(folder: &Path, name: &str, rotation: Rotation) -> Self {
        Self(std::sync::Arc::new(std::sync::Mutex::new(Lines::new(folder, name, rotation))))
    }

    /// See [`Lines::append`].
    pub(crate) async fn append(&self, lines: Vec<u8>) -> std::io::Result<()> {
        let shared = self.0.clone();
        let append = move || {
            let mut it = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            it.append(&lines, SystemTime::now())
        };
        tokio::task::spawn_blocking(append).await.map_err(std::io::Error::other)?
    }
}
