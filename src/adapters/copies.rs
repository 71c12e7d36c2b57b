//! Copies of artifacts on this machine, which workers read.
//!
//! A folder that is there is complete and never changes: it is written beside
//! its place, held against its digest, and moved there whole. One that nothing
//! names any more is removed after a while; workers read folders again (vLLM
//! does), so not at once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tracing::{info, warn};
use ulid::Ulid;

use super::artifacts::{Store, digest_of};
use super::database::Place;
use super::error::FetchError;
use super::{CONFIG_FILE, WEIGHTS_FILE, lock};
use crate::types::AdapterKey;

pub(super) struct Copies {
    folder: PathBuf,
    /// Who works on which folder, one after the other.
    turns: Mutex<HashMap<PathBuf, Queue>>,
    /// Folders that were held against their digest in this run.
    verified: Mutex<HashSet<PathBuf>>,
    /// Folders that nothing names, and since when.
    unnamed: Mutex<HashMap<PathBuf, Instant>>,
}

/// Those who work on one folder, or wait to.
#[derive(Default)]
struct Queue {
    lock: Arc<AsyncMutex<()>>,
    length: usize,
}

/// A place in the queue for a folder; left when dropped.
struct Turn<'a> {
    copies: &'a Copies,
    folder: &'a Path,
    lock: Arc<AsyncMutex<()>>,
}

/// A folder beside its place; removed when dropped, unless it was moved.
struct Aside(PathBuf);

// === impl Copies ===

impl Copies {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, turns: Mutex::default(), verified: Mutex::default(), unnamed: Mutex::default() }
    }

    /// An artifact's folder; its name is no other artifact's.
    pub(super) fn folder(&self, key: &AdapterKey) -> PathBuf {
        self.folder.join(key.tenant.as_str()).join(&*key.digest)
    }

    pub(super) fn fetching(&self, key: &AdapterKey) -> bool {
        lock(&self.turns).contains_key(&self.folder(key))
    }

    pub(super) fn fetched(&self, key: &AdapterKey) -> bool {
        self.folder(key).is_dir()
    }

    /// The artifact's folder, copied from where the configuration has it or
    /// from the store. Copied once, however many ask.
    pub(super) async fn fetch(
        &self,
        key: &AdapterKey,
        configured: Option<PathBuf>,
        store: &Store,
    ) -> Result<PathBuf, FetchError> {
        let folder = self.folder(key);
        {
            let turn = self.turn(&folder);
            let _held = turn.lock.lock().await;
            if !lock(&self.verified).contains(&folder) || !folder.is_dir() {
                copy(key, configured, store, &folder).await?;
                lock(&self.verified).insert(folder.clone());
            }
        }
        Ok(folder)
    }

    fn turn<'a>(&'a self, folder: &'a Path) -> Turn<'a> {
        let mut turns = lock(&self.turns);
        let queue = turns.entry(folder.to_owned()).or_default();
        queue.length += 1;
        Turn { copies: self, folder, lock: queue.lock.clone() }
    }

    /// Removes what nothing has named for as long as `after`.
    pub(super) async fn sweep(&self, named: impl Fn(&str, &str) -> bool, after: Duration) {
        let root = self.folder.clone();
        let found = blocking(move || Ok(folders(&root))).await.unwrap_or_default();
        for (tenant, name) in self.due(&found, &named, after) {
            let folder = self.folder.join(&tenant).join(&name);
            let turn = self.turn(&folder);
            let _held = turn.lock.lock().await;
            if named(&tenant, &name) {
                continue;
            }
            lock(&self.verified).remove(&folder);
            match blocking(removal(&folder)).await {
                Ok(()) => info!(tenant, folder = name, "the copy of an artifact that nothing names was removed"),
                Err(error) => warn!(tenant, folder = name, %error, "the copy of an artifact cannot be removed"),
            }
            lock(&self.unnamed).remove(&folder);
        }
    }

    /// Those whose time has come, of the folders that were found.
    fn due(
        &self,
        found: &[(String, String)],
        named: impl Fn(&str, &str) -> bool,
        after: Duration,
    ) -> Vec<(String, String)> {
        let now = Instant::now();
        let mut before = lock(&self.unnamed);
        let mut unnamed = HashMap::new();
        let mut due = Vec::new();
        for (tenant, name) in found.iter().filter(|(tenant, name)| !named(tenant, name)) {
            let folder = self.folder.join(tenant).join(name);
            let since = before.get(&folder).copied().unwrap_or(now);
            unnamed.insert(folder, since);
            if now.duration_since(since) >= after {
                due.push((tenant.clone(), name.clone()));
            }
        }
        *before = unnamed;
        due
    }
}

