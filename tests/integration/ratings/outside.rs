//! A gateway in a process of its own, those who rate over HTTP without an end,
//! and what they were answered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::process::{Process, SOURCE, free_port, ready};
use crate::support::{base_model, http_client};

pub(super) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Who rate at once for each tenant.
const WRITERS: usize = 2;
/// Ratings of one writer on one generation.
const A_GENERATION: usize = 25;

/// Mounts a small disk at the first argument, for this process alone, and
/// becomes the command behind it.
const SMALL_DISK: &str = "mount -t tmpfs -o size=40m tmpfs \"$0\" && exec \"$@\"";
/// Becomes the command, in which a write beyond a file's limit is an error.
const LIMITED: &str = "trap '' XFSZ && exec \"$@\"";

pub(super) struct Gateway {
    pub(super) process: Process,
    pub(super) folder: TempDir,
    pub(super) client: reqwest::Client,
    address: String,
    ops: u16,
}

/// The disk that a gateway writes to.
pub(super) enum Disk {
    Usual,
    /// A small one of its own, mounted with this command.
    Small(&'static [&'static str]),
    /// Files of a bounded size, without the right to mount.
    Limited,
}

// === impl Gateway ===

impl Gateway {
    /// `model` is TOML that serves a base model as `smollm2`. All that it writes
    /// is in its folder.
    pub(super) fn start(model: &str, disk: &Disk) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (public, ops) = (free_port(), free_port());
        let (data, events) = (folder.path().join("data"), folder.path().join("events"));
        let mut config = format!(
            "[server]\nlisten = \"127.0.0.1:{public}\"\n[ops]\nlisten = \"127.0.0.1:{ops}\"\n\
             [catalogue]\ndata_dir = {data:?}\n\
             [ratings.sinks.events]\nkind = \"file\"\nfolder = {events:?}\nrotate_bytes = \"64KiB\"\n\
             [bases.smollm2]\npath = {:?}\nsource = \"{SOURCE}\"\n{model}",
            base_model()
        );
        for tenant in TENANTS {
            config += &format!(
                "[[tenants]]\nid = \"{tenant}\"\nkeys = [{{ demo = \"sk-demo-{tenant}\" }}]\n\
                 models = {{ base = {{ base = \"smollm2\" }} }}\n"
            );
        }
        let place = folder.path().to_str().expect("UTF-8");
        let through: Vec<&str> = match disk {
            Disk::Usual => Vec::new(),
            Disk::Small(way) => way.iter().copied().chain(["bash", "-c", SMALL_DISK, place]).collect(),
            Disk::Limited => vec!["bash", "-c", LIMITED, "bash"],
        };
        let process = Process::start_through(&through, "serve", &config);
        let client = http_client().build().expect("a client");
        Self { process, folder, client, address: format!("http://127.0.0.1:{public}"), ops }
    }

    pub(super) async fn ready(&self) {
        ready(&self.client, self.ops).await;
    }

    pub(super) async fn post(
        &self,
        tenant: &str,
        path: &str,
        body: &Value,
    ) -> Result<reqwest::Response, reqwest::Error> {
        post(&self.client, &self.address, tenant, path, body).await
    }

    /// The id of a new generation.
    pub(super) async fn generation(&self, tenant: &str) -> String {
        generation(&self.client, &self.address, tenant).await.expect("an answer").expect("a generation")
    }

    pub(super) async fn metrics(&self) -> String {
        let answer = self.client.get(format!("http://127.0.0.1:{}/metrics", self.ops)).send().await;
        answer.expect("an answer").text().await.expect("text")
    }

    /// Waits until the sink has all.
    pub(super) async fn delivered(&self) {
        let nothing_waits = async {
            while !self.metrics().await.contains("\ntenantry_spool_events 0\n") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), nothing_waits).await.expect("the sink takes all");
    }

    /// A path of its folder as the process sees it.
    pub(super) fn within(&self, disk: &Disk, path: &str) -> PathBuf {
        let place = self.folder.path().join(path);
        match disk {
            Disk::Small(_) => {
                let root = PathBuf::from(format!("/proc/{}/root", self.process.id()));
                root.join(place.strip_prefix("/").expect("absolute"))
            }
            Disk::Usual | Disk::Limited => place,
        }
    }
}

