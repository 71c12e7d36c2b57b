//! What the tests have in common: a room that runs, and a sink that does as told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tenantry_ratings::{
    Ack, Completed, Config, Content, Entry, Keys, Outcome, Policy, RateError, Rating, Ratings, Sink, SinkKind,
};
use tenantry_types::{AdapterKey, GenerationId, TenantId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Ratings whose background runs.
pub(crate) struct Running {
    pub(crate) ratings: Ratings,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A sink that remembers what it took, and asks `judge` about each event.
pub(crate) struct Scripted {
    pub(crate) taken: Taken,
    judge: Box<dyn FnMut(&Entry) -> Outcome + Send>,
}

pub(crate) type Taken = Arc<Mutex<Vec<Entry>>>;

/// A repository's file.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(crate) fn keys() -> Keys {
    Keys::of(&[b"a key of the tests, long enough"]).expect("keys")
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name)
}

pub(crate) fn policy() -> Policy {
    Policy { labels: ["wrong", "rude", "late"].map(str::to_owned).into(), ..Policy::default() }
}

/// Waits for what others do; it hangs no longer than a minute.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

pub(crate) async fn running(config: Config) -> Running {
    let (ratings, background) = Ratings::open(config, keys()).await.expect("opens");
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(background.run(stopped));
    Running { ratings, stop, task }
}

/// A rating with a thumb.
pub(crate) fn thumb(generation: GenerationId, key: Option<&str>) -> Rating {
    Rating {
        generation_id: generation.to_string(),
        thumb: Some(tenantry_ratings::Thumb::Up),
        idempotency_key: key.map(str::to_owned),
        ..Rating::default()
    }
}

pub(crate) fn completed(generation: GenerationId, tenant: &TenantId, revision: u32) -> Completed {
    let ended = SystemTime::now();
    Completed {
        generation,
        tenant: tenant.clone(),
        model: "support".to_owned(),
        base: "smollm2".to_owned(),
        adapter: Some(AdapterKey { tenant: tenant.clone(), name: "tone".into(), revision, digest: "ab12".into() }),
        worker: Some("w1".to_owned()),
        route: "chat_completions",
        started: ended - Duration::from_millis(700),
        first_event: Some(ended - Duration::from_millis(500)),
        ended,
        prompt_tokens: 12,
        completion_tokens: 3,
        cached_tokens: 8,
        finish: "complete",
        finish_reason: Some("stop"),
        guard: Vec::new(),
        content: Some(Content { prompt: Some("Who are you?".into()), completions: vec!["A parrot.".to_owned()] }),
    }
}

// === impl Running ===

impl Running {
    pub(crate) async fn rate(&self, tenant: &TenantId, rating: Rating) -> Result<Ack, RateError> {
        self.ratings.rate(tenant, &policy(), rating, SystemTime::now()).await
    }

    /// Records a rating with a thumb of a new generation.
    pub(crate) async fn rate_new(&self, tenant: &TenantId, key: Option<&str>) -> Ack {
        self.rate(tenant, thumb(self.ratings.issue(tenant), key)).await.expect("recorded")
    }

    /// Waits until every sink has all.
    pub(crate) async fn settled(&self) {
        until("delivery to every sink", || self.ratings.metrics().spool_events() == 0).await;
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("the background ends");
    }
}

// === impl Scripted ===

impl Scripted {
    pub(crate) fn asking(judge: impl FnMut(&Entry) -> Outcome + Send + 'static) -> (SinkKind, Taken) {
        let taken = Taken::default();
        let sink = Self { taken: taken.clone(), judge: Box::new(judge) };
        (SinkKind::Custom(Box::new(sink)), taken)
    }

    /// One that takes everything.
    pub(crate) fn willing() -> (SinkKind, Taken) {
        Self::asking(|_| Outcome::Taken)
    }
}

impl Sink for Scripted {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut waiting = Vec::new();
            let mut outcomes = Vec::new();
            for entry in batch {
                let outcome = if waiting.contains(&&entry.tenant) { Outcome::Untried } else { (self.judge)(entry) };
                match &outcome {
                    Outcome::Taken => self.taken.lock().expect("not poisoned").push(entry.clone()),
                    Outcome::Later { .. } => waiting.push(&entry.tenant),
                    Outcome::Refused { .. } | Outcome::Untried => {}
                }
                outcomes.push(outcome);
            }
            outcomes
        })
    }
}

pub(crate) fn ids(taken: &Taken) -> Vec<String> {
    taken.lock().expect("not poisoned").iter().map(|entry| entry.id.clone()).collect()
}

/// The events of a file sink's folder, in its order; compressed files too.
pub(crate) fn events_in(folder: &Path) -> Vec<serde_json::Value> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("readable");
        let text = match file.extension().and_then(|it| it.to_str()) {
            Some("gz") => std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).expect("gzip"),
            Some("zst") => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(&bytes[..]).expect("zstd");
                std::io::read_to_string(decoder).expect("zstd")
            }
            Some("jsonl") => String::from_utf8(bytes).expect("UTF-8"),
            _ => continue,
        };
        // A line that was cut off by a crash is no event.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        events.extend(whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")));
    }
    events
}