/// The copies that are there, and what was left of unfinished ones.
fn folders(root: &Path) -> Vec<(String, String)> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let tenants = names(root).into_iter();
    tenants.flat_map(|tenant| names(&root.join(&tenant)).into_iter().map(move |name| (tenant.clone(), name))).collect()
}

/// Makes `folder` the artifact's copy, held against its digest.
async fn copy(key: &AdapterKey, configured: Option<PathBuf>, store: &Store, folder: &Path) -> Result<(), FetchError> {
    let failed = |error: io::Error| FetchError::Unavailable(format!("it cannot be copied to this machine: {error}"));
    let there = folder.to_owned();
    // A folder that cannot be read is none.
    if folder.is_dir() {
        if blocking(move || digest_of(&there)).await.is_ok_and(|found| *found == *key.digest) {
            return Ok(());
        }
        warn!(adapter = %key, "the copy on this machine was damaged, and is made anew");
        blocking(removal(folder)).await.map_err(failed)?;
    }
    let aside = Aside::beside(folder).map_err(failed)?;
    match configured {
        Some(from) => {
            let to = aside.0.clone();
            blocking(move || copy_files(&from, &to)).await.map_err(failed)?;
        }
        None => store.get(&Place { tenant: key.tenant.to_string(), digest: key.digest.to_string() }, &aside.0).await?,
    }
    let to = aside.0.clone();
    let found = blocking(move || synced(&to).and_then(|()| digest_of(&to))).await.map_err(failed)?;
    if *found != *key.digest {
        return Err(FetchError::Invalid(format!("the artifact's digest is {found}, not {}", key.digest)));
    }
    match fs::rename(&aside.0, folder) {
        // Another process that shares the folder was faster.
        Err(_) if folder.is_dir() => Ok(()),
        moved => moved.map_err(failed),
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        // Not `fs::copy`: a copy is ours to remove, whatever the original's mode.
        io::copy(&mut File::open(from.join(name))?, &mut File::create_new(to.join(name))?)?;
    }
    Ok(())
}

fn synced(folder: &Path) -> io::Result<()> {
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        File::open(folder.join(name))?.sync_all()?;
    }
    Ok(())
}

/// Moved aside first: a folder that is there is whole.
fn removal(folder: &Path) -> impl FnOnce() -> io::Result<()> + Send + 'static {
    let (folder, aside) = (folder.to_owned(), beside(folder));
    move || {
        fs::rename(&folder, &aside)?;
        fs::remove_dir_all(&aside)
    }
}

fn beside(folder: &Path) -> PathBuf {
    folder.with_file_name(format!(".{}", Ulid::generate()))
}

/// Work on files, where it delays nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

// === impl Turn ===

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.copies.turns);
        if let Some(queue) = turns.get_mut(self.folder) {
            queue.length -= 1;
            if queue.length == 0 {
                turns.remove(self.folder);
            }
        }
    }
}

// === impl Aside ===

impl Aside {
    fn beside(folder: &Path) -> io::Result<Self> {
        let aside = beside(folder);
        fs::create_dir_all(&aside)?;
        Ok(Self(aside))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What stays is swept as a folder that nothing names.
        let _ = fs::remove_dir_all(&self.0);
    }
}