async fn post(
    client: &reqwest::Client,
    address: &str,
    tenant: &str,
    path: &str,
    body: &Value,
) -> Result<reqwest::Response, reqwest::Error> {
    client.post(format!("{address}{path}")).bearer_auth(format!("sk-demo-{tenant}")).json(body).send().await
}

/// `Err` without an answer, and `None` where the answer is no generation.
async fn generation(client: &reqwest::Client, address: &str, tenant: &str) -> Result<Option<String>, reqwest::Error> {
    let body = json!({ "model": "base", "prompt": "The sea", "max_tokens": 1, "temperature": 0 });
    let answer = post(client, address, tenant, "/v1/completions", &body).await?;
    let id = (answer.status() == 200).then(|| answer.headers()["x-generation-id"].to_str().expect("ASCII").to_owned());
    answer.bytes().await?;
    Ok(id)
}

// === impl Disk ===

impl Disk {
    /// One that can be filled, in the way that works here.
    pub(super) fn small() -> Self {
        let ways: [&'static [&'static str]; 2] =
            [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
        let works = |way: &&'static [&'static str]| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut trial = Command::new(way[0]);
            trial.args(&way[1..]).args(["bash", "-c", SMALL_DISK]).arg(folder.path()).arg("true").stderr(Stdio::null());
            trial.status().is_ok_and(|status| status.success())
        };
        ways.into_iter().find(works).map_or(Self::Limited, Self::Small)
    }

    /// Leaves no byte of it.
    pub(super) fn fill(&self, gateway: &Gateway) {
        match self {
            Self::Limited => limit(gateway.process.id(), "65536:"),
            Self::Usual | Self::Small(_) => fill(&gateway.within(self, "filler")).expect("filled"),
        }
    }

    pub(super) fn free(&self, gateway: &Gateway) {
        match self {
            Self::Limited => limit(gateway.process.id(), "unlimited:"),
            Self::Usual | Self::Small(_) => std::fs::remove_file(gateway.within(self, "filler")).expect("removed"),
        }
    }
}

fn fill(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
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

fn limit(process: u32, bytes: &str) {
    let status = Command::new("prlimit").arg("--pid").arg(process.to_string()).arg(format!("--fsize={bytes}")).status();
    assert!(status.expect("prlimit runs").success());
}

/// A rating that was answered. Times are of one clock that counts what happens.
struct Acked {
    tenant: &'static str,
    key: String,
    id: String,
    sent: u64,
    acked: u64,
}

#[derive(Default)]
struct Told {
    acks: Mutex<Vec<Acked>>,
    clock: AtomicU64,
}

/// Those who rate, and send again what was not answered.
pub(super) struct Writers {
    told: Arc<Told>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct Writer {
    tenant: &'static str,
    name: String,
    address: String,
    client: reqwest::Client,
    told: Arc<Told>,
    stop: CancellationToken,
}

// === impl Writers ===

impl Writers {
    pub(super) fn start(gateway: &Gateway) -> Self {
        let mut writers = Self { told: Arc::default(), stop: CancellationToken::new(), tasks: JoinSet::new() };
        for tenant in TENANTS {
            for number in 0..WRITERS {
                let writer = Writer {
                    tenant,
                    name: format!("{tenant}-{number}"),
                    address: gateway.address.clone(),
                    client: gateway.client.clone(),
                    told: writers.told.clone(),
                    stop: writers.stop.clone(),
                };
                writers.tasks.spawn(writer.run());
            }
        }
        writers
    }

    pub(super) fn answered(&self) -> usize {
        self.told.acks.lock().expect("not poisoned").len()
    }

    /// Ends them after what they are about to be answered.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("nobody was refused");
        }
    }

    /// Every answered rating is among the events; to who drops what it has seen
    /// none comes twice; and each tenant's are in the order in which they were
    /// answered, where one was answered before another was sent.
    pub(super) fn check(&self, events: &[Value]) {
        let rated: Vec<&Value> = events.iter().filter(|event| event["type"] == "generation.rated").collect();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut keys: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for event in &rated {
            let (id, tenant) = (event["id"].as_str().expect("an id"), event["tenant"].as_str().expect("a tenant"));
            let place = places.len();
            if places.contains_key(id) {
                continue;
            }
            places.insert(id, place);
            let key = event["data"]["idempotency_key"].as_str().expect("a key");
            assert!(keys.insert(key, (id, tenant)).is_none(), "{key} is under two ids");
            // A writer has numbered what it sent, and sent one after the other.
            let (writer, number) = key.rsplit_once('-').expect("a number");
            let next = counts.entry(writer).or_default();
            assert_eq!(number.parse(), Ok(*next), "{writer}: in order, none left out");
            *next += 1;
            if let Some(old) = event["data"]["supersedes"].as_str() {
                assert!(places.contains_key(old), "{id} supersedes what did not come before it");
            }
        }
        let acks = self.told.acks.lock().expect("not poisoned");
        for tenant in TENANTS {
            let mut answered: Vec<(usize, &Acked)> = Vec::new();
            for ack in acks.iter().filter(|ack| ack.tenant == tenant) {
                assert_eq!(keys.get(&*ack.key), Some(&(&*ack.id, tenant)), "{} was answered", ack.key);
                answered.push((places[&*ack.id], ack));
            }
            answered.sort_by_key(|(place, _)| *place);
            let mut soonest = u64::MAX;
            for (_, ack) in answered.iter().rev() {
                assert!(ack.sent < soonest, "{} comes before what was answered before it was sent", ack.key);
                soonest = soonest.min(ack.acked);
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    async fn run(self) {
        let (mut number, mut rated) = (0, None);
        loop {
            let id = match rated.take() {
                Some((id, count)) if count < A_GENERATION => {
                    rated = Some((id, count));
                    rated.as_ref().map(|(id, _)| String::clone(id))
                }
                _ => self.generation().await,
            };
            let Some(id) = id else { return };
            // One, one, and several at once.
            let count = if number % 3 == 2 { 2 + number % 5 } else { 1 };
            let Some(answered) = self.rate(&id, number, count).await else { return };
            assert_eq!(answered, count);
            number += count;
            let before = rated.map_or(0, |(_, count)| count);
            rated = Some((id, before + count));
        }
    }

    /// `None` at the end.
    async fn generation(&self) -> Option<String> {
        while !self.stop.is_cancelled() {
            match generation(&self.client, &self.address, self.tenant).await {
                Ok(Some(id)) => return Some(id),
                // It is down, or has not found its worker yet.
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        None
    }

    /// Sends the same until it is answered; `None` at the end.
    async fn rate(&self, id: &str, first: usize, count: usize) -> Option<usize> {
        let key = |number: usize| format!("{}-{number}", self.name);
        let rating = |number: usize| {
            json!({ "generation_id": id, "score": 1 + number % 5, "comment": "As it should be.",
                    "end_user": self.name, "idempotency_key": key(number) })
        };
        let body = match count {
            1 => rating(first),
            _ => (first..first + count).map(rating).collect(),
        };
        let sent = self.told.clock.fetch_add(1, Ordering::SeqCst);
        while !self.stop.is_cancelled() {
            let answer = match post(&self.client, &self.address, self.tenant, "/v1/ratings", &body).await {
                Ok(answer) => (answer.status(), answer.json::<Value>().await),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            // Cut off in its middle it is no answer.
            let (status, Ok(answer)) = answer else { continue };
            assert_eq!(status, 200, "{answer}");
            let acked = self.told.clock.fetch_add(1, Ordering::SeqCst);
            let acks = answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
            let mut told = self.told.acks.lock().expect("not poisoned");
            for (at, ack) in acks.iter().enumerate() {
                let id = ack["id"].as_str().expect("an id").to_owned();
                told.push(Acked { tenant: self.tenant, key: key(first + at), id, sent, acked });
            }
            return Some(acks.len());
        }
        None
    }
}

/// The events of a file sink's folder, in its order; compressed files too.
pub(super) fn events_in(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("readable");
        let text = match file.extension().and_then(|it| it.to_str()) {
            Some("gz") => std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).expect("gzip"),
            Some("jsonl") => String::from_utf8(bytes).expect("UTF-8"),
            _ => continue,
        };
        events.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
    }
    events
}
